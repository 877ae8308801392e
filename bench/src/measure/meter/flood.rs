//! One TCP connection while a stranger floods the gateway's port with datagrams that are none of its sessions'.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use adit_lab::traffic::{Direction, Flood, Streams, Volley};
use adit_lab::{Feature, GATEWAY_V4, Host};
use adit_netem::random::Random;
use anyhow::{Context as _, Result};

use super::{Meter, Outcome, gigabits, reading};

/// The gateway's port.
const PORT: SocketAddr = SocketAddr::new(IpAddr::V4(GATEWAY_V4), 443);
/// One beside it, where somebody listens and nobody reads.
const BESIDE: SocketAddr = SocketAddr::new(IpAddr::V4(GATEWAY_V4), 9);
/// Datagrams a second.
const RATE: u32 = 50_000;
/// Their sizes in bytes.
const SIZES: [usize; 4] = [64, 200, 576, 1_316];
/// The stranger's link; its datagrams leave one by one, as over a network card that cannot segment.
const LINK: &str = "eth0";
const ONE_BY_ONE: [Feature; 1] = [("tx-udp-segmentation", false)];

impl Meter<'_> {
    /// The rate of one upload under a flood on the gateway's port, and under the same flood beside it. What the flood
    /// costs by itself, which is much where the stranger and the gateway share their processors, is in both.
    pub(super) fn flooded(&mut self) -> Result<Outcome> {
        // Only Adit tells a carrier, and only Adit is sure to listen there.
        if self.running.carrier().is_none() {
            return Ok(Outcome::default());
        }
        let stranger = self.running.stranger()?;
        stranger.set_features(LINK, &ONE_BY_ONE)?;
        let sink = self.running.gateway.host.run(|| UdpSocket::bind(BESIDE)).context("bind a UDP socket")?;
        let streams = self.streams(1, Direction::Upload)?;
        let beside = self.rate_under(&stranger, BESIDE, &streams)?;
        let rate = self.rate_under(&stranger, PORT, &streams)?;
        drop(sink);
        let readings =
            [("rate", "Gbit/s", rate), ("rate_beside", "Gbit/s", beside), ("left", "%", 100.0 * rate / beside)];
        Ok(readings.map(|(metric, unit, value)| reading(metric, unit, value)).to_vec().into())
    }

    /// Gbit/s that arrive of `streams` while a flood goes to `target`.
    fn rate_under(&self, stranger: &Host, target: SocketAddr, streams: &Streams) -> Result<f64> {
        let _flood = Flood::start(stranger, target, volleys(), RATE)?;
        self.interrupt.pause(self.effort.warm_up)?;
        let (start, before) = (Instant::now(), streams.received());
        self.interrupt.pause(self.effort.duration)?;
        Ok(gigabits(streams.received() - before, start.elapsed()))
    }
}

/// Datagrams that begin as those of ESP do, and have nothing else in common with them.
fn volleys() -> Vec<Volley> {
    let mut random = Random::new(1, "flood");
    let mut fill = |datagram: &mut [u8]| {
        for bytes in datagram.chunks_mut(8) {
            let noise = random.draw().to_be_bytes();
            bytes.iter_mut().zip(noise).for_each(|(byte, noise)| *byte = noise);
        }
        if let Some(first) = datagram.first_mut() {
            *first = *first & 0x3f | 0x80;
        }
    };
    SIZES.map(|size| Volley::new(size, &mut fill)).to_vec()
}
