//! The steps of the demo.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::report::{Entry, PingResult, Report, RoundTrip, TransferResult, microseconds, short};
use crate::interrupt::Interrupt;
use adit_lab::programs::{Client, Gateway, PATIENCE, TUN};
use adit_lab::traffic::{Direction, TcpServer, ping, transfer};
use adit_lab::{Binaries, Host, INTERNET_V4, INTERNET_V6, Lab, Process};

/// Bytes of each TCP transfer: enough for a rate, little enough for a slow machine.
const TRANSFER: u64 = 32 << 20;

/// Echo requests for the round-trip time.
const PINGS: usize = 20;

/// A lab with a gateway and a client.
pub(super) struct Demo {
    // Before the lab: their processes run in it.
    gateway: Gateway,
    client: Client,
    internet: Host,
    before: [String; 2],
    _lab: Lab,
}

impl Demo {
    /// Prepares gateway and client, and notes what their hosts look like.
    pub(super) fn new(mut lab: Lab, binaries: &Binaries) -> Result<Self> {
        let gateway = Gateway::new(&lab.host("gateway")?, binaries);
        let client = Client::new(&lab.host("client")?, binaries);
        let internet = lab.host("internet")?;
        let before = [gateway.host().snapshot()?, client.host().snapshot()?];
        Ok(Self { gateway, client, internet, before, _lab: lab })
    }

    /// From nothing to a connected client.
    pub(super) fn connect(&mut self, report: &mut Report, interrupt: &Interrupt) -> Result<()> {
        // The gateway: keys and configuration, then the program.
        report.step("adit-server init", || {
            interrupt.check()?;
            self.gateway.init()?.success()?;
            Ok((format!("keys and configuration in {}", self.gateway.folder().display()), ()))
        })?;
        report.step("adit-server run", || {
            interrupt.check()?;
            self.gateway.start()?;
            Ok((format!("ready, inner addresses {}", list(&self.gateway.inner_addresses()?)), ()))
        })?;
        // The client: enrolled by an invite, then connected.
        let link = report.step("adit-server invite alice", || {
            interrupt.check()?;
            let link = self.gateway.invite("alice", &[])?;
            let (shown, _secret) = link.split_once('#').context("an invite has a code")?;
            Ok((format!("{shown}#…"), link))
        })?;
        report.step("adit-client join", || {
            interrupt.check()?;
            self.client.join(&link)?.success()?;
            Ok(("key made, certificate received".to_owned(), ()))
        })?;
        report.step("adit-client up", || {
            interrupt.check()?;
            self.client.up()?;
            let status = self.client.status()?;
            let carrier = status.carrier.as_deref().unwrap_or("none");
            Ok((format!("{} on {TUN}, carrier {carrier}", status.state), ()))
        })?;
        self.show_addresses(report)
    }

    fn show_addresses(&self, report: &mut Report) -> Result<()> {
        let addresses = report.step("addresses given", || {
            let addresses = self.client.inner_addresses()?;
            ensure!(!addresses.is_empty(), "the client has no address on {TUN}");
            Ok((list(&addresses), addresses))
        })?;
        report.addresses = addresses.iter().map(ToString::to_string).collect();
        report.routes = report.step("routes into the tunnel", || {
            let routes = self.client.host().routes()?;
            let mine = routes.iter().filter(|route| route.link.as_deref() == Some(TUN));
            // Every IPv6 link has the kernel's own link-local and multicast routes.
            let given = mine.filter(|route| !matches!(route.destination.addr(), IpAddr::V6(a) if a.is_unicast_link_local() || a.is_multicast()));
            let mut shown: Vec<String> = given.map(|route| route.destination.to_string()).collect();
            shown.sort();
            shown.dedup();
            ensure!(!shown.is_empty(), "no route leads into {TUN}");
            Ok((shown.join(", "), shown))
        })?;
        Ok(())
    }

