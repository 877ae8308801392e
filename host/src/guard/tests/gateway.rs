//! What a stranger does to a gateway's host: its firewall, its forwarding, chains of others.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use adit_proto::policy::CompiledClass;
use adit_testing::skip;

use super::events::is_mended_by_the_first_look;
use super::*;
use crate::GatewayRules;
use crate::firewall::{ForwardedBefore, Table};
use crate::journal::Change;
use crate::nft::{FAMILY_INET, Protection, Socket};
use crate::policy_table::{MemberChange, PolicyClass, PolicyTable};

const FIREWALL: &str = "firewall table adit";
const POLICY: &str = "policy table adit_policy_adit0";

struct Gateway {
    _device: Tun,
    changes: HostChanges,
    _directory: tempfile::TempDir,
}

impl Gateway {
    /// A gateway's host as it is set up, with an uplink `up0`.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = HostOptions { bus: SystemBus::Absent, ..HostOptions::default() };
        let mut changes = HostChanges::open_with(&directory.path().join("journal"), options).await.unwrap();
        let device = Tun::create("adit0", 1, true).unwrap();
        ip("link add up0 type veth peer name up1");
        ip("link set up0 up");
        changes.load_firewall(&rules()).await.unwrap();
        let link = LinkSettings { mtu: Some(1420), up: Some(true), ..LinkSettings::default() };
        changes.set_link("adit0", link).await.unwrap();
        for address in ["10.64.3.1/24", "fd12:3456:789a::1/64"] {
            changes.add_address("adit0", address.parse().unwrap()).await.unwrap();
        }
        appears("local fd12:3456:789a::1 dev adit0").await;
        Self { _device: device, changes, _directory: directory }
    }

    /// As [`Self::new`], with a table that the kernel keeps from nobody, as before Linux 5.12.
    async fn unprotected() -> Self {
        let mut gateway = Self::new().await;
        let record = gateway.changes.journal.live().iter().find_map(|entry| {
            let Change::GatewayTable(record) = &entry.change else { return None };
            Some(record.clone())
        });
        gateway.changes.table.take().unwrap().unload().unwrap();
        let table = Table::load_with(&record.unwrap(), rules(), &[Protection::None]).unwrap();
        gateway.changes.table = Some(table);
        gateway
    }

    /// As [`Self::new`], with clients' policy in a table that the kernel keeps from nobody, and one member.
    async fn with_policy() -> Self {
        let mut gateway = Self::new().await;
        gateway.changes.load_policy_table("adit0").await.unwrap();
        let record = gateway.changes.journal.live().iter().find_map(|entry| {
            let Change::PolicyTable(record) = &entry.change else { return None };
            Some(record.clone())
        });
        gateway.changes.policy_table.take().unwrap().unload().unwrap();
        let table = PolicyTable::load_with(&record.unwrap(), &[Protection::None]).unwrap();
        let class = Arc::new(PolicyClass { number: 1, rules: CompiledClass::default() });
        table.change(&[MemberChange::Admit("10.64.3.7".parse().unwrap(), class)]).unwrap();
        gateway.changes.policy_table = Some(Arc::new(table));
        gateway
    }

    /// The state in which a guard is reported after a look.
    async fn state_of(&mut self, guard: &str) -> Option<GuardState> {
        let reports = self.changes.hold().await;
        reports.iter().find(|report| report.guard == guard).map(|report| report.state)
    }

    async fn is_up(&self) -> bool {
        self.changes.netlink().link_settings("adit0").await.unwrap().up == Some(true)
    }
}

