//! The receiving half: opens datagrams in place.

use std::collections::VecDeque;
use std::ops::Range;

use super::keys::{DirectionKeys, EpochSecret};
use super::outbound::{epoch_associated, epoch_nonce, v2_associated, v2_nonce};
use super::{EPOCH_NUMBER_LEN, NUMBER_LEN, PREFACE_LEN, Preface};
use crate::drop_reason::DropReason;
use crate::openvpn::negotiation::Format;
use crate::openvpn::wire::KeyId;
use crate::sealing::aead::{Aead, CipherRefused, NONCE_LEN, TAG_LEN};
use crate::sealing::direction::{InboundCounters, Opener};
use crate::sealing::replay::Arrival;

/// How many epochs a peer may be ahead of what came last, as in openvpn 2.7.
const AHEAD: u16 = 4;

/// An authenticated datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where in the datagram the plaintext stands.
    pub range: Range<usize>,
    /// Whether it is the newest.
    pub arrival: Arrival,
}

/// The receiving direction under the keys of one key id. One worker owns it.
pub struct Inbound<A> {
    key: KeyId,
    receiver: Receiver<A>,
}

enum Receiver<A> {
    V2(Box<Keyed<A>>),
    Epoch(Epochs<A>),
}

/// A cipher under its key.
struct Keyed<A> {
    epoch: u16,
    iv: [u8; NONCE_LEN],
    opener: Opener<A>,
}

impl<A: Aead> Keyed<A> {
    fn new(keys: &DirectionKeys) -> Result<Self, CipherRefused> {
        Ok(Self { epoch: keys.epoch, iv: keys.iv, opener: Opener::new(keys.suite, keys.key())? })
    }
}

impl<A: Aead> Inbound<A> {
    /// Makes one for data v2 and consumes the keys.
    ///
    /// # Errors
    /// If the cipher does not take the key, or the keys are an epoch's.
    pub fn v2(keys: DirectionKeys, key: KeyId) -> Result<Self, CipherRefused> {
        match keys.format {
            Format::V2 => Ok(Self { key, receiver: Receiver::V2(Box::new(Keyed::new(&keys)?)) }),
            Format::Epoch => Err(CipherRefused),
        }
    }

    /// Makes one for the epoch format, and makes the keys of later epochs as they come.
    ///
    /// # Errors
    /// If the cipher does not take the key.
    pub fn epochs(first: EpochSecret, key: KeyId) -> Result<Self, CipherRefused> {
        let known = VecDeque::from([Keyed::new(&first.keys())?]);
        let epochs = Epochs {
            current: first.epoch(),
            former: first.epoch(),
            known,
            furthest: first,
            counters: InboundCounters::default(),
        };
        Ok(Self { key, receiver: Receiver::Epoch(epochs) })
    }

    /// What it saw so far.
    pub fn counters(&self) -> InboundCounters {
        match &self.receiver {
            Receiver::V2(keyed) => keyed.opener.counters(),
            Receiver::Epoch(epochs) => {
                epochs.known.iter().fold(epochs.counters, |sum, keyed| add(sum, keyed.opener.counters()))
            }
        }
    }

    /// The epoch of the newest datagram; 0 in data v2. What is sent has to be of no earlier one.
    pub const fn epoch(&self) -> u16 {
        match &self.receiver {
            Receiver::V2(_) => 0,
            Receiver::Epoch(epochs) => epochs.current,
        }
    }

    /// Opens a datagram in place, as [`Opener::open`] does.
    ///
    /// # Errors
    /// Why it must be dropped, in silence. It holds nothing of use then.
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, DropReason> {
        if Preface::parse(datagram)?.key != self.key {
            return Err(DropReason::UnknownSpi);
        }
        match &mut self.receiver {
            Receiver::V2(keyed) => open_v2(keyed, datagram),
            Receiver::Epoch(epochs) => epochs.open(datagram),
        }
    }
}

