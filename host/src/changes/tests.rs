use std::fs;
use std::future::Future;

use adit_net::tun::Tun;
use adit_proto::dns::{DnsScope, DnsSettings};
use adit_testing::namespace::in_namespace_async;
use adit_testing::skip;

use super::*;
use crate::firewall::{ForwardedBefore, GatewayRules};
use crate::netlink::{Family, RouteTarget};
use crate::test_bus::FakeResolved;

/// A directory for journal and resolver file, in a network namespace of its own.
struct Host {
    directory: tempfile::TempDir,
    bus: SystemBus,
}

impl Host {
    fn journal(&self) -> PathBuf {
        self.directory.path().join("journal")
    }

    fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    fn options(&self) -> HostOptions {
        HostOptions { resolv_conf: self.resolv_conf(), bus: self.bus.clone(), ..HostOptions::default() }
    }

    async fn open(&self) -> HostChanges {
        HostChanges::open_with(&self.journal(), self.options()).await.unwrap()
    }

    /// Recovers from a copy of the journal, as the next process does after a crash: this one's lock would be gone.
    async fn recover_after_crash(&self) -> Recovery {
        let copy = self.directory.path().join("journal-of-the-dead");
        fs::copy(self.journal(), &copy).unwrap();
        let recovery = recover_with(&copy, self.options()).await.unwrap();
        assert!(!copy.exists());
        recovery
    }

    async fn state(&self) -> State {
        let netlink = Netlink::open().unwrap();
        State {
            forwarding: sysctl::read("net.ipv4.ip_forward").unwrap(),
            link: netlink.link_settings("lo").await.unwrap(),
            addresses: netlink.addresses("lo").await.unwrap(),
            routes: netlink.routes(51_820).await.unwrap(),
            rules: [netlink.rules(Family::V4).await.unwrap(), netlink.rules(Family::V6).await.unwrap()].concat(),
            resolver: fs::read(self.resolv_conf()).ok(),
        }
    }
}

#[derive(Debug, PartialEq)]
struct State {
    forwarding: String,
    link: LinkSettings,
    addresses: Vec<IpNet>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
    resolver: Option<Vec<u8>>,
}

fn on_host<F: Future<Output = ()>>(test: impl FnOnce(Host) -> F + Send + 'static) {
    in_namespace_async(|| async {
        let host = Host { directory: tempfile::tempdir().unwrap(), bus: SystemBus::Absent };
        fs::write(host.resolv_conf(), "nameserver 192.0.2.53\n").unwrap();
        // The kernel gives the loopback its address when it first comes up; that is no change of ours.
        let netlink = Netlink::open().unwrap();
        for up in [true, false] {
            netlink.set_link("lo", LinkSettings { up: Some(up), ..LinkSettings::default() }).await.unwrap();
        }
        test(host).await;
    });
}

fn unreachable_route(prefix: &str) -> Route {
    Route { table: 51_820, prefix: prefix.parse().unwrap(), target: RouteTarget::Unreachable, metric: None }
}

fn dns() -> DnsSettings {
    let servers = vec!["10.64.3.1".parse().unwrap()];
    DnsSettings { servers, search: Vec::new(), scope: DnsScope::All, exclusive: false }
}

async fn change_everything(changes: &mut HostChanges) {
    changes.set_sysctl("net.ipv4.ip_forward", "1").await.unwrap();
    changes.set_link("lo", LinkSettings { mtu: Some(1400), up: Some(true), gso_max_segs: Some(45) }).await.unwrap();
    changes.add_address("lo", "10.64.3.7/32".parse().unwrap()).await.unwrap();
    changes.add_address("lo", "fd12::7/128".parse().unwrap()).await.unwrap();
    changes.add_route(&unreachable_route("::/0")).await.unwrap();
    let target = RouteTarget::Link("lo".into());
    changes.add_route(&Route { target, ..unreachable_route("0.0.0.0/0") }).await.unwrap();
    for family in [Family::V4, Family::V6] {
        changes.add_rule(&Rule { family, unless: "7".parse().unwrap(), table: 51_820, priority: 5000 }).await.unwrap();
    }
    changes.load_firewall(&firewall_rules()).await.unwrap();
    changes.set_dns("lo", &dns()).await.unwrap();
}