fn rules() -> GatewayRules {
    GatewayRules {
        tun: "adit0".into(),
        pool_v4: Some("10.64.3.0/24".parse().unwrap()),
        pool_v6: Some("fd12:3456:789a::/64".parse().unwrap()),
        gateway_v4: Some("10.64.3.1".parse().unwrap()),
        gateway_v6: Some("fd12:3456:789a::1".parse().unwrap()),
        masquerade: true,
        client_to_client: false,
        connections_per_client: 100,
        resolvers: Vec::new(),
        local_services: Vec::new(),
        tracked_ports: Vec::new(),
        listen_ports: vec![443],
        forwarded_before_v4: ForwardedBefore::FromAll,
        forwarded_before_v6: ForwardedBefore::FromAll,
    }
}

fn nft(commands: &str) {
    let status = Command::new("nft").arg(commands).status().unwrap();
    assert!(status.success(), "nft {commands}");
}

/// Runs a test on a gateway's host, where nft(8) is.
fn on_gateway(test: impl AsyncFnOnce() + Send + 'static) {
    if Command::new("nft").arg("--version").output().is_err() {
        return skip("needs the program nft");
    }
    in_namespace_async(|| async { test().await });
}

#[test]
fn a_firewall_that_was_taken_away_is_loaded_again() {
    on_gateway(async || {
        let mut gateway = Gateway::unprotected().await;
        assert_eq!(gateway.changes.hold().await, []);
        for done in ["flush ruleset", "delete table inet adit", "insert rule inet adit forward accept"] {
            nft(done);
            assert_eq!(gateway.state_of(FIREWALL).await, Some(GuardState::Mended), "{done}");
            assert_eq!(gateway.changes.table.as_ref().unwrap().fault().unwrap(), None, "{done}");
            assert!(gateway.is_up().await);
        }
    });
}

fn has_member() -> bool {
    let listed = Socket::open().unwrap().elements(FAMILY_INET, "adit_policy_adit0", "class1_v4_members");
    listed.unwrap_or_default().iter().any(|element| element.key == [10, 64, 3, 7])
}

#[test]
fn a_policy_that_was_taken_away_is_loaded_again_with_its_members() {
    on_gateway(async || {
        let mut gateway = Gateway::with_policy().await;
        assert_eq!((gateway.changes.hold().await, has_member()), (Vec::new(), true));
        for done in ["delete table inet adit_policy_adit0", "insert rule inet adit_policy_adit0 forward accept"] {
            nft(done);
            assert_eq!(gateway.state_of(POLICY).await, Some(GuardState::Mended), "{done}");
            assert_eq!(gateway.changes.policy_table.as_ref().unwrap().fault().unwrap(), None, "{done}");
            assert!(has_member() && gateway.is_up().await, "{done}");
        }
        gateway.changes.undo().await.unwrap();
        assert!(
            Socket::open().unwrap().table(FAMILY_INET, "adit_policy_adit0").unwrap().is_none(),
            "nothing is left of it"
        );
    });
}

#[test]
fn the_device_is_down_while_the_policy_does_not_hold() {
    on_gateway(async || {
        let mut gateway = Gateway::with_policy().await;
        // A table that Adit did not make is not Adit's to replace.
        nft("delete table inet adit_policy_adit0; add table inet adit_policy_adit0");
        assert_eq!(gateway.state_of(POLICY).await, Some(GuardState::Broken));
        assert!(!gateway.is_up().await);
        nft("delete table inet adit_policy_adit0");
        assert_eq!(gateway.state_of(POLICY).await, Some(GuardState::Mended));
        assert!(has_member() && gateway.is_up().await);
    });
}

#[test]
fn what_is_taken_from_a_gateways_host_is_back_after_one_event() {
    on_gateway(async || {
        let mut gateway = Gateway::unprotected().await;
        gateway.changes.enable_forwarding(Family::V4).await.unwrap();
        for (done, guard) in [
            ("nft flush ruleset", FIREWALL),
            ("nft insert rule inet adit forward accept", FIREWALL),
            ("echo 0 >/proc/sys/net/ipv4/ip_forward", "sysctl net/ipv4/ip_forward"),
            ("echo 0 >/proc/sys/net/ipv4/conf/up0/forwarding", "forwarding from up0"),
            ("ip link set adit0 down", "link adit0"),
            ("ip -4 address flush dev adit0", "addresses of adit0"),
            ("ip route del 10.64.3.0/24 dev adit0", "IPv4 prefix route of adit0"),
        ] {
            is_mended_by_the_first_look(&mut gateway.changes, done, guard).await;
        }
    });
}

