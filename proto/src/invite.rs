//! Invites: the one-time links that enrol a device.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

/// The bytes of a pin: the SHA-256 of the certificate authority's public key (SPKI).
pub const PIN_LEN: usize = 32;

/// The bytes of an enrolment code: 128 random bits.
pub const CODE_LEN: usize = 16;

/// The characters that carry pin and code: 48 bytes in base64url, which needs no padding.
const SECRET_CHARS: usize = (PIN_LEN + CODE_LEN) / 3 * 4;

/// The longest host name (RFC 1035 section 2.3.4), without the final dot.
const MAX_HOST_LEN: usize = 253;

/// The longest label of a host name (RFC 1035 section 2.3.4).
const MAX_LABEL_LEN: usize = 63;

/// What every invite starts with.
pub const PREFIX: &str = "adit://join/";

/// The most places an invite names: one for each address family, and as many again. A link must fit a QR code.
pub const MOST_PLACES: usize = 4;

/// Where a gateway is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A name or address, without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

impl Place {
    /// Reads `HOST` or `HOST:PORT`, an IPv6 address in brackets; without a port it is `usual_port`.
    ///
    /// # Errors
    /// [`InviteError::Host`] or [`InviteError::Port`].
    pub fn parse(text: &str, usual_port: u16) -> Result<Self, InviteError> {
        let parsed = match parse_authority(text) {
            Err(InviteError::MissingPort) => parse_authority(&format!("{text}:{usual_port}")),
            other => other,
        };
        parsed.map(|(host, port)| Self { host, port })
    }
}

/// A one-time enrolment link: where the gateway is, how to know it, and the code that admits one device.
///
/// Written `adit://join/HOST:PORT#SECRET`, where `SECRET` is the unpadded base64url of pin and code. Further places of
/// the gateway follow the first behind commas. An IPv6 host stands in brackets in the link, without them in `host`.
/// `Debug` does not show the code.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The gateway's name or address, without brackets; its certificate bears it.
    pub host: String,
    /// The gateway's UDP port.
    pub port: u16,
    /// Where else the same gateway is reached, at most [`MOST_PLACES`] with the first.
    pub others: Vec<Place>,
    /// The SHA-256 of the SPKI of the gateway's certificate authority.
    pub pin: [u8; PIN_LEN],
    /// The single-use enrolment code.
    pub code: [u8; CODE_LEN],
}

/// Why a text is not an invite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The text does not start with [`PREFIX`].
    #[error("an invite starts with adit://join/")]
    Scheme,
    /// There is no `#`, or nothing after it.
    #[error("the part after # is missing; quote the link, or the shell cuts it off")]
    MissingSecret,
    /// There is no port.
    #[error("the port after the host is missing, as in adit://join/vpn.example.org:443#…")]
    MissingPort,
    /// The port is not a number from 1 to 65535.
    #[error("the port {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// The host is neither a name nor an address.
    #[error("the host {0:?} is neither a host name, an IPv4 address, nor an IPv6 address in brackets")]
    Host(String),
    /// There are more places than an invite may name.
    #[error("it names {0} places of the gateway, more than {MOST_PLACES}")]
    Places(usize),
    /// The part after `#` is not unpadded base64url.
    #[error("the part after # holds a character that does not belong there; copy the link again")]
    Encoding,
    /// The part after `#` has the wrong length.
    #[error("the part after # has {got} characters instead of {expected}; copy the whole link again")]
    Length {
        /// The characters found.
        got: usize,
        /// The characters expected.
        expected: usize,
    },
}

/// As [`Place::parse`] reads it, with the port.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.host, self.port)
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = BASE64URL_NOPAD.encode(&[&self.pin[..], &self.code[..]].concat());
        f.write_str(PREFIX)?;
        write_place(f, &self.host, self.port)?;
        for place in &self.others {
            write!(f, ",{place}")?;
        }
        write!(f, "#{secret}")
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("others", &self.others)
            .field("pin", &BASE64URL_NOPAD.encode(&self.pin))
            .finish_non_exhaustive()
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    /// Reads a link; white space around it, as copying leaves it, is ignored.
    fn from_str(text: &str) -> Result<Self, InviteError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(InviteError::Scheme)?;
        let (authority, secret) = rest.split_once('#').unwrap_or((rest, ""));
        let (first, others) = match authority.split_once(',') {
            Some((first, others)) => (first, others.split(',').collect()),
            None => (authority, Vec::new()),
        };
        if others.len() >= MOST_PLACES {
            return Err(InviteError::Places(others.len().saturating_add(1)));
        }
        let (host, port) = parse_authority(first)?;
        let place = |text| parse_authority(text).map(|(host, port)| Place { host, port });
        let others = others.into_iter().map(place).collect::<Result<_, _>>()?;
        let (pin, code) = parse_secret(secret)?;
        Ok(Self { host, port, others, pin, code })
    }
}

