//! The first byte of every packet, and packets of the control channel as they are under their wrapping.
//!
//! ```text
//! head (1): opcode (5 bits)  key id (3 bits)
//! session id of the sender (8)
//! what the wrapping adds, see super::wrapping
//! acknowledgements: how many (1)  each one's number (4)  and, if there are any, session id of the receiver (8)
//! number (4)  payload            neither of both in P_ACK_V1
//! ```
//!
//! A message is a packet that has a number: the peer acknowledges it. Its payload is a piece of the byte stream of TLS,
//! or, in resets, nothing or a few records of early negotiation ([`early`]).

pub mod early;

use crate::drop_reason::DropReason;

/// Bytes of head and session id.
pub const PREFACE_LEN: usize = 9;

/// Most acknowledgements in a packet that openvpn reads.
pub const MAX_ACKS: usize = 8;

/// Bytes of a session id.
pub const SESSION_ID_LEN: usize = 8;

/// Bytes of a number.
const NUMBER_LEN: usize = 4;

const KEY_ID_BITS: u8 = 3;
const KEY_ID_MASK: u8 = (1 << KEY_ID_BITS) - 1;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Begins new keys in a session that has some: P_CONTROL_SOFT_RESET_V1.
    SoftReset,
    /// Carries a piece of TLS: P_CONTROL_V1.
    Control,
    /// Begins a session, at the client: P_CONTROL_HARD_RESET_CLIENT_V2.
    ResetClient,
    /// Begins a session, at the server: P_CONTROL_HARD_RESET_SERVER_V2.
    ResetServer,
    /// As [`Kind::ResetClient`], with the client's wrapped key behind it: P_CONTROL_HARD_RESET_CLIENT_V3.
    ResetClientWithKey,
    /// As [`Kind::Control`], with the client's wrapped key behind it: P_CONTROL_WKC_V1.
    ControlWithKey,
}

impl Kind {
    /// Whether the wrapped key of tls-crypt-v2 stands behind the packet.
    pub const fn has_wrapped_key(self) -> bool {
        matches!(self, Self::ResetClientWithKey | Self::ControlWithKey)
    }
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A message of the control channel.
    Message(Kind),
    /// Acknowledgements and nothing else: P_ACK_V1.
    Ack,
    /// Data that does not name its peer: P_DATA_V1. Nobody sends it who was given a peer id.
    DataV1,
    /// Data: P_DATA_V2.
    DataV2,
}

impl Opcode {
    /// Every opcode of the versions spoken here. 1 and 2 are of versions before 2.0.
    pub const ALL: [Self; 9] = [
        Self::Message(Kind::SoftReset),
        Self::Message(Kind::Control),
        Self::Ack,
        Self::DataV1,
        Self::Message(Kind::ResetClient),
        Self::Message(Kind::ResetServer),
        Self::DataV2,
        Self::Message(Kind::ResetClientWithKey),
        Self::Message(Kind::ControlWithKey),
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Message(Kind::SoftReset) => 3,
            Self::Message(Kind::Control) => 4,
            Self::Ack => 5,
            Self::DataV1 => 6,
            Self::Message(Kind::ResetClient) => 7,
            Self::Message(Kind::ResetServer) => 8,
            Self::DataV2 => 9,
            Self::Message(Kind::ResetClientWithKey) => 10,
            Self::Message(Kind::ControlWithKey) => 11,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|opcode| opcode.number() == number)
    }
}

/// Which keys of a session a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u8);

impl KeyId {
    /// That of the first keys of a session.
    pub const FIRST: Self = Self(0);

    /// `None` above 7.
    pub const fn new(value: u8) -> Option<Self> {
        if value <= KEY_ID_MASK { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn value(self) -> u8 {
        self.0
    }

    /// That of the keys that follow: 0 never comes again.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 == KEY_ID_MASK { Self(1) } else { Self(self.0.saturating_add(1)) }
    }
}

/// The first byte of every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// What the packet is.
    pub opcode: Opcode,
    /// Which keys it belongs to.
    pub key: KeyId,
}

impl Head {
    /// Reads the first byte of a packet.
    ///
    /// # Errors
    /// [`DropReason::Truncated`] if there is none, [`DropReason::BadControlPacket`] if it is no opcode.
    pub fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        let &first = packet.first().ok_or(DropReason::Truncated)?;
        let opcode = Opcode::of(first >> KEY_ID_BITS).ok_or(DropReason::BadControlPacket)?;
        Ok(Self { opcode, key: KeyId(first & KEY_ID_MASK) })
    }

    /// The byte.
    pub const fn encode(self) -> u8 {
        self.opcode.number() << KEY_ID_BITS | self.key.0
    }
}

