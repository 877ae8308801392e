//! A stranger interferes by ip(8) and sysctls, in a network namespace of its own.

mod events;
mod gateway;
mod world;

use std::fs;
use std::time::Duration;

use adit_net::tun::Tun;
use adit_proto::mark::Mark;
use adit_testing::namespace::{in_namespace_async, ip};
use adit_testing::{PATIENCE, eventually};

use super::*;
use crate::error::HostError;
use crate::netlink::{Family, LinkSettings, Route, RouteTarget, Rule};
use crate::{HostOptions, SystemBus, sysctl};

const TABLE: u32 = 44_311;
const RP_FILTER: &str = "net.ipv4.conf.all.rp_filter";
const UP: LinkSettings = LinkSettings { mtu: Some(1400), up: Some(true), gso_max_segs: Some(45) };

/// The host with a device `adit0` and all that a full tunnel sets.
struct Host {
    device: Option<Tun>,
    changes: HostChanges,
    _directory: tempfile::TempDir,
}

impl Host {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let resolv_conf = directory.path().join("resolv.conf");
        fs::write(&resolv_conf, "nameserver 192.0.2.53\n").unwrap();
        let options = HostOptions { resolv_conf, bus: SystemBus::Absent, ..HostOptions::default() };
        let changes = HostChanges::open_with(&directory.path().join("journal"), options).await.unwrap();
        let device = Tun::create("adit0", 1, true).unwrap();
        // A device that was up once never looks like a new one again.
        ["up", "down"].iter().for_each(|state| ip(&format!("link set adit0 {state}")));
        Self { device: Some(device), changes, _directory: directory }
    }

    async fn tunnelled() -> Self {
        let mut host = Self::new().await;
        host.set_up().await;
        host
    }

    async fn set_up(&mut self) {
        let changes = &mut self.changes;
        changes.set_sysctl(RP_FILTER, "2").await.unwrap();
        changes.set_link("adit0", UP).await.unwrap();
        for address in ["10.64.3.2/32", "fd00::2/128"] {
            changes.add_address("adit0", address.parse().unwrap()).await.unwrap();
        }
        for prefix in ["0.0.0.0/0", "::/0"] {
            for (target, metric) in [(RouteTarget::Unreachable, 200), (RouteTarget::Link("adit0".into()), 100)] {
                let route = Route { table: TABLE, prefix: prefix.parse().unwrap(), target, metric: Some(metric) };
                changes.add_route(&route).await.unwrap();
            }
        }
        for family in [Family::V4, Family::V6] {
            let rule = Rule { family, unless: Mark::CLIENT, table: TABLE, priority: 5300 };
            changes.add_rule(&rule).await.unwrap();
        }
        appears("local fd00::2 dev adit0").await;
    }

    /// Lets a stranger do one thing; expects it to be found and mended in one look, and all to be well in the next.
    async fn mends(&mut self, done: &str, guard: &str) {
        let before = picture();
        ip(done);
        assert_ne!(picture(), before, "ip {done} changes something");
        let reports = self.changes.hold().await;
        let report = reports.iter().find(|report| report.guard == guard);
        assert_eq!(report.map(|report| report.state), Some(GuardState::Mended), "ip {done}: {reports:?}");
        becomes(&before, &format!("after `ip {done}` everything is as before")).await;
        let times = report.map(|report| report.times);
        let again = self.changes.hold().await;
        let again = again.iter().find(|report| report.guard == guard).map(|report| report.times);
        assert_eq!(again, times, "ip {done}: nothing is left to mend");
    }
}

