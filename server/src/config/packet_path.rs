//! How packets travel: the ESP carrier and the workers.

use std::num::NonZeroUsize;

use adit_net::carrier::esp::EspSettings;
use adit_net::worker;

/// Most threads of a kind that 0 makes: where measurements end.
const MOST_BY_CORES: usize = 16;

/// The `esp` carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspConfig {
    /// Whether clients that can use it may.
    pub enabled: bool,
    /// What is permitted, the preferred suite first (never none), and when a session's keys are replaced.
    pub permitted: EspSettings,
}

impl EspConfig {
    /// What clients may choose from; `None` if the carrier is off.
    #[must_use]
    pub fn settings(&self) -> Option<EspSettings> {
        self.enabled.then(|| self.permitted.clone())
    }
}

/// The threads that move packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkersConfig {
    /// How many; 0 means one per core, but not more than 16.
    pub count: usize,
    /// How they work.
    pub settings: worker::Settings,
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
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrier_that_is_off_has_no_settings() {
        let on = EspConfig { enabled: true, permitted: EspSettings::default() };
        assert_eq!(on.settings(), Some(EspSettings::default()));
        assert_eq!(EspConfig { enabled: false, ..on }.settings(), None);
    }

    #[test]
    fn threads_are_as_many_as_asked_for_or_as_there_are_cores() {
        let workers = WorkersConfig {
            count: 0,
            settings: worker::Settings { yields: 20 },
            tun_offload: true,
            udp_offload: true,
            quic_threads: 0,
        };
        assert!((1..=MOST_BY_CORES).contains(&workers.threads()));
        assert_eq!(WorkersConfig { count: 40, ..workers }.threads(), 40);
        assert!((1..=MOST_BY_CORES.min(cores())).contains(&workers.quic_threads()));
        assert_eq!(WorkersConfig { quic_threads: 40, ..workers }.quic_threads(), 40);
    }
}
