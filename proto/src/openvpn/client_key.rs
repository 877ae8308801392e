//! tls-crypt-v2: each client has a key of its own, and brings it along, wrapped for the server. The server keeps one
//! key for all of them, and knows from the metadata whose it is.
//!
//! ```text
//! wrapped key = tag (32)  sealed  length of all this (2)
//! sealed      = AES-256-CTR(cipher key, first block = the first 16 bytes of the tag, client's key (256)  metadata)
//! tag         = HMAC-SHA-256(MAC key, length (2) ‖ client's key ‖ metadata)
//! metadata    = type (1)  value
//! server key  = cipher key (32 of 64)  MAC key (32 of 64)
//! ```
//!
//! The files are PEM, with the server key in one, and the client's key and the wrapped one in the other.

use data_encoding::{BASE64, DecodeError};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::primitives::Primitives;
use super::static_key::{KEY_LEN, KeyFileError, StaticKey, between_lines};
use super::wire::{Head, Opcode};
use super::wrapping::tls_crypt::{SealingKey, TAG_LEN};
use crate::drop_reason::DropReason;
use crate::sealing::aead::CipherRefused;

/// Bytes of a server key.
pub const SERVER_KEY_LEN: usize = 128;

/// Longest wrapped key, in bytes.
pub const MAX_WRAPPED: usize = 1024;

/// Most bytes of a metadata's value.
pub const MAX_METADATA: usize = MAX_WRAPPED - TAG_LEN - LENGTH_LEN - KEY_LEN - 1;

const LENGTH_LEN: usize = 2;
const SERVER_LABEL: &str = "OpenVPN tls-crypt-v2 server key";
const CLIENT_LABEL: &str = "OpenVPN tls-crypt-v2 client key";
const LINE_LEN: usize = 64;

/// The value is what who made the key has chosen.
const USER: u8 = 0;
/// The value says when the key was made.
const MADE: u8 = 1;

/// What a server finds beside a client's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    kind: u8,
    value: Vec<u8>,
}

impl Metadata {
    /// When the key was made, in seconds of Unix time: what openvpn writes unless told otherwise.
    pub fn made(time: u64) -> Self {
        Self { kind: MADE, value: time.to_be_bytes().to_vec() }
    }

    /// Bytes of one's own choice; `None` if there are more than [`MAX_METADATA`].
    pub fn user(value: Vec<u8>) -> Option<Self> {
        (value.len() <= MAX_METADATA).then_some(Self { kind: USER, value })
    }

    /// When the key was made, in seconds of Unix time, if this says so.
    pub fn made_at(&self) -> Option<u64> {
        let value = self.value.as_slice().try_into().ok()?;
        (self.kind == MADE).then(|| u64::from_be_bytes(value))
    }

    /// What who made the key has chosen, if this holds that.
    pub fn chosen(&self) -> Option<&[u8]> {
        (self.kind == USER).then_some(&self.value)
    }
}

/// By which a server wraps and unwraps. Erased when dropped.
#[derive(ZeroizeOnDrop)]
pub struct ServerKey([u8; SERVER_KEY_LEN]);

