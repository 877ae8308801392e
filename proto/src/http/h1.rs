//! Tunnels over HTTP/1.1: an upgrade instead of HTTP/3's extended CONNECT (RFC 9484 section 4.2, RFC 9220 section 1).
//!
//! Both say the same with other fields. The rest of this crate knows the form of HTTP/3 only, so here one is turned
//! into the other.
//!
//! | HTTP/3 | HTTP/1.1 |
//! | --- | --- |
//! | `:method: CONNECT`, `:protocol: connect-ip` | `GET`, `connection: upgrade`, `upgrade: connect-ip` |
//! | `:authority` | `host` |
//! | `:status: 200` | 101, `connection: upgrade`, `upgrade: connect-ip` |

use super::fault::Fault;
use super::field::{self, Field};
use crate::connect_ip::PROTOCOL;

/// Fields that say something of the connection alone (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [&str; 3] = ["connection", "upgrade", "keep-alive"];

/// Whether a request with these fields asks for a tunnel. Whatever else is wrong with it, it is to be answered as one.
pub fn wants_tunnel(fields: &[Field]) -> bool {
    names_token(fields, "upgrade", PROTOCOL)
}

/// The request for a tunnel in the form of HTTP/3.
///
/// # Errors
/// [`Fault::Malformed`] for one that is no GET, has not exactly one `host`, or does not name the upgrade in
/// `connection` (RFC 9484 section 4.2).
pub fn tunnel_request(method: &str, path: &str, fields: Vec<Field>) -> Result<Vec<Field>, Fault> {
    if method != "GET" {
        return Err(Fault::Malformed("upgrade by another method than GET"));
    }
    if !names_token(&fields, "connection", "upgrade") {
        return Err(Fault::Malformed("upgrade that connection does not name"));
    }
    let mut hosts = fields.iter().filter(|field| field.name == "host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Fault::Malformed("not exactly one host"));
    };
    let mut request = vec![
        Field::new(":method", "CONNECT"),
        Field::new(":protocol", PROTOCOL),
        Field::new(":scheme", "https"),
        Field::new(":authority", &host.value),
        Field::new(":path", path),
    ];
    request.extend(fields.into_iter().filter(|field| field.name != "host" && !is_hop_by_hop(field)));
    Ok(request)
}

/// The path and the fields by which a GET asks for the tunnel that `request` asks for in the form of HTTP/3.
pub fn upgrade_request(request: &[Field]) -> (&str, Vec<Field>) {
    let authority = field::value(request, ":authority").unwrap_or_default();
    let mut fields = vec![Field::new("host", authority)];
    fields.extend(upgrade());
    fields.extend(request.iter().filter(|field| !field.name.starts_with(':')).cloned());
    (field::value(request, ":path").unwrap_or("/"), fields)
}

/// The status and the fields of an answer that is given in the form of HTTP/3.
///
/// # Errors
/// Those of [`field::status`].
pub fn upgrade_response(response: &[Field]) -> Result<(u16, Vec<Field>), Fault> {
    let status = field::status(response)?;
    let rest = response.iter().filter(|field| !field.name.starts_with(':')).cloned();
    Ok(match status {
        200..=299 => (101, upgrade().into_iter().chain(rest).collect()),
        other => (other, rest.collect()),
    })
}

/// An answer to a request for a tunnel in the form of HTTP/3.
///
/// # Errors
/// [`Fault::Malformed`] for an upgrade to something else, and for an answer that goes on without an upgrade, so that no
/// tunnel follows.
pub fn tunnel_response(status: u16, fields: Vec<Field>) -> Result<Vec<Field>, Fault> {
    let status = match status {
        101 if names_token(&fields, "upgrade", PROTOCOL) => 200,
        101 => return Err(Fault::Malformed("upgrade to something else")),
        200..=299 => return Err(Fault::Malformed("answer without the upgrade")),
        other => other,
    };
    let mut response = vec![Field::new(":status", status.to_string())];
    response.extend(fields.into_iter().filter(|field| !is_hop_by_hop(field)));
    Ok(response)
}

