//! The cookies of a request.

use zeroize::Zeroizing;

use super::MAX_COOKIE;

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
}
