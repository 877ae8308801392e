//! The server's part.

use super::{Awaits, Handshake, Item, Mode, Setup, Step};
use crate::dtls::alert::Refusal;
use crate::dtls::greeting::Introduction;
use crate::dtls::message::{self, ClientHello, Kind, Message, ServerHello};
use crate::role::Role;

impl Handshake {
    /// Starts as the server, with who was introduced.
    pub fn server(setup: Setup, introduction: &Introduction) -> Self {
        let mut handshake = Self::new(Role::Server, setup, Awaits::ClientHello);
        handshake.randoms.client = introduction.random;
        // The greeter sent the messages before.
        handshake.next_number = introduction.number;
        handshake
    }

    pub(super) fn handle_from_client(&mut self, message: &Message) -> Result<Vec<Step>, Refusal> {
        match (self.awaits, message.kind) {
            (Awaits::ClientHello, Kind::ClientHello) => self.handle_client_hello(message),
            (Awaits::ClientKeyExchange, Kind::ClientKeyExchange) => {
                // Any identity will do: which key it is was said by the session.
                message::identity(&message.body).ok_or(Refusal::Malformed)?;
                self.transcript.extend(message.encode());
                self.awaits = Awaits::Finished;
                Ok(vec![self.keys()?])
            }
            _ => Err(Refusal::Unexpected),
        }
    }

    fn handle_client_hello(&mut self, message: &Message) -> Result<Vec<Step>, Refusal> {
        let hello = ClientHello::parse(&message.body).ok_or(Refusal::Malformed)?;
        if hello.beginning.random != self.randoms.client {
            return Err(Refusal::NotOffered);
        }
        let on_offer = |code| hello.suites().any(|offered| offered == code);
        let suite = self.suites().iter().copied().find(|suite| on_offer(suite.code()));
        let suite = suite.ok_or(Refusal::NoCommonSuite)?;
        self.suite = Some(suite);
        self.transcript.extend(message.encode());
        let is_resumed = matches!(self.mode, Mode::Resumed(_));
        // To repeat the client's session id means to resume it; an empty one cannot be resumed later.
        let answer = ServerHello {
            random: self.randoms.server,
            session_id: if is_resumed { hello.beginning.session_id } else { &[] },
            suite: suite.code(),
            names_renegotiation: hello.names_renegotiation,
        };
        let body = answer.encode();
        let answer = self.message(0, Kind::ServerHello, body);
        if is_resumed {
            let keys = self.keys()?;
            let finished = self.finished()?;
            self.awaits = Awaits::Finished;
            return Ok(vec![keys, Step::Send(vec![answer, Item::ChangeCipherSpec, finished])]);
        }
        let done = self.message(0, Kind::ServerHelloDone, Vec::new());
        self.awaits = Awaits::ClientKeyExchange;
        Ok(vec![Step::Send(vec![answer, done])])
    }
}