impl ServerKey {
    /// Takes random bytes.
    pub const fn new(bytes: [u8; SERVER_KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads a file, as `openvpn --genkey tls-crypt-v2-server` writes it.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let bytes = decode(text, SERVER_LABEL)?;
        bytes.as_slice().try_into().map(Self).map_err(|_| KeyFileError::Length)
    }

    /// The key as a file has it.
    pub fn to_text(&self) -> Zeroizing<String> {
        encode(&[&self.0], SERVER_LABEL)
    }

    /// Wraps a client's key.
    ///
    /// # Errors
    /// If the library fails.
    pub fn wrap<P: Primitives>(&self, key: &StaticKey, metadata: &Metadata) -> Result<Vec<u8>, CipherRefused> {
        let mut plain = Zeroizing::new([key.bytes(), &[metadata.kind][..], &metadata.value].concat());
        let length = TAG_LEN.saturating_add(plain.len()).saturating_add(LENGTH_LEN);
        let length = u16::try_from(length).map_err(|_| CipherRefused)?.to_be_bytes();
        let tag = self.sealing().seal::<P>(&[&length], &mut plain)?;
        Ok([&tag[..], &plain, &length].concat())
    }

    /// Unwraps what came from a client.
    ///
    /// # Errors
    /// [`DropReason::Truncated`], [`DropReason::BadLength`] or [`DropReason::AuthenticationFailed`] if this server has
    /// not wrapped it.
    pub fn unwrap<P: Primitives>(&self, wrapped: &[u8]) -> Result<(StaticKey, Metadata), DropReason> {
        let (rest, length) = wrapped.split_last_chunk::<LENGTH_LEN>().ok_or(DropReason::Truncated)?;
        if wrapped.len() > MAX_WRAPPED || usize::from(u16::from_be_bytes(*length)) != wrapped.len() {
            return Err(DropReason::BadLength);
        }
        let (tag, sealed) = rest.split_first_chunk::<TAG_LEN>().ok_or(DropReason::Truncated)?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        self.sealing().open::<P>(&[length], &mut plain, tag)?;
        let (key, metadata) = plain.split_first_chunk::<KEY_LEN>().ok_or(DropReason::Truncated)?;
        let (&kind, value) = metadata.split_first().ok_or(DropReason::Truncated)?;
        Ok((StaticKey::new(*key), Metadata { kind, value: value.to_vec() }))
    }

    fn sealing(&self) -> SealingKey {
        let (parts, _) = self.0.as_chunks::<{ SERVER_KEY_LEN / 4 }>();
        let part = |index| *parts.get::<usize>(index).expect("a key has four parts");
        SealingKey::new(part(0), part(2))
    }
}

/// What a client has: its key, and the same wrapped for its server.
pub struct ClientKey {
    /// The key.
    pub key: StaticKey,
    /// What the server unwraps.
    pub wrapped: Vec<u8>,
}

impl ClientKey {
    /// Reads a file, as `openvpn --genkey tls-crypt-v2-client` writes it.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let bytes = decode(text, CLIENT_LABEL)?;
        let (key, wrapped) = bytes.split_first_chunk().ok_or(KeyFileError::Length)?;
        let is_whole = (TAG_LEN.saturating_add(LENGTH_LEN)..=MAX_WRAPPED).contains(&wrapped.len());
        let said = wrapped.last_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
        if !is_whole || said != Some(wrapped.len()) {
            return Err(KeyFileError::Length);
        }
        Ok(Self { key: StaticKey::new(*key), wrapped: wrapped.to_vec() })
    }

    /// The key as a file has it.
    pub fn to_text(&self) -> Zeroizing<String> {
        encode(&[self.key.bytes(), &self.wrapped], CLIENT_LABEL)
    }
}

/// Splits the wrapped key off a datagram whose opcode says that one stands behind it; of others, nothing.
///
/// # Errors
/// [`DropReason::BadLength`] if there is no room for one of the length that it says.
pub fn split_wrapped(datagram: &[u8]) -> Result<(&[u8], &[u8]), DropReason> {
    let has_key = matches!(Head::parse(datagram)?.opcode, Opcode::Message(kind) if kind.has_wrapped_key());
    if !has_key {
        return Ok((datagram, &[]));
    }
    let length = datagram.last_chunk().ok_or(DropReason::Truncated)?;
    let start = datagram.len().checked_sub(u16::from_be_bytes(*length).into());
    start.and_then(|start| datagram.split_at_checked(start)).ok_or(DropReason::BadLength)
}

fn decode(text: &str, label: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let digits: Vec<u8> = between_lines(text, label)?.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = BASE64.decode(&Zeroizing::new(digits));
    bytes.map(Zeroizing::new).map_err(|DecodeError { .. }| KeyFileError::Encoding)
}