fn firewall_rules() -> GatewayRules {
    GatewayRules {
        tun: "adit0".into(),
        pool_v4: Some("10.64.3.0/24".parse().unwrap()),
        pool_v6: None,
        gateway_v4: Some("10.64.3.1".parse().unwrap()),
        gateway_v6: None,
        masquerade: true,
        client_to_client: false,
        connections_per_client: 100,
        resolvers: Vec::new(),
        local_services: Vec::new(),
        listen_ports: vec![443],
        tracked_ports: Vec::new(),
        forwarded_before_v4: ForwardedBefore::FromAll,
        forwarded_before_v6: ForwardedBefore::FromAll,
    }
}

#[test]
fn undo_brings_everything_back() {
    on_host(|host| async move {
        let before = host.state().await;
        let mut changes = host.open().await;
        change_everything(&mut changes).await;
        assert_ne!(host.state().await, before);
        for _ in 0..2 {
            changes.undo().await.unwrap();
            assert_eq!(host.state().await, before);
        }
        drop(changes);
        assert!(!host.journal().exists());
    });
}

#[test]
fn the_next_process_mends_what_a_crash_left() {
    on_host(|host| async move {
        let before = host.state().await;
        let mut changes = host.open().await;
        change_everything(&mut changes).await;
        assert_eq!(host.recover_after_crash().await, Recovery { undone: 10 });
        assert_eq!(host.state().await, before);
        // The journal itself still lists everything: undoing once more finds nothing to do.
        changes.undo().await.unwrap();
        assert_eq!(host.state().await, before);
    });
}

#[test]
fn a_later_link_of_the_same_name_is_left_alone() {
    on_host(|host| async move {
        let Ok(device) = Tun::create("adit0", 1, true) else { return skip("needs /dev/net/tun") };
        let (own, route) = ("10.64.3.7/32".parse().unwrap(), unreachable_route("10.0.0.0/8"));
        let route = Route { target: RouteTarget::Link("adit0".into()), ..route };
        let up = LinkSettings { up: Some(true), ..LinkSettings::default() };
        let mut changes = host.open().await;
        changes.set_link("adit0", up).await.unwrap();
        changes.add_address("adit0", own).await.unwrap();
        changes.add_route(&route).await.unwrap();
        assert_eq!((changes.addresses("adit0"), changes.routes()), (vec![own], vec![route.clone()]));
        drop(device);

        let _somebody_elses = Tun::create("adit0", 1, true).unwrap();
        let netlink = Netlink::open().unwrap();
        netlink.set_link("adit0", up).await.unwrap();
        netlink.add_address("adit0", own).await.unwrap();
        netlink.add_route(&route).await.unwrap();
        assert_eq!(host.recover_after_crash().await, Recovery { undone: 3 });
        assert_eq!(netlink.addresses("adit0").await.unwrap(), [own]);
        assert_eq!(netlink.routes(51_820).await.unwrap(), [route]);
        assert_eq!(netlink.link_settings("adit0").await.unwrap().up, Some(true));
    });
}

#[test]
fn changes_of_another_network_namespace_are_not_recovered_by_the_way() {
    on_host(|host| async move {
        let mut changes = host.open().await;
        changes.set_sysctl("net.ipv4.ip_forward", "1").await.unwrap();
        let copy = host.directory.path().join("journal-of-the-dead");
        fs::copy(host.journal(), &copy).unwrap();
        let elsewhere = copy.clone();
        in_namespace_async(move || async move {
            assert_eq!(recover_same_namespace(&elsewhere).await.unwrap(), Recovery::default());
        });
        assert_eq!(recover_same_namespace(&copy).await.unwrap(), Recovery { undone: 1 });
        assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "0");
    });
}

#[test]
fn what_was_made_in_a_namespace_that_is_gone_is_undone_in_no_other() {
    on_host(|host| async move {
        let ours = LinkSettings { mtu: Some(1400), up: Some(true), ..LinkSettings::default() };
        let mut changes = host.open().await;
        changes.set_link("lo", ours).await.unwrap();
        changes.set_dns("lo", &dns()).await.unwrap();
        let (copy, options) = (host.directory.path().join("copy"), host.options());
        fs::copy(host.journal(), &copy).unwrap();
        in_namespace_async(move || async move {
            // A link of that index and name is here, too, and has the same settings.
            let netlink = Netlink::open().unwrap();
            netlink.set_link("lo", ours).await.unwrap();
            let before = netlink.link_settings("lo").await.unwrap();
            assert_eq!(recover_with(&copy, options).await.unwrap(), Recovery { undone: 1 });
            assert_eq!(netlink.link_settings("lo").await.unwrap(), before);
            assert!(!copy.exists());
        });
        assert_eq!(fs::read_to_string(host.resolv_conf()).unwrap(), "nameserver 192.0.2.53\n", "files are shared");
    });
}

