//! The shell of the ESP carrier: what keeps the SAs of a session alive.

pub mod control;
pub mod key_exchange;
pub mod key_log;

pub use control::{EspControl, EspError, EspSettings, EspSetup, Exporter, exporter_secret};

/// Random bytes of the system.
fn random<const N: usize>() -> [u8; N] {
    adit_program::random::random().expect("the system has randomness: TLS came before")
}
