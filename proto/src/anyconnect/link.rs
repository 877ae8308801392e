//! Where a form or a redirection of a gateway leads: to a page of that gateway, or nowhere.

use crate::invite::Place;

/// Longest link, in bytes.
const MAX_LINK: usize = 1024;
/// The port of links that name none.
const USUAL_PORT: u16 = 443;
const SCHEME: &str = "https://";

/// Why a link is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    /// It leads to this host, which is not the gateway.
    #[error("it leads to another host")]
    Elsewhere(String),
    /// It is no link to a page, or none that is encrypted.
    #[error("it leads to no page of a gateway")]
    Unusable,
}

/// The path that a link on the page `current` of a gateway leads to (RFC 3986 section 5, without dots). An empty link
/// leads to that page.
///
/// # Errors
/// It does not lead to the gateway at this place.
pub fn path_at(link: &str, gateway: &Place, current: &str) -> Result<String, LinkFault> {
    if link.len() > MAX_LINK || !link.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(LinkFault::Unusable);
    }
    let link = link.split('#').next().unwrap_or_default();
    let path = match (after_scheme(link), link) {
        (Some(rest), _) => of_gateway(rest, gateway)?,
        (None, "") => current.to_owned(),
        (None, path) if path.starts_with('/') => path.to_owned(),
        (None, relative) => beside(current, relative)?,
    };
    if path.starts_with('/') && !path.starts_with("//") { Ok(path) } else { Err(LinkFault::Unusable) }
}

/// What stands behind the scheme of a link that names a host.
fn after_scheme(link: &str) -> Option<&str> {
    let scheme = link.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
    scheme.and_then(|scheme| link.get(scheme.len()..)).or_else(|| link.strip_prefix("//"))
}

/// The path of a link whose host is the gateway.
fn of_gateway(link: &str, gateway: &Place) -> Result<String, LinkFault> {
    let end = link.find(['/', '?']).unwrap_or(link.len());
    let (host, path) = link.split_at_checked(end).ok_or(LinkFault::Unusable)?;
    let place = Place::parse(host, USUAL_PORT).map_err(|_| LinkFault::Unusable)?;
    if place.port != gateway.port || !place.host.eq_ignore_ascii_case(&gateway.host) {
        return Err(LinkFault::Elsewhere(host.to_owned()));
    }
    Ok(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

/// The path of a link that begins with no slash.
fn beside(current: &str, relative: &str) -> Result<String, LinkFault> {
    // Another scheme, perhaps.
    if relative.split(['/', '?']).next().is_some_and(|segment| segment.contains(':')) {
        return Err(LinkFault::Unusable);
    }
    let page = current.split('?').next().unwrap_or_default();
    let kept = if relative.starts_with('?') { Some(page) } else { page.rsplit_once('/').map(|(folder, _)| folder) };
    let between = if relative.starts_with('?') { "" } else { "/" };
    Ok(format!("{}{between}{relative}", kept.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn led(link: &str) -> Result<String, LinkFault> {
        let gateway = Place { host: "vpn.example".to_owned(), port: 8443 };
        path_at(link, &gateway, "/a/page?b=1")
    }

    #[test]
    fn links_within_the_gateway_are_followed() {
        for (link, path) in [
            ("", "/a/page?b=1"),
            ("#top", "/a/page?b=1"),
            ("/", "/"),
            ("/auth?x=1#top", "/auth?x=1"),
            ("auth", "/a/auth"),
            ("?c=2", "/a/page?c=2"),
            ("https://vpn.example:8443", "/"),
            ("HTTPS://VPN.example:8443/auth", "/auth"),
            ("https://vpn.example:8443?x", "/?x"),
            ("//vpn.example:8443/auth", "/auth"),
        ] {
            assert_eq!(led(link), Ok(path.to_owned()), "{link}");
        }
        let v6 = Place { host: "2001:db8::1".to_owned(), port: 443 };
        assert_eq!(path_at("https://[2001:DB8::1]/x", &v6, "/"), Ok("/x".to_owned()));
    }

    #[test]
    fn links_to_others_are_not_followed_and_name_them() {
        for (link, host) in [
            ("https://elsewhere.test/auth", "elsewhere.test"),
            ("https://vpn.example/auth", "vpn.example"),
            ("https://vpn.example:443/", "vpn.example:443"),
            ("https://vpn.example.elsewhere.test:8443/", "vpn.example.elsewhere.test:8443"),
            ("//elsewhere.test", "elsewhere.test"),
        ] {
            assert_eq!(led(link), Err(LinkFault::Elsewhere(host.to_owned())), "{link}");
        }
        let long = format!("/{}", "a".repeat(MAX_LINK));
        for link in [
            "http://vpn.example:8443/",
            "https://vpn.example:8443@elsewhere.test/",
            "https://",
            "https://vpn.example:8443//x",
            "javascript:alert(1)",
            "/a b",
            "/a\r\nX: y",
            "/\u{e4}",
            &long,
        ] {
            assert_eq!(led(link), Err(LinkFault::Unusable), "{link}");
        }
    }

    proptest! {
        #[test]
        fn nothing_leads_beyond_the_gateway(link in "(https://|//|/|vpn.example|:8443|@|\\?|#|a|\\.\\.|%2f|\\PC){0,8}") {
            if let Ok(path) = led(&link) {
                prop_assert!(path.starts_with('/') && !path.starts_with("//"));
                prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
