//! What is said in a handshake and in which order (RFC 5246 section 7.3, RFC 4279 section 2).
//!
//! ```text
//! pre-shared key    client                                   server
//!                   ClientHello                        ──▶
//!                                                      ◀──   HelloVerifyRequest (by the greeter)
//!                   ClientHello with the cookie        ──▶
//!                                                      ◀──   ServerHello, ServerHelloDone
//!                   ClientKeyExchange, CCS, Finished   ──▶
//!                                                      ◀──   CCS, Finished
//!
//! resumed           ClientHello …                      ──▶
//!                                                      ◀──   ServerHello, CCS, Finished
//!                   CCS, Finished                      ──▶
//! ```
//!
//! What is known here are whole messages in order. Records, fragments and repetitions are the [`super::association`]'s.

mod client;
mod server;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::alert::Refusal;
use super::message::{Kind, MAX_SESSION_ID, Message};
use super::sa::EPOCH;
use super::secret::{BothKeys, MasterSecret, RANDOM_LEN, Randoms};
use super::suite::CipherSuite;
use crate::role::Role;

/// The identity of the pre-shared key: the same for all, as the session id says which key it is.
const IDENTITY: &[u8] = b"psk";

/// By what the two ends know each other.
pub enum Credential {
    /// A pre-shared key, for a whole handshake.
    PreSharedKey {
        /// At most [`super::secret::MAX_PSK_LEN`] bytes.
        key: Zeroizing<Vec<u8>>,
        /// Suites of [`CipherSuite::PSK`], the preferred one first. The server's order decides.
        suites: Vec<CipherSuite>,
    },
    /// The master secret of a session that is resumed though neither end was in it before.
    Resumed {
        /// The secret.
        master: MasterSecret,
        /// The session's suite.
        suite: CipherSuite,
    },
}

/// What a handshake starts with.
pub struct Setup {
    /// By what the two ends know each other.
    pub credential: Credential,
    /// By what the client names the session, in at most 32 bytes.
    pub session_id: Vec<u8>,
    /// Random bytes of this end, never used before.
    pub random: [u8; RANDOM_LEN],
    /// Bytes of the largest datagram that a handshake may need.
    pub largest_datagram: usize,
}

/// What goes out as part of a flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A message, in records of its epoch.
    Message(Message),
    /// The record that says that the next epoch begins.
    ChangeCipherSpec,
}

/// What is to be done next.
pub enum Step {
    /// Records of epoch 1 can be sealed and opened from now on.
    Keys(BothKeys),
    /// These are sent, and again until the peer's next flight comes.
    Send(Vec<Item>),
    /// Both ends have proven themselves. What was sent last is sent again when the peer repeats itself.
    Established,
}

enum Mode {
    PreSharedKey { key: Zeroizing<Vec<u8>>, suites: Vec<CipherSuite> },
    Resumed(CipherSuite),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    ClientHello,
    ServerHello,
    /// A hint of the server, which there may be, or the end of its flight.
    ServerHelloDone,
    ClientKeyExchange,
    Finished,
    Nothing,
}

/// One end of a handshake.
pub struct Handshake {
    role: Role,
    mode: Mode,
    session_id: Vec<u8>,
    cookie: Vec<u8>,
    randoms: Randoms,
    suite: Option<CipherSuite>,
    master: Option<MasterSecret>,
    transcript: Vec<u8>,
    next_number: u16,
    awaits: Awaits,
}

impl Handshake {
    fn new(role: Role, setup: Setup, awaits: Awaits) -> Self {
        let Setup { credential, mut session_id, random, largest_datagram: _ } = setup;
        session_id.truncate(MAX_SESSION_ID);
        let (mode, master) = match credential {
            Credential::PreSharedKey { key, suites } => (Mode::PreSharedKey { key, suites }, None),
            Credential::Resumed { master, suite } => (Mode::Resumed(suite), Some(master)),
        };
        let randoms = Randoms { client: random, server: random };
        let (cookie, transcript) = (Vec::new(), Vec::new());
        Self { role, mode, session_id, cookie, randoms, suite: None, master, transcript, next_number: 0, awaits }
    }

    /// Takes the peer's next message. [`Kind::Finished`] must have come in epoch 1, all others in epoch 0.
    ///
    /// # Errors
    /// The handshake cannot go on.
    pub fn handle_message(&mut self, message: &Message) -> Result<Vec<Step>, Refusal> {
        match (self.role, message.kind) {
            (_, Kind::Finished) => self.handle_finished(message),
            (Role::Client, _) => self.handle_from_server(message),
            (Role::Server, _) => self.handle_from_client(message),
        }
    }

    fn handle_finished(&mut self, message: &Message) -> Result<Vec<Step>, Refusal> {
        if self.awaits != Awaits::Finished {
            return Err(Refusal::Unexpected);
        }
        let peer = match self.role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        if !bool::from(self.verify_data(peer)?.ct_eq(&message.body)) {
            return Err(Refusal::Changed);
        }
        self.transcript.extend(message.encode());
        self.awaits = Awaits::Nothing;
        // Whoever has not sent its own Finished yet answers with it.
        let is_last = match self.mode {
            Mode::PreSharedKey { .. } => self.role == Role::Client,
            Mode::Resumed(_) => self.role == Role::Server,
        };
        let mut steps = Vec::new();
        if !is_last {
            steps.push(Step::Send(vec![Item::ChangeCipherSpec, self.finished()?]));
        }
        steps.push(Step::Established);
        Ok(steps)
    }

    /// Makes a message of this end, which becomes part of the transcript.
    fn message(&mut self, epoch: u16, kind: Kind, body: Vec<u8>) -> Item {
        let message = Message { epoch, kind, number: self.next_number, body };
        self.next_number = self.next_number.saturating_add(1);
        self.transcript.extend(message.encode());
        Item::Message(message)
    }

    fn finished(&mut self) -> Result<Item, Refusal> {
        let verify_data = self.verify_data(self.role)?;
        Ok(self.message(EPOCH, Kind::Finished, verify_data.to_vec()))
    }

    fn verify_data(&self, sender: Role) -> Result<[u8; super::secret::VERIFY_DATA_LEN], Refusal> {
        let (master, suite) = self.master.as_ref().zip(self.suite).ok_or(Refusal::NoKeys)?;
        Ok(master.verify_data(suite.hash(), sender, &self.transcript))
    }

    /// Makes the master secret, unless it was given, and the keys.
    fn keys(&mut self) -> Result<Step, Refusal> {
        let suite = self.suite.ok_or(Refusal::NoKeys)?;
        if let Mode::PreSharedKey { key, .. } = &self.mode {
            self.master = MasterSecret::from_psk(suite.hash(), key, &self.randoms);
        }
        let keys = self.master.as_ref().and_then(|master| master.keys(suite, &self.randoms));
        keys.map(Step::Keys).ok_or(Refusal::NoKeys)
    }

    /// The suites that this end knows, the preferred one first.
    fn suites(&self) -> &[CipherSuite] {
        match &self.mode {
            Mode::PreSharedKey { suites, .. } => suites,
            Mode::Resumed(suite) => std::slice::from_ref(suite),
        }
    }
}
