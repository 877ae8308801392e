//! The security parameters index (RFC 4303 section 2.1), laid out so that the kernel can steer by it.
//!
//! ```text
//! bit 31 30   29 … 24   23 … 0
//!      1  0   worker    random
//! ```
//!
//! The two class bits put the first byte of a datagram in 0x80–0xBF, which QUIC version 1 never uses as long as neither
//! end greases the QUIC bit (RFC 9443 section 2, RFC 9287). They also keep clear of the reserved values 0–255 and of
//! the non-ESP marker (RFC 3948 section 2.2).

/// Number of workers an index can name; workers are numbered from 0.
pub const WORKERS: u8 = 64;

const CLASS: u32 = 0x8000_0000;
const CLASS_MASK: u32 = 0xc000_0000;
const WORKER_SHIFT: u32 = 24;
const RANDOM_MASK: u32 = 0x00ff_ffff;

/// How often [`Spi::choose`] draws before it gives up. With a quarter of a worker's 2^24 values taken, all draws fail
/// once in 2^128.
const DRAWS: usize = 64;

/// An index with the class bits of ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(u32);

impl Spi {
    /// Makes the index of an SA that `worker` receives; of `random` the low 24 bits count. `None` if there is no such
    /// worker.
    pub const fn new(worker: u8, random: u32) -> Option<Self> {
        if worker >= WORKERS {
            return None;
        }
        Some(Self(CLASS | (worker as u32) << WORKER_SHIFT | random & RANDOM_MASK))
    }

    /// Draws from `random` until it finds an index of `worker` that is not `taken`; `None` if there is no such worker,
    /// or if all draws failed, as they do when its range is nearly full.
    ///
    /// `taken` has to name every SA of the process, old epochs and foreign protocols included.
    pub fn choose(worker: u8, mut random: impl FnMut() -> u32, taken: impl Fn(Self) -> bool) -> Option<Self> {
        (0..DRAWS).find_map(|_draw| Self::new(worker, random()).filter(|&spi| !taken(spi)))
    }

    /// Checks a number that came from the wire or from a peer; `None` without the class bits.
    pub const fn from_wire(number: u32) -> Option<Self> {
        if number & CLASS_MASK == CLASS { Some(Self(number)) } else { None }
    }

    /// The index as it stands in front of a datagram.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The worker that receives this SA, below [`WORKERS`]. Only the receiver gives these bits a meaning.
    pub const fn worker(self) -> u8 {
        let [first, ..] = self.0.to_be_bytes();
        first & 0x3f
    }
}

impl std::fmt::Display for Spi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether an index begins with this byte.
    fn is_esp(first_byte: u8) -> bool {
        Spi::from_wire(u32::from_be_bytes([first_byte, 0, 0, 0])).is_some()
    }

    #[test]
    fn first_byte_tells_esp_from_quic() {
        assert!((0..=u8::MAX).all(|byte| is_esp(byte) == (0x80..=0xbf).contains(&byte)));
        // Short and long headers of QUIC version 1 (RFC 9000 section 17), STUN, DTLS, the NAT keep-alive of RFC 3948.
        assert!([0x40, 0x7f, 0xc0, 0xff, 0x00, 0x16, 0xff].iter().all(|&byte| !is_esp(byte)));
    }

    #[test]
    fn every_worker_can_be_read_back() {
        for worker in 0..WORKERS {
            let spi = Spi::new(worker, u32::MAX).unwrap();
            assert_eq!(spi.worker(), worker);
            assert!(is_esp(spi.get().to_be_bytes()[0]));
            assert_eq!(Spi::from_wire(spi.get()), Some(spi));
        }
        assert_eq!(Spi::new(WORKERS, 0), None);
    }

    #[test]
    fn number_without_class_bits_is_refused() {
        for number in [0, 255, 0x4000_0000, 0x7fff_ffff, 0xc000_0000, u32::MAX] {
            assert_eq!(Spi::from_wire(number), None);
        }
    }

    #[test]
    fn taken_index_is_not_chosen_again() {
        let mut numbers = [7, 7, 8].into_iter();
        let taken = Spi::new(3, 7).unwrap();
        assert_eq!(Spi::choose(3, || numbers.next().unwrap(), |spi| spi == taken), Spi::new(3, 8));
        assert_eq!(Spi::choose(3, || 7, |spi| spi == taken), None, "a full range ends the search");
        assert_eq!(Spi::choose(WORKERS, || 7, |_| false), None);
    }

    #[test]
    fn display_is_what_wireshark_shows() {
        assert_eq!(Spi::new(1, 0x2a).unwrap().to_string(), "0x8100002a");
    }

    proptest! {
        #[test]
        fn any_random_part_gives_an_esp_datagram(worker in 0..WORKERS, random: u32) {
            let spi = Spi::new(worker, random).unwrap();
            prop_assert!(is_esp(spi.get().to_be_bytes()[0]) && spi.get() > 255);
        }
    }
}
