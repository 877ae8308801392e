//! The client's part.

use super::{Awaits, Handshake, IDENTITY, Item, Mode, Setup, Step};
use crate::dtls::alert::Refusal;
use crate::dtls::message::{self, ClientHello, HelloBeginning, Kind, Message, ServerHello};
use crate::dtls::suite::CipherSuite;
use crate::role::Role;

impl Handshake {
    /// Starts as the client; [`Self::begin`] gives what goes out first.
    pub fn client(setup: Setup) -> Self {
        Self::new(Role::Client, setup, Awaits::ServerHello)
    }

    /// A hello, with the cookie if there is one.
    pub fn begin(&mut self) -> Step {
        let beginning =
            HelloBeginning { random: self.randoms.client, session_id: &self.session_id, cookie: &self.cookie };
        let body = ClientHello::encode(&beginning, self.suites().iter().map(|suite| suite.code()));
        // A hello that is answered with a cookie is no part of the transcript (RFC 6347 section 4.2.1).
        self.transcript.clear();
        Step::Send(vec![self.message(0, Kind::ClientHello, body)])
    }

    pub(super) fn handle_from_server(&mut self, message: &Message) -> Result<Vec<Step>, Refusal> {
        match (self.awaits, message.kind) {
            (Awaits::ServerHello, Kind::HelloVerifyRequest) => {
                self.cookie = message::verify_request(&message.body).ok_or(Refusal::Malformed)?.to_vec();
                Ok(vec![self.begin()])
            }
            (Awaits::ServerHello, Kind::ServerHello) => self.handle_server_hello(message),
            (Awaits::ServerHelloDone, Kind::ServerKeyExchange) => {
                message::identity(&message.body).ok_or(Refusal::Malformed)?;
                self.transcript.extend(message.encode());
                Ok(Vec::new())
            }
            (Awaits::ServerHelloDone, Kind::ServerHelloDone) => self.handle_server_hello_done(message),
            _ => Err(Refusal::Unexpected),
        }
    }

    fn handle_server_hello(&mut self, message: &Message) -> Result<Vec<Step>, Refusal> {
        let hello = ServerHello::parse(&message.body).ok_or(Refusal::Malformed)?;
        let suite = CipherSuite::from_code(hello.suite).filter(|suite| self.suites().contains(suite));
        let is_resumed = !hello.session_id.is_empty() && hello.session_id == self.session_id;
        // A server that has another idea of the handshake than we have cannot have the same keys.
        if is_resumed != matches!(self.mode, Mode::Resumed(_)) {
            return Err(Refusal::NotOffered);
        }
        self.suite = Some(suite.ok_or(Refusal::NotOffered)?);
        self.randoms.server = hello.random;
        self.transcript.extend(message.encode());
        if is_resumed {
            self.awaits = Awaits::Finished;
            return Ok(vec![self.keys()?]);
        }
        self.awaits = Awaits::ServerHelloDone;
        Ok(Vec::new())
    }

    fn handle_server_hello_done(&mut self, message: &Message) -> Result<Vec<Step>, Refusal> {
        if !message.body.is_empty() {
            return Err(Refusal::Malformed);
        }
        self.transcript.extend(message.encode());
        let keys = self.keys()?;
        let exchange = self.message(0, Kind::ClientKeyExchange, message::encode_client_key_exchange(IDENTITY));
        let finished = self.finished()?;
        self.awaits = Awaits::Finished;
        Ok(vec![keys, Step::Send(vec![exchange, Item::ChangeCipherSpec, finished])])
    }
}