#[test]
fn what_was_made_in_another_namespace_is_undone_only_there() {
    on_host(|host| async move {
        let mut changes = host.open().await;
        changes.set_sysctl("net.ipv4.ip_forward", "1").await.unwrap();
        let mut inhabitant = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (copy, options) = (host.directory.path().join("copy"), host.options());
        fs::copy(host.journal(), &copy).unwrap();
        let elsewhere = copy.clone();
        in_namespace_async(move || async move {
            sysctl::write("net.ipv4.ip_forward", "1").unwrap();
            let refused = recover_with(&elsewhere, options).await.unwrap_err();
            let HostError::OtherNamespace { enter, .. } = refused else { panic!("{refused:?}") };
            assert!(enter.starts_with("nsenter --net=/proc/"), "{enter}");
            assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "1");
        });
        inhabitant.kill().unwrap();
        inhabitant.wait().unwrap();
        assert_eq!(recover_with(&copy, host.options()).await.unwrap(), Recovery { undone: 1 });
        assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "0");
    });
}

#[test]
fn recovery_without_a_journal_makes_none() {
    on_host(|host| async move {
        assert_eq!(recover_with(&host.journal(), host.options()).await.unwrap(), Recovery::default());
        assert!(!host.journal().exists());
    });
}

#[test]
fn a_living_process_is_not_recovered_from() {
    on_host(|host| async move {
        let _changes = host.open().await;
        let error = recover_with(&host.journal(), host.options()).await.unwrap_err();
        assert!(matches!(error, HostError::Busy { .. }));
    });
}

#[test]
fn a_route_of_somebody_else_is_neither_taken_nor_removed() {
    on_host(|host| async move {
        let route = unreachable_route("10.0.0.0/8");
        Netlink::open().unwrap().add_route(&route).await.unwrap();
        let mut changes = host.open().await;
        let error = changes.add_route(&route).await.unwrap_err();
        assert_eq!(error.to_string(), "add route 10.0.0.0/8 to table 51820");
        changes.undo().await.unwrap();
        assert_eq!(host.state().await.routes, [route]);
    });
}

#[test]
fn routes_are_added_once_and_removed_alone() {
    on_host(|host| async move {
        let mut changes = host.open().await;
        let (stays, goes) = (unreachable_route("10.0.0.0/8"), unreachable_route("10.128.0.1/9"));
        for route in [&stays, &goes, &stays, &goes] {
            changes.add_route(route).await.unwrap();
        }
        changes.remove_route(&goes).await.unwrap();
        changes.remove_route(&goes).await.unwrap();
        assert_eq!(host.state().await.routes, [stays]);
    });
}

#[test]
fn a_sysctl_that_somebody_else_set_since_stays() {
    on_host(|host| async move {
        let mut changes = host.open().await;
        changes.set_sysctl("net.ipv4.conf.lo.rp_filter", "1").await.unwrap();
        sysctl::write("net.ipv4.conf.lo.rp_filter", "2").unwrap();
        changes.undo().await.unwrap();
        assert_eq!(sysctl::read("net.ipv4.conf.lo.rp_filter").unwrap(), "2");
    });
}

#[test]
fn what_cannot_be_undone_stays_in_the_journal() {
    on_host(|host| async move {
        let mut changes = host.open().await;
        changes.set_dns("lo", &dns()).await.unwrap();
        changes.set_sysctl("net.ipv4.ip_forward", "1").await.unwrap();
        // Nothing can be put where a directory is.
        fs::remove_file(host.resolv_conf()).unwrap();
        fs::create_dir(host.resolv_conf()).unwrap();
        let error = changes.undo().await.unwrap_err();
        assert!(matches!(&error, HostError::Undo { failures } if failures.len() == 1), "{error:?}");
        assert_eq!(sysctl::read("net.ipv4.ip_forward").unwrap(), "0");
        fs::remove_dir(host.resolv_conf()).unwrap();
        assert_eq!(host.recover_after_crash().await, Recovery { undone: 1 });
        assert_eq!(fs::read_to_string(host.resolv_conf()).unwrap(), "nameserver 192.0.2.53\n");
    });
}

