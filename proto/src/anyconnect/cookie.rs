//! The cookies of a request, and of who keeps them between requests.

use zeroize::Zeroizing;

use super::MAX_COOKIE;

/// Most cookies that are kept.
const MAX_KEPT: usize = 16;
/// Longest name of a cookie that is kept, in bytes.
const MAX_NAME: usize = 64;

/// The cookie that is the session token.
pub const SESSION: &str = "webvpn";
/// What stands in that cookie where a client's certificate is all that it needs: clients give up without one.
pub const CERTIFICATE: &str = "certificate";

/// What the cookie of a session holds. The token is a secret, so it has no `Debug`.
#[derive(PartialEq, Eq)]
pub struct SessionCookie {
    /// The session token, or [`CERTIFICATE`].
    pub token: Zeroizing<String>,
    /// The group that the user has chosen.
    pub group: Option<String>,
}

impl SessionCookie {
    /// The value of the cookie: token and group with a dot between them, which neither of them has.
    pub fn encode(&self) -> Zeroizing<String> {
        let group = self.group.as_deref().map(|group| format!(".{group}")).unwrap_or_default();
        Zeroizing::new(format!("{}{group}", *self.token))
    }

    /// Reads the value of a cookie.
    pub fn decode(value: &str) -> Self {
        let (token, group) = value.split_once('.').unwrap_or((value, ""));
        let group = (!group.is_empty()).then(|| group.to_owned());
        Self { token: Zeroizing::new(token.to_owned()), group }
    }
}

/// The value of a cookie among the values of a request's `cookie` fields: the last that is not empty, since some
/// servers clear a cookie before they set it. One that is longer than [`MAX_COOKIE`] is nobody's.
pub fn find<'a>(fields: impl IntoIterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let values = fields.into_iter().flat_map(|field| field.split(';')).filter_map(|cookie| {
        let (found, value) = cookie.trim().split_once('=')?;
        (found == name && !value.is_empty()).then_some(value)
    });
    values.last().filter(|value| value.len() <= MAX_COOKIE)
}

/// The cookies that a gateway has set during one login. They are secrets, so there is no `Debug`.
#[derive(Default)]
pub struct Kept(Vec<(String, Zeroizing<String>)>);

impl Kept {
    /// Takes the value of a `set-cookie` field. An empty cookie ends one of its name; one that no gateway has a use for
    /// is passed over.
    pub fn take(&mut self, set: &str) {
        let Some((name, value)) = set.split(';').next().and_then(|cookie| cookie.trim().split_once('=')) else {
            return;
        };
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b','));
        let is_short = name.len() <= MAX_NAME && value.len() <= MAX_COOKIE;
        if name.is_empty() || !is_short || !is_plain(name) || !is_plain(value) {
            return;
        }
        self.0.retain(|(known, _)| known != name);
        if !value.is_empty() && self.0.len() < MAX_KEPT {
            self.0.push((name.to_owned(), Zeroizing::new(value.to_owned())));
        }
    }

    /// The value of a cookie.
    pub fn value(&self, name: &str) -> Option<&Zeroizing<String>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of the `cookie` field of the next request; `None` without a cookie.
    pub fn field(&self) -> Option<Zeroizing<String>> {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| Zeroizing::new(format!("{name}={}", **value))).collect();
        let pairs: Vec<&str> = pairs.iter().map(|pair| pair.as_str()).collect();
        (!pairs.is_empty()).then(|| Zeroizing::new(pairs.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_found_by_its_whole_name() {
        let fields = ["webvpncontext=a; webvpn=b=; other", "webvpnc=d"];
        assert_eq!(find(fields, SESSION), Some("b="));
        assert_eq!(find(fields, "webvpnc"), Some("d"));
        assert_eq!(find(fields, "web"), None);
        assert_eq!(find(fields, "other"), None);
    }

    #[test]
    fn last_cookie_that_is_not_empty_counts() {
        assert_eq!(find(["webvpn=; webvpn=a; webvpn=b; webvpn="], SESSION), Some("b"));
        assert_eq!(find(["webvpn="], SESSION), None);
    }

    #[test]
    fn cookie_of_a_session_bears_the_group_that_was_chosen() {
        for (value, token, group) in [("t0k-en_", "t0k-en_", None), ("t.staff", "t", Some("staff"))] {
            let cookie = SessionCookie::decode(value);
            assert_eq!((cookie.token.as_str(), cookie.group.as_deref()), (token, group));
            assert_eq!(cookie.encode().as_str(), value);
        }
        assert!(SessionCookie::decode("t.").group.is_none());
    }

    #[test]
    fn cookie_that_is_too_long_is_none() {
        let cookie = |length: usize| format!("webvpn={}", "a".repeat(length));
        assert!(find([cookie(MAX_COOKIE).as_str()], SESSION).is_some());
        assert_eq!(find([cookie(MAX_COOKIE + 1).as_str()], SESSION), None);
    }

    /// What is sent after these have been set.
    fn kept(set: &[&str]) -> Option<String> {
        let mut kept = Kept::default();
        set.iter().for_each(|set| kept.take(set));
        kept.field().map(|field| field.to_string())
    }

    #[test]
    fn cookies_come_back_as_they_were_set_until_they_are_set_anew() {
        assert_eq!(kept(&[]), None);
        let set = ["webvpncontext=a+/b=; Max-Age=120; Secure", "webvpn=t; Secure; HttpOnly", "webvpncontext=c; Secure"];
        assert_eq!(kept(&set).as_deref(), Some("webvpn=t; webvpncontext=c"));
        let cleared = ["webvpncontext=a", "webvpncontext=; expires=Thu, 01 Jan 1970 22:00:00 GMT; path=/"];
        assert_eq!(kept(&cleared), None, "an empty one ends it");
    }

    #[test]
    fn cookie_that_is_none_or_too_long_is_not_kept() {
        for set in ["", "webvpn", "=a", "webvpn=a b", "webvpn=a\r\nX: y", "webvpn=\"a\"", "web vpn=a", "webvpn=\u{e4}"]
        {
            assert_eq!(kept(&[set]), None, "{set:?}");
        }
        let long = |length: usize| kept(&[&format!("webvpn={}", "a".repeat(length))]);
        assert!(long(MAX_COOKIE).is_some() && long(MAX_COOKIE + 1).is_none());
        let many: Vec<String> = (0..=MAX_KEPT).map(|number| format!("c{number}=v")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(kept(&many).unwrap().matches("=v").count(), MAX_KEPT);
    }
}
