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

/// One connection each way, at a steady rate; they end on drop.
#[derive(Debug)]
pub(super) struct Flows([Streams; 2]);

impl Flows {
    /// Opens both from `client` to the host behind the gateway.
    ///
    /// # Errors
    /// Where a connection does not come about.
    pub(super) fn start(client: &Host, internet: &Host) -> Result<Self> {
        let start = |port, direction| {
            let server = SocketAddr::from((INTERNET_V4, port));
            let plan = StreamPlan { server, connections: 1, direction, congestion: "cubic".to_owned() };
            Streams::start_paced(client, internet, &plan, RATE)
        };
        Ok(Self([start(PORTS[0], Direction::Upload)?, start(PORTS[1], Direction::Download)?]))
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

    fn received(&self) -> [u64; 2] {
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
