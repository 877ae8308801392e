//! What a request to the gateway wants: a tunnel, or something plain such as enrolment.

use std::fmt;

use super::template::{Target, TemplateError};
use super::{PROTOCOL, check_capsule_message, esp_value, names_dns};
use crate::esp::field::Offer;
use crate::http::fault::Fault;
use crate::http::field::{self, Field};
use crate::login::message::LOGIN_FIELD;

/// Reads requests. It is a name for [`Request::parse`] only.
#[derive(Debug)]
pub enum Request {}

/// A valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A tunnel is wanted (RFC 9484 section 4.4).
    ConnectIp(ConnectIpRequest),
    /// A plain HTTP request.
    Http(HttpRequest),
}

/// A request for a tunnel. `Debug` does not show the credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectIpRequest {
    /// The gateway as the client calls it: host and perhaps port.
    pub authority: String,
    /// What the tunnel is to reach.
    pub target: Target,
    /// The value of `authorization`, such as `Bearer …`.
    pub authorization: Option<String>,
    /// The client takes DNS_ASSIGN capsules.
    pub wants_dns: bool,
    /// The session token of the user's last login, from a client of ours.
    pub login: Option<String>,
    /// What the client can do by ESP; `None` if it does not offer that carrier, or nothing we know.
    pub esp: Option<Offer>,
}

/// A plain HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Such as `POST`.
    pub method: String,
    /// Host and perhaps port.
    pub authority: String,
    /// The path with its query, beginning with a slash (or `*` with OPTIONS).
    pub path: String,
    /// The length of the content, if declared.
    pub content_length: Option<u64>,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It breaks the protocol: end the stream with this fault.
    Malformed(Fault),
    /// It is valid but not for us: answer this status.
    Status(u16),
}

impl Request {
    /// Parses the header section of a request that a [`MessageDecoder`](crate::http::h3::message::MessageDecoder) let
    /// through.
    ///
    /// # Errors
    /// - [`Rejection::Malformed`]: pseudo-header fields missing, empty or misplaced (RFC 9114 section 4.3.1, RFC 9484
    ///   section 4.4), variables of the path not valid (RFC 9484 section 4.6), `content-length`, `content-type` or
    ///   `transfer-encoding` with capsules (RFC 9297 section 3.2).
    /// - [`Rejection::Status`]: 404 for a tunnel at another path; 501 for another `:protocol` (RFC 9220 section 3) or a
    ///   CONNECT without one.
    pub fn parse(request: &[Field]) -> Result<Incoming, Rejection> {
        let method = required(request, ":method", "request without :method")?;
        let protocol = field::value(request, ":protocol");
        match (method, protocol) {
            ("CONNECT", None) => parse_plain_connect(request),
            ("CONNECT", Some(PROTOCOL)) => parse_connect_ip(request).map(Incoming::ConnectIp),
            ("CONNECT", Some(_)) => common(request).and(Err(Rejection::Status(501))),
            (_, Some(_)) => Err(malformed(":protocol without CONNECT")),
            (method, None) => parse_http(method, request).map(Incoming::Http),
        }
    }
}

/// > The ":scheme" and ":path" pseudo-header fields are omitted. (RFC 9114 section 4.4, for CONNECT without
/// > `:protocol`)
fn parse_plain_connect(request: &[Field]) -> Result<Incoming, Rejection> {
    if field::value(request, ":scheme").is_some() || field::value(request, ":path").is_some() {
        return Err(malformed("CONNECT with :scheme or :path but without :protocol"));
    }
    required(request, ":authority", "CONNECT without :authority")?;
    Err(Rejection::Status(501))
}

fn parse_connect_ip(request: &[Field]) -> Result<ConnectIpRequest, Rejection> {
    let (authority, path) = common(request)?;
    if field::value(request, ":authority").is_none() {
        return Err(malformed("connect-ip request without :authority"));
    }
    check_capsule_message(request).map_err(Rejection::Malformed)?;
    let target = parse_path(path)?;
    Ok(ConnectIpRequest {
        authority: authority.to_owned(),
        target,
        authorization: field::value(request, "authorization").map(str::to_owned),
        wants_dns: names_dns(request),
        login: field::value(request, LOGIN_FIELD).map(str::to_owned),
        esp: Offer::parse(&esp_value(request)),
    })
}

fn parse_path(path: &str) -> Result<Target, Rejection> {
    Target::parse(path).map_err(|error| match error {
        TemplateError::OtherPath => Rejection::Status(404),
        TemplateError::Shape
        | TemplateError::Escape
        | TemplateError::Target
        | TemplateError::PrefixLength
        | TemplateError::HostBits
        | TemplateError::Protocol => malformed(error.reason()),
    })
}

