//! Replies, and what must hold before one is believed.

use hmac::Mac;
use subtle::ConstantTimeEq;

use super::attribute::{self, MESSAGE_AUTHENTICATOR};
use super::request::Request;
use super::{AUTHENTICATOR_LEN, Authenticator, Code, HEADER_LEN, MAX_PACKET, hmac_md5, md5};

/// Whether a reply to an Access-Request is believed without a Message-Authenticator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageAuthenticator {
    /// It is not.
    Required,
    /// It is, which lets somebody between client and server turn a refusal into an acceptance (CVE-2024-3596).
    Optional,
}

/// Why a datagram is not taken for the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    /// It is no RADIUS packet.
    #[error("it is no RADIUS packet")]
    Malformed,
    /// It answers another request.
    #[error("it answers another request")]
    OtherRequest,
    /// Its code is none that answers such a request.
    #[error("it is no answer to such a request")]
    OtherCode,
    /// The Response Authenticator is wrong.
    #[error("it was made with another secret")]
    WrongAuthenticator,
    /// It has no Message-Authenticator.
    #[error("it has no Message-Authenticator")]
    NoMessageAuthenticator,
    /// Its Message-Authenticator is wrong, or it has several.
    #[error("its Message-Authenticator is wrong")]
    WrongMessageAuthenticator,
}

/// A reply that was made by somebody who has the secret, for this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub code: Code,
    attributes: Vec<u8>,
}

impl Reply {
    /// Reads a datagram that may be the reply to `request`, and checks everything that is known about it.
    ///
    /// # Errors
    /// What speaks against it; another datagram may still be the reply.
    pub fn read(
        datagram: &[u8],
        request: &Request,
        secret: &[u8],
        rule: MessageAuthenticator,
    ) -> Result<Self, ReplyFault> {
        let packet = Packet::parse(datagram).ok_or(ReplyFault::Malformed)?;
        if packet.identifier != request.identifier {
            return Err(ReplyFault::OtherRequest);
        }
        let code = packet.code.filter(|code| code.answers(request.code)).ok_or(ReplyFault::OtherCode)?;
        let right = md5(&[packet.head, &request.authenticator, packet.attributes, secret]);
        if !bool::from(right.ct_eq(packet.authenticator)) {
            return Err(ReplyFault::WrongAuthenticator);
        }
        // Nothing is decided by the reply to any other request.
        let required = rule == MessageAuthenticator::Required && request.code == Code::AccessRequest;
        packet.check_message_authenticator(request, secret, required)?;
        Ok(Self { code, attributes: packet.attributes.to_vec() })
    }

    /// The values of all attributes of a type, in the order of the packet.
    pub fn values(&self, kind: u8) -> impl Iterator<Item = &[u8]> {
        attribute::each(&self.attributes).filter(move |(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The first attribute of a type as a number; `None` where there is none of four bytes.
    #[must_use]
    pub fn number(&self, kind: u8) -> Option<u32> {
        let value = self.values(kind).next()?;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    }
}

/// A packet taken apart.
struct Packet<'a> {
    /// Code, identifier and length as they were sent.
    head: &'a [u8; 4],
    /// `None` for a code that is not used here.
    code: Option<Code>,
    identifier: u8,
    authenticator: &'a Authenticator,
    attributes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Bytes behind the packet's own length are padding (RFC 2865 section 3).
    fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (head, rest) = datagram.split_first_chunk::<4>()?;
        let [code, identifier, length @ ..] = *head;
        let length = usize::from(u16::from_be_bytes(length));
        if !(HEADER_LEN..=MAX_PACKET).contains(&length) {
            return None;
        }
        let content = rest.get(..length.checked_sub(head.len())?)?;
        let (authenticator, attributes) = content.split_first_chunk()?;
        attribute::are_whole(attributes).then_some(Self {
            head,
            code: Code::of(code),
            identifier,
            authenticator,
            attributes,
        })
    }

    /// The Message-Authenticator is computed over the reply with the request's authenticator in place of the reply's,
    /// and zeros in place of itself (RFC 2869 section 5.14).
    fn check_message_authenticator(&self, request: &Request, secret: &[u8], required: bool) -> Result<(), ReplyFault> {
        let mut behind = self.attributes;
        let mut found = None;
        while let Some((kind, value, rest)) = attribute::take(behind) {
            if kind == MESSAGE_AUTHENTICATOR {
                if found.is_some() || value.len() != AUTHENTICATOR_LEN {
                    return Err(ReplyFault::WrongMessageAuthenticator);
                }
                found = Some((value, rest));
            }
            behind = rest;
        }
        let Some((value, behind)) = found else {
            return if required { Err(ReplyFault::NoMessageAuthenticator) } else { Ok(()) };
        };
        let before = self.attributes.len().saturating_sub(behind.len()).saturating_sub(AUTHENTICATOR_LEN);
        let before = self.attributes.get(..before).ok_or(ReplyFault::Malformed)?;
        let pieces = [&self.head[..], &request.authenticator, before, &[0; AUTHENTICATOR_LEN], behind];
        hmac_md5(secret, &pieces).verify_slice(value).map_err(|_differs| ReplyFault::WrongMessageAuthenticator)
    }
}

#[cfg(test)]
mod tests;