    /// Pings and transfers through the tunnel.
    pub(super) fn measure(&self, report: &mut Report, interrupt: &Interrupt) -> Result<()> {
        let gateways = self.gateway.inner_addresses()?;
        let targets = gateways.into_iter().map(|address| ("gateway", address));
        let internet = [IpAddr::V4(INTERNET_V4), IpAddr::V6(INTERNET_V6)];
        for (name, target) in targets.chain(internet.map(|address| ("internet", address))) {
            let title = format!("ping {name} {target}");
            let result = report.step(&title, || {
                interrupt.check()?;
                let rtt = self.answered(target)?;
                Ok((short(rtt), PingResult { target: target.to_string(), microseconds: microseconds(rtt) }))
            })?;
            report.pings.push(result);
        }
        for (family, address) in [("IPv4", IpAddr::V4(INTERNET_V4)), ("IPv6", IpAddr::V6(INTERNET_V6))] {
            for (direction, label) in [(Direction::Upload, "upload"), (Direction::Download, "download")] {
                let title = format!("TCP {label}, {family}, {} MiB", TRANSFER >> 20);
                let result = report.step(&title, || {
                    interrupt.check()?;
                    self.transferred(address, direction, label, family)
                })?;
                report.transfers.push(result);
            }
        }
        report.round_trip = Some(report.step("round-trip time to internet", || self.round_trip(interrupt))?);
        Ok(())
    }

    /// The time of the first answer, asking until there is one.
    fn answered(&self, target: IpAddr) -> Result<Duration> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(rtt) = ping(self.client.host(), target, Duration::from_secs(1))?.rtt() {
                return Ok(rtt);
            }
            ensure!(Instant::now() < deadline, "{target} does not answer\n{}", self.tails());
        }
    }

    fn transferred(
        &self,
        address: IpAddr,
        direction: Direction,
        label: &'static str,
        family: &'static str,
    ) -> Result<(String, TransferResult)> {
        let server = TcpServer::start(&self.internet, address)?;
        let done = transfer(self.client.host(), server.address(), direction, TRANSFER).with_context(|| self.tails())?;
        ensure!(done.is_intact(), "the checksums of what was sent and what arrived differ");
        let seen = server.peers();
        let own = self.client.inner_addresses()?;
        ensure!(seen.iter().all(|peer| !own.contains(&peer.ip())), "the client's inner address was seen outside");
        let rate = done.megabits_per_second();
        let sha256 = done.checksum();
        let detail = format!("{rate:.0} Mbit/s, sha256 {}… equal at both ends", sha256.get(..12).unwrap_or_default());
        let bytes = done.bytes;
        Ok((detail, TransferResult { direction: label, family, bytes, megabits_per_second: rate, sha256 }))
    }

    fn round_trip(&self, interrupt: &Interrupt) -> Result<(String, RoundTrip)> {
        let mut times = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            interrupt.check()?;
            times.push(self.answered(INTERNET_V4.into())?);
        }
        times.sort();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        let (min, median, max) = (at(0), at(PINGS / 2), at(PINGS - 1));
        let detail = format!("min {}, median {}, max {}", short(min), short(median), short(max));
        let [min_us, median_us, max_us] = [min, median, max].map(microseconds);
        Ok((detail, RoundTrip { count: PINGS, min_us, median_us, max_us }))
    }

    /// How a person gets a shell in each host.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let own_namespace = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295"));
        let user = if own_namespace { " --user --preserve-credentials" } else { "" };
        let entry = |host: &Host| Entry {
            host: host.name().to_owned(),
            command: format!("nsenter --target {}{user} --net --mount --uts sh", host.pid()),
        };
        [self.client.host(), self.gateway.host(), &self.internet].map(entry).into()
    }

    /// Stops both programs and checks that their hosts are as before.
    pub(super) fn take_down(&mut self, report: &mut Report) -> Result<()> {
        report.step("stop the client", || {
            let code = self.client.stop()?;
            ensure!(code == 0, "adit-client left with exit code {code}");
            Ok(("exit code 0".to_owned(), ()))
        })?;
        report.step("stop the gateway", || {
            let code = self.gateway.stop()?;
            ensure!(code == 0, "adit-server left with exit code {code}");
            Ok(("exit code 0".to_owned(), ()))
        })?;
        report.step("nothing is left", || {
            let [gateway, client] = &self.before;
            as_before(self.gateway.host(), gateway)?;
            as_before(self.client.host(), client)?;
            Ok(("links, addresses, routes, rules, sysctls, nftables and resolver as before".to_owned(), ()))
        })
    }

    /// What both programs said last.
    fn tails(&self) -> String {
        let processes = [self.gateway.process(), self.client.process()];
        processes.into_iter().flatten().map(Process::tail).collect()
    }
}

/// Fails with the first difference unless the host soon looks as it did.
fn as_before(host: &Host, before: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let now = host.snapshot()?;
        if now == before {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let differs = |(a, b): &(&str, &str)| a != b;
            let (was, is) = before.lines().zip(now.lines()).find(differs).unwrap_or(("(end)", "(end)"));
            bail!("{} is not as before\n  before: {was}\n  now:    {is}", host.name());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