fn parse_authority(authority: &str) -> Result<(String, u16), InviteError> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (parse_ipv6(host)?, port.strip_prefix(':')),
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (parse_name(host)?, Some(port)),
            None => (parse_name(authority)?, None),
        },
    };
    let port = port.ok_or(InviteError::MissingPort)?;
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number @ 1..) if is_number => Ok((host, number)),
        Ok(_) | Err(_) => Err(InviteError::Port(port.to_owned())),
    }
}

fn parse_ipv6(host: &str) -> Result<String, InviteError> {
    host.parse::<Ipv6Addr>().map(|address| address.to_string()).map_err(|_| InviteError::Host(format!("[{host}]")))
}

/// Accepts IPv4 addresses and host names in their ASCII form; labels may hold an underscore, as some internal names do.
fn parse_name(host: &str) -> Result<String, InviteError> {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_LEN).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() <= MAX_HOST_LEN && name.split('.').all(is_label) {
        Ok(host.to_owned())
    } else {
        Err(InviteError::Host(host.to_owned()))
    }
}

fn parse_secret(secret: &str) -> Result<([u8; PIN_LEN], [u8; CODE_LEN]), InviteError> {
    if secret.is_empty() {
        return Err(InviteError::MissingSecret);
    }
    let wrong_length = || InviteError::Length { got: secret.chars().count(), expected: SECRET_CHARS };
    if secret.chars().count() != SECRET_CHARS {
        return Err(wrong_length());
    }
    let bytes = BASE64URL_NOPAD.decode(secret.as_bytes()).map_err(|_| InviteError::Encoding)?;
    let (pin, code) = bytes.split_first_chunk().ok_or_else(wrong_length)?;
    Ok((*pin, code.try_into().map_err(|_| wrong_length())?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn invite(host: &str) -> Invite {
        Invite { host: host.into(), port: 443, others: Vec::new(), pin: [0xab; PIN_LEN], code: [0xcd; CODE_LEN] }
    }

    fn parse(authority: &str) -> Result<Invite, InviteError> {
        format!("adit://join/{authority}#{}", "A".repeat(SECRET_CHARS)).parse()
    }

    #[test]
    fn link_has_the_documented_form() {
        let link = invite("vpn.example.org").to_string();
        let secret = format!("{}{}", "q6ur".repeat(10) + "q6vN", "zc3N".repeat(5));
        assert_eq!(link, format!("adit://join/vpn.example.org:443#{secret}"));
        assert_eq!(link.parse(), Ok(invite("vpn.example.org")));
    }

    #[test]
    fn ipv6_host_stands_in_brackets_in_the_link_only() {
        let link = invite("2001:db8::1").to_string();
        assert!(link.starts_with("adit://join/[2001:db8::1]:443#"), "{link}");
        assert_eq!(link.parse(), Ok(invite("2001:db8::1")));
    }

    #[test]
    fn further_places_stand_behind_commas() {
        let others = [("2001:db8::1", 443), ("gw.example", 8443)];
        let others = others.map(|(host, port)| Place { host: host.to_owned(), port }).to_vec();
        let link = Invite { others, ..invite("192.0.2.1") }.to_string();
        assert!(link.starts_with("adit://join/192.0.2.1:443,[2001:db8::1]:443,gw.example:8443#"), "{link}");
        assert_eq!(link.parse::<Invite>().unwrap().to_string(), link);
    }

    #[test]
    fn bad_or_too_many_places_are_refused() {
        assert_eq!(parse("gw:443,"), Err(InviteError::Host(String::new())));
        assert_eq!(parse("gw:443,a b:443"), Err(InviteError::Host("a b".into())));
        assert_eq!(parse(&["gw:443"; MOST_PLACES + 1].join(",")), Err(InviteError::Places(MOST_PLACES + 1)));
        assert_eq!(parse(&["gw:443"; MOST_PLACES].join(",")).unwrap().others.len(), MOST_PLACES - 1);
    }

    #[test]
    fn place_may_leave_out_the_usual_port() {
        let place = |text| Place::parse(text, 443).map(|place| (place.host, place.port));
        assert_eq!(place("vpn.example.org"), Ok(("vpn.example.org".into(), 443)));
        assert_eq!(place("vpn.example.org:8443"), Ok(("vpn.example.org".into(), 8443)));
        assert_eq!(place("[2001:db8::1]"), Ok(("2001:db8::1".into(), 443)));
        assert_eq!(place("[2001:db8::1]:8443"), Ok(("2001:db8::1".into(), 8443)));
        assert!(place("a b").is_err() && place("gw:0").is_err() && place("2001:db8::1").is_err());
    }

    #[test]
    fn white_space_around_a_pasted_link_is_ignored() {
        assert_eq!(format!("  {}\r\n", invite("gw")).parse(), Ok(invite("gw")));
    }

    #[test]
    fn debug_does_not_show_the_code() {
        let shown = format!("{:?}", invite("gw"));
        assert!(shown.contains("gw") && shown.contains("443") && shown.contains("q6ur"), "{shown}");
        for code in ["zc3N", "cdcd", "CDCD", "205"] {
            assert!(!shown.contains(code), "{shown}");
        }
    }

    #[test]
    fn other_schemes_are_refused() {
        for text in ["", "https://vpn.example.org", "adit://vpn.example.org:443", "adit:/join/gw:443"] {
            assert_eq!(text.parse::<Invite>(), Err(InviteError::Scheme), "{text}");
        }
    }

    #[test]
    fn missing_parts_are_named() {
        assert_eq!("adit://join/gw:443".parse::<Invite>(), Err(InviteError::MissingSecret));
        assert_eq!("adit://join/gw:443#".parse::<Invite>(), Err(InviteError::MissingSecret));
        assert_eq!(parse("gw"), Err(InviteError::MissingPort));
        assert_eq!(parse("[::1]"), Err(InviteError::MissingPort));
        assert_eq!(parse("[::1]443"), Err(InviteError::MissingPort));
    }

    #[test]
    fn wrong_ports_are_refused() {
        for port in ["", "0", "65536", "+443", "https", "443/"] {
            assert_eq!(parse(&format!("gw:{port}")), Err(InviteError::Port(port.into())));
        }
    }

    #[test]
    fn wrong_hosts_are_refused() {
        let long = "a".repeat(64);
        for host in ["", "a b", "a..b", "-a", "a-", "user@gw", "gw/path", "::1", "münchen.example", &long] {
            assert_eq!(parse(&format!("{host}:443")), Err(InviteError::Host(host.into())));
        }
        for host in ["[]", "[gw]", "[fe80::1%eth0]"] {
            assert_eq!(parse(&format!("{host}:443")), Err(InviteError::Host(host.into())));
        }
        for host in ["gw", "vpn.example.org", "vpn.example.org.", "192.0.2.1", "my_gw.lan", "xn--mnchen-3ya.example"] {
            assert_eq!(parse(&format!("{host}:443")).map(|invite| invite.host), Ok(host.into()));
        }
    }

    #[test]
    fn cut_or_mangled_secret_is_refused() {
        let link = invite("gw").to_string();
        let expected = Err(InviteError::Length { got: SECRET_CHARS - 1, expected: SECRET_CHARS });
        assert_eq!(link[..link.len() - 1].parse::<Invite>(), expected);
        for wrong in ["+", "/", "=", " ", "é"] {
            assert_eq!(link.replacen("q", wrong, 1).parse::<Invite>(), Err(InviteError::Encoding), "{wrong}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_secret() {
        let cut = &invite("gw").to_string()[..60];
        assert!(!cut.parse::<Invite>().unwrap_err().to_string().contains("q6ur"));
    }

    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){0,3}",
            any::<[u8; 4]>().prop_map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
            any::<[u8; 16]>().prop_map(|octets| Ipv6Addr::from(octets).to_string()),
        ]
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(
            host in host(),
            port in 1..=u16::MAX,
            others in proptest::collection::vec((host(), 1..=u16::MAX), 0..MOST_PLACES),
            pin: [u8; PIN_LEN],
            code: [u8; CODE_LEN],
        ) {
            let others = others.into_iter().map(|(host, port)| Place { host, port }).collect();
            let invite = Invite { host, port, others, pin, code };
            prop_assert_eq!(invite.to_string().parse(), Ok(invite));
        }

        #[test]
        fn parse_never_panics(text in ".{0,200}", tail in "[\\[\\]:#A-Za-z0-9._-]{0,90}") {
            drop(text.parse::<Invite>());
            drop(format!("{PREFIX}{text}").parse::<Invite>());
            drop(format!("{PREFIX}{tail}").parse::<Invite>());
        }
    }
}
