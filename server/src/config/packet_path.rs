//! How packets travel: the ESP carrier and the workers.

use std::num::NonZeroUsize;
use std::time::Duration;

use adit_net::carrier::esp::EspSettings;
use adit_net::worker;
use adit_proto::esp::field::Offer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::suite::Suite;

/// Most threads of a kind that 0 makes: where measurements end.
const MOST_BY_CORES: usize = 16;

/// The `esp` carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspConfig {
    /// Whether clients that can use it may.
    pub enabled: bool,
    /// Permitted suites, the preferred one first; never empty.
    pub suites: Vec<Suite>,
    /// Whether both ends may leave inner checksums to the tunnel's own authentication.
    pub vouched: bool,
    /// How long a session's keys are used.
    pub rekey_after: Duration,
    /// Packets sent to a client after which a session's keys are replaced.
    pub rekey_packets: u64,
}

impl EspConfig {
    /// What clients may choose from; `None` if the carrier is off.
    #[must_use]
    pub fn settings(&self) -> Option<EspSettings> {
        let Self { enabled, ref suites, vouched, rekey_after, rekey_packets } = *self;
        let offer = Offer { suites: suites.clone(), vouched, ..Offer::default() };
        let policy = RekeyPolicy { packets: rekey_packets, after: rekey_after, ..RekeyPolicy::default() };
        enabled.then_some(EspSettings { offer, policy })
    }
}

/// The threads that move packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkersConfig {
    /// How many; 0 means one per core, but not more than 16.
    pub count: usize,
    /// How often a worker without work yields before it sleeps.
    pub yields: u32,
    /// Whether the kernel and the TUN device exchange superpackets.
    pub tun_offload: bool,
    /// Whether the kernel segments and joins datagrams.
    pub udp_offload: bool,
    /// How many threads serve connections, and what goes by `quic`; 0 means half as many as there are cores, but not
    /// more than 16.
    pub quic_threads: usize,
}

impl WorkersConfig {
    /// How many workers there are on this host.
    #[must_use]
    pub fn threads(&self) -> usize {
        if self.count == 0 { cores().min(MOST_BY_CORES) } else { self.count }
    }

    /// How many threads serve connections on this host.
    #[must_use]
    pub fn quic_threads(&self) -> usize {
        if self.quic_threads == 0 { cores().div_ceil(2).min(MOST_BY_CORES) } else { self.quic_threads }
    }

    /// How they work.
    #[must_use]
    pub fn settings(&self) -> worker::Settings {
        worker::Settings { yields: self.yields }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrier_that_is_off_has_no_settings() {
        let on = EspConfig {
            enabled: true,
            suites: vec![Suite::ChaCha20Poly1305],
            vouched: false,
            rekey_after: Duration::from_secs(1),
            rekey_packets: 1024,
        };
        let EspSettings { offer, policy } = on.settings().unwrap();
        assert_eq!((offer.suites, offer.vouched), (vec![Suite::ChaCha20Poly1305], false));
        assert_eq!(offer.groups, Offer::default().groups);
        assert_eq!((policy.after, policy.packets), (Duration::from_secs(1), 1024));
        assert_eq!(EspConfig { enabled: false, ..on }.settings(), None);
    }

    #[test]
    fn threads_are_as_many_as_asked_for_or_as_there_are_cores() {
        let workers = WorkersConfig { count: 0, yields: 20, tun_offload: true, udp_offload: true, quic_threads: 0 };
        assert!((1..=MOST_BY_CORES).contains(&workers.threads()));
        assert_eq!(WorkersConfig { count: 40, ..workers }.threads(), 40);
        assert!((1..=MOST_BY_CORES.min(cores())).contains(&workers.quic_threads()));
        assert_eq!(WorkersConfig { quic_threads: 40, ..workers }.quic_threads(), 40);
    }
}
