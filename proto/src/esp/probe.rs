//! Probes: dummy packets (RFC 4303 section 2.6) whose content shows whether ESP passes, and where the peer is.
//!
//! ```text
//! tag "ADIT" (4)  kind (1)  zero (3)  nonce (16)  zeros to any length
//! ```
//!
//! The receiver of a request returns the nonce in an answer, at the address the request came from. Requests may be
//! padded to try a packet size; answers never are. Any other content of a dummy packet means nothing.

/// Bytes of a probe without padding.
pub const LEN: usize = 24;

/// Bytes of the nonce.
pub const NONCE_LEN: usize = 16;

/// What makes a dummy packet a probe.
const TAG: [u8; 4] = *b"ADIT";

/// Which way a probe goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// To be answered.
    Request,
    /// The answer.
    Answer,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Answer => 2,
        }
    }
}

/// The content of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Which way it goes.
    pub kind: Kind,
    /// What the answer returns; nobody else may be able to guess it.
    pub nonce: [u8; NONCE_LEN],
}

impl Probe {
    /// The answer to this request; `None` if it is an answer itself.
    pub const fn answer(&self) -> Option<Self> {
        match self.kind {
            Kind::Request => Some(Self { kind: Kind::Answer, nonce: self.nonce }),
            Kind::Answer => None,
        }
    }

    /// The content of the dummy packet.
    pub fn encode(&self) -> [u8; LEN] {
        let mut content = [0; LEN];
        let fields = TAG.into_iter().chain([self.kind.code(), 0, 0, 0]).chain(self.nonce);
        for (byte, value) in content.iter_mut().zip(fields) {
            *byte = value;
        }
        content
    }

    /// Fills `content` with the probe and padding; `None` if it is shorter than [`LEN`].
    #[must_use = "nothing is written where there is no room"]
    pub fn encode_padded(&self, content: &mut [u8]) -> Option<()> {
        let (probe, padding) = content.split_first_chunk_mut()?;
        *probe = self.encode();
        padding.fill(0);
        Some(())
    }

    /// Reads the content of a dummy packet; `None` if it is not a probe. Padding is ignored.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let (tag, rest) = content.split_first_chunk::<4>()?;
        let ([kind, _, _, _], rest) = rest.split_first_chunk::<4>()?;
        let nonce = *rest.first_chunk()?;
        let kind = [Kind::Request, Kind::Answer].into_iter().find(|known| known.code() == *kind)?;
        (*tag == TAG).then_some(Self { kind, nonce })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answer_returns_the_nonce_and_is_not_answered() {
        let request = Probe { kind: Kind::Request, nonce: [7; NONCE_LEN] };
        let answer = request.answer().unwrap();
        assert_eq!((answer.kind, answer.nonce), (Kind::Answer, request.nonce));
        assert_eq!(answer.answer(), None);
    }

    #[test]
    fn padded_probe_is_read_and_a_short_or_foreign_one_is_not() {
        let probe = Probe { kind: Kind::Request, nonce: [9; NONCE_LEN] };
        let mut content = vec![0xff; 1400];
        assert_eq!(probe.encode_padded(&mut content[..LEN - 1]), None);
        assert_eq!(probe.encode_padded(&mut content), Some(()));
        assert_eq!((&content[..LEN], &content[LEN..]), (&probe.encode()[..], &[0; 1400 - LEN][..]));
        for len in 0..LEN {
            assert_eq!(Probe::decode(&content[..len]), None);
        }
        assert_eq!(Probe::decode(&content), Some(probe));
        content[4] = 3;
        assert_eq!(Probe::decode(&content), None);
        assert_eq!(Probe::decode(&[0; LEN]), None);
    }

    proptest! {
        #[test]
        fn round_trip(nonce: [u8; NONCE_LEN], request: bool) {
            let kind = if request { Kind::Request } else { Kind::Answer };
            let probe = Probe { kind, nonce };
            prop_assert_eq!(Probe::decode(&probe.encode()), Some(probe));
        }
    }
}