#[test]
fn the_device_is_down_while_the_firewall_does_not_hold() {
    on_gateway(async || {
        let mut gateway = Gateway::unprotected().await;
        let before = picture();
        // A table that Adit did not make is not Adit's to replace.
        nft("flush ruleset; add table inet adit");
        for _ in 0..2 {
            assert_eq!(gateway.state_of(FIREWALL).await, Some(GuardState::Broken));
            assert!(!gateway.is_up().await);
            ip("link set adit0 up");
        }
        nft("delete table inet adit");
        assert_eq!(gateway.state_of(FIREWALL).await, Some(GuardState::Mended));
        assert!(gateway.is_up().await);
        becomes(&before, "it is up with its addresses").await;
        let others: Vec<_> =
            gateway.changes.hold().await.into_iter().filter(|report| report.guard != FIREWALL).collect();
        assert_eq!(others, [], "nobody else is blamed");
    });
}

#[test]
fn routes_to_the_pools_are_put_back() {
    on_gateway(async || {
        let mut gateway = Gateway::new().await;
        let before = picture();
        for (done, guard) in [
            ("route del 10.64.3.0/24 dev adit0", "IPv4 prefix route of adit0"),
            ("-6 route del fd12:3456:789a::/64 dev adit0", "IPv6 prefix route of adit0"),
        ] {
            ip(done);
            assert_ne!(picture(), before);
            assert_eq!(gateway.state_of(guard).await, Some(GuardState::Mended), "ip {done}");
            becomes(&before, "the route is back").await;
        }
    });
}

#[test]
fn the_firewall_follows_others_that_want_tracked_datagrams() {
    on_gateway(async || {
        let mut gateway = Gateway::new().await;
        let tracked = |gateway: &Gateway| gateway.changes.table.as_ref().unwrap().rules().tracked_ports.clone();
        let rules =
            "policy drop; iif lo accept; ct state established,related accept; ct state new udp dport 443 accept;";
        nft(&format!("table inet h {{ chain i {{ type filter hook input priority 10; {rules} }}; }}"));
        for _ in 0..2 {
            assert_eq!(gateway.changes.hold().await, [], "its own change is no stranger's");
            assert_eq!(tracked(&gateway), [443]);
        }
        nft("delete table inet h");
        assert_eq!(gateway.changes.hold().await, []);
        assert_eq!(tracked(&gateway), Vec::<u16>::new());
    });
}

#[test]
fn a_host_that_stopped_to_route_is_no_router_when_it_is_made_to_forward_again() {
    on_gateway(async || {
        let mut gateway = Gateway::new().await;
        let before = |gateway: &Gateway| gateway.changes.table.as_ref().unwrap().rules().forwarded_before_v4.clone();
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        gateway.changes.enable_forwarding(Family::V4).await.unwrap();
        gateway.changes.hold().await;
        assert_eq!(before(&gateway), ForwardedBefore::FromAll);
        sysctl::write("net.ipv4.ip_forward", "0").unwrap();
        gateway.changes.hold().await;
        assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "1");
        assert_eq!(before(&gateway), ForwardedBefore::FromOnly(Vec::new()));
    });
}

