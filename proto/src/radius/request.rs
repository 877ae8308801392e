//! Requests.

use hmac::Mac;
use zeroize::Zeroizing;

use super::attribute::{self, MESSAGE_AUTHENTICATOR, USER_PASSWORD};
use super::{AUTHENTICATOR_LEN, Authenticator, Code, HEADER_LEN, MAX_PACKET, hmac_md5, length_field, md5};

/// Longest password that can be hidden, in bytes (RFC 2865 section 5.2).
pub const MAX_PASSWORD: usize = 128;

/// Where the authenticator stands in a packet.
const AUTHENTICATOR_AT: usize = 4;

/// A value that no attribute can carry: empty, too long, or more than the packet has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value is empty or too long for its attribute")]
pub struct DoesNotFit;

/// A request that is being written.
///
/// It is wiped from memory when dropped, and has no `Debug`: while it is written a password may be in it.
pub struct Draft {
    code: Code,
    identifier: u8,
    authenticator: Authenticator,
    attributes: Zeroizing<Vec<u8>>,
}

impl Draft {
    /// Begins an Access-Request. Nobody may be able to guess the authenticator, and none may come twice.
    #[must_use]
    pub fn access(identifier: u8, authenticator: Authenticator) -> Self {
        Self::authenticated(Code::AccessRequest, identifier, authenticator)
    }

    /// Begins a Status-Server request (RFC 5997). The authenticator is as that of an Access-Request.
    #[must_use]
    pub fn status(identifier: u8, authenticator: Authenticator) -> Self {
        Self::authenticated(Code::StatusServer, identifier, authenticator)
    }

    /// Begins an Accounting-Request, whose authenticator follows from its content.
    #[must_use]
    pub fn accounting(identifier: u8) -> Self {
        let attributes = Zeroizing::default();
        Self { code: Code::AccountingRequest, identifier, authenticator: [0; AUTHENTICATOR_LEN], attributes }
    }

    /// The Message-Authenticator stands first, where nothing an attacker chooses can be in front of it.
    fn authenticated(code: Code, identifier: u8, authenticator: Authenticator) -> Self {
        let mut attributes = Zeroizing::default();
        attribute::append(&mut attributes, MESSAGE_AUTHENTICATOR, &[0; AUTHENTICATOR_LEN])
            .expect("16 bytes fit into an attribute");
        Self { code, identifier, authenticator, attributes }
    }

    /// Adds an attribute.
    ///
    /// # Errors
    /// The value is empty or too long, or the packet is full.
    pub fn bytes(mut self, kind: u8, value: &[u8]) -> Result<Self, DoesNotFit> {
        attribute::append(&mut self.attributes, kind, value).ok_or(DoesNotFit)?;
        if self.attributes.len() > MAX_PACKET.saturating_sub(HEADER_LEN) {
            return Err(DoesNotFit);
        }
        Ok(self)
    }

    /// Adds an attribute whose value is text.
    ///
    /// # Errors
    /// As [`Draft::bytes`].
    pub fn text(self, kind: u8, value: &str) -> Result<Self, DoesNotFit> {
        self.bytes(kind, value.as_bytes())
    }

    /// Adds an attribute whose value is a number.
    ///
    /// # Errors
    /// The packet is full.
    pub fn number(self, kind: u8, value: u32) -> Result<Self, DoesNotFit> {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a hidden password (RFC 2865 section 5.2): 16 bytes at a time, each piece mixed with the MD5 of the secret
    /// and the piece before.
    ///
    /// # Errors
    /// The password is empty or longer than [`MAX_PASSWORD`].
    pub fn password(self, password: &[u8], secret: &[u8]) -> Result<Self, DoesNotFit> {
        if !(1..=MAX_PASSWORD).contains(&password.len()) {
            return Err(DoesNotFit);
        }
        let mut hidden = Vec::with_capacity(MAX_PASSWORD);
        let mut before = self.authenticator;
        for piece in password.chunks(AUTHENTICATOR_LEN) {
            let mut mixed = md5(&[secret, &before]);
            for (byte, clear) in mixed.iter_mut().zip(piece) {
                *byte ^= clear;
            }
            hidden.extend_from_slice(&mixed);
            before = mixed;
        }
        self.bytes(USER_PASSWORD, &hidden)
    }

    /// Authenticates what was written. The same bytes may be sent more than once.
    #[must_use]
    pub fn seal(self, secret: &[u8]) -> Request {
        let length = self.attributes.len().saturating_add(HEADER_LEN);
        let head = [[self.code.number(), self.identifier], length_field(length)].concat();
        let attributes = self.attributes.as_slice();
        let mut packet = [&head, &self.authenticator[..], attributes].concat();
        let authenticator = if self.code == Code::AccountingRequest {
            // MD5 over the packet with zeros for the authenticator, as which it begins (RFC 2866 section 3).
            let authenticator = md5(&[&packet, secret]);
            write(&mut packet, AUTHENTICATOR_AT, &authenticator);
            authenticator
        } else {
            let authentic = hmac_md5(secret, &[&packet]).finalize().into_bytes().into();
            write(&mut packet, HEADER_LEN.saturating_add(attribute::FRAME_LEN), &authentic);
            self.authenticator
        };
        Request { code: self.code, identifier: self.identifier, authenticator, packet }
    }
}

/// Puts an authenticator at its place in a packet.
fn write(packet: &mut [u8], at: usize, authenticator: &Authenticator) {
    let place = packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    *place.expect("the packet was made with room for it") = *authenticator;
}

/// A request that can be sent.
pub struct Request {
    pub(super) code: Code,
    pub(super) identifier: u8,
    pub(super) authenticator: Authenticator,
    packet: Vec<u8>,
}

impl Request {
    /// What goes over the wire.
    #[must_use]
    pub fn packet(&self) -> &[u8] {
        &self.packet
    }
}