fn parse_http(method: &str, request: &[Field]) -> Result<HttpRequest, Rejection> {
    let (authority, path) = common(request)?;
    if !path.starts_with('/') && (method, path) != ("OPTIONS", "*") {
        return Err(malformed(":path does not begin with a slash"));
    }
    Ok(HttpRequest {
        method: method.to_owned(),
        authority: authority.to_owned(),
        path: path.to_owned(),
        content_length: field::content_length(request).map_err(Rejection::Malformed)?,
    })
}

/// Checks what all requests but the plain CONNECT need (RFC 9114 section 4.3.1); returns authority and path.
fn common(request: &[Field]) -> Result<(&str, &str), Rejection> {
    let scheme = required(request, ":scheme", "request without :scheme")?;
    if !scheme.eq_ignore_ascii_case("https") {
        return Err(malformed(":scheme is not https"));
    }
    let path = required(request, ":path", "request without :path")?;
    Ok((authority(request)?, path))
}

/// > If the :scheme pseudo-header field identifies a scheme that has a mandatory authority component (including "http"
/// > and "https"), the request MUST contain either an :authority pseudo-header field or a Host header field. If these
/// > fields are present, they MUST NOT be empty. If both fields are present, they MUST contain the same value. (RFC
/// > 9114 section 4.3.1)
fn authority(request: &[Field]) -> Result<&str, Rejection> {
    let (authority, host) = (field::value(request, ":authority"), field::value(request, "host"));
    let name = match (authority, host) {
        (Some(authority), Some(host)) if authority != host => return Err(malformed(":authority and host differ")),
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => return Err(malformed("request without :authority")),
    };
    if name.is_empty() || name.contains(['@', '/', ' ']) {
        return Err(malformed(":authority is not host and port"));
    }
    Ok(name)
}

fn required<'a>(request: &'a [Field], name: &str, reason: &'static str) -> Result<&'a str, Rejection> {
    field::value(request, name).filter(|value| !value.is_empty()).ok_or_else(|| malformed(reason))
}

const fn malformed(reason: &'static str) -> Rejection {
    Rejection::Malformed(Fault::Malformed(reason))
}