fn encode(parts: &[&[u8]], label: &str) -> Zeroizing<String> {
    let digits = Zeroizing::new(BASE64.encode(&Zeroizing::new(parts.concat())));
    let mut text = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(LINE_LEN).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::openvpn::test_primitives::Aws;

    fn server() -> ServerKey {
        ServerKey::new(std::array::from_fn(|index| u8::try_from(index).unwrap()))
    }

    fn wrapped(metadata: &Metadata) -> Vec<u8> {
        server().wrap::<Aws>(&StaticKey::new([7; KEY_LEN]), metadata).unwrap()
    }

    #[test]
    fn length_is_that_of_openvpns_keys() {
        assert_eq!(wrapped(&Metadata::made(1)).len(), 299);
        assert_eq!(wrapped(&Metadata::user(vec![0; MAX_METADATA]).unwrap()).len(), MAX_WRAPPED);
        assert_eq!(Metadata::user(vec![0; MAX_METADATA + 1]), None);
        assert_eq!(MAX_METADATA, 733);
    }

    #[test]
    fn metadata_says_what_it_was_made_of() {
        let made = Metadata::made(1_700_000_000);
        assert_eq!((made.made_at(), made.chosen()), (Some(1_700_000_000), None));
        let chosen = Metadata::user(b"device 7".to_vec()).unwrap();
        assert_eq!((chosen.made_at(), chosen.chosen()), (None, Some(&b"device 7"[..])));
    }

    #[test]
    fn key_of_another_server_is_refused() {
        let wrapped = wrapped(&Metadata::made(1));
        let other = ServerKey::new([1; SERVER_KEY_LEN]);
        assert_eq!(other.unwrap::<Aws>(&wrapped).err(), Some(DropReason::AuthenticationFailed));
        for bit in 0..wrapped.len() * 8 {
            let mut changed = wrapped.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(server().unwrap::<Aws>(&changed).is_err(), "bit {bit}");
        }
        for len in 0..wrapped.len() {
            assert!(server().unwrap::<Aws>(&wrapped[..len]).is_err());
        }
        let long = [&[0; MAX_WRAPPED - 1][..], &1026_u16.to_be_bytes()].concat();
        assert_eq!(server().unwrap::<Aws>(&long).err(), Some(DropReason::BadLength));
    }

    #[test]
    fn wrapped_key_is_found_behind_the_packets_that_have_one() {
        let wrapped = wrapped(&Metadata::made(1));
        let [reset, control, other] = [0x50, 0x58, 0x20].map(|head| [&[head, 1, 2][..], &wrapped].concat());
        assert_eq!(split_wrapped(&reset), Ok((&[0x50, 1, 2][..], &wrapped[..])));
        assert_eq!(split_wrapped(&control), Ok((&[0x58, 1, 2][..], &wrapped[..])));
        assert_eq!(split_wrapped(&other), Ok((&other[..], &[][..])));
        assert_eq!(split_wrapped(&[0x50, 1, 0, 5]), Err(DropReason::BadLength));
        assert_eq!(split_wrapped(&[0x50]), Err(DropReason::Truncated));
        assert_eq!(split_wrapped(&[]), Err(DropReason::Truncated));
    }

    #[test]
    fn files_survive_being_written() {
        let text = server().to_text();
        assert!(text.starts_with("-----BEGIN OpenVPN tls-crypt-v2 server key-----\nAAECAwQF"));
        assert!(text.lines().all(|line| line.len() <= 64));
        assert!(ServerKey::parse(&text).is_ok_and(|key| key.0 == server().0));
        let client = ClientKey { key: StaticKey::new([7; KEY_LEN]), wrapped: wrapped(&Metadata::made(1)) };
        let read = ClientKey::parse(&client.to_text()).unwrap();
        assert_eq!((read.key.bytes(), &read.wrapped), (client.key.bytes(), &client.wrapped));
    }

    #[test]
    fn text_that_is_no_key_file_says_why() {
        let server = |text: &str| ServerKey::parse(text).err();
        assert_eq!(server(&encode(&[&[0; 127]], SERVER_LABEL)), Some(KeyFileError::Length));
        assert_eq!(server(&encode(&[&[0; 128]], CLIENT_LABEL)), Some(KeyFileError::Missing(SERVER_LABEL)));
        let strange = encode(&[&[0; 128]], SERVER_LABEL).replace("AAAA", "!AAA");
        assert_eq!(server(&strange), Some(KeyFileError::Encoding));
        let client = |bytes: &[u8]| ClientKey::parse(&encode(&[bytes], CLIENT_LABEL)).err();
        assert_eq!(client(&[0; 255]), Some(KeyFileError::Length));
        assert_eq!(client(&[0; 256]), Some(KeyFileError::Length));
        assert_eq!(client(&[0; 555]), Some(KeyFileError::Length), "it says another length");
    }

    proptest! {
        #[test]
        fn server_unwraps_what_it_wrapped(
            key in proptest::collection::vec(any::<u8>(), KEY_LEN),
            value in proptest::collection::vec(any::<u8>(), 0..MAX_METADATA),
        ) {
            let key = StaticKey::from_slice(&key).unwrap();
            let metadata = Metadata::user(value).unwrap();
            let (unwrapped, told) = server().unwrap::<Aws>(&server().wrap::<Aws>(&key, &metadata).unwrap()).unwrap();
            prop_assert_eq!(unwrapped.bytes(), key.bytes());
            prop_assert_eq!(told, metadata);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(server().unwrap::<Aws>(&bytes).is_err());
            if let Ok((packet, wrapped)) = split_wrapped(&bytes) {
                prop_assert_eq!([packet, wrapped].concat(), bytes);
            }
        }
    }
}
