//! The `adit-esp` header field, by which both ends agree on the carrier: a dictionary (RFC 9651 section 3.2).
//!
//! ```text
//! offer, on the CONNECT-IP request      adit-esp: v=1, suites=(1 2 3), groups=(29), vouched
//! answer, on the successful response    adit-esp: v=1, suite=1, group=29, vouched
//! ```
//!
//! Lists are in the order of preference. Members that are not known are ignored; a field that cannot be read, or of
//! another version, is as good as none, and then no capsule of the carrier may be sent.

mod dictionary;

use super::capsule::Group;
use crate::sealing::suite::Suite;
use dictionary::Member;

/// The name of the field.
pub const NAME: &str = "adit-esp";

/// The version of this carrier.
const VERSION: u64 = 1;

/// What a client can do, or what a server permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Suites, the preferred one first.
    pub suites: Vec<Suite>,
    /// Key exchanges for epochs after the first, the preferred one first.
    pub groups: Vec<Group>,
    /// Whether it can receive vouched packets.
    pub vouched: bool,
}

/// What a session uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The suite of every epoch.
    pub suite: Suite,
    /// The key exchange of every epoch after the first.
    pub group: Group,
    /// Whether packets may be vouched, in both directions.
    pub vouched: bool,
}

impl Default for Offer {
    /// Everything, in our order of preference.
    fn default() -> Self {
        Self { suites: Suite::ALL.to_vec(), groups: Group::ALL.to_vec(), vouched: true }
    }
}

impl Offer {
    /// Reads the value of a client's field; `None` if it offers nothing we know.
    pub fn parse(value: &str) -> Option<Self> {
        let members = members(value)?;
        let list = |name| match dictionary::find(&members, name) {
            Some(Member::Integers(numbers)) => numbers.clone(),
            Some(_) | None => Vec::new(),
        };
        let codes = |name| list(name).into_iter().filter_map(|number| u16::try_from(number).ok());
        let suites: Vec<Suite> = codes("suites").filter_map(Suite::from_code).collect();
        let groups: Vec<Group> = codes("groups").filter_map(Group::from_code).collect();
        let vouched = flag(&members, "vouched");
        (!suites.is_empty() && !groups.is_empty()).then_some(Self { suites, groups, vouched })
    }

    /// What a server that permits this answers to `client`: its own first choice that the client offers. `None` without
    /// a common suite and group, and then the field is left out of the response.
    pub fn choose(&self, client: &Self) -> Option<Answer> {
        let suite = *self.suites.iter().find(|suite| client.suites.contains(suite))?;
        let group = *self.groups.iter().find(|group| client.groups.contains(group))?;
        Some(Answer { suite, group, vouched: self.vouched && client.vouched })
    }

    /// Whether a server may answer so to this offer.
    pub fn permits(&self, answer: &Answer) -> bool {
        self.suites.contains(&answer.suite) && self.groups.contains(&answer.group) && (self.vouched || !answer.vouched)
    }
}

impl std::fmt::Display for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let join = |codes: Vec<u16>| codes.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        let suites = join(self.suites.iter().map(|suite| suite.code()).collect());
        let groups = join(self.groups.iter().map(|group| group.code()).collect());
        write!(f, "v={VERSION}, suites=({suites}), groups=({groups}){}", vouched_member(self.vouched))
    }
}

impl Answer {
    /// Reads the value of a server's field; `None` if it cannot be read or names what we do not know. See also
    /// [`Offer::permits`].
    pub fn parse(value: &str) -> Option<Self> {
        let members = members(value)?;
        let code = |name| match dictionary::find(&members, name) {
            Some(&Member::Integer(number)) => u16::try_from(number).ok(),
            Some(_) | None => None,
        };
        let (suite, group) = (Suite::from_code(code("suite")?)?, Group::from_code(code("group")?)?);
        Some(Self { suite, group, vouched: flag(&members, "vouched") })
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { suite, group, vouched } = self;
        write!(f, "v={VERSION}, suite={}, group={}{}", suite.code(), group.code(), vouched_member(*vouched))
    }
}