impl fmt::Debug for ConnectIpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectIpRequest")
            .field("authority", &self.authority)
            .field("target", &self.target)
            .field("authorization", &self.authorization.as_ref().map(|_| "…"))
            .field("wants_dns", &self.wants_dns)
            .field("login", &self.login.as_ref().map(|_| "…"))
            .field("esp", &self.esp)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::Destination;
    use super::*;

    const TUNNEL: [(&str, &str); 6] = [
        (":method", "CONNECT"),
        (":protocol", "connect-ip"),
        (":scheme", "https"),
        (":authority", "vpn.example:443"),
        (":path", "/.well-known/masque/ip/*/*/"),
        ("capsule-protocol", "?1"),
    ];

    const POST: [(&str, &str); 5] = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "vpn.example"),
        (":path", "/.well-known/adit/enroll"),
        ("content-length", "2"),
    ];

    fn section(pairs: &[(&str, &str)]) -> Vec<Field> {
        pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect()
    }

    /// A request with one field changed, added, or (with `None`) left out.
    fn with(base: &[(&str, &str)], name: &str, value: Option<&str>) -> Vec<Field> {
        let mut fields: Vec<Field> = section(base).into_iter().filter(|field| field.name != name).collect();
        fields.extend(value.map(|value| Field::new(name, value)));
        fields
    }

    fn assert_malformed(request: &[Field]) {
        match Request::parse(request) {
            Err(Rejection::Malformed(Fault::Malformed(_))) => {}
            other => panic!("{request:?} gave {other:?}"),
        }
    }

    fn tunnel(request: &[Field]) -> ConnectIpRequest {
        match Request::parse(request) {
            Ok(Incoming::ConnectIp(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn full_tunnel_is_understood() {
        let expected = ConnectIpRequest {
            authority: "vpn.example:443".into(),
            target: Target::ANY,
            authorization: None,
            wants_dns: false,
            login: None,
            esp: None,
        };
        assert_eq!(tunnel(&section(&TUNNEL)), expected);
        let without_capsule_protocol = with(&TUNNEL, "capsule-protocol", None);
        assert_eq!(tunnel(&without_capsule_protocol), expected);
    }

    #[test]
    fn credentials_and_capabilities_are_read() {
        let request = with(&TUNNEL, "authorization", Some("Bearer abc"));
        assert_eq!(tunnel(&request).authorization.as_deref(), Some("Bearer abc"));
        assert!(!format!("{:?}", tunnel(&request)).contains("abc"));
        assert!(tunnel(&with(&TUNNEL, "adit-caps", Some("esp, dns"))).wants_dns);
        assert!(!tunnel(&with(&TUNNEL, "adit-caps", Some("dnssec"))).wants_dns);
    }

    #[test]
    fn offer_of_esp_is_read_and_an_unreadable_one_is_none() {
        let offer = Offer { vouched: false, ..Offer::default() };
        let request = with(&TUNNEL, "adit-esp", Some(&offer.to_string()));
        assert_eq!(tunnel(&request).esp, Some(offer.clone()));
        for value in ["v=2, suites=(1), groups=(29)", "v=1, suites=(9), groups=(29)", "esp"] {
            assert_eq!(tunnel(&with(&TUNNEL, "adit-esp", Some(value))).esp, None, "{value}");
        }
        let mut in_two_lines = with(&TUNNEL, "adit-esp", Some("v=1, suites=(1 2 3)"));
        in_two_lines.push(Field::new("adit-esp", "groups=(29 4588)"));
        assert_eq!(tunnel(&in_two_lines).esp, Some(offer));
    }

    #[test]
    fn scoped_target_is_read() {
        let request = with(&TUNNEL, ":path", Some("/.well-known/masque/ip/192.0.2.0%2F24/17/"));
        let expected = Target { destination: Destination::Prefix("192.0.2.0/24".parse().unwrap()), protocol: Some(17) };
        assert_eq!(tunnel(&request).target, expected);
    }

    #[test]
    fn missing_or_empty_pseudo_header_fields_are_malformed() {
        for name in [":method", ":scheme", ":authority", ":path"] {
            assert_malformed(&with(&TUNNEL, name, None));
            assert_malformed(&with(&TUNNEL, name, Some("")));
        }
        for name in [":method", ":scheme", ":authority", ":path"] {
            assert_malformed(&with(&POST, name, None));
            assert_malformed(&with(&POST, name, Some("")));
        }
    }

    #[test]
    fn fields_that_are_forbidden_with_capsules_are_malformed() {
        for (name, value) in [("content-length", "0"), ("content-type", "text/plain"), ("transfer-encoding", "chunked")]
        {
            assert_malformed(&with(&TUNNEL, name, Some(value)));
        }
    }

    #[test]
    fn wrong_scheme_authority_or_path_is_malformed() {
        assert_malformed(&with(&TUNNEL, ":scheme", Some("http")));
        assert_malformed(&with(&TUNNEL, "host", Some("other.example")));
        assert_malformed(&with(&TUNNEL, ":authority", Some("user@vpn.example")));
        assert_malformed(&with(&TUNNEL, ":path", Some("/.well-known/masque/ip/192.0.2.1%2F24/*/")));
        assert_malformed(&with(&TUNNEL, ":path", Some("/.well-known/masque/ip/*/256/")));
        assert_malformed(&with(&POST, ":path", Some("enroll")));
        assert_malformed(&with(&POST, ":path", Some("*")));
        assert_malformed(&with(&POST, "content-length", Some("two")));
    }

    #[test]
    fn protocol_belongs_to_connect_only() {
        assert_malformed(&with(&POST, ":protocol", Some("connect-ip")));
        assert_malformed(&with(&TUNNEL, ":protocol", None));
        let plain = section(&[(":method", "CONNECT"), (":authority", "a:1")]);
        assert_eq!(Request::parse(&plain), Err(Rejection::Status(501)));
        let udp = with(&TUNNEL, ":protocol", Some("connect-udp"));
        assert_eq!(Request::parse(&udp), Err(Rejection::Status(501)));
    }

    #[test]
    fn tunnel_at_another_path_is_not_found() {
        let request = with(&TUNNEL, ":path", Some("/vpn"));
        assert_eq!(Request::parse(&request), Err(Rejection::Status(404)));
    }

    #[test]
    fn plain_request_is_understood() {
        let expected = HttpRequest {
            method: "POST".into(),
            authority: "vpn.example".into(),
            path: "/.well-known/adit/enroll".into(),
            content_length: Some(2),
        };
        assert_eq!(Request::parse(&section(&POST)), Ok(Incoming::Http(expected.clone())));
        let mut by_host = with(&POST, ":authority", None);
        by_host.push(Field::new("host", "vpn.example"));
        assert_eq!(Request::parse(&by_host), Ok(Incoming::Http(expected)));
    }
}
