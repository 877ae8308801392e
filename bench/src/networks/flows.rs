//! TCP connections through the tunnel that go on while something gets in their way.

use std::net::SocketAddr;

use adit_lab::traffic::{Direction, StreamPlan, Streams};
use adit_lab::{Host, INTERNET_V4};
use anyhow::Result;

use super::site::wait;
use crate::interrupt::Interrupt;

/// Bytes a second of each: much more than nothing, and little beside what a tunnel carries.
const RATE: f64 = 1e6;
/// Ports of the host behind the gateway, which nobody else uses.
const PORTS: [u16; 2] = [5_201, 5_202];
/// A connection that has moved so many bytes more is alive: more than lay in buffers on its way.
const ALIVE: u64 = 256 << 10;

/// One connection each way; they end on drop.
#[derive(Debug)]
pub(super) struct Flows([Streams; 2]);

impl Flows {
    /// Opens both from `client` to the host behind the gateway, each at a steady rate.
    ///
    /// # Errors
    /// Where a connection does not come about.
    pub(super) fn start(client: &Host, internet: &Host) -> Result<Self> {
        Self::open(|plan| Streams::start_paced(client, internet, plan, RATE))
    }

    /// The same as fast as they can be, so that their packets are as large as they may be.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn at_full_speed(client: &Host, internet: &Host) -> Result<Self> {
        Self::open(|plan| Streams::start(client, internet, plan))
    }

    fn open(start: impl Fn(&StreamPlan) -> Result<Streams>) -> Result<Self> {
        let one = |port, direction| {
            let server = SocketAddr::from((INTERNET_V4, port));
            start(&StreamPlan { server, connections: 1, direction, congestion: "cubic".to_owned() })
        };
        Ok(Self([one(PORTS[0], Direction::Upload)?, one(PORTS[1], Direction::Download)?]))
    }

    /// How many do not go on.
    ///
    /// # Errors
    /// When interrupted.
    pub(super) fn lost(&self, interrupt: &Interrupt) -> Result<u32> {
        let before = self.received();
        wait(interrupt, || Ok((dead(before, self.received()) == 0).then_some(())))?;
        Ok(dead(before, self.received()))
    }

    /// Bytes that each has moved.
    pub(super) fn received(&self) -> [u64; 2] {
        self.0.each_ref().map(Streams::received)
    }
}

/// How many connections have not moved enough bytes to be alive.
fn dead(before: [u64; 2], now: [u64; 2]) -> u32 {
    now.iter().zip(before).map(|(now, before)| u32::from(now.saturating_sub(before) < ALIVE)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_that_moves_nothing_new_is_dead() {
        assert_eq!(dead([0, 5], [ALIVE, ALIVE + 5]), 0);
        assert_eq!(dead([0, 5], [ALIVE, ALIVE + 4]), 1);
        assert_eq!(dead([7, 5], [7, 5]), 2);
    }
}