/// By which one end names a session: each end has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; SESSION_ID_LEN]);

/// Which messages came, told to who sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acks {
    receiver: SessionId,
    numbers: Vec<u32>,
}

impl Acks {
    /// `None` unless there are 1 to [`MAX_ACKS`] numbers. `receiver` is the session id of who sent the messages.
    pub fn new(receiver: SessionId, numbers: Vec<u32>) -> Option<Self> {
        (1..=MAX_ACKS).contains(&numbers.len()).then_some(Self { receiver, numbers })
    }

    /// The session id of who is told.
    pub const fn receiver(&self) -> SessionId {
        self.receiver
    }

    /// The numbers of the messages.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }
}

/// A packet that the peer is to acknowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is for.
    pub kind: Kind,
    /// Its place among the messages of its direction and key id, from 0.
    pub number: u32,
    /// A piece of the byte stream.
    pub payload: Vec<u8>,
}

/// A packet of the control channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which keys it belongs to.
    pub key: KeyId,
    /// Session id of the sender.
    pub session: SessionId,
    /// Which messages came.
    pub acks: Option<Acks>,
    /// The message; none in P_ACK_V1.
    pub message: Option<Message>,
}

impl Packet {
    /// What it is.
    pub fn opcode(&self) -> Opcode {
        self.message.as_ref().map_or(Opcode::Ack, |message| Opcode::Message(message.kind))
    }

    /// Head and session id, which no wrapping hides.
    pub fn preface(&self) -> [u8; PREFACE_LEN] {
        let SessionId([a, b, c, d, e, f, g, h]) = self.session;
        [Head { opcode: self.opcode(), key: self.key }.encode(), a, b, c, d, e, f, g, h]
    }

    /// What stands behind the preface.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let numbers = self.acks.as_ref().map_or(&[][..], Acks::numbers);
        body.push(u8::try_from(numbers.len()).expect("there are eight at most"));
        body.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        body.extend(self.acks.iter().flat_map(|acks| acks.receiver.0));
        if let Some(message) = &self.message {
            body.extend(message.number.to_be_bytes());
            body.extend(&message.payload);
        }
        body
    }

    /// Puts a packet together again from its preface and what stood behind that.
    ///
    /// # Errors
    /// [`DropReason::Truncated`] if something ends too soon; [`DropReason::BadControlPacket`] if it is data, has more
    /// than [`MAX_ACKS`] acknowledgements, or is nothing but acknowledgements and has none, or has more.
    pub fn parse(preface: &[u8; PREFACE_LEN], body: &[u8]) -> Result<Self, DropReason> {
        let head = Head::parse(preface)?;
        let &[_, a, b, c, d, e, f, g, h] = preface;
        let session = SessionId([a, b, c, d, e, f, g, h]);
        let (acks, rest) = split_acks(body)?;
        let message = match head.opcode {
            Opcode::Message(kind) => {
                let (number, payload) = rest.split_first_chunk::<NUMBER_LEN>().ok_or(DropReason::Truncated)?;
                Some(Message { kind, number: u32::from_be_bytes(*number), payload: payload.to_vec() })
            }
            Opcode::Ack if acks.is_some() && rest.is_empty() => None,
            Opcode::Ack | Opcode::DataV1 | Opcode::DataV2 => return Err(DropReason::BadControlPacket),
        };
        Ok(Self { key: head.key, session, acks, message })
    }
}

fn split_acks(body: &[u8]) -> Result<(Option<Acks>, &[u8]), DropReason> {
    let (&count, rest) = body.split_first().ok_or(DropReason::Truncated)?;
    let count = usize::from(count);
    if count > MAX_ACKS {
        return Err(DropReason::BadControlPacket);
    }
    let (numbers, rest) = rest.split_at_checked(count.saturating_mul(NUMBER_LEN)).ok_or(DropReason::Truncated)?;
    if count == 0 {
        return Ok((None, rest));
    }
    let (receiver, rest) = rest.split_first_chunk().ok_or(DropReason::Truncated)?;
    let (numbers, _) = numbers.as_chunks::<NUMBER_LEN>();
    let numbers = numbers.iter().map(|number| u32::from_be_bytes(*number)).collect();
    Ok((Acks::new(SessionId(*receiver), numbers), rest))
}

#[cfg(test)]
pub(crate) mod tests;
