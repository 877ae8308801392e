//! The first words with a stranger. Nothing is kept of anybody before a packet came back that only who has the address
//! could send.
//!
//! ```text
//! server's session id = HMAC-SHA-256(secret, period (8) ‖ address (16) ‖ port (2) ‖ client's session id), 8 bytes
//! ```
//!
//! The server's reset names a session id that it can compute again, so the client's next packet, which repeats it, says
//! all that is needed: both resets have passed, and messages go on with number 1. Under tls-crypt-v2 the client's key
//! is not kept either. The answer asks for it again ([`early`]); a client that does not understand this, before 2.6, is
//! not answered. An answer is at most 12 bytes longer than what it answers.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use super::client_key::{Metadata, ServerKey, split_wrapped};
use super::primitives::Primitives;
use super::static_key::StaticKey;
use super::wire::{Acks, KeyId, Kind, Message, Opcode, Packet, SessionId, early};
use super::wrapping::{Keys, Stamp, tls_crypt};
use crate::drop_reason::DropReason;
use crate::role::Role;

/// Session ids differ from one period to the next.
pub const PERIOD: Duration = Duration::from_secs(30);

/// Periods before the running one whose session ids are good: 60 to 90 s, as clients give up after 60.
const FORMER_PERIODS: u64 = 2;

/// The number of the first message after the resets, with which [`super::reliability::Reliability`] begins.
pub const FIRST_OF_TLS: u32 = 1;

/// The counter of the server's first stamp after its reset.
pub const FIRST_COUNT: u32 = 2;

/// By what strangers' packets are wrapped.
pub struct Guard {
    /// What all clients have; `None` if only clients with keys of their own are let in.
    pub shared: Option<Keys>,
    /// What unwraps the keys that clients have for themselves.
    pub own: Option<ServerKey>,
}

/// What is to be done with the packet of somebody unknown.
pub enum Greeting {
    /// This goes back. Nothing needs to be remembered.
    Answer(Vec<u8>),
    /// The address is the sender's own. A session can begin, and takes this same packet as its first.
    Proven(Box<Introduction>),
}

/// A client whose address is its own.
pub struct Introduction {
    /// By what the client names the session.
    pub client: SessionId,
    /// By what the server has named it.
    pub server: SessionId,
    /// The client's own key, and what was noted with it; `None` if it has the shared one.
    pub own_key: Option<(StaticKey, Metadata)>,
}

/// Makes and checks session ids. Erased when dropped.
#[derive(ZeroizeOnDrop)]
pub struct Greeter {
    secret: [u8; 32],
    #[zeroize(skip)]
    start: Instant,
}

impl Greeter {
    /// Starts with a random secret, which is nobody else's.
    pub const fn new(secret: [u8; 32], now: Instant) -> Self {
        Self { secret, start: now }
    }

    /// Looks at a datagram that belongs to no session. `unix_time` is put into the answer's stamp.
    ///
    /// # Errors
    /// Why it must be dropped in silence.
    pub fn greet<P: Primitives>(
        &self,
        datagram: &[u8],
        guard: &Guard,
        from: SocketAddr,
        now: Instant,
        unix_time: u32,
    ) -> Result<Greeting, DropReason> {
        let (rest, wrapped) = split_wrapped(datagram)?;
        let own_key = match (wrapped, &guard.own) {
            ([], _) => None,
            (_, None) => return Err(DropReason::BadControlPacket),
            (_, Some(server)) => Some(server.unwrap::<P>(wrapped)?),
        };
        let own_keys = own_key.as_ref().map(|(key, _)| Keys::Crypt(tls_crypt::Keys::new(key, Role::Server)));
        let keys = own_keys.as_ref().or(guard.shared.as_ref()).ok_or(DropReason::AuthenticationFailed)?;
        let (packet, stamp) = keys.open::<P>(rest)?;
        if packet.key != KeyId::FIRST || packet.session == SessionId([0; 8]) {
            return Err(DropReason::BadControlPacket);
        }
        let message = packet.message.as_ref();
        match (packet.opcode(), message) {
            (Opcode::Message(kind @ (Kind::ResetClient | Kind::ResetClientWithKey)), Some(message)) => {
                let understands = stamp.is_some_and(|stamp| early::is_understood(stamp.count));
                if message.number != 0 || packet.acks.is_some() || (kind.has_wrapped_key() && !understands) {
                    return Err(DropReason::BadControlPacket);
                }
                let answer = self.answer(packet.session, kind.has_wrapped_key(), from, now);
                let stamp = Stamp { time: unix_time, count: FIRST_COUNT.saturating_sub(1) };
                Ok(Greeting::Answer(keys.seal::<P>(stamp, &answer)?))
            }
            (Opcode::Ack | Opcode::Message(Kind::Control | Kind::ControlWithKey), _) => {
                let server = self.proven(&packet, from, now).ok_or(DropReason::NotConnected)?;
                Ok(Greeting::Proven(Box::new(Introduction { client: packet.session, server, own_key })))
            }
            _ => Err(DropReason::BadControlPacket),
        }
    }

    /// The server's reset.
    fn answer(&self, client: SessionId, asks_for_key: bool, from: SocketAddr, now: Instant) -> Packet {
        let payload = if asks_for_key { early::ASK_FOR_KEY.to_vec() } else { Vec::new() };
        let session = self.session_id(self.period(now), client, from);
        let message = Some(Message { kind: Kind::ResetServer, number: 0, payload });
        Packet { key: KeyId::FIRST, session, acks: Acks::new(client, vec![0]), message }
    }

    /// The session id of this server, if a packet shows that its sender has read it.
    fn proven(&self, packet: &Packet, from: SocketAddr, now: Instant) -> Option<SessionId> {
        let acks = packet.acks.as_ref()?;
        let is_early = acks.numbers().iter().all(|number| *number <= FIRST_OF_TLS)
            && packet.message.as_ref().is_none_or(|message| message.number <= FIRST_OF_TLS);
        let period = self.period(now);
        let is_good = (period.saturating_sub(FORMER_PERIODS)..=period)
            .any(|period| self.session_id(period, packet.session, from).0.ct_eq(&acks.receiver().0).into());
        (is_early && is_good).then(|| acks.receiver())
    }

    fn period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs().checked_div(PERIOD.as_secs()).unwrap_or_default()
    }

    fn session_id(&self, period: u64, client: SessionId, from: SocketAddr) -> SessionId {
        let address = match from.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(&period.to_be_bytes());
        mac.update(&address.octets());
        mac.update(&from.port().to_be_bytes());
        mac.update(&client.0);
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(mac.finalize().into_bytes());
        SessionId([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests;
