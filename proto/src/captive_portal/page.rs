//! Where a page is.

use std::fmt;
use std::net::IpAddr;

use crate::invite::Place;

/// Longest address, in bytes: more than portals need to know their user again.
const MAX_ADDRESS: usize = 1024;
/// The schemes of pages, and the ports of those that name none.
const SCHEMES: [(&str, u16); 2] = [("http://", 80), ("https://", 443)];
/// What may stand in no address (RFC 3986 section 2), or would end the quotes around it in a shell.
const ENCODED: &[u8] = b"\"'<>\\^`{|}";

/// The address of a page that browsers show, `http` or `https`. Whoever wrote it, it may be shown and stand between
/// single quotes in a shell: it has no white space, no control character and no quotes, and names no user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAddress {
    text: String,
    place: Place,
    is_encrypted: bool,
    /// Where the path begins in the text.
    path_at: usize,
}

impl PageAddress {
    /// Reads an absolute address; `None` if it is none of a page, or longer than 1,024 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_ADDRESS || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (scheme, usual_port) = SCHEMES.into_iter().find(|(scheme, _)| begins_with(text, scheme))?;
        let rest = text.get(scheme.len()..)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let place = Place::parse(authority, usual_port).ok()?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path_at = scheme.len().saturating_add(authority.len());
        let text = format!("{scheme}{authority}{slash}{}", encoded(path));
        Some(Self { text, place, is_encrypted: scheme.starts_with("https"), path_at })
    }

    /// The page of a host that one comes to first, at the usual port, in clear.
    pub fn first_of(host: &str) -> Option<Self> {
        let is_v6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        Self::parse(&if is_v6 { format!("http://[{host}]/") } else { format!("http://{host}/") })
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is asked for over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.place.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.place.port
    }

    /// Host and port as the address has them, which is what a request names its host by (RFC 9110 section 7.2).
    pub fn authority(&self) -> &str {
        let before = self.text.get(..self.path_at).unwrap_or_default();
        before.rsplit('/').next().unwrap_or_default()
    }

    /// What is asked for at the host: the path and the query.
    pub fn path(&self) -> &str {
        let path = self.text.get(self.path_at..).unwrap_or("/");
        path.split('#').next().unwrap_or("/")
    }

    /// Whether the page is of this host, by name or by address.
    pub fn is_of(&self, host: &str) -> bool {
        let address = |name: &str| name.parse::<IpAddr>().ok();
        let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match (address(self.host()), address(host)) {
            (None, None) => bare(self.host()) == bare(host),
            (own, other) => own == other,
        }
    }
}

impl fmt::Display for PageAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn begins_with(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(scheme))
}

fn encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for character in path.chars() {
        match u8::try_from(character) {
            Ok(byte) if ENCODED.contains(&byte) => encoded.push_str(&format!("%{byte:02X}")),
            Ok(_) | Err(_) => encoded.push(character),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_pages_are_taken_apart() {
        for (text, shown, host, port, path) in [
            ("http://p.example", "http://p.example/", "p.example", 80, "/"),
            ("HTTPS://P.example/a?b=1#c", "https://P.example/a?b=1#c", "P.example", 443, "/a?b=1"),
            ("http://p.example?b=1", "http://p.example/?b=1", "p.example", 80, "/?b=1"),
            ("http://192.0.2.7:8880/guest/", "http://192.0.2.7:8880/guest/", "192.0.2.7", 8880, "/guest/"),
            ("https://[2001:db8::7]/x", "https://[2001:db8::7]/x", "2001:db8::7", 443, "/x"),
            ("http://p.example/?u=';", "http://p.example/?u=%27;", "p.example", 80, "/?u=%27;"),
        ] {
            let page = PageAddress::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((page.as_str(), page.host(), page.port(), page.path()), (shown, host, port, path));
        }
        let v6 = PageAddress::first_of("2001:db8::7").unwrap();
        assert_eq!((v6.as_str(), v6.authority()), ("http://[2001:db8::7]/", "[2001:db8::7]"));
        assert_eq!(PageAddress::first_of("vpn.example").unwrap().as_str(), "http://vpn.example/");
    }

    #[test]
    fn what_is_no_address_of_a_page_is_refused() {
        let long = format!("http://p.example/{}", "a".repeat(MAX_ADDRESS));
        for text in [
            "",
            "p.example",
            "//p.example/",
            "ftp://p.example/",
            "javascript:alert(1)",
            "http://",
            "http:///x",
            "http://bank.example@p.example/",
            "http://p.example:0/",
            "http://p.example:99999/",
            "http://p'example/",
            "http://p.example/a b",
            "http://p.example/\r\nX: y",
            "http://p.example/\u{1b}[2J",
            "http://p.example/\u{202e}",
            "http://\u{e4}.example/",
            &long,
        ] {
            assert_eq!(PageAddress::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_fit_to_be_shown(text in "(http://|https://|p.example|:80|@|\\?|#|a|'|`|\\$|%27|\"|\\\\|\\PC){0,8}") {
            if let Some(page) = PageAddress::parse(&text) {
                prop_assert!(page.as_str().bytes().all(|byte| byte.is_ascii_graphic() && !ENCODED.contains(&byte)));
                // Every byte may have become three.
                prop_assert!(page.as_str().len() <= 3 * MAX_ADDRESS && page.path().starts_with('/'));
                let again = PageAddress::parse(page.as_str());
                prop_assert!(again.is_none_or(|again| again == page));
            }
        }
    }
}
