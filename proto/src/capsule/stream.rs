//! Reading capsules from a byte stream that may be cut anywhere (RFC 9297 section 3.2).

use std::collections::VecDeque;

use bytes::Bytes;

use super::{ADDRESS_ASSIGN, ADDRESS_REQUEST, Capsule, DATAGRAM, DNS_ASSIGN, ROUTE_ADVERTISEMENT, address, dns, route};
use crate::esp::capsule::{self as esp, EspCapsule, REKEY_REQUEST, SA_INIT};
use crate::http::fault::Fault;
use crate::varint::element::{Element, ElementReader, Head, Treatment};

/// Longest value of a capsule that is collected: the largest IP packet and its context ID.
pub(super) const MAX_VALUE_LEN: u64 = 65_535 + 8;

/// Longest value of an unknown capsule that is skipped; nothing anyone defined comes near it.
pub(super) const MAX_SKIPPED_LEN: u64 = 16 * 1024 * 1024;

/// Cuts the content of a request or response stream into capsules.
///
/// Unknown types are skipped without being held. It holds at most one value of 64 KiB and the capsules of the last
/// [`handle`](Self::handle) that were not polled yet.
#[derive(Debug, Default)]
pub struct CapsuleDecoder {
    elements: ElementReader,
    capsules: VecDeque<Capsule>,
    failed: Option<Fault>,
    expects_esp: bool,
}

impl CapsuleDecoder {
    /// Makes a decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the capsules of the ESP carrier from now on, which both ends have agreed on. Until then their types mean
    /// nothing.
    pub const fn expect_esp(&mut self) {
        self.expects_esp = true;
    }

    /// Takes the next bytes of the stream. Capsules before the faulty one can still be polled after an error.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for a malformed value (RFC 9297 section 3.3, RFC 9484 section 4.7), [`Fault::Excessive`]
    /// for one that is too long. Further calls return the same error.
    pub fn handle(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.read(&mut data).inspect_err(|error| self.failed = Some(*error))
    }

    fn read(&mut self, data: &mut &[u8]) -> Result<(), Fault> {
        let expects_esp = self.expects_esp;
        while let Some(element) = self.elements.next(data, |head| treatment(head, expects_esp))? {
            match element {
                Element::Whole(kind, value) => self.capsules.extend(decode(kind, value)?),
                Element::Piece(_) => {}
            }
        }
        Ok(())
    }

    /// Takes the end of the stream.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if it ends inside a capsule (RFC 9297 section 3.3).
    pub fn handle_fin(&mut self) -> Result<(), Fault> {
        match self.failed {
            Some(error) => Err(error),
            None if self.elements.is_between_elements() => Ok(()),
            None => Err(Fault::Malformed("stream ends inside a capsule")),
        }
    }

    /// The next capsule.
    pub fn poll_event(&mut self) -> Option<Capsule> {
        self.capsules.pop_front()
    }
}

fn treatment(head: Head, expects_esp: bool) -> Result<Treatment, Fault> {
    let (limit, treatment) = match head.kind {
        DATAGRAM | ADDRESS_ASSIGN | ADDRESS_REQUEST | ROUTE_ADVERTISEMENT | DNS_ASSIGN => {
            (MAX_VALUE_LEN, Treatment::Whole)
        }
        SA_INIT | REKEY_REQUEST if expects_esp => (esp::MAX_VALUE_LEN as u64, Treatment::Whole),
        _unknown => (MAX_SKIPPED_LEN, Treatment::Skip),
    };
    if head.length > limit {
        return Err(Fault::Excessive("capsule is too long"));
    }
    Ok(treatment)
}

fn decode(kind: u64, value: Vec<u8>) -> Result<Option<Capsule>, Fault> {
    Ok(Some(match kind {
        DATAGRAM => Capsule::Datagram(Bytes::from(value)),
        ADDRESS_ASSIGN => Capsule::AddressAssign(address::decode_assign(&value)?),
        ADDRESS_REQUEST => Capsule::AddressRequest(address::decode_request(&value)?),
        ROUTE_ADVERTISEMENT => Capsule::RouteAdvertisement(route::decode(&value)?),
        DNS_ASSIGN => Capsule::DnsAssign(dns::decode(&value)?),
        _private => return EspCapsule::decode(kind, &value).map(|esp| esp.map(Capsule::Esp)),
    }))
}
