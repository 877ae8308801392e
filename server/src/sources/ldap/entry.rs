//! What the entry of a user says.

use std::time::{Duration, SystemTime};

use adit_proto::login::Cause;
use data_encoding::HEXLOWER;
use ldap3::{SearchEntry, ldap_escape};

/// Key of an entry of Active Directory; 16 bytes, which may look like text.
const OBJECT_GUID: &str = "objectGUID";
/// Flags of an account of Active Directory.
const USER_ACCOUNT_CONTROL: &str = "userAccountControl";
/// Flag of a disabled account (ADS_UF_ACCOUNTDISABLE).
const ACCOUNT_DISABLE: i64 = 0x2;
/// When an account of Active Directory ends, in units of 100 ns since 1601.
const ACCOUNT_EXPIRES: &str = "accountExpires";
/// Day since 1970 on which an account ends (RFC 2307 section 3).
const SHADOW_EXPIRE: &str = "shadowExpire";
/// Since when OpenLDAP's password policy locks an account.
const LOCKED_TIME: &str = "pwdAccountLockedTime";
/// The time that means: until an administrator unlocks it (slapo-ppolicy(5)).
const LOCKED_FOR_GOOD: &str = "000001010000Z";
/// Whether 389 Directory Server and FreeIPA lock an account.
const ACCOUNT_LOCK: &str = "nsAccountLock";

/// Seconds from 1601 to 1970.
const FROM_1601: i64 = 11_644_473_600;
/// Units of 100 ns in a second.
const TICKS: i64 = 10_000_000;
/// Seconds of a day.
const DAY: i64 = 86_400;

/// The attributes that say whether an account may be used.
pub(super) const STATES: [&str; 5] = [USER_ACCOUNT_CONTROL, ACCOUNT_EXPIRES, SHADOW_EXPIRE, LOCKED_TIME, ACCOUNT_LOCK];

/// The values of an attribute as bytes, whatever the case of its name.
fn values<'a>(entry: &'a SearchEntry, attribute: &str) -> Vec<&'a [u8]> {
    let texts = entry.attrs.iter().filter(|(name, _)| name.eq_ignore_ascii_case(attribute));
    let bytes = entry.bin_attrs.iter().filter(|(name, _)| name.eq_ignore_ascii_case(attribute));
    let texts = texts.flat_map(|(_, values)| values.iter().map(String::as_bytes));
    texts.chain(bytes.flat_map(|(_, values)| values.iter().map(Vec::as_slice))).collect()
}

/// The values of an attribute that are text.
pub(super) fn texts<'a>(entry: &'a SearchEntry, attribute: &str) -> Vec<&'a str> {
    values(entry, attribute).into_iter().filter_map(|value| std::str::from_utf8(value).ok()).collect()
}

/// The name of an entry: of several the one that comes first in the alphabet, so that it is always the same.
pub(super) fn name<'a>(entry: &'a SearchEntry, attribute: &str) -> Option<&'a str> {
    texts(entry, attribute).into_iter().min()
}

/// What an entry is known by for ever, as text.
pub(super) fn subject(entry: &SearchEntry, attribute: &str) -> Option<String> {
    let value = values(entry, attribute).into_iter().min().filter(|value| !value.is_empty())?;
    if attribute.eq_ignore_ascii_case(OBJECT_GUID) {
        return Some(HEXLOWER.encode(value));
    }
    Some(std::str::from_utf8(value).ok()?.to_owned())
}

/// The filter that finds the entry of a subject.
pub(super) fn subject_filter(subject: &str, attribute: &str) -> Option<String> {
    if !attribute.eq_ignore_ascii_case(OBJECT_GUID) {
        return Some(format!("({attribute}={})", ldap_escape(subject)));
    }
    let bytes = HEXLOWER.decode(subject.as_bytes()).ok()?;
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    Some(format!("({attribute}={escaped})"))
}

/// Why the account of an entry may not be used now; `None` where it may.
pub(super) fn obstacle(entry: &SearchEntry, now: SystemTime) -> Option<Cause> {
    let number = |attribute| texts(entry, attribute).first()?.parse::<i64>().ok();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if number(USER_ACCOUNT_CONTROL).is_some_and(|flags| flags & ACCOUNT_DISABLE != 0) {
        return Some(Cause::Disabled);
    }
    if texts(entry, ACCOUNT_LOCK).first().is_some_and(|locked| locked.eq_ignore_ascii_case("true")) {
        return Some(Cause::Disabled);
    }
    if texts(entry, LOCKED_TIME).contains(&LOCKED_FOR_GOOD) {
        return Some(Cause::Locked);
    }
    // Zero and the largest number mean "never" in Active Directory, a negative one in the shadow map.
    let expires = number(ACCOUNT_EXPIRES).filter(|ticks| (1..i64::MAX).contains(ticks));
    let expires = expires.map(|ticks| (ticks / TICKS).saturating_sub(FROM_1601));
    let ends = number(SHADOW_EXPIRE).filter(|day| *day >= 0).map(|day| day.saturating_mul(DAY));
    if expires.into_iter().chain(ends).any(|end| end <= now) {
        return Some(Cause::NotPermitted("the account has expired".to_owned()));
    }
    None
}

