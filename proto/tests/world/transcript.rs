//! Everything that happened, in one number, so that two runs of one seed can be compared.

use std::fmt::{self, Debug, Write};

/// FNV-1a over all that was noted.
pub(crate) struct Transcript(u64);

impl Default for Transcript {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Transcript {
    pub(crate) const fn digest(&self) -> u64 {
        self.0
    }

    pub(crate) fn note(&mut self, what: &dyn Debug) {
        write!(self, "{what:?}").expect("a number takes everything");
    }

    pub(crate) fn note_bytes(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
}

impl Write for Transcript {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.note_bytes(text.as_bytes());
        Ok(())
    }
}
