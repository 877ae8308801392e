//! Captive portals: networks that let their users out only once these have been at a page of theirs.
//!
//! A network tells of one by an address in DHCP or in router advertisements (RFC 8910), at which an API says how its
//! user stands (RFC 8908). Most tell nothing, and answer in the place of whoever is asked for a page. All of it comes
//! from strangers: it proves only that somebody is in the way, and shows where that somebody wants to be visited.

mod page;

use serde::Deserialize;

pub use page::PageAddress;

/// Most bytes of an API's answer: it holds a few short members.
pub const MAX_API_ANSWER: usize = 16 << 10;
/// "Network authentication required" (RFC 6585 section 6).
const AUTHENTICATION_REQUIRED: u16 = 511;
/// What a site of one's own answers that is reached without a portal, as browsers' test pages do.
const NO_CONTENT: u16 = 204;

/// How the user of a network stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserStanding {
    /// The network lets this host out.
    Open,
    /// It does not yet; this is the page for its user, if it named one.
    Captive(Option<PageAddress>),
}

/// What an API answers (RFC 8908 section 5).
#[derive(Deserialize)]
struct ApiAnswer {
    captive: bool,
    #[serde(rename = "user-portal-url")]
    user_portal_url: Option<String>,
}

/// The address of a network's API, as the option of RFC 8910 has it; `None` for a network that says it has no portal,
/// and for an address that is not encrypted (RFC 8908 section 4).
pub fn api_address(option: &str) -> Option<PageAddress> {
    PageAddress::parse(option).filter(PageAddress::is_encrypted)
}

/// Reads the answer of a network's API; `None` if it is none, or longer than [`MAX_API_ANSWER`].
pub fn user_standing(answer: &[u8]) -> Option<UserStanding> {
    if answer.len() > MAX_API_ANSWER {
        return None;
    }
    let ApiAnswer { captive, user_portal_url } = serde_json::from_slice(answer).ok()?;
    let page = || user_portal_url.as_deref().and_then(PageAddress::parse);
    Some(if captive { UserStanding::Captive(page()) } else { UserStanding::Open })
}

/// Who is asked for a page in clear, to see whether somebody else answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nobody: the address is one of those that are kept for documentation (RFC 5737, RFC 3849).
    Nobody,
    /// A host that may well have a web server, which sends its visitors to other pages of its own.
    Somebody,
    /// A site that is there to be asked, and answers with status 204.
    TestSite,
}

