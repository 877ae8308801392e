//! The private capsules that set up SAs, sent only after both ends named [`super::field::NAME`].
//!
//! ```text
//! SA_INIT        0x2ad17e01   epoch (4)  suite (2)  flags (1)  receive SPI (4)  group (2)
//!                             share length (varint)  share
//! REKEY_REQUEST  0x2ad17e02   epoch (4)
//! ```
//!
//! Both ends send one SA_INIT per epoch, the client first. Group 0 means no key exchange; others are TLS's named groups
//! (RFC 8446 section 4.2.7). A server that wants new keys sends REKEY_REQUEST, which is only a hint: the client starts
//! every epoch.

use bytes::Bytes;

use super::spi::Spi;
use crate::http::fault::Fault;
use crate::sealing::suite::Suite;
use crate::varint;

/// The capsule type of [`SaInit`]; a random number of the private kind, unregistered.
pub const SA_INIT: u64 = 0x2ad1_7e01;

/// The capsule type of a rekey request.
pub const REKEY_REQUEST: u64 = 0x2ad1_7e02;

/// Flag: sequence numbers are extended ones. Always set.
pub const FLAG_EXTENDED_SEQUENCE: u8 = 0x01;

/// Flag: this end answers probes.
pub const FLAG_PROBE_ANSWERS: u8 = 0x02;

/// The longest value of these capsules, a client's share of X25519MLKEM768 in it. A longer one can be refused unread.
pub const MAX_VALUE_LEN: usize = 13 + 2 + 1216;

const TOO_SHORT: Fault = Fault::Malformed("capsule value ends inside a field");

/// A key exchange, by its TLS named group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// X25519 (RFC 7748).
    X25519,
    /// X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem): hybrid with ML-KEM-768.
    X25519MlKem768,
}

impl Group {
    /// Every group, the preferred one first.
    pub const ALL: [Self; 2] = [Self::X25519, Self::X25519MlKem768];

    /// The number of the group.
    pub const fn code(self) -> u16 {
        match self {
            Self::X25519 => 29,
            Self::X25519MlKem768 => 4588,
        }
    }

    /// The group of a number; `None` if it is unknown.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.code() == code)
    }

    /// Bytes of the client's share: a public key, for the hybrid behind an encapsulation key.
    pub const fn client_share_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::X25519MlKem768 => 1184 + 32,
        }
    }

    /// Bytes of the server's share: a public key, for the hybrid behind a ciphertext.
    pub const fn server_share_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::X25519MlKem768 => 1088 + 32,
        }
    }
}

/// One end's part in setting up the SAs of an epoch. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaInit {
    /// The epoch, from 0.
    pub epoch: u32,
    /// The suite, the negotiated one.
    pub suite: Suite,
    /// [`FLAG_EXTENDED_SEQUENCE`] and others; unknown ones are kept, as they are part of what the keys are bound to.
    pub flags: u8,
    /// The index on which this end receives.
    pub spi: Spi,
    /// The key exchange; `None` for an epoch without.
    pub group: Option<Group>,
    /// This end's share in it, empty without one.
    pub share: Bytes,
}

impl SaInit {
    /// Appends the whole capsule to `out`. There is one encoding of each SA_INIT, and the keys are bound to it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut value = Vec::with_capacity(self.share.len().saturating_add(15));
        value.extend_from_slice(&self.epoch.to_be_bytes());
        value.extend_from_slice(&self.suite.code().to_be_bytes());
        value.push(self.flags);
        value.extend_from_slice(&self.spi.get().to_be_bytes());
        value.extend_from_slice(&self.group.map_or(0, Group::code).to_be_bytes());
        varint::encode(self.share.len() as u64, &mut value);
        value.extend_from_slice(&self.share);
        put(SA_INIT, &value, out);
    }

    fn decode(mut value: &[u8]) -> Result<Self, Fault> {
        let value = &mut value;
        let epoch = u32::from_be_bytes(take(value)?);
        let suite = Suite::from_code(u16::from_be_bytes(take(value)?)).ok_or(Fault::Malformed("unknown suite"))?;
        let [flags] = take(value)?;
        let spi = Spi::from_wire(u32::from_be_bytes(take(value)?)).ok_or(Fault::Malformed("spi without class bits"))?;
        let group = match u16::from_be_bytes(take(value)?) {
            0 => None,
            code => Some(Group::from_code(code).ok_or(Fault::Malformed("unknown group"))?),
        };
        let share = share(value, group)?;
        if flags & FLAG_EXTENDED_SEQUENCE == 0 {
            return Err(Fault::Malformed("sequence numbers are not extended"));
        }
        Ok(Self { epoch, suite, flags, spi, group, share })
    }
}

/// The rest of a value as share: of a length that the group has, itself given in its shortest form, and nothing behind
/// it.
fn share(value: &mut &[u8], group: Option<Group>) -> Result<Bytes, Fault> {
    let before = value.len();
    let length = varint::take(value).ok_or(TOO_SHORT)?;
    if before.saturating_sub(value.len()) != varint::encoded_len(length) || u64::try_from(value.len()) != Ok(length) {
        return Err(Fault::Malformed("share length is not that of the rest"));
    }
    let fits = match group {
        None => value.is_empty(),
        Some(group) => [group.client_share_len(), group.server_share_len()].contains(&value.len()),
    };
    if fits { Ok(Bytes::copy_from_slice(value)) } else { Err(Fault::Malformed("share does not fit the group")) }
}

