//! Attributes: type, length, value.

/// Longest value, in bytes.
pub const MAX_VALUE: usize = 253;

/// Name of a user, as typed or as the server calls them.
pub const USER_NAME: u8 = 1;
/// Hidden password, or the answer to a challenge.
pub const USER_PASSWORD: u8 = 2;
/// Name of a filter; some servers put groups here.
pub const FILTER_ID: u8 = 11;
/// Text for the user.
pub const REPLY_MESSAGE: u8 = 18;
/// What a challenge needs back, and nobody but the server understands.
pub const STATE: u8 = 24;
/// What accounting gets back; most servers put groups here.
pub const CLASS: u8 = 25;
/// Seconds that a session may last.
pub const SESSION_TIMEOUT: u8 = 27;
/// Address of the client, outside the tunnel.
pub const CALLING_STATION_ID: u8 = 31;
/// Name of who asks.
pub const NAS_IDENTIFIER: u8 = 32;
/// What an accounting packet tells of.
pub const ACCT_STATUS_TYPE: u8 = 40;
/// Seconds since it happened.
pub const ACCT_DELAY_TIME: u8 = 41;
/// Bytes from the client, the low 32 bits.
pub const ACCT_INPUT_OCTETS: u8 = 42;
/// Bytes to the client, the low 32 bits.
pub const ACCT_OUTPUT_OCTETS: u8 = 43;
/// Name of a session, the same in all its packets.
pub const ACCT_SESSION_ID: u8 = 44;
/// Seconds that a session has lasted.
pub const ACCT_SESSION_TIME: u8 = 46;
/// Packets from the client, the low 32 bits.
pub const ACCT_INPUT_PACKETS: u8 = 47;
/// Packets to the client, the low 32 bits.
pub const ACCT_OUTPUT_PACKETS: u8 = 48;
/// Why a session ended.
pub const ACCT_TERMINATE_CAUSE: u8 = 49;
/// Bytes from the client, the high 32 bits (RFC 2869 section 5.1).
pub const ACCT_INPUT_GIGAWORDS: u8 = 52;
/// Bytes to the client, the high 32 bits (RFC 2869 section 5.2).
pub const ACCT_OUTPUT_GIGAWORDS: u8 = 53;
/// Unix time at which it happened (RFC 2869 section 5.3).
pub const EVENT_TIMESTAMP: u8 = 55;
/// By what a user comes.
pub const NAS_PORT_TYPE: u8 = 61;
/// Whether the answer to a challenge may be seen while it is typed (RFC 2869 section 5.10).
pub const PROMPT: u8 = 76;
/// Authenticates the whole packet (RFC 2869 section 5.14).
pub const MESSAGE_AUTHENTICATOR: u8 = 80;
/// The user's IPv4 address inside the tunnel.
pub const FRAMED_IP_ADDRESS: u8 = 8;
/// The user's IPv6 address inside the tunnel (RFC 6911 section 3.1).
pub const FRAMED_IPV6_ADDRESS: u8 = 168;

/// NAS-Port-Type of a connection that is no physical port (RFC 2865 section 5.41).
pub const VIRTUAL: u32 = 5;

/// Type and length in front of a value.
pub(super) const FRAME_LEN: usize = 2;

/// Appends an attribute; `None`, and nothing appended, where the value is too long or empty.
#[must_use = "nothing is appended where the value does not fit"]
pub(super) fn append(packet: &mut Vec<u8>, kind: u8, value: &[u8]) -> Option<()> {
    if !(1..=MAX_VALUE).contains(&value.len()) {
        return None;
    }
    let length = u8::try_from(value.len().checked_add(FRAME_LEN)?).ok()?;
    packet.extend_from_slice(&[kind, length]);
    packet.extend_from_slice(value);
    Some(())
}

/// Takes the first attribute off: its type, its value, and what follows; `None` where it does not end within `bytes`.
pub(super) fn take(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, length], _) = bytes.split_first_chunk::<FRAME_LEN>()?;
    let (whole, rest) = bytes.split_at_checked(usize::from(length))?;
    Some((kind, whole.get(FRAME_LEN..)?, rest))
}

/// The attributes of a packet one after the other; ends at one that is not whole.
pub(crate) fn each(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, value, rest) = take(bytes)?;
        bytes = rest;
        Some((kind, value))
    })
}

/// Whether `bytes` are attributes and nothing else.
pub(crate) fn are_whole(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some((_, _, rest)) = take(bytes) else { return false };
        bytes = rest;
    }
    true
}
