//! The two halves of what one direction of a sealed path needs: [`Sealer`] for who sends, [`Opener`] for who receives.
//! Neither knows how a datagram is laid out.

use super::aead::{Aead, CipherRefused, NONCE_LEN, TAG_LEN};
use super::counter::{Counter, Usage};
use super::replay::{Arrival, ReplayWindow};
use super::suite::Suite;
use crate::drop_reason::DropReason;

/// The sending direction: a cipher under its key, and the counter.
///
/// It can be shared by the workers of a process, and cannot be copied, stored or restored: whoever starts anew needs
/// new keys.
///
/// ```compile_fail
/// use adit_proto::sealing::direction::Sealer;
/// fn copy<A: Clone>(sealer: &Sealer<A>) -> Sealer<A> { sealer.clone() }
/// ```
pub struct Sealer<A> {
    suite: Suite,
    aead: A,
    counter: Counter,
}

impl<A: Aead> Sealer<A> {
    /// Makes it with a key of [`Suite::key_len`] bytes.
    ///
    /// # Errors
    /// If the cipher does not take the key.
    pub fn new(suite: Suite, key: &[u8]) -> Result<Self, CipherRefused> {
        let counter = Counter::new(suite.last_sequence(), suite.max_blocks());
        Ok(Self { suite, aead: A::new(suite, key)?, counter })
    }

    /// The cipher in use.
    #[inline]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// What was sealed so far.
    pub fn usage(&self) -> Usage {
        self.counter.usage()
    }

    /// Takes numbers for `packets` plaintexts of at most `largest` bytes each. Those that are not used are skipped: the
    /// peer sees a gap, as after loss.
    ///
    /// # Errors
    /// [`DropReason::SequenceExhausted`] if that would pass a hard limit of the suite.
    #[inline]
    pub fn reserve(&self, packets: u32, largest: usize) -> Result<Numbers<'_, A>, DropReason> {
        let blocks = Suite::blocks(largest).saturating_mul(u64::from(packets));
        let numbers = self.counter.reserve(packets, blocks).ok_or(DropReason::SequenceExhausted)?;
        Ok(Numbers { sealer: self, next: numbers.start, end: numbers.end })
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&self, number: u64) {
        self.counter.skip_to(number);
    }
}

/// Numbers of one key that were taken and not used yet.
pub struct Numbers<'a, A> {
    sealer: &'a Sealer<A>,
    next: u64,
    end: u64,
}

impl<'a, A: Aead> Numbers<'a, A> {
    /// How many there are.
    #[inline]
    pub const fn left(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    /// Takes the next one, the first of all being 1.
    ///
    /// # Errors
    /// [`DropReason::SequenceExhausted`] if there is none.
    #[inline]
    pub fn take(&mut self) -> Result<Number<'a, A>, DropReason> {
        if self.next >= self.end {
            return Err(DropReason::SequenceExhausted);
        }
        let number = Number { sealer: self.sealer, value: self.next };
        self.next = self.next.saturating_add(1);
        Ok(number)
    }
}

/// A number of one key, with which one plaintext is sealed.
#[must_use]
pub struct Number<'a, A> {
    sealer: &'a Sealer<A>,
    value: u64,
}

impl<A: Aead> Number<'_, A> {
    /// The number.
    #[inline]
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// Encrypts `body` in place and returns the tag. The nonce must be made of this number and of nothing else that
    /// changes under the key.
    ///
    /// # Errors
    /// [`DropReason::SealFailed`] if the cipher fails; `body` must not be sent then.
    #[inline]
    pub fn seal(
        self,
        nonce: [u8; NONCE_LEN],
        associated_data: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG_LEN], DropReason> {
        self.sealer.aead.seal(nonce, associated_data, body).map_err(|CipherRefused| DropReason::SealFailed)
    }
}

/// What the receiving direction saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InboundCounters {
    /// Datagrams authenticated.
    pub opened: u64,
    /// Of these, those that came after one with a higher number.
    pub late: u64,
    /// Datagrams whose authentication failed.
    pub failed: u64,
}

/// The receiving direction: a cipher under its key, and the window against replay. One worker owns it.
pub struct Opener<A> {
    suite: Suite,
    aead: A,
    window: ReplayWindow,
    counters: InboundCounters,
}

impl<A: Aead> Opener<A> {
    /// Makes it with a key of [`Suite::key_len`] bytes.
    ///
    /// # Errors
    /// If the cipher does not take the key.
    pub fn new(suite: Suite, key: &[u8]) -> Result<Self, CipherRefused> {
        let (window, counters) = (ReplayWindow::default(), InboundCounters::default());
        Ok(Self { suite, aead: A::new(suite, key)?, window, counters })
    }

    /// The cipher in use.
    #[inline]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// What it saw so far.
    #[inline]
    pub const fn counters(&self) -> InboundCounters {
        self.counters
    }

    /// The highest number that was authenticated; 0 before the first.
    #[inline]
    pub const fn newest(&self) -> u64 {
        self.window.newest()
    }

    /// Opens ciphertext and tag in place: checks the window, authenticates and decrypts, and only then moves the window
    /// (RFC 4303 section 3.4.3, RFC 6347 section 4.1.2.6). The plaintext stands where the ciphertext stood.
    ///
    /// # Errors
    /// [`DropReason::SaRetired`] after [`Suite::max_failures`], what [`ReplayWindow::check`] says of the number, and
    /// [`DropReason::AuthenticationFailed`], after which `sealed` holds nothing of use.
    #[inline]
    pub fn open(
        &mut self,
        number: u64,
        nonce: [u8; NONCE_LEN],
        associated_data: &[u8],
        sealed: &mut [u8],
    ) -> Result<Arrival, DropReason> {
        if self.counters.failed >= self.suite.max_failures() {
            return Err(DropReason::SaRetired);
        }
        self.window.check(number)?;
        if self.aead.open(nonce, associated_data, sealed).is_err() {
            self.counters.failed = self.counters.failed.saturating_add(1);
            return Err(DropReason::AuthenticationFailed);
        }
        let arrival = self.window.commit(number)?;
        self.counters.opened = self.counters.opened.saturating_add(1);
        self.counters.late = self.counters.late.saturating_add(u64::from(arrival == Arrival::Late));
        Ok(arrival)
    }

    #[cfg(test)]
    pub(crate) const fn set_failed(&mut self, failed: u64) {
        self.counters.failed = failed;
    }
}