/// A capsule of the ESP carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EspCapsule {
    /// One end's part in an epoch.
    SaInit(SaInit),
    /// The server would like the client to start this epoch.
    RekeyRequest(u32),
}

impl EspCapsule {
    /// Its type on the wire.
    pub const fn kind(&self) -> u64 {
        match self {
            Self::SaInit(_) => SA_INIT,
            Self::RekeyRequest(_) => REKEY_REQUEST,
        }
    }

    /// Reads the value of a capsule; `None` if its type is not one of these.
    ///
    /// # Errors
    /// If the value is cut short, too long, or names what was never negotiated (RFC 9297 section 3.3).
    pub fn decode(kind: u64, mut value: &[u8]) -> Result<Option<Self>, Fault> {
        match kind {
            SA_INIT => SaInit::decode(value).map(Self::SaInit).map(Some),
            REKEY_REQUEST => {
                let epoch = u32::from_be_bytes(take(&mut value)?);
                let whole = value.is_empty().then_some(Some(Self::RekeyRequest(epoch)));
                whole.ok_or(Fault::Malformed("rekey request is too long"))
            }
            _ => Ok(None),
        }
    }

    /// Appends the whole capsule to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::SaInit(init) => init.encode(out),
            Self::RekeyRequest(epoch) => put(REKEY_REQUEST, &epoch.to_be_bytes(), out),
        }
    }
}

fn put(kind: u64, value: &[u8], out: &mut Vec<u8>) {
    varint::encode(kind, out);
    varint::encode(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn take<const N: usize>(value: &mut &[u8]) -> Result<[u8; N], Fault> {
    let (head, rest) = value.split_first_chunk().ok_or(TOO_SHORT)?;
    *value = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn init(epoch: u32, group: Option<Group>) -> SaInit {
        let share = group.map_or_else(Bytes::new, |group| Bytes::from(vec![5; group.client_share_len()]));
        let flags = FLAG_EXTENDED_SEQUENCE | FLAG_PROBE_ANSWERS;
        SaInit { epoch, suite: Suite::Aes256Gcm, flags, spi: Spi::new(2, 0x01_0203).unwrap(), group, share }
    }

    fn value(capsule: &EspCapsule) -> (u64, Vec<u8>) {
        let mut encoded = Vec::new();
        capsule.encode(&mut encoded);
        let mut rest = &encoded[..];
        let kind = varint::take(&mut rest).unwrap();
        assert_eq!(varint::take(&mut rest), Some(rest.len() as u64));
        (kind, rest.to_vec())
    }

    #[test]
    fn sa_init_has_the_documented_layout() {
        let mut encoded = Vec::new();
        init(1, None).encode(&mut encoded);
        let type_and_length = [0xaa, 0xd1, 0x7e, 0x01, 14];
        let value = [0, 0, 0, 1, 0, 1, 3, 0x82, 1, 2, 3, 0, 0, 0];
        assert_eq!(encoded, [&type_and_length[..], &value].concat());
    }

    #[test]
    fn capsules_round_trip() {
        let capsules = [
            EspCapsule::SaInit(init(0, None)),
            EspCapsule::SaInit(init(7, Some(Group::X25519))),
            EspCapsule::SaInit(init(u32::MAX, Some(Group::X25519MlKem768))),
            EspCapsule::RekeyRequest(8),
        ];
        for capsule in capsules {
            let (kind, value) = value(&capsule);
            assert!(value.len() <= MAX_VALUE_LEN);
            assert_eq!(EspCapsule::decode(kind, &value), Ok(Some(capsule)));
            for end in 0..value.len() {
                assert!(EspCapsule::decode(kind, &value[..end]).is_err());
            }
            assert!(EspCapsule::decode(kind, &[&value[..], &[0]].concat()).is_err(), "nothing may follow");
        }
    }

    #[test]
    fn other_capsules_are_not_ours() {
        assert_eq!(EspCapsule::decode(0, &[]), Ok(None));
        assert_eq!(EspCapsule::decode(0x2ad1_7e03, &[1]), Ok(None));
    }

    #[test]
    fn unknown_choices_are_malformed() {
        let (kind, value) = value(&EspCapsule::SaInit(init(0, None)));
        for (place, byte) in [(5, 9), (6, 0x02), (7, 0x42), (12, 1), (13, 1)] {
            let mut value = value.clone();
            value[place] = byte;
            assert!(EspCapsule::decode(kind, &value).is_err(), "byte {place}");
        }
    }

    #[test]
    fn share_length_has_one_form() {
        let (kind, mut value) = value(&EspCapsule::SaInit(init(0, None)));
        value.truncate(13);
        value.extend([0x40, 0]);
        assert!(EspCapsule::decode(kind, &value).is_err());
    }

    proptest! {
        #[test]
        fn what_is_decoded_encodes_to_the_same_bytes(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..60), group in 0_u8..3, request: bool,
        ) {
            let kind = if request { REKEY_REQUEST } else { SA_INIT };
            // Lead most attempts past the first checks.
            for (place, byte) in [(4, 0), (5, 1), (6, 1), (7, 0x80), (11, 0), (12, group * 29), (13, 0)] {
                if let Some(old) = bytes.get_mut(place) {
                    *old = byte;
                }
            }
            if let Ok(Some(capsule)) = EspCapsule::decode(kind, &bytes) {
                prop_assert_eq!(value(&capsule), (kind, bytes));
            }
        }
    }
}