/// The tag stands in front, and ciphers want it behind: the ciphertext moves forward, over it.
fn open_v2<A: Aead>(keyed: &mut Keyed<A>, datagram: &mut [u8]) -> Result<Opened, DropReason> {
    let (preface, rest) = datagram.split_first_chunk_mut::<PREFACE_LEN>().ok_or(DropReason::Truncated)?;
    let (number, sealed) = rest.split_first_chunk_mut::<NUMBER_LEN>().ok_or(DropReason::Truncated)?;
    let tag = *sealed.first_chunk::<TAG_LEN>().ok_or(DropReason::Truncated)?;
    sealed.copy_within(TAG_LEN.., 0);
    *sealed.last_chunk_mut().ok_or(DropReason::Truncated)? = tag;
    let (nonce, associated) = (v2_nonce(*number, keyed.iv), v2_associated(*preface, *number));
    let arrival = keyed.opener.open(u32::from_be_bytes(*number).into(), nonce, &associated, sealed)?;
    Ok(Opened { range: plaintext(PREFACE_LEN.saturating_add(NUMBER_LEN), sealed.len()), arrival })
}

/// Where the plaintext of ciphertext and tag stands, which begin at `start`.
const fn plaintext(start: usize, sealed: usize) -> Range<usize> {
    start..start.saturating_add(sealed.saturating_sub(TAG_LEN))
}

/// The epochs whose keys are known: the current one, those that came to an end last, and those that a datagram has
/// named.
struct Epochs<A> {
    current: u16,
    /// The current one before; what is older is forgotten.
    former: u16,
    /// In order, up to `furthest`.
    known: VecDeque<Keyed<A>>,
    furthest: EpochSecret,
    /// Of epochs that are forgotten.
    counters: InboundCounters,
}

impl<A: Aead> Epochs<A> {
    fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, DropReason> {
        let (preface, rest) = datagram.split_first_chunk_mut::<PREFACE_LEN>().ok_or(DropReason::Truncated)?;
        let (place, sealed) = rest.split_first_chunk_mut::<EPOCH_NUMBER_LEN>().ok_or(DropReason::Truncated)?;
        if sealed.len() < TAG_LEN {
            return Err(DropReason::Truncated);
        }
        let [e0, e1, counter @ ..] = *place;
        let epoch = u16::from_be_bytes([e0, e1]);
        let counter = counter.iter().fold(0_u64, |counter, byte| counter << u8::BITS | u64::from(*byte));
        let keyed = self.keyed(epoch)?;
        let (nonce, associated) = (epoch_nonce(*place, keyed.iv), epoch_associated(*preface, *place));
        let arrival = keyed.opener.open(counter, nonce, &associated, sealed)?;
        let range = plaintext(PREFACE_LEN.saturating_add(EPOCH_NUMBER_LEN), sealed.len());
        let arrival = if epoch < self.current { Arrival::Late } else { arrival };
        if epoch > self.current {
            self.advance(epoch);
        }
        Ok(Opened { range, arrival })
    }

    /// The keys of an epoch, which are made if it is not too far ahead. A forged number makes them at most once.
    fn keyed(&mut self, epoch: u16) -> Result<&mut Keyed<A>, DropReason> {
        if epoch > self.current.saturating_add(AHEAD) {
            return Err(DropReason::UnknownEpoch);
        }
        while self.furthest.epoch() < epoch {
            self.furthest = self.furthest.next().ok_or(DropReason::UnknownEpoch)?;
            let keyed = Keyed::new(&self.furthest.keys()).map_err(|CipherRefused| DropReason::UnknownEpoch)?;
            self.known.push_back(keyed);
        }
        self.known.iter_mut().find(|keyed| keyed.epoch == epoch).ok_or(DropReason::UnknownEpoch)
    }

    fn advance(&mut self, epoch: u16) {
        (self.former, self.current) = (self.current, epoch);
        while let Some(old) = self.known.pop_front_if(|keyed| keyed.epoch < self.former) {
            self.counters = add(self.counters, old.opener.counters());
        }
    }
}

const fn add(sum: InboundCounters, more: InboundCounters) -> InboundCounters {
    InboundCounters {
        opened: sum.opened.saturating_add(more.opened),
        late: sum.late.saturating_add(more.late),
        failed: sum.failed.saturating_add(more.failed),
    }
}