#[test]
fn new_dns_settings_replace_the_older_and_keep_the_original() {
    on_host(|host| async move {
        let mut changes = host.open().await;
        for server in ["10.64.3.1", "10.64.3.2"] {
            changes.set_dns("lo", &DnsSettings { servers: vec![server.parse().unwrap()], ..dns() }).await.unwrap();
            assert!(fs::read_to_string(host.resolv_conf()).unwrap().contains(server));
        }
        changes.clear_dns().await.unwrap();
        assert_eq!(fs::read_to_string(host.resolv_conf()).unwrap(), "nameserver 192.0.2.53\n");
    });
}

/// Resolved is used only in its own network namespace, so these run in the one of the whole test process; they change
/// no more than their own files.
async fn beside_resolved() -> Option<(Host, FakeResolved)> {
    let directory = tempfile::tempdir().unwrap();
    let resolved = FakeResolved::start(directory.path()).await?;
    Some((Host { bus: SystemBus::Address(resolved.address.clone()), directory }, resolved))
}

#[tokio::test]
async fn resolved_gets_servers_and_domains_and_a_revert() {
    let Some((host, resolved)) = beside_resolved().await else { return };
    fs::write(host.resolv_conf(), "nameserver 127.0.0.53\n").unwrap();
    let mut changes = host.open().await;
    let servers = vec!["10.64.3.1".parse().unwrap(), "fd12::1".parse().unwrap()];
    changes.set_dns("lo", &DnsSettings { servers, search: vec!["corp.example".into()], ..dns() }).await.unwrap();
    assert_eq!(fs::read_to_string(host.resolv_conf()).unwrap(), "nameserver 127.0.0.53\n");
    let v6 = "fd12::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let expected = [
        format!("SetLinkDNS (1, [(2, [10, 64, 3, 1]), (10, {v6:?})])"),
        "SetLinkDomains (1, [(\"corp.example\", false), (\".\", true)])".into(),
        "SetLinkDefaultRoute (1, true)".into(),
        "SetLinkDNSOverTLS (1, \"no\")".into(),
        "SetLinkDNSSEC (1, \"no\")".into(),
        "FlushCaches".into(),
    ];
    assert_eq!(resolved.calls(), expected);
    assert_eq!(host.recover_after_crash().await, Recovery { undone: 1 });
    assert_eq!(resolved.calls().last().map(String::as_str), Some("RevertLink 1"));
}

#[tokio::test]
async fn a_resolver_file_that_bypasses_resolved_is_rewritten_too() {
    let Some((host, resolved)) = beside_resolved().await else { return };
    fs::write(host.resolv_conf(), "nameserver 192.0.2.53\n").unwrap();
    let mut changes = host.open().await;
    changes.set_dns("lo", &dns()).await.unwrap();
    assert!(fs::read_to_string(host.resolv_conf()).unwrap().contains("10.64.3.1"));
    assert_eq!(resolved.calls().len(), 6);
    changes.undo().await.unwrap();
    assert_eq!(fs::read_to_string(host.resolv_conf()).unwrap(), "nameserver 192.0.2.53\n");
    assert_eq!(resolved.calls().len(), 7);
}

#[test]
fn a_resolved_of_another_network_namespace_is_left_alone() {
    on_host(|mut host| async move {
        let Some(resolved) = FakeResolved::start(host.directory.path()).await else { return };
        host.bus = SystemBus::Address(resolved.address.clone());
        let mut changes = host.open().await;
        changes.set_dns("lo", &dns()).await.unwrap();
        assert!(fs::read_to_string(host.resolv_conf()).unwrap().contains("10.64.3.1"));
        assert_eq!(resolved.calls(), Vec::<String>::new());
    });
}

#[test]
fn routes_that_are_set_together_wait_for_the_disk_once() {
    on_host(|host| async move {
        let mut changes = host.open().await;
        let routes: Vec<Route> = (0..200).map(|n| unreachable_route(&format!("10.{n}.0.0/16"))).collect();
        changes.add_routes(&routes).await.unwrap();
        assert_eq!((changes.journal.flushes, changes.routes().len()), (1, 200));
        changes.remove_routes(|route| *route != routes[0]).await.unwrap();
        assert_eq!((changes.journal.flushes, changes.routes().len()), (2, 1));
        changes.add_routes(&routes).await.unwrap();
        assert_eq!((changes.journal.flushes, changes.routes().len()), (3, 200), "only what is new is written");
        changes.undo().await.unwrap();
        assert_eq!(changes.journal.flushes, 4);
    });
}
