//! How long a tunnel takes to come up, and to come back.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Meter, milliseconds};
use crate::report::model::Reading;
use adit_lab::traffic::Beacon;

/// The gateway's end of the cable, where it is pulled: so the client keeps its addresses and routes.
const CABLE: &str = "eth0";
/// How long the cable is out.
const OUTAGE: Duration = Duration::from_secs(1);
/// Longest wait for a tunnel that comes back.
const PATIENCE: Duration = Duration::from_secs(60);

impl Meter<'_> {
    /// From the start of the client's program, which had connected before, to the first answered echo.
    ///
    /// Nothing of systems whose client cannot be started again: what their first start takes is not the same.
    pub(super) fn connect(&mut self) -> Result<Vec<Reading>> {
        let beacon = self.running.beacon();
        let Some(restart) = self.running.restart_client() else { return Ok(Vec::new()) };
        let time = self.answered(&beacon, restart?.started)?;
        Ok(vec![milliseconds("time", time)])
    }

    /// From the moment a pulled cable is plugged, and from that a gateway is killed and started again at once, to the
    /// next answered echo.
    pub(super) fn reconnect(&mut self) -> Result<Vec<Reading>> {
        let beacon = self.running.beacon();
        let gateway = self.running.gateway.host.clone();
        gateway.set_link(CABLE, false)?;
        self.interrupt.pause(OUTAGE)?;
        let plugged = Instant::now();
        gateway.set_link(CABLE, true)?;
        let mut readings = vec![milliseconds("cable", self.answered(&beacon, plugged)?)];
        if let Some(restart) = self.running.restart_gateway() {
            let restart = restart?;
            let outage = self.answered(&beacon, restart.ended)?;
            readings.push(milliseconds("gateway_restart", outage));
            let after_start = outage.saturating_sub(restart.started.duration_since(restart.ended));
            readings.push(milliseconds("gateway_start", after_start));
        }
        Ok(readings)
    }

    /// From `since` to the first answer to a request sent after it.
    fn answered(&self, beacon: &Beacon, since: Instant) -> Result<Duration> {
        loop {
            self.interrupt.check()?;
            if let Some(answered) = beacon.first_answer(since) {
                return Ok(answered.duration_since(since));
            }
            if since.elapsed() > PATIENCE {
                bail!("no packet passed in {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}
