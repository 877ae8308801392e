//! Names go into the tunnel and nowhere else, whatever other programs do to the host's resolver.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use adit_lab::traffic::{Capture, Captured};
use adit_lab::{GATEWAY_V4, Host, INTERNET_V4, Process};
use adit_testing::{PATIENCE, eventually};
use serde_json::Value;

use crate::daemons::{Bus, NETWORK_MANAGER, NETWORKD, NameServer, NetworkManager, RESOLVED, own_folder, with_own_proc};
use crate::harness::{Options, Tunnel, filter, nft, run};

/// The resolver of the client's local network, and what it answers.
const LOCAL: (Ipv4Addr, &str) = (GATEWAY_V4, "203.0.113.66");
/// The resolver inside the tunnel, and what it answers.
const INSIDE: (Ipv4Addr, &str) = (INTERNET_V4, "203.0.113.1");
const SETTINGS: &[(&str, &str)] = &[("dns.servers", r#"["198.51.100.2"]"#)];
const OUTER_LINK: &str = "eth0";
const DNS: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";
const STUB: &str = "nameserver 127.0.0.53\n";

/// A client that is not up yet, and name servers at both ends.
struct Names {
    client: Option<Process>,
    local: NameServer,
    inside: NameServer,
    tunnel: Tunnel,
}

impl Names {
    fn prepare() -> Option<Self> {
        let mut tunnel = Tunnel::prepare(Options { clients: 1, settings: SETTINGS })?;
        let local = NameServer::start(tunnel.gateway.host(), LOCAL.0, LOCAL.1)?;
        let inside = NameServer::start(&tunnel.internet, INSIDE.0, INSIDE.1)?;
        tunnel.gateway.start().unwrap();
        tunnel.join(0);
        Some(Self { client: None, local, inside, tunnel })
    }

    fn host(&self) -> &Host {
        self.tunnel.client().host()
    }

    fn up(&mut self, prefix: &[&str], environment: Option<(&str, String)>) {
        let client = self.tunnel.client().command(&["up"]);
        let mut command = Command::new(prefix.first().copied().unwrap_or("env"));
        command.args(prefix.iter().skip(1)).arg(client.get_program()).args(client.get_args()).envs(environment);
        self.client = Some(self.host().spawn(with_own_proc(&command)).unwrap());
        eventually("the client is connected", || (self.status()["state"] == "connected").then_some(()));
    }

    fn down(&mut self) {
        let client = self.client.take().unwrap();
        client.terminate().unwrap();
        assert_eq!(client.wait(PATIENCE).unwrap(), 0, "{}", client.tail());
    }

    fn status(&self) -> Value {
        let text = self.tunnel.client().run(&["status", "--json"]).unwrap().success().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What the status says about the resolver's file.
    fn file_guard(&self) -> Option<String> {
        let status = self.status();
        let guard = status["guards"].as_array()?.iter().find(|guard| guard["guard"] == "resolver file")?;
        guard["reason"].as_str().map(str::to_owned)
    }

    fn file(&self) -> String {
        self.host().run(|| fs::read_to_string(RESOLV_CONF).unwrap_or_default())
    }

    fn write_file(&self, text: &'static str) {
        self.host().run(move || fs::write(RESOLV_CONF, text).unwrap());
    }

    /// Whether the C library finds a name, and so where the resolver's file leads.
    fn finds(&self, name: &str) -> Option<String> {
        let mut command = Command::new("getent");
        command.args(["-s", "dns", "ahostsv4", name]);
        let output = self.host().output(command, PATIENCE).unwrap();
        output.stdout.split_whitespace().next().map(str::to_owned)
    }

    fn assert_only_inside(&self, name: &str) {
        assert!(self.inside.was_asked(name), "{name} is not asked inside");
        assert!(!self.local.was_asked(name), "{name} is asked of the local network");
    }
}

/// What leaves a host by its outer link for a name server.
fn questions(capture: &Capture, host: &Host) -> Vec<Captured> {
    let outer = host.link_index(OUTER_LINK).unwrap();
    let is_question = |packet: &Captured| packet.udp().is_some_and(|(_, port, _)| port == DNS);
    capture.packets(move |packet| packet.link == outer && is_question(packet))
}

#[test]
fn no_name_leaves_a_full_tunnel_whatever_systemd_resolved_is_told() {
    let Some(mut names) = Names::prepare() else { return };
    let Some(bus) = Bus::start_for(names.host(), &[RESOLVED]) else { return };
    names.write_file(STUB);
    let resolved = bus.start_resolved("");
    let tell_about_local_network = |domains: &[&str]| {
        assert_eq!(bus.resolvectl(&["dns", OUTER_LINK, &LOCAL.0.to_string()]).0, 0);
        assert_eq!(bus.resolvectl(&[&["domain", OUTER_LINK], domains].concat()).0, 0);
    };
    let local_server_is_gone =
        || (!bus.resolvectl(&["dns", OUTER_LINK]).1.contains(&LOCAL.0.to_string())).then_some(());

    // Without a tunnel the local network's resolver is asked, and seen to be asked.
    let control = Capture::start(names.host()).unwrap();
    tell_about_local_network(&["early.example"]);
    assert!(bus.query("control.early.example").1.contains(LOCAL.1));
    assert!(names.local.was_asked("control.early.example"));
    assert!(!questions(&control, names.host()).is_empty());

    // In a tunnel it is not, for what domain of the link and what address of the local network it may be.
    names.up(&[], Some(bus.environment()));
    let capture = Capture::start(names.host()).unwrap();
    for name in ["any.example", "first.early.example"] {
        assert!(bus.query(name).1.contains(INSIDE.1), "{name}");
        names.assert_only_inside(name);
    }
    bus.query("192.0.2.25");
    names.assert_only_inside("25.2.0.192.in-addr.arpa");

    // The local network renews what it claims.
    tell_about_local_network(&["corp.example", "~."]);
    eventually("the link's servers are taken again", local_server_is_gone);
    assert!(bus.query("second.corp.example").1.contains(INSIDE.1));
    names.assert_only_inside("second.corp.example");

    // Somebody takes the tunnel's settings back; then systemd-resolved starts anew and knows nothing of them.
    assert_eq!(bus.resolvectl(&["revert", "adit0"]).0, 0);
    eventually("the tunnel's settings are back", || bus.query("third.example").1.contains(INSIDE.1).then_some(()));
    drop(resolved);
    let _resolved = bus.start_resolved("");
    tell_about_local_network(&["~."]);
    eventually("the link's servers are taken anew", local_server_is_gone);
    eventually("names are found again", || bus.query("fourth.example").1.contains(INSIDE.1).then_some(()));
    for name in ["third.example", "fourth.example"] {
        names.assert_only_inside(name);
    }
    assert_eq!(questions(&capture, names.host()), []);

    // Afterwards the link has what it was last given.
    names.down();
    assert!(bus.resolvectl(&["dns", OUTER_LINK]).1.contains(&LOCAL.0.to_string()));
    assert!(bus.query("after.example").1.contains(LOCAL.1));
    assert_eq!(names.file(), STUB);
}

#[test]
fn systemd_resolved_may_come_and_go_and_want_signatures_and_tls() {
    const STRICT: &str = "DNSSEC=yes\nDNSOverTLS=yes";
    let Some(mut names) = Names::prepare() else { return };
    let Some(bus) = Bus::start_for(names.host(), &[RESOLVED]) else { return };
    names.write_file("nameserver 192.0.2.17\n");
    names.up(&[], Some(bus.environment()));
    assert_eq!(names.finds("file.example").as_deref(), Some(INSIDE.1));

    // It starts later than the client.
    let resolved = bus.start_resolved(STRICT);
    assert_eq!(bus.resolvectl(&["dns", OUTER_LINK, "192.0.2.17"]).0, 0);
    assert_eq!(bus.resolvectl(&["domain", OUTER_LINK, "corp.example"]).0, 0);
    eventually("the newcomer asks inside", || bus.query("late.corp.example").1.contains(INSIDE.1).then_some(()));
    assert!(!names.local.was_asked("late.corp.example"));
    names.down();
    assert_eq!(names.file(), "nameserver 192.0.2.17\n");

    // It ends under a client whose host relies on it, and comes back.
    names.write_file(STUB);
    names.up(&[], Some(bus.environment()));
    assert!(bus.query("stub.example").1.contains(INSIDE.1));
    drop(resolved);
    eventually("names are found without it", || names.finds("gone.example").filter(|found| found == INSIDE.1));
    let _resolved = bus.start_resolved(STRICT);
    eventually("it is relied on again", || (names.file() == STUB).then_some(()));
    eventually("it asks inside", || bus.query("back.example").1.contains(INSIDE.1).then_some(()));
    names.down();
    assert_eq!(names.file(), STUB);
}

#[test]
fn servers_that_networkd_gives_a_link_are_taken_and_come_back() {
    const LINK: &str = "[Match]\nName=eth0\n[Network]\nAddress=192.0.2.18/28\nGateway=192.0.2.17\n\
        DNS=192.0.2.17\nDomains=~lan.example\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nKeepConfiguration=yes\n";
    let Some(mut names) = Names::prepare() else { return };
    let Some(bus) = Bus::start_for(names.host(), &[RESOLVED, NETWORKD]) else { return };
    names.write_file(STUB);
    let _networkd = bus.start_networkd(LINK);
    let _resolved = bus.start_resolved("");
    eventually("the link's server is asked", || bus.query("a.lan.example").1.contains(LOCAL.1).then_some(()));
    names.up(&[], Some(bus.environment()));
    eventually("the tunnel's server is asked", || bus.query("b.lan.example").1.contains(INSIDE.1).then_some(()));
    names.assert_only_inside("b.lan.example");
    names.down();
    eventually("the link's server is asked again", || bus.query("c.lan.example").1.contains(LOCAL.1).then_some(()));
}

#[test]
fn what_networkmanager_writes_is_put_back_and_comes_back_afterwards() {
    let Some(mut names) = Names::prepare() else { return };
    let Some(bus) = Bus::start_for(names.host(), &[NETWORK_MANAGER]) else { return };
    let manager = NetworkManager::start(&bus, "192.0.2.17");
    assert_eq!(names.finds("control.example").as_deref(), Some(LOCAL.1));
    names.up(&[], Some(bus.environment()));
    assert_eq!(names.finds("up.example").as_deref(), Some(INSIDE.1));
    manager.set_server("192.0.2.18");
    eventually("the status tells of it", || names.file_guard());
    assert_eq!(names.finds("put-back.example").as_deref(), Some(INSIDE.1));
    names.down();
    assert!(names.file().contains("NetworkManager") && names.file().contains("nameserver 192.0.2.18"));
}

#[test]
fn a_namespace_that_shares_the_hosts_files_leaves_its_resolver_alone() {
    const IN_INNER: [&str; 4] = ["ip", "netns", "exec", "inner"];
    const ORIGINAL: &str = "nameserver 192.0.2.17\n";
    const OWN: &str = "nameserver 192.0.2.17\noptions edns0\n";
    let Some(mut names) = Names::prepare() else { return };
    names.write_file(ORIGINAL);
    let host = names.host().clone();
    run(&host, &["ip", "netns", "add", "inner"]);
    run(&host, &["ip", "link", "set", OUTER_LINK, "netns", "inner"]);
    for settings in
        ["link set lo up", "link set eth0 up", "address add 192.0.2.18/28 dev eth0", "route add default via 192.0.2.17"]
    {
        run(&host, &["ip", "-n", "inner"].into_iter().chain(settings.split(' ')).collect::<Vec<_>>());
    }

    names.up(&IN_INNER, None);
    let reason = eventually("the status says why", || names.file_guard());
    assert!(reason.contains("belongs to another network namespace") && reason.contains("/etc/netns/inner"), "{reason}");
    assert_eq!(names.file(), ORIGINAL);
    names.client = None;
    assert_eq!(names.file(), ORIGINAL, "after the client was killed");
    let cleanup = names.tunnel.client().run(&["cleanup"]).unwrap();
    assert!(cleanup.code == 1 && cleanup.stderr.contains("`ip netns exec inner adit-client cleanup`"), "{cleanup:?}");

    // With a file of its own, the namespace gets the tunnel's resolver, and the host still does not.
    let own = "/etc/netns/inner/resolv.conf";
    host.run(move || {
        own_folder("/etc/netns");
        fs::create_dir_all("/etc/netns/inner").unwrap();
        fs::write(own, OWN).unwrap();
    });
    names.up(&IN_INNER, None);
    let read_own = || host.run(move || fs::read_to_string(own).unwrap());
    assert!(read_own().contains(&format!("nameserver {}", INSIDE.0)));
    assert_eq!(names.file(), ORIGINAL);
    names.down();
    assert_eq!((read_own().as_str(), names.file().as_str()), (OWN, ORIGINAL));
}

/// As hosts have it whose first resolver is gone, or answers no question for IPv6: the C library takes the second one
/// after a while, or what it has. The limit of [`PATIENCE`] is that of a user.
#[test]
fn join_finds_its_gateway_past_a_dead_resolver_and_one_that_drops_questions() {
    const NAME: &str = "gw.example";
    const DEAD: &str = "192.0.2.99";
    // The type of the question behind this name, counted in bits from the UDP header: IPv6 addresses.
    const FOR_IPV6: &str = "udp dport 53 @th,256,16 28 drop";
    let public = format!(r#"["{NAME}:443"]"#);
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 3, settings: &[("public", &public)] }) else { return };
    let gateway = tunnel.gateway.host().clone();
    let Some(local) = NameServer::start(&gateway, LOCAL.0, &LOCAL.0.to_string()) else { return };
    tunnel.gateway.start().unwrap();
    let write_file = |client: usize, text: String| {
        tunnel.clients[client].host().run(move || fs::write(RESOLV_CONF, text).unwrap());
    };
    let join = |client: usize| {
        let link = tunnel.gateway.invite("alice", &[]).unwrap();
        assert!(link.contains(NAME), "{link}");
        let client = &tunnel.clients[client];
        client.host().output(client.command(&["join", &link]), PATIENCE)
    };
    filter(&gateway, "silent", &[("prerouting priority -400", &format!("ip daddr {DEAD} drop"))]);
    write_file(0, format!("nameserver {DEAD}\nnameserver {}\n", LOCAL.0));
    join(0).unwrap().success().unwrap();
    assert!(local.was_asked(NAME));

    filter(&gateway, "silent", &[("prerouting priority -400", FOR_IPV6)]);
    write_file(1, format!("nameserver {}\n", LOCAL.0));
    join(1).unwrap().success().unwrap();
    let rule = nft(&gateway, "list table inet silent");
    assert!(rule.contains("drop"), "{rule}");

    // The control: without any resolver the name is not found.
    filter(&gateway, "silent", &[("prerouting priority -400", "udp dport 53 drop")]);
    write_file(2, format!("nameserver {}\n", LOCAL.0));
    let refused = join(2);
    assert!(refused.is_err() || refused.is_ok_and(|output| output.code != 0), "there is nobody to ask");
}
