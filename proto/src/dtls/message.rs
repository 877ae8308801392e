//! Handshake messages (RFC 5246 section 7.4, RFC 6347 section 4.2, RFC 4279 section 2) and their fragments.
//!
//! ```text
//! type (1)  length (3)  message number (2)  fragment offset (3)  fragment length (3)  that part of the body
//! ```

use super::reader::{Reader, put_short_vector, put_vector};
use super::record::{DTLS_1_0, DTLS_1_2};
use super::secret::RANDOM_LEN;

/// Bytes in front of a fragment.
pub const FRAGMENT_HEADER_LEN: usize = 12;

/// The longest message that is read, in bytes: a ClientHello with many extensions; the others are short.
pub const MAX_MESSAGE: usize = 4096;

/// The longest session id, in bytes.
pub const MAX_SESSION_ID: usize = 32;

/// The longest identity of a pre-shared key that a server must support, in bytes (RFC 4279 section 5.3).
const MAX_IDENTITY: usize = 128;

/// The suite that stands for an empty `renegotiation_info` (RFC 5746 section 3.3).
const RENEGOTIATION_SIGNAL: u16 = 0x00ff;

/// `renegotiation_info` (RFC 5746 section 3.2).
const RENEGOTIATION_INFO: u16 = 0xff01;

/// By which old OpenConnect clients name their session: a vector of a vector.
const APP_ID: u16 = 48018;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Asks the client to begin anew.
    HelloRequest,
    /// Begins a handshake.
    ClientHello,
    /// Chooses from it.
    ServerHello,
    /// Asks for a cookie, so that a sender shows that its address is its own.
    HelloVerifyRequest,
    /// A ticket, which is only sent to who offered to take one.
    NewSessionTicket,
    /// A hint for choosing a pre-shared key.
    ServerKeyExchange,
    /// Nothing more comes from the server for now.
    ServerHelloDone,
    /// Names the pre-shared key.
    ClientKeyExchange,
    /// Proves that both ends saw the same handshake.
    Finished,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::HelloRequest,
        Self::ClientHello,
        Self::ServerHello,
        Self::HelloVerifyRequest,
        Self::NewSessionTicket,
        Self::ServerKeyExchange,
        Self::ServerHelloDone,
        Self::ClientKeyExchange,
        Self::Finished,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::HelloRequest => 0,
            Self::ClientHello => 1,
            Self::ServerHello => 2,
            Self::HelloVerifyRequest => 3,
            Self::NewSessionTicket => 4,
            Self::ServerKeyExchange => 12,
            Self::ServerHelloDone => 14,
            Self::ClientKeyExchange => 16,
            Self::Finished => 20,
        }
    }

    /// The kind with that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Part of a message, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// What the message is.
    pub kind: Kind,
    /// Bytes of the whole body.
    pub length: usize,
    /// The message's number.
    pub number: u16,
    /// Where in the body this part belongs.
    pub offset: usize,
    /// This part; it lies within the body.
    pub part: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Takes the first fragment off what a record holds; `None` if it is malformed, of an unknown kind, or of a message
    /// above [`MAX_MESSAGE`].
    pub fn split_first(content: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader(content);
        let (kind, length, number) = (reader.u8()?, reader.u24()?, reader.u16()?);
        let (offset, len) = (reader.u24()?, reader.u24()?);
        let fragment = Self { kind: Kind::from_code(kind)?, length, number, offset, part: reader.bytes(len)? };
        let is_within = length <= MAX_MESSAGE && offset.checked_add(len).is_some_and(|end| end <= length);
        is_within.then_some((fragment, reader.0))
    }

    /// The fragment as a record holds it.
    pub fn encode(&self) -> Vec<u8> {
        let u24 = |value: usize| {
            let [_, bytes @ ..] = u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
            bytes
        };
        let [length, offset, len] = [self.length, self.offset, self.part.len()].map(u24);
        [&[self.kind.code()][..], &length, &self.number.to_be_bytes(), &offset, &len, self.part].concat()
    }
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The epoch of the records that it came in.
    pub epoch: u16,
    /// What it is.
    pub kind: Kind,
    /// Its number.
    pub number: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Message {
    /// The message as one fragment, which is also how the transcript has it (RFC 6347 section 4.2.6).
    pub fn encode(&self) -> Vec<u8> {
        let length = self.body.len();
        Fragment { kind: self.kind, length, number: self.number, offset: 0, part: &self.body }.encode()
    }
}

/// The beginning of a ClientHello, which is enough to answer it with a cookie or to look one up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloBeginning<'a> {
    /// The client's random.
    pub random: [u8; RANDOM_LEN],
    /// The session that the client means; 32 bytes at most.
    pub session_id: &'a [u8],
    /// The cookie, empty in a first hello.
    pub cookie: &'a [u8],
}

impl<'a> HelloBeginning<'a> {
    /// Reads it from the first bytes of a body, and says what follows; `None` if it is cut short or the client does not
    /// speak DTLS 1.2.
    pub fn parse(body: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader(body);
        // Newer versions have smaller numbers, and whoever speaks one says 1.2 here.
        let version = reader.u16()?;
        let beginning = Self {
            random: reader.array()?,
            session_id: reader.short_vector().filter(|id| id.len() <= MAX_SESSION_ID)?,
            cookie: reader.short_vector()?,
        };
        (version >> 8 == DTLS_1_2 >> 8 && version <= DTLS_1_2).then_some((beginning, reader.0))
    }
}

