//! RADIUS, the client's side: packets, what makes them trustworthy, and how long a server is waited for.
//!
//! ```text
//! code (1)  identifier (1)  length (2)  authenticator (16)  attributes: { type (1)  length (1)  value (0..=253) } …
//! ```
//!
//! | room | holds |
//! | --- | --- |
//! | [`attribute`] | the types of attributes that are used here, and reading a packet's attributes |
//! | [`request`] | making requests (RFC 2865, 2866, 5997) and hiding passwords in them |
//! | [`reply`] | reading replies, and what must hold before one is believed (RFC 2865, 2869) |
//! | [`patience`] | when a request is sent again, and when a server counts as silent |
//! | [`servers`] | which of several servers is asked, and which rests since it was silent |
//!
//! The protocol has no encryption but for passwords, and MD5 is all that protects a reply. Without a
//! Message-Authenticator somebody between client and server can turn a refusal into an acceptance (CVE-2024-3596), so
//! every request begins with one and every reply must have one.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

pub mod attribute;
pub(crate) mod double;
pub mod patience;
pub mod reply;
pub mod request;
pub mod servers;

#[cfg(test)]
mod vectors;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};

/// Bytes in front of the attributes.
pub const HEADER_LEN: usize = 20;

/// Largest packet, in bytes (RFC 2865 section 3).
pub const MAX_PACKET: usize = 4096;

/// Bytes of an authenticator, and of the content of a Message-Authenticator.
pub const AUTHENTICATOR_LEN: usize = 16;

/// A request's authenticator, or a reply's.
pub type Authenticator = [u8; AUTHENTICATOR_LEN];

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Asks whether somebody may come in.
    AccessRequest,
    /// They may.
    AccessAccept,
    /// They may not.
    AccessReject,
    /// Tells of a session.
    AccountingRequest,
    /// It was noted.
    AccountingResponse,
    /// Asks one more question.
    AccessChallenge,
    /// Asks a server whether it is there (RFC 5997).
    StatusServer,
}

impl Code {
    const ALL: [Self; 7] = [
        Self::AccessRequest,
        Self::AccessAccept,
        Self::AccessReject,
        Self::AccountingRequest,
        Self::AccountingResponse,
        Self::AccessChallenge,
        Self::StatusServer,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::AccessRequest => 1,
            Self::AccessAccept => 2,
            Self::AccessReject => 3,
            Self::AccountingRequest => 4,
            Self::AccountingResponse => 5,
            Self::AccessChallenge => 11,
            Self::StatusServer => 12,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Whether this answers a request of that code.
    fn answers(self, request: Self) -> bool {
        match request {
            Self::AccessRequest => matches!(self, Self::AccessAccept | Self::AccessReject | Self::AccessChallenge),
            Self::AccountingRequest => self == Self::AccountingResponse,
            Self::StatusServer => matches!(self, Self::AccessAccept | Self::AccountingResponse),
            Self::AccessAccept | Self::AccessReject | Self::AccountingResponse | Self::AccessChallenge => false,
        }
    }
}

/// MD5 of several pieces.
fn md5(pieces: &[&[u8]]) -> Authenticator {
    let mut hash = Md5::new();
    for piece in pieces {
        hash.update(piece);
    }
    hash.finalize().into()
}

/// HMAC-MD5 of several pieces, not yet compared or taken.
fn hmac_md5(secret: &[u8], pieces: &[&[u8]]) -> Hmac<Md5> {
    let mut hmac = Hmac::<Md5>::new_from_slice(secret).expect("HMAC takes a key of any length");
    for piece in pieces {
        hmac.update(piece);
    }
    hmac
}

/// The length field of a packet.
fn length_field(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("a packet has at most 4096 bytes").to_be_bytes()
}
