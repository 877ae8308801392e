//! The first words with a stranger (RFC 6347 section 4.2.1). Nothing is kept of anybody before a cookie came back, and
//! no answer is longer than what it answers.
//!
//! ```text
//! cookie = the period it was made in (1)
//!          HMAC-SHA-256(secret, period (8) ‖ address (16) ‖ port (2) ‖ random (32) ‖ session id), the first 19 bytes
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use super::message::{ClientHello, Fragment, HelloBeginning, Kind, Message, encode_verify_request};
use super::record::{ContentType, DTLS_1_0, HEADER_LEN, Header, LAST_SEQUENCE, plain};
use super::secret::RANDOM_LEN;
use crate::drop_reason::DropReason;

/// Bytes of a cookie; OpenSSL and GnuTLS as servers send as many.
pub const COOKIE_LEN: usize = 20;

/// How long a cookie is good: until the period after the one it was made in has passed.
pub const PERIOD: Duration = Duration::from_secs(60);

/// The highest number that the message of a first hello may have: it grows with every cookie that a client was given.
const LAST_HELLO: u16 = 16;

/// Records that a handshake may send in epoch 0. A hello so near to the last number is dropped.
const ROOM: u64 = 1 << 16;

/// Makes and checks cookies.
#[derive(ZeroizeOnDrop)]
pub struct Greeter {
    secret: [u8; 32],
    #[zeroize(skip)]
    start: Instant,
}

/// What is to be done with the hello of somebody unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// This goes back. Nothing needs to be remembered.
    Ask(Vec<u8>),
    /// The address is the sender's own. If its session is known, an association can begin with this datagram.
    Proven(Introduction),
}

/// A client whose address is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// By what the client names its session.
    pub session: Vec<u8>,
    /// Its random, by which a repeated hello is known.
    pub random: [u8; RANDOM_LEN],
    /// The number of the hello's message.
    pub(super) number: u16,
    /// The number of its record.
    pub(super) sequence: u64,
}

impl Greeter {
    /// Starts with a random secret, which is nobody else's.
    pub const fn new(secret: [u8; 32], now: Instant) -> Self {
        Self { secret, start: now }
    }

    /// Looks at a datagram that belongs to no association, or begins a new one beside it. Its first record has to begin
    /// with a ClientHello, whole or its first fragment.
    ///
    /// # Errors
    /// Why it must be dropped in silence.
    pub fn greet(&self, datagram: &[u8], from: SocketAddr, now: Instant) -> Result<Greeting, DropReason> {
        let header = Header::parse(datagram)?;
        if header.content != ContentType::Handshake || header.sequence > LAST_SEQUENCE.saturating_sub(ROOM) {
            return Err(DropReason::BadRecord);
        }
        if header.epoch != 0 {
            return Err(DropReason::UnknownEpoch);
        }
        let content = datagram.get(HEADER_LEN..).and_then(|rest| rest.get(..header.length.into()));
        let (fragment, _) = content.and_then(Fragment::split_first).ok_or(DropReason::BadRecord)?;
        let is_hello = fragment.kind == Kind::ClientHello && fragment.offset == 0 && fragment.number <= LAST_HELLO;
        let (hello, _) = HelloBeginning::parse(fragment.part).filter(|_| is_hello).ok_or(DropReason::BadRecord)?;
        if self.is_good(&hello, from, now) {
            // A fragment without the extensions is read as one of a client of today.
            let session = ClientHello::parse(fragment.part).map_or(hello.session_id, |hello| hello.session()).to_vec();
            let Fragment { number, .. } = fragment;
            return Ok(Greeting::Proven(Introduction {
                session,
                random: hello.random,
                number,
                sequence: header.sequence,
            }));
        }
        let answer = self.ask(&header, &fragment, &hello, from, now);
        if answer.len() > datagram.len() {
            return Err(DropReason::Truncated);
        }
        Ok(Greeting::Ask(answer))
    }

    /// A HelloVerifyRequest. It repeats the numbers of the hello, as nothing is kept to count with.
    fn ask(
        &self,
        header: &Header,
        fragment: &Fragment<'_>,
        hello: &HelloBeginning<'_>,
        from: SocketAddr,
        now: Instant,
    ) -> Vec<u8> {
        let body = encode_verify_request(&self.cookie(self.period(now), hello, from));
        let message = Message { epoch: 0, kind: Kind::HelloVerifyRequest, number: fragment.number, body };
        plain(ContentType::Handshake, DTLS_1_0, header.sequence, &message.encode())
    }

    /// Whether the cookie was made for this client in this period or in the one before.
    fn is_good(&self, hello: &HelloBeginning<'_>, from: SocketAddr, now: Instant) -> bool {
        let period = self.period(now);
        let Some((&made_in, _)) = hello.cookie.split_first() else { return false };
        [Some(period), period.checked_sub(1)]
            .into_iter()
            .flatten()
            .filter(|period| low_byte(*period) == made_in)
            .any(|period| self.cookie(period, hello, from).ct_eq(hello.cookie).into())
    }

    fn period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs().checked_div(PERIOD.as_secs()).unwrap_or_default()
    }

    fn cookie(&self, period: u64, hello: &HelloBeginning<'_>, from: SocketAddr) -> [u8; COOKIE_LEN] {
        let address = match from.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(&period.to_be_bytes());
        mac.update(&address.octets());
        mac.update(&from.port().to_be_bytes());
        mac.update(&hello.random);
        mac.update(hello.session_id);
        let mut cookie = [low_byte(period); COOKIE_LEN];
        cookie.iter_mut().skip(1).zip(mac.finalize().into_bytes()).for_each(|(place, byte)| *place = byte);
        cookie
    }
}

const fn low_byte(period: u64) -> u8 {
    let [.., low] = period.to_be_bytes();
    low
}

#[cfg(test)]
mod tests;