/// A ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// Random, session and cookie.
    pub beginning: HelloBeginning<'a>,
    /// The suites on offer, two bytes each, the preferred one first.
    suites: &'a [u8],
    /// Whether the client knows secure renegotiation and wants to hear that the server does, too.
    pub names_renegotiation: bool,
    /// The session as old OpenConnect clients name it.
    pub app_id: Option<&'a [u8]>,
}

impl<'a> ClientHello<'a> {
    /// Reads a whole body; `None` if it is malformed, begins a renegotiation, or does not offer to leave compression
    /// out.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (beginning, rest) = HelloBeginning::parse(body)?;
        let mut reader = Reader(rest);
        let suites = reader.vector().filter(|suites| suites.len() >= 2 && suites.len().is_multiple_of(2))?;
        reader.short_vector().filter(|methods| methods.contains(&0))?;
        let mut hello = Self { beginning, suites, names_renegotiation: false, app_id: None };
        hello.names_renegotiation = hello.suites().any(|suite| suite == RENEGOTIATION_SIGNAL);
        for (kind, value) in extensions(reader)? {
            match kind {
                // It says what was negotiated before, which is nothing.
                RENEGOTIATION_INFO if value == [0] => hello.names_renegotiation = true,
                RENEGOTIATION_INFO => return None,
                APP_ID => {
                    let mut reader = Reader(value);
                    hello.app_id = Some(reader.short_vector().filter(|id| !id.is_empty())?);
                    reader.end()?;
                }
                _ => {}
            }
        }
        Some(hello)
    }

    /// The numbers of the suites on offer.
    pub fn suites(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.suites.as_chunks().0.iter().map(|code| u16::from_be_bytes(*code))
    }

    /// By what the client names its session.
    pub fn session(&self) -> &'a [u8] {
        self.app_id.unwrap_or(self.beginning.session_id)
    }

    /// The body of the hello that our client sends.
    pub fn encode(beginning: &HelloBeginning<'_>, suites: impl Iterator<Item = u16>) -> Vec<u8> {
        let mut body = DTLS_1_2.to_be_bytes().to_vec();
        body.extend(beginning.random);
        put_short_vector(&mut body, beginning.session_id);
        put_short_vector(&mut body, beginning.cookie);
        put_vector(&mut body, &suites.flat_map(u16::to_be_bytes).collect::<Vec<u8>>());
        put_short_vector(&mut body, &[0]);
        put_vector(&mut body, &renegotiation_info());
        body
    }
}

/// The extension that says that nothing was negotiated before.
fn renegotiation_info() -> Vec<u8> {
    let mut extension = RENEGOTIATION_INFO.to_be_bytes().to_vec();
    put_vector(&mut extension, &[0]);
    extension
}

/// The extensions at the end of a hello, none of them twice. There may be none at all.
fn extensions(mut reader: Reader<'_>) -> Option<Vec<(u16, &[u8])>> {
    let mut found: Vec<(u16, &[u8])> = Vec::new();
    if reader.end().is_some() {
        return Some(found);
    }
    let mut list = Reader(reader.vector()?);
    reader.end()?;
    while list.end().is_none() {
        let (kind, value) = (list.u16()?, list.vector()?);
        if found.iter().any(|(known, _)| *known == kind) {
            return None;
        }
        found.push((kind, value));
    }
    Some(found)
}

/// A ServerHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHello<'a> {
    /// The server's random.
    pub random: [u8; RANDOM_LEN],
    /// The session: the one that the client named if it is resumed.
    pub session_id: &'a [u8],
    /// The number of the suite that was chosen.
    pub suite: u16,
    /// Whether it answers that the server knows secure renegotiation.
    pub names_renegotiation: bool,
}

impl<'a> ServerHello<'a> {
    /// Reads a body; `None` if it is malformed or has what our hello did not ask for.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let version = reader.u16()?;
        let mut hello = Self {
            random: reader.array()?,
            session_id: reader.short_vector().filter(|id| id.len() <= MAX_SESSION_ID)?,
            suite: reader.u16()?,
            names_renegotiation: false,
        };
        let compression = reader.u8()?;
        for (kind, value) in extensions(reader)? {
            if kind != RENEGOTIATION_INFO || value != [0] {
                return None;
            }
            hello.names_renegotiation = true;
        }
        (version == DTLS_1_2 && compression == 0).then_some(hello)
    }

    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = DTLS_1_2.to_be_bytes().to_vec();
        body.extend(self.random);
        put_short_vector(&mut body, self.session_id);
        body.extend(self.suite.to_be_bytes());
        body.push(0);
        if self.names_renegotiation {
            put_vector(&mut body, &renegotiation_info());
        }
        body
    }
}

/// The body of a HelloVerifyRequest.
pub fn encode_verify_request(cookie: &[u8]) -> Vec<u8> {
    let mut body = DTLS_1_0.to_be_bytes().to_vec();
    put_short_vector(&mut body, cookie);
    body
}

/// The cookie of a HelloVerifyRequest, of whatever version (RFC 6347 section 4.2.1).
pub fn verify_request(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(body);
    reader.u16()?;
    let cookie = reader.short_vector()?;
    reader.end().map(|()| cookie)
}

/// The body of a ClientKeyExchange: the identity of the key.
pub fn encode_client_key_exchange(identity: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_vector(&mut body, identity);
    body
}

/// The identity in a ClientKeyExchange, or the hint in a ServerKeyExchange.
pub fn identity(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(body);
    let identity = reader.vector().filter(|identity| identity.len() <= MAX_IDENTITY)?;
    reader.end().map(|()| identity)
}

#[cfg(test)]
mod tests;