/// What ip(8) shows of the host, without what the kernel counts or makes of its own accord.
fn picture() -> String {
    let ip = |arguments: &str| {
        let output = std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = [
        ip("-d -o link"),
        ip("-o address"),
        ip("-4 route show table all"),
        ip("-6 route show table all"),
        ip("-4 rule"),
        ip("-6 rule"),
    ];
    // Link-local addresses are made anew, from random numbers, each time a device comes up. The kernel keeps a route
    // to an address that was limited in time, until that is over.
    let kept = |line: &&str| !["fe80:", "ff00::/8", " expires "].iter().any(|part| line.contains(part));
    shown.concat().lines().filter(kept).fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn on_host(test: impl AsyncFnOnce(&mut Host) + Send + 'static) {
    in_namespace_async(|| async { test(&mut Host::tunnelled().await).await });
}

#[test]
fn a_host_that_is_left_alone_has_nothing_to_report() {
    on_host(async |host: &mut Host| {
        let before = picture();
        assert_eq!(host.changes.hold().await, []);
        assert_eq!(picture(), before);
    });
}

#[test]
fn rules_routes_and_addresses_are_put_back() {
    on_host(async |host: &mut Host| {
        host.mends("rule del pref 5300", "IPv4 rule 5300").await;
        host.mends("-6 rule del pref 5300", "IPv6 rule 5300").await;
        host.mends("route flush table 44311", "IPv4 routes of table 44311").await;
        host.mends("-6 route del default dev adit0 table 44311", "IPv6 routes of table 44311").await;
        host.mends("route del unreachable default table 44311", "IPv4 routes of table 44311").await;
        host.mends("address flush dev adit0 to 10.64.3.2", "addresses of adit0").await;
        host.mends("address del fd00::2/128 dev adit0", "addresses of adit0").await;
    });
}

#[test]
fn what_takes_the_place_of_a_route_is_replaced() {
    on_host(async |host: &mut Host| {
        ip("link add other type veth peer name other-end");
        ip("link set other up");
        host.mends("route replace default dev other table 44311 metric 100", "IPv4 routes of table 44311").await;
        host.mends("address change fd00::2/128 dev adit0 valid_lft 900 preferred_lft 0", "addresses of adit0").await;
    });
}

#[test]
fn a_link_is_set_up_again_with_all_that_leads_through_it() {
    on_host(async |host: &mut Host| {
        host.mends("link set adit0 down", "link adit0").await;
        host.mends("link set adit0 mtu 9000", "link adit0").await;
        host.mends("link set adit0 name elsewhere", "link adit0").await;
    });
}

#[test]
fn a_setting_is_put_back_and_the_strangers_value_is_restored() {
    on_host(async |host: &mut Host| {
        sysctl::write(RP_FILTER, "1").unwrap();
        let [report] = host.changes.hold().await.try_into().unwrap();
        let expected = "was set to 1 by another program, and put back";
        assert_eq!((report.guard, report.reason.as_str()), (format!("sysctl {RP_FILTER}"), expected));
        assert_eq!(sysctl::read(RP_FILTER).unwrap(), "2");
        host.changes.undo().await.unwrap();
        assert_eq!(sysctl::read(RP_FILTER).unwrap(), "1", "it was 0 before the stranger came");
    });
}

#[test]
fn addresses_come_back_when_ipv6_was_switched_off() {
    on_host(async |host: &mut Host| {
        host.changes.set_sysctl("net/ipv6/conf/adit0/disable_ipv6", "0").await.unwrap();
        let before = picture();
        sysctl::write("net/ipv6/conf/adit0/disable_ipv6", "1").unwrap();
        assert_ne!(picture(), before);
        host.changes.hold().await;
        becomes(&before, "the addresses are back").await;
    });
}

#[test]
fn a_setting_that_was_right_from_the_beginning_is_guarded_too() {
    in_namespace_async(|| async {
        sysctl::write(RP_FILTER, "2").unwrap();
        let mut host = Host::tunnelled().await;
        sysctl::write(RP_FILTER, "1").unwrap();
        assert_eq!(host.changes.hold().await.len(), 1);
        assert_eq!(sysctl::read(RP_FILTER).unwrap(), "2");
        host.changes.undo().await.unwrap();
        assert_eq!(sysctl::read(RP_FILTER).unwrap(), "1");
    });
}

#[test]
fn reverse_paths_stay_loose_whoever_makes_them_strict() {
    in_namespace_async(|| async {
        let mut host = Host::new().await;
        host.changes.loosen_reverse_paths().await.unwrap();
        assert_eq!(sysctl::read(RP_FILTER).unwrap(), "0", "nothing is strict, so nothing is changed");
        sysctl::write("net.ipv4.conf.adit0.rp_filter", "1").unwrap();
        let [report] = host.changes.hold().await.try_into().unwrap();
        assert_eq!((report.guard.as_str(), report.state), ("reverse path filter", GuardState::Mended));
        assert_eq!(sysctl::read(RP_FILTER).unwrap(), "2");
        sysctl::write(RP_FILTER, "1").unwrap();
        host.changes.hold().await;
        assert_eq!(sysctl::read(RP_FILTER).unwrap(), "2");
        host.changes.undo().await.unwrap();
        host.changes.hold().await;
        assert_eq!(sysctl::read(RP_FILTER).unwrap(), "1");
    });
}

#[test]
fn a_deleted_link_is_told_and_what_leads_nowhere_stays() {
    on_host(async |host: &mut Host| {
        drop(host.device.take());
        // A program that another test just starts may have the device for a moment longer.
        let shown = || std::process::Command::new("ip").args(["link", "show", "dev", "adit0"]).output().unwrap();
        eventually("the device is gone", || (!shown().status.success()).then_some(()));
        ip("route flush table 44311");
        let reports = host.changes.hold().await;
        let told = |guard: &str| reports.iter().find(|report| report.guard == guard).map(|report| report.state);
        assert_eq!(told("link adit0"), Some(GuardState::Broken), "{reports:?}");
        assert_eq!(told("IPv4 routes of table 44311"), Some(GuardState::Mended), "{reports:?}");
        assert!(picture().contains("unreachable default table 44311"), "{}", picture());
        host.changes.undo().await.unwrap();
        assert_eq!(host.changes.hold().await.iter().filter(|report| report.state == GuardState::Broken).count(), 0);
    });
}

#[test]
fn what_was_undone_is_not_put_back() {
    on_host(async |host: &mut Host| {
        let rule = Rule { family: Family::V4, unless: Mark::CLIENT, table: TABLE, priority: 5300 };
        host.changes.remove_rule(&rule).await.unwrap();
        let before = picture();
        assert_eq!(host.changes.hold().await, []);
        assert_eq!(picture(), before);
        host.changes.undo().await.unwrap();
        let before = picture();
        assert_eq!(host.changes.hold().await, []);
        assert_eq!(picture(), before);
    });
}

#[test]
fn what_cannot_be_put_back_is_broken_with_its_reason() {
    on_host(async |host: &mut Host| {
        ip("link set adit0 name elsewhere");
        ip("link add adit0 type veth peer name other-end");
        let reports = host.changes.hold().await;
        let report = reports.iter().find(|report| report.guard == "link adit0").unwrap();
        assert_eq!(report.state, GuardState::Broken);
        assert!(report.reason.starts_with("was renamed, and cannot be put back: "), "{}", report.reason);
        ip("link del adit0");
        let reports = host.changes.hold().await;
        assert_eq!(reports.iter().map(|report| report.state).collect::<Vec<_>>(), [GuardState::Mended]);
    });
}

#[test]
fn a_renamed_link_is_undone_by_its_index() {
    in_namespace_async(|| async {
        let before = picture();
        let mut host = Host::tunnelled().await;
        ip("link set adit0 name elsewhere");
        host.changes.undo().await.unwrap();
        ip("link set elsewhere name adit0");
        let left: Vec<String> = picture().lines().filter(|line| !before.contains(*line)).map(str::to_owned).collect();
        assert!(matches!(left.as_slice(), [device] if device.contains("adit0") && device.contains("DOWN")), "{left:?}");
    });
}

/// Puts back whatever is missing, while `other` goes on.
async fn hold_beside(changes: &mut HostChanges, other: impl Future<Output = ()>) {
    let mut other = std::pin::pin!(other);
    loop {
        tokio::select! {
            () = &mut other => return,
            () = changes.changed() => drop(changes.hold().await),
        }
    }
}

/// Waits until the host shows `text`, such as a route that comes a moment after its address.
async fn appears(text: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !picture().contains(text) {
        assert!(tokio::time::Instant::now() < deadline, "{text} does not appear in:\n{}", picture());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the host looks like `wanted`; some routes of addresses come a moment after them.
async fn becomes(wanted: &str, why: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = picture();
        if now == wanted {
            return;
        }
        if tokio::time::Instant::now() > deadline {
            let missing = wanted.lines().filter(|line| !now.lines().any(|other| other == *line));
            let new = now.lines().filter(|line| !wanted.lines().any(|other| other == *line));
            let differences = missing.map(|line| format!("- {line}\n")).chain(new.map(|line| format!("+ {line}\n")));
            panic!("{why}, but:\n{}", differences.collect::<String>());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn who_takes_a_rule_away_again_and_again_is_told() {
    on_host(async |host: &mut Host| {
        let mut told = Vec::new();
        for _ in 0..12 {
            // Between two mends of a fight lie pauses.
            tokio::process::Command::new("ip").args(["rule", "del", "pref", "5300"]).output().await.unwrap();
            told = host.changes.hold().await;
        }
        let [report] = told.try_into().unwrap();
        assert_eq!(report.state, GuardState::Broken);
        assert!(report.reason.contains("again and again"), "{}", report.reason);
        let fought: Result<(), HostError> = host.changes.undo().await;
        fought.unwrap();
    });
}