const fn vouched_member(vouched: bool) -> &'static str {
    if vouched { ", vouched" } else { "" }
}

fn members(value: &str) -> Option<Vec<(&str, Member)>> {
    let members = dictionary::parse(value)?;
    matches!(dictionary::find(&members, "v"), Some(Member::Integer(VERSION))).then_some(members)
}

fn flag(members: &[(&str, Member)], name: &str) -> bool {
    matches!(dictionary::find(members, name), Some(Member::Boolean(true)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offer_and_answer_read_as_documented() {
        let offer = Offer { groups: vec![Group::X25519], ..Offer::default() };
        assert_eq!(offer.to_string(), "v=1, suites=(1 2 3), groups=(29), vouched");
        let answer = Answer { suite: Suite::Aes256Gcm, group: Group::X25519, vouched: true };
        assert_eq!(answer.to_string(), "v=1, suite=1, group=29, vouched");
        assert_eq!(Offer::parse(&offer.to_string()), Some(offer));
        assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
    }

    #[test]
    fn unknown_members_and_numbers_are_ignored() {
        let offer =
            Offer::parse("grease=:AAA=:, v=1;a=2, suites=(9 2;q=0.5 70000), new=\"x, v=2\", groups=(29),vouched=?0")
                .unwrap();
        assert_eq!(offer, Offer { suites: vec![Suite::Aes128Gcm], groups: vec![Group::X25519], vouched: false });
    }

    #[test]
    fn other_versions_and_broken_fields_are_none() {
        for value in
            ["", "v=2, suites=(1), groups=(29)", "suites=(1), groups=(29)", "v=1, suites=(1, groups=(29)", "v=1"]
        {
            assert_eq!(Offer::parse(value), None, "{value}");
        }
        for value in ["v=1", "v=1, suite=9, group=29", "v=1, suite=1, group=0", "v=1, suite=(1), group=29"] {
            assert_eq!(Answer::parse(value), None, "{value}");
        }
    }

    #[test]
    fn server_decides_among_what_the_client_offers() {
        let server = Offer { suites: vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305], ..Offer::default() };
        let client =
            Offer { suites: vec![Suite::ChaCha20Poly1305, Suite::Aes128Gcm], vouched: false, ..Offer::default() };
        let answer = server.choose(&client).unwrap();
        assert_eq!((answer.suite, answer.vouched), (Suite::ChaCha20Poly1305, false));
        assert!(client.permits(&answer));
        let only_128 = Offer { suites: vec![Suite::Aes128Gcm], ..Offer::default() };
        assert_eq!(server.choose(&only_128), None);
    }

    #[test]
    fn answer_beyond_the_offer_is_not_permitted() {
        let offer = Offer { suites: vec![Suite::Aes256Gcm], groups: vec![Group::X25519], vouched: false };
        let good = Answer { suite: Suite::Aes256Gcm, group: Group::X25519, vouched: false };
        assert!(offer.permits(&good));
        assert!(!offer.permits(&Answer { suite: Suite::Aes128Gcm, ..good }));
        assert!(!offer.permits(&Answer { group: Group::X25519MlKem768, ..good }));
        assert!(!offer.permits(&Answer { vouched: true, ..good }));
    }

    proptest! {
        #[test]
        fn every_choice_is_permitted_and_survives_the_wire(
            ours in proptest::sample::subsequence(Suite::ALL.to_vec(), 0..=3),
            theirs in proptest::sample::subsequence(Suite::ALL.to_vec(), 1..=3),
            vouched: bool,
        ) {
            let server = Offer { suites: ours, ..Offer::default() };
            let client = Offer { suites: theirs, vouched, ..Offer::default() };
            prop_assert_eq!(Offer::parse(&client.to_string()), Some(client.clone()));
            if let Some(answer) = server.choose(&client) {
                prop_assert!(client.permits(&answer));
                prop_assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
            }
        }
    }
}
