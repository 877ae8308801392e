//! Doubles and worlds for the tests of this crate and of the crates above. Only there with the feature `testing`, which
//! no program has.

#![allow(missing_docs, reason = "these are tests: names say what things are, and docs say what names do not")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test whose set-up fails has failed")]

pub mod forgery;
pub mod stream;
pub mod world;

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use crate::carrier::Carrier;
use crate::carrier::counters::Counters;
use crate::packet_buffer::PacketBuffer;

/// A carrier of a connection that keeps what it is given, and counts it as sent.
#[derive(Default)]
pub struct Keeper {
    pub packets: Mutex<Vec<Vec<u8>>>,
    pub mtu: AtomicU16,
    counters: Arc<Counters>,
}

impl Keeper {
    /// A carrier of packets of at most `mtu` bytes.
    pub fn new(mtu: u16) -> Self {
        Self { mtu: mtu.into(), ..Self::default() }
    }
}

impl Carrier for Keeper {
    fn name(&self) -> &'static str {
        "quic"
    }

    fn mtu(&self) -> u16 {
        self.mtu.load(Ordering::Relaxed)
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn send(&self, packets: &mut Vec<PacketBuffer>) {
        let mut kept = self.packets.lock().unwrap();
        for packet in packets.drain(..) {
            self.counters.count_tx(1, packet.packet().len() as u64);
            kept.push(packet.packet().to_vec());
        }
    }
}