/// What a refused bind says: Active Directory tells more than "wrong password" in its text, as `data 533`.
pub(super) fn refusal(text: &str) -> Cause {
    let data = text.split("data ").nth(1).map(|rest| rest.split([',', ' ']).next().unwrap_or(rest));
    match data {
        Some("530") => Cause::NotPermitted("not at this time".to_owned()),
        Some("531") => Cause::NotPermitted("not from this host".to_owned()),
        Some("532" | "773") => Cause::PasswordExpired,
        Some("533") => Cause::Disabled,
        Some("701") => Cause::NotPermitted("the account has expired".to_owned()),
        Some("775") => Cause::Locked,
        Some(_) | None => Cause::WrongPassword,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn entry(attributes: &[(&str, &str)]) -> SearchEntry {
        let attrs = attributes.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
        SearchEntry { dn: "uid=alice".to_owned(), attrs: attrs.collect(), bin_attrs: HashMap::new() }
    }

    fn obstacle_of(attribute: &str, value: &str) -> Option<Cause> {
        let day_20000 = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400);
        obstacle(&entry(&[(attribute, value)]), day_20000)
    }

    #[test]
    fn disabled_and_expired_accounts_are_told_from_good_ones() {
        for (attribute, value) in [
            ("userAccountControl", "512"),
            ("userAccountControl", "66048"),
            ("userAccountControl", "no number"),
            ("accountExpires", "0"),
            ("accountExpires", "9223372036854775807"),
            ("accountExpires", "133724736010000000"),
            ("shadowExpire", "-1"),
            ("shadowExpire", "20001"),
            ("nsAccountLock", "false"),
            ("pwdAccountLockedTime", "20250101000000Z"),
        ] {
            assert_eq!(obstacle_of(attribute, value), None, "{attribute}: {value}");
        }
        assert_eq!(obstacle_of("userAccountControl", "514"), Some(Cause::Disabled));
        assert_eq!(obstacle_of("useraccountcontrol", "66050"), Some(Cause::Disabled));
        assert_eq!(obstacle_of("nsAccountLock", "TRUE"), Some(Cause::Disabled));
        assert_eq!(obstacle_of("pwdAccountLockedTime", "000001010000Z"), Some(Cause::Locked));
        let expired = Some(Cause::NotPermitted("the account has expired".to_owned()));
        assert_eq!(obstacle_of("accountExpires", "133000000000000000"), expired);
        assert_eq!(obstacle_of("shadowExpire", "20000"), expired);
    }

    #[test]
    fn refusals_of_active_directory_are_told_apart() {
        let text = |data: &str| {
            format!("80090308: LdapErr: DSID-0C090446, comment: AcceptSecurityContext error, data {data}, v3839")
        };
        assert_eq!(refusal(&text("52e")), Cause::WrongPassword);
        assert_eq!(refusal(&text("525")), Cause::WrongPassword);
        assert_eq!(refusal(&text("532")), Cause::PasswordExpired);
        assert_eq!(refusal(&text("773")), Cause::PasswordExpired);
        assert_eq!(refusal(&text("533")), Cause::Disabled);
        assert_eq!(refusal(&text("775")), Cause::Locked);
        assert!(matches!(refusal(&text("701")), Cause::NotPermitted(_)));
        assert_eq!(refusal(""), Cause::WrongPassword);
    }

    #[test]
    fn guid_that_looks_like_text_is_written_as_its_bytes() {
        let guid = entry(&[("objectGUID", "sixteen letters!")]);
        let subject = subject(&guid, "objectguid").unwrap();
        assert_eq!(subject, "7369787465656e206c65747465727321");
        let filter = subject_filter(&subject, "objectGUID").unwrap();
        assert!(filter.starts_with("(objectGUID=\\73\\69") && filter.ends_with("\\21)"), "{filter}");
        assert_eq!(subject_filter("not hex", "objectGUID"), None);
        assert_eq!(subject_filter("a*b", "entryUUID").as_deref(), Some("(entryUUID=a\\2ab)"));
    }

    #[test]
    fn name_is_the_same_in_whatever_order_values_come() {
        let both = |first: &str, second: &str| SearchEntry {
            dn: String::new(),
            attrs: HashMap::from([("UID".to_owned(), vec![first.to_owned(), second.to_owned()])]),
            bin_attrs: HashMap::new(),
        };
        assert_eq!(name(&both("bob", "robert"), "uid"), Some("bob"));
        assert_eq!(name(&both("robert", "bob"), "uid"), Some("bob"));
        assert_eq!(name(&both("robert", "bob"), "cn"), None);
    }
}
