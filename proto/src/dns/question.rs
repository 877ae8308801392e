//! One question for the addresses of a name, and its answer (RFC 1035 section 4): enough to find a gateway while a
//! host's own resolver cannot ask.
//!
//! ```text
//! header   id 16 | QR 1, opcode 4, AA 1, TC 1, RD 1, RA 1, Z 3, rcode 4 | counts: questions, answers, … 16 each
//! question name | type 16 | class 16
//! record   name | type 16 | class 16 | TTL 32 | length 16 | data
//! name     labels, each with its length before it, up to an empty one; or a pointer (two bytes, 0b11 first)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::is_domain;

/// Length of a message's header.
const HEADER: usize = 12;
/// "Recursion desired", in the first of the two bytes of flags.
const RECURSION_DESIRED: u8 = 1;
/// "This is a response", in the same byte.
const RESPONSE: u8 = 0x80;
/// The class "internet".
const INTERNET: u16 = 1;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// IPv4 (type A).
    V4 = 1,
    /// IPv6 (type AAAA, RFC 3596).
    V6 = 28,
}

/// A question for the addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Number by which its answer is told from others.
    pub id: u16,
    /// The name.
    pub name: String,
    /// Which of its addresses.
    pub kind: AddressKind,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The addresses of the name.
    pub addresses: Vec<IpAddr>,
    /// How long all of it holds; [`u32::MAX`] for an answer without any record.
    pub seconds: u32,
}

impl Question {
    /// The message that asks; `None` where the name is no domain name.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut message = self.id.to_be_bytes().to_vec();
        message.extend([RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend(self.tail()?);
        Some(message)
    }

    /// Reads an answer; `None` if it is none to this question.
    #[must_use]
    pub fn answer(&self, answer: &[u8]) -> Option<Answer> {
        let (header, body) = answer.split_first_chunk::<HEADER>()?;
        let [id0, id1, flags, _, questions0, questions1, count0, count1, ..] = *header;
        let is_ours = u16::from_be_bytes([id0, id1]) == self.id && flags & RESPONSE != 0;
        let tail = self.tail()?;
        let (asked, mut records) = body.split_at_checked(tail.len())?;
        if !is_ours || u16::from_be_bytes([questions0, questions1]) != 1 || !asked.eq_ignore_ascii_case(&tail) {
            return None;
        }
        let mut found = Answer { addresses: Vec::new(), seconds: u32::MAX };
        for _ in 0..u16::from_be_bytes([count0, count1]) {
            let Some((record, rest)) = record(records) else { break };
            records = rest;
            found.seconds = found.seconds.min(record.seconds);
            found.addresses.extend(self.address(&record));
        }
        Some(found)
    }

    /// The question's own part of a message.
    fn tail(&self) -> Option<Vec<u8>> {
        if !is_domain(&self.name) {
            return None;
        }
        let mut bytes = Vec::new();
        for label in self.name.trim_end_matches('.').split('.') {
            bytes.push(u8::try_from(label.len()).ok()?);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend((self.kind as u16).to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        Some(bytes)
    }

    fn address(&self, record: &Record<'_>) -> Option<IpAddr> {
        if record.kind != self.kind as u16 || record.class != INTERNET {
            return None;
        }
        match self.kind {
            AddressKind::V4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(record.data).ok()?).into()),
            AddressKind::V6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(record.data).ok()?).into()),
        }
    }
}

/// A record of an answer; whose it is, does not count: names may lead to others (CNAME).
struct Record<'a> {
    kind: u16,
    class: u16,
    seconds: u32,
    data: &'a [u8],
}

/// The first record, and what follows it.
fn record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (fixed, rest) = after_name(bytes)?.split_first_chunk::<10>()?;
    let [kind0, kind1, class0, class1, t0, t1, t2, t3, length0, length1] = *fixed;
    let length = usize::from(u16::from_be_bytes([length0, length1]));
    let (data, rest) = rest.split_at_checked(length)?;
    let (kind, class) = (u16::from_be_bytes([kind0, kind1]), u16::from_be_bytes([class0, class1]));
    Some((Record { kind, class, seconds: u32::from_be_bytes([t0, t1, t2, t3]), data }, rest))
}

/// What follows the name that the bytes begin with.
fn after_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = bytes.split_first()?;
        match length {
            0 => return Some(rest),
            1..=63 => bytes = rest.get(usize::from(*length)..)?,
            192.. => return rest.get(1..),
            64..=191 => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(kind: AddressKind) -> Question {
        Question { id: 0x0102, name: "gw.example".into(), kind }
    }

    /// An answer with an alias before its address.
    fn answer(kind: AddressKind, address: &[u8]) -> Vec<u8> {
        let mut message = question(kind).encode().unwrap();
        message[2] |= RESPONSE;
        message[7] = 2;
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'x', 0xc0, 15]);
        message.extend([0xc0, 40, 0, kind as u8, 0, 1, 0, 0, 0, 60, 0, u8::try_from(address.len()).unwrap()]);
        message.extend(address);
        message
    }

    #[test]
    fn question_has_the_form_of_rfc_1035() {
        let expected = [&[1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x02gw\x07example\x00", &[0, 28, 0, 1]];
        assert_eq!(question(AddressKind::V6).encode().unwrap(), expected.concat());
        let no_name = Question { name: "no name".into(), ..question(AddressKind::V4) };
        assert_eq!(no_name.encode(), None);
    }

    #[test]
    fn addresses_are_found_behind_an_alias() {
        let said = |address: &str| Some(Answer { addresses: vec![address.parse().unwrap()], seconds: 60 });
        let v4 = answer(AddressKind::V4, &[192, 0, 2, 1]);
        assert_eq!(question(AddressKind::V4).answer(&v4), said("192.0.2.1"));
        let v6 = answer(AddressKind::V6, &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(question(AddressKind::V6).answer(&v6), said("2001:db8::1"));
    }

    #[test]
    fn answer_holds_as_long_as_its_shortest_record() {
        let mut message = answer(AddressKind::V4, &[192, 0, 2, 1]);
        let alias_lasts = question(AddressKind::V4).encode().unwrap().len() + 6;
        message[alias_lasts..alias_lasts + 4].copy_from_slice(&7u32.to_be_bytes());
        assert_eq!(question(AddressKind::V4).answer(&message).map(|answer| answer.seconds), Some(7));
    }

    #[test]
    fn answers_to_other_questions_are_none() {
        let right = answer(AddressKind::V4, &[192, 0, 2, 1]);
        let asked = question(AddressKind::V4);
        for (at, value) in [(0, 9), (2, 1), (5, 2), (13, b'x'), (25, 28)] {
            let mut wrong = right.clone();
            wrong[at] = value;
            assert_eq!(asked.answer(&wrong), None, "byte {at}");
        }
        assert_eq!(asked.answer(&asked.encode().unwrap()), None, "the question itself");
    }

    #[test]
    fn answer_cut_short_gives_what_is_whole() {
        let right = answer(AddressKind::V4, &[192, 0, 2, 1]);
        let cut = question(AddressKind::V4).answer(&right[..right.len() - 1]).unwrap();
        assert_eq!((cut.addresses, cut.seconds), (Vec::new(), 60));
    }

    proptest! {
        #[test]
        fn reading_any_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = question(AddressKind::V4).encode().unwrap();
            message[2] |= RESPONSE;
            message[6] = 255;
            message.extend(bytes);
            prop_assert!(question(AddressKind::V4).answer(&message).is_some());
        }
    }
}
