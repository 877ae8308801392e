//! The shell of the ESP carrier: its cipher, and what keeps the SAs of a session alive.

use aws_lc_rs::rand;

pub mod cipher;
pub mod control;
pub mod key_exchange;
pub mod key_log;

pub use cipher::Cipher;
pub use control::{EspControl, EspError, EspSettings, EspSetup, Exporter, exporter_secret};

/// Random bytes.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system has randomness: TLS came before");
    bytes
}
