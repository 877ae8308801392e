//! tls-auth: packets are authenticated with a key that all clients of a server have.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use super::{STAMP_LEN, Stamp};
use crate::drop_reason::DropReason;
use crate::openvpn::primitives::{Primitives, SHA1_LEN};
use crate::openvpn::static_key::{Slot, StaticKey};
use crate::openvpn::wire::PREFACE_LEN;

/// Bytes of the longest MAC, whose keys are as long.
const MAX_MAC_LEN: usize = 64;

/// The digest of the option `auth`, with which MACs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// What is used where the option is not given.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Digest {
    /// That of a name as configurations have it; `None` if it is not spoken here.
    pub fn from_name(name: &str) -> Option<Self> {
        let named = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        match () {
            () if named(&["SHA1", "SHA", "SHA-1"]) => Some(Self::Sha1),
            () if named(&["SHA256", "SHA2-256"]) => Some(Self::Sha256),
            () if named(&["SHA512", "SHA2-512"]) => Some(Self::Sha512),
            () => None,
        }
    }

    /// Bytes of a MAC, and of its key.
    pub const fn mac_len(self) -> usize {
        match self {
            Self::Sha1 => SHA1_LEN,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn mac<P: Primitives>(self, key: &[u8; MAX_MAC_LEN], parts: &[&[u8]]) -> Vec<u8> {
        let key = key.get(..self.mac_len()).expect("no MAC is longer than the longest");
        match self {
            Self::Sha1 => P::hmac_sha1(key, parts).to_vec(),
            Self::Sha256 => hmac::<Hmac<Sha256>>(key, parts),
            Self::Sha512 => hmac::<Hmac<Sha512>>(key, parts),
        }
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// The option `key-direction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `0`, usually the server: sends with the first half of the key.
    Normal,
    /// `1`, usually the client: sends with the second half.
    Inverse,
    /// Not given: the first half both ways.
    Both,
}

impl Direction {
    /// What an end sends with, and what it receives with.
    const fn slots(self) -> (Slot, Slot) {
        match self {
            Self::Normal => (Slot::Zero, Slot::One),
            Self::Inverse => (Slot::One, Slot::Zero),
            Self::Both => (Slot::Zero, Slot::Zero),
        }
    }
}

/// The keys of both directions.
#[derive(ZeroizeOnDrop)]
pub struct Keys {
    #[zeroize(skip)]
    digest: Digest,
    send: [u8; MAX_MAC_LEN],
    receive: [u8; MAX_MAC_LEN],
}

impl Keys {
    /// Takes them from a shared key.
    pub fn new(digest: Digest, key: &StaticKey, direction: Direction) -> Self {
        let (send, receive) = direction.slots();
        Self { digest, send: *key.mac(send), receive: *key.mac(receive) }
    }

    /// Bytes that this adds to a packet.
    pub const fn overhead(&self) -> usize {
        STAMP_LEN.saturating_add(self.digest.mac_len())
    }

    pub(super) fn seal<P: Primitives>(&self, stamp: Stamp, preface: &[u8; PREFACE_LEN], body: &[u8]) -> Vec<u8> {
        let stamp = stamp.encode();
        let mac = self.digest.mac::<P>(&self.send, &[&stamp, preface, body]);
        [&preface[..], &mac, &stamp, body].concat()
    }

    pub(super) fn open<'a, P: Primitives>(
        &self,
        preface: &[u8; PREFACE_LEN],
        rest: &'a [u8],
    ) -> Result<(Stamp, &'a [u8]), DropReason> {
        let (mac, rest) = rest.split_at_checked(self.digest.mac_len()).ok_or(DropReason::Truncated)?;
        let (stamp, body) = rest.split_first_chunk::<STAMP_LEN>().ok_or(DropReason::Truncated)?;
        let expected = self.digest.mac::<P>(&self.receive, &[stamp, preface, body]);
        if bool::from(expected.ct_eq(mac)) {
            Ok((Stamp::parse(*stamp), body))
        } else {
            Err(DropReason::AuthenticationFailed)
        }
    }
}
