//! Firewall marks: numbers that a host's kernel keeps beside a packet, and by which routing rules and firewalls tell
//! packets apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Some bits of a firewall mark. Packets are compared in the bits of the mask alone: the others may be somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The bits that are set.
    #[serde(rename = "mark", alias = "unless_mark")]
    pub value: u32,
    /// The bits that count.
    #[serde(rename = "mark_mask", default = "every_bit")]
    pub mask: u32,
}

/// A text that is no mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MarkError(&'static str);

impl Mark {
    /// What tells a client's own datagrams from all other packets, unless its profile says otherwise.
    ///
    /// Neither the value nor the mask has a bit that Kubernetes (0xc000), Docker's and Podman's port mapping (0x2000),
    /// Cilium (0x0f00), or Calico, Tailscale and Weave (0xffff0000 in all) set or clear on packets of a host. Of marks
    /// below 256, which people give by hand, only 22 and 23 are taken for it.
    pub const CLIENT: Self = Self { value: 0x0016, mask: 0x10fe };

    /// The bits of a connection's mark that say which of a gateway's policies allowed it.
    ///
    /// No bit of it is one of [`Self::CLIENT`], nor one that Tailscale (0x00ff0000), mwan3 (0x3f00) or the AWS VPC CNI
    /// (0x80) keeps in marks of connections. Should a firewall copy whole marks to packets, none of its bits makes
    /// Kubernetes (0xc000) masquerade or drop them.
    pub const POLICIES: u32 = 0x7000_0000;

    /// Whether a packet with this mark is meant.
    #[must_use]
    pub fn matches(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

impl Default for Mark {
    fn default() -> Self {
        Self::CLIENT
    }
}

/// As ip(8) and nft(8) write it: value, slash, mask.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

/// Reads `VALUE/MASK`, or `VALUE` where every bit counts; each is decimal, or hexadecimal after `0x`.
impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (number(value)?, number(mask)?),
            None => (number(text)?, every_bit()),
        };
        if value == 0 {
            return Err(MarkError("0 is what packets without a mark have"));
        }
        if value & mask != value {
            return Err(MarkError("it has bits outside its mask"));
        }
        Ok(Self { value, mask })
    }
}

fn number(text: &str) -> Result<u32, MarkError> {
    let read = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    read.map_err(|_| MarkError("it is not VALUE/MASK, such as 0x16/0x10fe"))
}

fn every_bit() -> u32 {
    u32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bits_of_the_mask_count() {
        let mark: Mark = "0x16/0x10fe".parse().unwrap();
        assert_eq!(mark, Mark::CLIENT);
        for meant in [0x16, 0x17, 0xc016, 0xffff_0f16] {
            assert!(mark.matches(meant), "{meant:#x}");
        }
        for other in [0, 1, 0x14, 0x96, 0x1016, 0x4000, 0x8000, 0xca6c, 0xff_0000] {
            assert!(!mark.matches(other), "{other:#x}");
        }
    }

    #[test]
    fn bits_of_others_are_left_alone() {
        for others in [0xc000, 0x2000, 0x0f00, 0xffff_0000_u32] {
            assert_eq!(Mark::CLIENT.mask & others, 0, "{others:#x}");
        }
    }

    #[test]
    fn texts_are_read_as_they_are_written() {
        for text in ["0x16/0x10fe", "0x1/0xffffffff"] {
            assert_eq!(text.parse::<Mark>().unwrap().to_string(), text);
        }
        assert_eq!("44311".parse::<Mark>().unwrap(), Mark { value: 44311, mask: u32::MAX });
        for bad in ["", "0", "0/0", "x", "1/", "2/1", "0x", "-1", "4294967296"] {
            assert!(bad.parse::<Mark>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mark_of_an_older_journal_counts_in_every_bit() {
        let older: Mark = serde_json::from_str(r#"{"unless_mark":44311}"#).unwrap();
        assert_eq!(older, Mark { value: 44311, mask: u32::MAX });
    }
}