#[test]
fn a_host_that_somebody_makes_a_router_is_one_and_stays_one() {
    on_gateway(async || {
        let mut gateway = Gateway::new().await;
        let before = |gateway: &Gateway| gateway.changes.table.as_ref().unwrap().rules().forwarded_before_v4.clone();
        let closed = ForwardedBefore::FromOnly(Vec::new());
        gateway.changes.enable_forwarding(Family::V4).await.unwrap();
        gateway.changes.hold().await;
        assert_eq!(before(&gateway), closed, "what this process wrote makes no router");
        sysctl::write("net.ipv4.ip_forward", "0").unwrap();
        gateway.changes.hold().await;
        gateway.changes.hold().await;
        assert_eq!(before(&gateway), closed, "nor does what a guard wrote");
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        gateway.changes.hold().await;
        assert_eq!(before(&gateway), ForwardedBefore::FromAll);
        gateway.changes.undo().await.unwrap();
        assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "1");
    });
}

#[test]
fn a_host_whose_forwarding_is_being_switched_off_is_no_router() {
    on_gateway(async || {
        let mut gateway = Gateway::new().await;
        let before = |gateway: &Gateway| gateway.changes.table.as_ref().unwrap().rules().forwarded_before_v4.clone();
        let opened = || fs::File::create("/proc/sys/net/ipv4/ip_forward").unwrap();
        gateway.changes.enable_forwarding(Family::V4).await.unwrap();
        gateway.changes.hold().await;
        let mut switch = opened();
        gateway.changes.hold().await;
        switch.write_all(b"0").unwrap();
        let closed = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            drop(switch);
        });
        for _ in 0..2 {
            assert_eq!(gateway.state_of("sysctl net/ipv4/ip_forward").await, Some(GuardState::Mended));
        }
        closed.join().unwrap();
        assert_eq!(gateway.state_of("sysctl net/ipv4/ip_forward").await, Some(GuardState::Mended));
        assert_eq!(before(&gateway), ForwardedBefore::FromOnly(Vec::new()));
        opened().write_all(b"1").unwrap();
        gateway.changes.hold().await;
        assert_eq!(before(&gateway), ForwardedBefore::FromAll);
    });
}

#[test]
fn forwarding_that_was_switched_on_stays_on() {
    on_gateway(async || {
        let mut gateway = Gateway::new().await;
        gateway.changes.enable_forwarding(Family::V4).await.unwrap();
        assert_eq!(gateway.changes.hold().await, []);
        sysctl::write("net.ipv4.conf.up0.forwarding", "0").unwrap();
        assert_eq!(gateway.state_of("forwarding from up0").await, Some(GuardState::Mended));
        sysctl::write("net.ipv4.ip_forward", "0").unwrap();
        assert_eq!(gateway.state_of("sysctl net/ipv4/ip_forward").await, Some(GuardState::Mended));
        for key in ["net.ipv4.ip_forward", "net.ipv4.conf.up0.forwarding", "net.ipv4.conf.adit0.forwarding"] {
            assert_eq!(sysctl::read(key).unwrap(), "1", "{key}");
        }
    });
}

#[test]
fn a_link_that_the_host_itself_keeps_from_forwarding_is_named_where_it_matters() {
    on_gateway(async || {
        let mut gateway = Gateway::new().await;
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        sysctl::write("net.ipv4.conf.up0.forwarding", "0").unwrap();
        gateway.changes.enable_forwarding(Family::V4).await.unwrap();
        assert_eq!(gateway.state_of("forwarding from up0").await, Some(GuardState::Broken));
        assert_eq!(sysctl::read("net.ipv4.conf.up0.forwarding").unwrap(), "0", "it is not ours to change");

        ip("address add 198.51.100.1/24 dev up0");
        ip("route add default via 198.51.100.2 dev up0");
        assert_eq!(gateway.state_of("forwarding from up0").await, Some(GuardState::Broken), "the uplink matters");
        ip("route del default");
        ip("link set up1 up");
        ip("route add default dev up1");
        assert_ne!(gateway.state_of("forwarding from up0").await, Some(GuardState::Broken), "another link does not");
        sysctl::write("net.ipv4.ip_forward", "0").unwrap();
        assert_eq!(gateway.state_of("sysctl net/ipv4/ip_forward").await, Some(GuardState::Mended));
    });
}

