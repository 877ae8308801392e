//! Groups as RADIUS servers name them: `OU=one;two`, or one name for each attribute.

use adit_proto::radius::attribute::{CLASS, FILTER_ID};
use adit_proto::radius::reply::Reply;

use super::settings::GroupAttribute;

/// Most groups that are taken from one acceptance; a packet has no room for many more.
const MOST: usize = 1024;

/// The groups that an acceptance names.
pub(super) fn of(acceptance: &Reply, attribute: GroupAttribute) -> Vec<String> {
    let kind = match attribute {
        GroupAttribute::Class => CLASS,
        GroupAttribute::FilterId => FILTER_ID,
    };
    named_in(acceptance.values(kind))
}

/// A value that is no text is none of ours: servers use Class for marks of their own, too.
fn named_in<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    let texts = values.filter_map(|value| std::str::from_utf8(value).ok());
    for text in texts.filter(|text| !text.chars().any(char::is_control)) {
        let names = text.get(3..).filter(|_| text.as_bytes()[..3].eq_ignore_ascii_case(b"OU=")).unwrap_or(text);
        for name in names.split(';').map(str::trim).filter(|name| !name.is_empty()) {
            if groups.len() < MOST && !groups.iter().any(|known| known == name) {
                groups.push(name.to_owned());
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(values: &[&[u8]]) -> Vec<String> {
        named_in(values.iter().copied())
    }

    #[test]
    fn groups_come_in_one_value_or_several() {
        assert_eq!(groups(&[b"staff"]), ["staff"]);
        assert_eq!(groups(&[b"OU=staff;ops;"]), ["staff", "ops"]);
        assert_eq!(groups(&[b"ou= staff ; ops", b"staff", b"VPN users"]), ["staff", "ops", "VPN users"]);
        assert_eq!(groups(&[b"OU", b"x", "Büro".as_bytes()]), ["OU", "x", "Büro"]);
    }

    #[test]
    fn marks_of_the_server_are_no_groups() {
        assert!(groups(&[b"", b"OU=", b";;", b"\xff\xfe", b"bell\x07", b"\x00\x01\x02"]).is_empty());
    }
}