/// The page of a captive portal, if that is who answered a request for `page` in clear with this status, and this
/// `location` if there is one. `own` are names and addresses of whoever was asked, beside that in `page`.
///
/// A portal shows a page or the way to one, or says what it wants. Any other error is one of whoever stands in the way
/// and cannot reach the host either, such as a proxy.
pub fn portal_of(
    asked: Asked,
    page: &PageAddress,
    own: &[String],
    status: u16,
    location: Option<&str>,
) -> Option<PageAddress> {
    if status != AUTHENTICATION_REQUIRED && !(200..400).contains(&status) {
        return None;
    }
    let led = location.filter(|_| (300..400).contains(&status)).and_then(PageAddress::parse);
    let shown_here = || Some(page.clone());
    let is_own = |led: &PageAddress| led.is_of(page.host()) || own.iter().any(|host| led.is_of(host));
    match asked {
        Asked::Nobody => led.or_else(shown_here),
        Asked::TestSite if status == NO_CONTENT => None,
        Asked::TestSite => led.or_else(shown_here),
        Asked::Somebody if status == AUTHENTICATION_REQUIRED => shown_here(),
        Asked::Somebody => led.filter(|led| !is_own(led)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> PageAddress {
        PageAddress::parse(text).unwrap()
    }

    #[test]
    fn api_tells_how_its_user_stands() {
        let answered = |text: &str| user_standing(text.as_bytes());
        let captive = |page| Some(UserStanding::Captive(page));
        assert_eq!(
            answered(r#"{"captive": false, "user-portal-url": "https://p.example/"}"#),
            Some(UserStanding::Open)
        );
        assert_eq!(
            answered(r#"{"captive": true, "user-portal-url": "https://p.example/in?a=1", "seconds-remaining": 3}"#),
            captive(Some(page("https://p.example/in?a=1")))
        );
        assert_eq!(answered(r#"{"captive": true}"#), captive(None));
        for unfit in ["javascript:alert(1)", "http://", "file:///etc/passwd", "https://p.example/\u{1b}[2J"] {
            let text = serde_json::json!({ "captive": true, "user-portal-url": unfit }).to_string();
            assert_eq!(answered(&text), captive(None), "{unfit}");
        }
    }

    #[test]
    fn answers_that_are_none_tell_nothing() {
        let long = format!(r#"{{"captive": true, "pad": "{}"}}"#, "a".repeat(MAX_API_ANSWER));
        let deep = format!(r#"{{"captive": true, "pad": {}"#, "[".repeat(10_000));
        for text in ["", "{}", "true", "<html>", r#"{"captive": "true"}"#, r#"{"captive": true"#, &long, &deep] {
            assert_eq!(user_standing(text.as_bytes()), None, "{}", text.get(..40).unwrap_or(text));
        }
        assert_eq!(user_standing(b"\xff\xfe"), None);
    }

    #[test]
    fn api_is_asked_over_tls_alone() {
        assert_eq!(api_address("https://p.example/api"), Some(page("https://p.example/api")));
        for none in ["http://p.example/api", "urn:ietf:params:capport:unrestricted", "", "p.example"] {
            assert_eq!(api_address(none), None, "{none}");
        }
    }

    #[test]
    fn whoever_answers_in_the_place_of_nobody_is_a_portal() {
        let asked = page("http://203.0.113.80/");
        let portal = |status, location| portal_of(Asked::Nobody, &asked, &[], status, location);
        assert_eq!(portal(302, Some("http://p.example/in")), Some(page("http://p.example/in")));
        for (status, location) in [(200, None), (302, Some("/in")), (302, None), (511, None), (200, Some("http://x/"))]
        {
            assert_eq!(portal(status, location), Some(asked.clone()), "{status} {location:?}");
        }
    }

    #[test]
    fn proxy_that_reaches_nobody_either_is_no_portal() {
        let page = page("http://203.0.113.80/");
        for asked in [Asked::Nobody, Asked::TestSite, Asked::Somebody] {
            for status in [400, 403, 404, 500, 502, 503, 504] {
                assert_eq!(portal_of(asked, &page, &[], status, Some("http://p.example/")), None, "{asked:?} {status}");
            }
            assert_eq!(portal_of(asked, &page, &[], 511, None), Some(page.clone()), "{asked:?}");
        }
    }

    #[test]
    fn gateways_own_web_server_is_no_portal_and_who_leads_elsewhere_is_one() {
        let asked = page("http://vpn.example/");
        let own = ["gw2.example", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let portal = |status, location| portal_of(Asked::Somebody, &asked, &own, status, location);
        for (status, location) in [
            (200, None),
            (404, None),
            (301, Some("https://vpn.example/")),
            (301, Some("https://VPN.example.:8443/login")),
            (301, Some("https://gw2.example/")),
            (308, Some("http://192.0.2.1:8080/")),
            (301, Some("https://[2001:DB8:0::1]/")),
            (302, Some("/login")),
            (302, Some("javascript:alert(1)")),
            (200, Some("http://p.example/")),
        ] {
            assert_eq!(portal(status, location), None, "{status} {location:?}");
        }
        assert_eq!(portal(302, Some("https://p.example/in")), Some(page("https://p.example/in")));
        assert_eq!(portal(511, None), Some(asked.clone()));
    }

    #[test]
    fn test_site_is_reached_if_it_says_so() {
        let asked = page("http://test.example/empty");
        let portal = |status, location| portal_of(Asked::TestSite, &asked, &[], status, location);
        assert_eq!(portal(204, None), None);
        assert_eq!(portal(200, None), Some(asked.clone()));
        assert_eq!(portal(302, Some("https://p.example/in")), Some(page("https://p.example/in")));
    }
}