#[test]
fn a_chain_that_comes_later_and_drops_what_is_forwarded_is_named_until_it_goes() {
    on_gateway(async || {
        let mut gateway = Gateway::new().await;
        let guard = "forwarding past chain ip filter FORWARD";
        assert_eq!(gateway.changes.hold().await, []);
        nft("add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
        assert_eq!(gateway.state_of(guard).await, Some(GuardState::Broken));
        nft("add rule ip filter FORWARD iifname adit0 accept");
        assert_ne!(gateway.state_of(guard).await, Some(GuardState::Broken));
    });
}

#[test]
fn what_was_undone_is_not_put_back() {
    on_gateway(async || {
        let mut gateway = Gateway::unprotected().await;
        gateway.changes.enable_forwarding(Family::V4).await.unwrap();
        gateway.changes.undo().await.unwrap();
        let before = picture();
        assert_eq!(gateway.changes.hold().await, []);
        assert_eq!(picture(), before);
        assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "0");
    });
}

/// What a stranger may do: programs with their arguments, and settings.
const INTERFERENCE: [&str; 13] = [
    "nft flush ruleset",
    "nft flush chain inet adit input",
    "nft insert rule inet adit forward accept",
    "nft add table inet stranger",
    "ip link set adit0 down",
    "ip link set adit0 mtu 1300",
    "ip link set adit0 name other0",
    "ip address flush dev adit0 scope global",
    "ip route flush dev adit0",
    "ip -6 route flush dev adit0",
    "set net.ipv4.ip_forward 0",
    "set net.ipv4.conf.up0.forwarding 0",
    "set net.ipv6.conf.all.forwarding 0",
];

#[test]
fn random_interference_with_a_gateway_is_mended_and_leaves_no_trace() {
    on_gateway(async || {
        let host = || (picture(), sysctls());
        let mut gateway = Gateway::unprotected().await;
        for family in [Family::V4, Family::V6] {
            gateway.changes.enable_forwarding(family).await.unwrap();
        }
        // A forwarding host answers for the prefix itself, too.
        appears("anycast fd12:3456:789a:: dev adit0").await;
        let before = host();
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for burst in 0..20 {
            let mut done = Vec::new();
            for _ in 0..3 {
                // Marsaglia's xorshift.
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let place = usize::try_from(seed >> 8).unwrap() % INTERFERENCE.len();
                interfere(INTERFERENCE[place]);
                done.push(INTERFERENCE[place]);
            }
            // A fight is mended with pauses, so one look may not do.
            let deadline = Instant::now() + PATIENCE;
            loop {
                gateway.changes.hold().await;
                let firewall = gateway.changes.table.as_ref().unwrap().fault().unwrap();
                if firewall.is_none() && host() == before {
                    break;
                }
                assert!(Instant::now() < deadline, "burst {burst}, {done:?}: {firewall:?}, {:#?}", host());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        gateway.changes.undo().await.unwrap();
        assert_eq!((before.1.as_str(), sysctls().as_str()), ("111", "000"), "forwarding is off again");
        let left = Command::new("nft").args(["list", "tables"]).output().unwrap().stdout;
        assert!(!String::from_utf8(left).unwrap().contains("adit"), "the table is gone");
    });
}

/// Does one thing. What an earlier one took away cannot be changed, and that is no failure.
fn interfere(what: &str) {
    let words: Vec<&str> = what.split(' ').collect();
    if let ["set", key, value] = words[..] {
        sysctl::write(key, value).unwrap();
    } else {
        drop(Command::new(words[0]).args(&words[1..]).output().unwrap());
    }
}

/// The switches of forwarding.
fn sysctls() -> String {
    let keys = ["net.ipv4.ip_forward", "net.ipv4.conf.up0.forwarding", "net.ipv6.conf.all.forwarding"];
    keys.map(|key| sysctl::read(key).unwrap()).concat()
}