fn upgrade() -> [Field; 2] {
    [Field::new("connection", "Upgrade"), Field::new("upgrade", PROTOCOL)]
}

fn is_hop_by_hop(field: &Field) -> bool {
    HOP_BY_HOP.contains(&field.name.as_str())
}

/// Whether a list names a token, in any case.
fn names_token(fields: &[Field], name: &str, token: &str) -> bool {
    let lists = fields.iter().filter(|field| field.name == name);
    lists.flat_map(|field| field.value.split(',')).any(|named| named.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect_ip::client::{Client, ClientConfig};
    use crate::connect_ip::request::{Incoming, Request};
    use crate::connect_ip::server::{Assignment, Server, reject};
    use crate::connect_ip::template::{FULL_TUNNEL_PATH, Target};

    fn client() -> Client {
        Client::new(ClientConfig {
            authority: "vpn.example:443".into(),
            path: FULL_TUNNEL_PATH.to_owned(),
            bearer: Some("abc".into()),
            wants_dns: true,
            login: None,
            esp: None,
        })
    }

    fn section(pairs: &[(&str, &str)]) -> Vec<Field> {
        pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect()
    }

    #[test]
    fn request_means_the_same_after_both_turns() {
        let asked = client().request();
        let (path, fields) = upgrade_request(&asked);
        assert!(wants_tunnel(&fields));
        let heard = tunnel_request("GET", path, fields).unwrap();
        let Ok(Incoming::ConnectIp(request)) = Request::parse(&heard) else { panic!("{heard:?}") };
        assert_eq!((request.authority.as_str(), request.target), ("vpn.example:443", Target::ANY));
        assert_eq!((request.authorization.as_deref(), request.wants_dns), (Some("Bearer abc"), true));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
    fn answer_means_the_same_after_both_turns() {
        let now = std::time::Instant::now();
        let asked = client().request();
        let Ok(Incoming::ConnectIp(request)) = Request::parse(&asked) else { panic!("{asked:?}") };
        let (status, fields) =
            upgrade_response(&Server::new(&request, Assignment::default(), None).response()).unwrap();
        assert_eq!(status, 101);
        client().handle_response(&tunnel_response(status, fields).unwrap(), now).unwrap();
        let (status, fields) = upgrade_response(&reject(401, &[Field::new("adit-reason", "no")])).unwrap();
        let refused = tunnel_response(status, fields).unwrap();
        assert_eq!(refused, section(&[(":status", "401"), ("adit-reason", "no")]));
        assert!(client().handle_response(&refused, now).is_err());
    }

    #[test]
    fn upgrade_is_recognised_in_any_case_and_among_others() {
        for value in ["connect-ip", "Connect-IP", "h2c, connect-ip"] {
            assert!(wants_tunnel(&section(&[("upgrade", value)])), "{value}");
        }
        for value in ["connect-ipx", "websocket", ""] {
            assert!(!wants_tunnel(&section(&[("upgrade", value)])), "{value}");
        }
    }

    #[test]
    fn request_that_breaks_the_rules_of_the_upgrade_is_malformed() {
        let good = [("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", "connect-ip")];
        assert!(tunnel_request("GET", "/", section(&good)).is_ok(), "the positive control");
        assert!(tunnel_request("POST", "/", section(&good)).is_err());
        for missing in 0..2 {
            let mut fields = section(&good);
            fields.remove(missing);
            assert!(tunnel_request("GET", "/", fields).is_err(), "{missing}");
        }
        let mut two_hosts = section(&good);
        two_hosts.push(Field::new("host", "b"));
        assert!(tunnel_request("GET", "/", two_hosts).is_err());
    }

    #[test]
    fn answer_that_opens_no_tunnel_is_never_taken_for_one() {
        assert!(tunnel_response(101, section(&[("upgrade", "websocket")])).is_err());
        assert!(tunnel_response(101, vec![]).is_err());
        assert!(tunnel_response(200, section(&[("upgrade", "connect-ip")])).is_err());
        assert!(tunnel_response(101, section(&[("upgrade", "connect-ip")])).is_ok(), "the positive control");
    }
}
