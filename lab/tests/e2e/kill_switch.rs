//! A host whose traffic belongs in a full tunnel is closed in every state of its client, whatever happens around it.
//! `docs/security.md` names these tests beside what they show.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_lab::programs::{Client, TUN};
use adit_lab::traffic::{Captured, inject};
use adit_lab::{GATEWAY_V4, Process};
use adit_testing::{PATIENCE, eventually};
use nix::sys::signal::Signal;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{BindToDevice, Broadcast, Mark};

use crate::harness::{CLIENT_MARK, Carrier, INTERNET, Options, Tunnel, answers, assert_as_before, ip, nft, reach};
use crate::leaks::{Watched, wait_for_state, watched};

const OUTER_LINK: &str = "eth0";
/// Longest a client waits for its gateway where it waits in vain.
const SHORT: &str = "2s";
const UNREACHABLE: i32 = 5;
const AUTHENTICATION_REFUSED: i32 = 3;
const PERMISSION: i32 = 6;

/// A client that was connected once with a full tunnel and has ended well.
fn known_to_be_full() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options { clients: 1, settings: &[("dns.servers", r#"["198.51.100.2"]"#)] })?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    Watched::new(&tunnel).assert_open("ended");
    Some(tunnel)
}

/// Starts a client without waiting for it to be connected.
fn begin(client: &Client) -> Process {
    let process = client.host().spawn(client.command(&["up", "--timeout", "0s"])).unwrap();
    eventually("the client connects", || {
        let ended = process.try_wait().unwrap();
        assert_eq!(ended, None, "the client ended: {}", process.stderr());
        let status = client.status().unwrap();
        (status.state == "connecting").then_some(())
    });
    process
}

fn succeeds(client: &Client, arguments: &[&str]) -> String {
    client.run(arguments).unwrap().success().unwrap()
}

#[test]
fn nothing_leaves_while_a_known_full_tunnel_is_being_connected() {
    let Some(mut tunnel) = known_to_be_full() else { return };
    let watched = Watched::new(&tunnel);
    let process = begin(tunnel.client());
    watched.assert_tight("connecting");
    tunnel.gateway.start().unwrap();
    wait_for_state(&tunnel, "connected");
    reach(tunnel.client().host(), INTERNET[0]);
    watched.assert_tight("connected");
    process.terminate().unwrap();
    assert_eq!(process.wait(PATIENCE).unwrap(), 0);
    Watched::new(&tunnel).assert_open("ended");
}

#[test]
fn nothing_leaves_after_a_client_gave_up_until_down() {
    let Some(tunnel) = known_to_be_full() else { return };
    let (client, watched) = (tunnel.client(), Watched::new(&tunnel));
    let output = client.run(&["up", "--timeout", SHORT]).unwrap();
    assert_eq!(output.code, UNREACHABLE, "{}", output.stderr);
    assert!(output.stderr.contains("stays closed") && output.stderr.contains("down"), "{}", output.stderr);
    watched.assert_tight("given up");
    let status = client.status().unwrap();
    let reason = status.reason.unwrap_or_default();
    assert!(status.state == "blocked" && reason.contains("kill switch") && reason.contains("down"), "{reason}");
    assert!(succeeds(client, &["list"]).contains("blocked"));
    assert!(succeeds(client, &["down"]).contains("open now"));
    Watched::new(&tunnel).assert_open("opened");
    assert_eq!(client.status().unwrap().state, "disconnected");
}

#[test]
fn a_client_told_to_do_without_opens_the_host() {
    let Some(tunnel) = known_to_be_full() else { return };
    let client = tunnel.client();
    assert_eq!(client.run(&["up", "--timeout", SHORT]).unwrap().code, UNREACHABLE);
    assert_eq!(client.status().unwrap().state, "blocked");
    let output = client.run(&["up", "--timeout", SHORT, "--kill-switch", "false"]).unwrap();
    assert_eq!(output.code, UNREACHABLE, "{}", output.stderr);
    assert!(!output.stderr.contains("stays closed"), "{}", output.stderr);
    Watched::new(&tunnel).assert_open("told to do without");
}

#[test]
fn a_blocked_host_is_closed_before_its_client_starts() {
    let Some(mut tunnel) = known_to_be_full() else { return };
    let before = tunnel.client().host().settled().unwrap();
    let watched = Watched::new(&tunnel);
    assert!(succeeds(tunnel.client(), &["block"]).contains("blocked"));
    watched.assert_tight("blocked");
    tunnel.gateway.start().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    watched.assert_tight("connected");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    assert_as_before(tunnel.client().host(), &before);
}

/// A line of a unit that the package ships, without its key.
fn of_unit(unit: &str, key: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(unit);
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{key}=")).map(str::to_owned));
    lines.next().unwrap_or_else(|| panic!("{unit} has no {key}"))
}

/// Runs what the unit that closes the host at boot runs, as far as a service manager matters: the command it names,
/// with root's capabilities but for those it leaves, and profiles that cannot be written.
fn run_boot_unit(client: &Client, name: &str) -> String {
    const UNIT: &str = "adit-killswitch@.service";
    const READ_ONLY: &str = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;
    let start = of_unit(UNIT, "ExecStart").replace("%i", name);
    let arguments: Vec<&str> = start.strip_prefix("/usr/local/bin/adit-client ").unwrap().split(' ').collect();
    let capabilities = of_unit(UNIT, "CapabilityBoundingSet").to_lowercase().replace("cap_", "+");
    let command = client.command(&arguments);
    let mut unit = Command::new("unshare");
    unit.args(["--mount", "sh", "-ec", READ_ONLY]).arg(client.folder().join("clients"));
    let set = format!("-all,{}", capabilities.replace(' ', ","));
    unit.args(["setpriv", "--no-new-privs", "--bounding-set", &set, "--inh-caps", &set]);
    unit.arg(command.get_program()).args(command.get_args());
    client.host().output(unit, PATIENCE).unwrap().success().unwrap()
}

#[test]
fn boot_unit_closes_the_host_and_the_clients_unit_opens_it() {
    let Some(mut tunnel) = known_to_be_full() else { return };
    let before = tunnel.client().host().settled().unwrap();
    let [name] = profiles(tunnel.client()).map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    let watched = Watched::new(&tunnel);
    assert!(run_boot_unit(tunnel.client(), &name).contains("blocked"));
    watched.assert_tight("closed at boot");
    assert_eq!(tunnel.client().status().unwrap().state, "blocked");
    // Started once more, it changes nothing.
    run_boot_unit(tunnel.client(), &name);
    tunnel.gateway.start().unwrap();
    let start = of_unit("adit-client@.service", "ExecStart").replace("%i", &name);
    let arguments: Vec<&str> = start.strip_prefix("/usr/local/bin/adit-client up ").unwrap().split(' ').collect();
    tunnel.clients[0].up_with(&arguments, &[]).unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    watched.assert_tight("connected");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    Watched::new(&tunnel).assert_open("the client's unit was stopped");
    assert_as_before(tunnel.client().host(), &before);
}

#[test]
fn who_may_not_see_the_firewall_hears_that_and_not_that_all_is_well() {
    let Some(tunnel) = known_to_be_full() else { return };
    let client = tunnel.client();
    let poor = |arguments: &[&str]| {
        let command = client.command(arguments);
        let mut poor = Command::new("setpriv");
        poor.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
        poor.arg(command.get_program()).args(command.get_args());
        client.host().output(poor, PATIENCE).unwrap()
    };
    succeeds(client, &["block"]);
    let down = poor(&["down"]);
    assert!(down.code == PERMISSION && down.stderr.contains("whether this host is closed cannot be seen"), "{down:?}");
    assert!(down.stderr.contains("NET_ADMIN") && !down.stderr.contains("as root"), "{down:?}");
    assert_eq!(client.status().unwrap().state, "blocked");
    assert!(succeeds(client, &["down"]).contains("open now"));
}

#[test]
fn nothing_leaves_after_a_kill_whatever_a_service_manager_cleans_up() {
    let Some((mut tunnel, watched)) = watched(Carrier::Esp) else { return };
    tunnel.clients[0].kill();
    watched.assert_tight("killed");
    succeeds(tunnel.client(), &["cleanup", "--keep-closed"]);
    watched.assert_tight("cleaned up but for the kill switch");
    assert_eq!(tunnel.client().status().unwrap().state, "blocked");
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    watched.assert_tight("connected again");
    tunnel.clients[0].kill();
    succeeds(tunnel.client(), &["down"]);
    Watched::new(&tunnel).assert_open("opened");
}

#[test]
fn nothing_leaves_while_the_client_is_stopped() {
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    let process = tunnel.client().process().unwrap();
    process.signal(Signal::SIGSTOP).unwrap();
    watched.assert_tight("suspended");
    process.signal(Signal::SIGCONT).unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    watched.assert_tight("awake");
}

#[test]
fn nothing_leaves_when_the_host_moves() {
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    let host = tunnel.client().host();
    let [old, new] = ["192.0.2.18/28", "192.0.2.28/28"].map(|text| text.parse().unwrap());
    host.replace_address(OUTER_LINK, old, new).unwrap();
    reach(host, INTERNET[0]);
    // Back, as the look at the link waits for datagrams to the old address.
    host.replace_address(OUTER_LINK, new, old).unwrap();
    reach(host, INTERNET[0]);
    watched.assert_tight("moved");
}

#[test]
fn nothing_leaves_after_a_revoked_client_was_refused() {
    let Some((mut tunnel, watched)) = watched(Carrier::Esp) else { return };
    tunnel.gateway.admin(&["revoke", "user1"]).unwrap().success().unwrap();
    wait_for_state(&tunnel, "blocked");
    tunnel.clients[0].kill();
    let output = tunnel.client().run(&["up"]).unwrap();
    assert_eq!(output.code, AUTHENTICATION_REFUSED, "{}", output.stderr);
    watched.assert_tight("refused");
    succeeds(tunnel.client(), &["cleanup"]);
    Watched::new(&tunnel).assert_open("cleaned up");
}

#[test]
fn nothing_leaves_when_the_device_is_deleted() {
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    ip(tunnel.client().host(), &format!("link delete {TUN}"));
    watched.assert_tight("without its device");
    eventually("the client has ended or has another device", || {
        let status = tunnel.client().status().unwrap();
        ["blocked", "connected"].contains(&status.state.as_str()).then_some(())
    });
    watched.assert_tight("afterwards");
}

/// As DHCP option 121 (RFC 3442) has it, or anybody on the host.
#[test]
fn more_specific_routes_of_others_lead_nothing_out() {
    let Some((mut tunnel, watched)) = watched(Carrier::Esp) else { return };
    let host = tunnel.client().host().clone();
    let add = || {
        ip(&host, &format!("route add 198.51.100.2/32 via {GATEWAY_V4}"));
        ip(&host, "-6 route add 2001:db8:2::/48 via 2001:db8:0:1::1");
        ip(&host, "rule add to 198.51.100.0/24 lookup main priority 10");
    };
    add();
    watched.assert_tight("connected");
    tunnel.clients[0].kill();
    watched.assert_tight("killed");
    succeeds(tunnel.client(), &["cleanup"]);
    Watched::new(&tunnel).assert_open("with these routes and without a tunnel");
}

#[test]
fn a_router_that_announces_itself_leads_nothing_out() {
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    let host = tunnel.client().host();
    host.run(|| fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "1").unwrap());
    inject(tunnel.gateway.host(), OUTER_LINK, vec![router_advertisement()]).unwrap();
    eventually("the host believes the router", || {
        let announced: ipnet::IpNet = "2001:db8:ffff::/64".parse().unwrap();
        host.routes().unwrap().into_iter().find(|route| route.destination == announced)
    });
    let neighbour = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
    host.run(move || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        drop(socket.send_to(b"adit-leak-probe", (neighbour, 9)));
    });
    watched.assert_tight("beside a rogue router");
}

/// "I am the router, and 2001:db8:ffff::/64 is on this link" (RFC 4861 sections 4.2 and 4.6.2).
fn router_advertisement() -> Vec<u8> {
    let (from, to) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
    message.extend(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0).octets());
    let length = u8::try_from(message.len()).unwrap();
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 0, 0, length, 0, 0, 0, 58], &message].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    message[2..4].copy_from_slice(&folded.to_be_bytes());
    let header = [&[0x60, 0, 0, 0, 0, length, 58, 255][..], &from.octets(), &to.octets()].concat();
    [header, message].concat()
}

/// What routes do not hold: sockets bound to the link, multicast, broadcast, and the mark in strange hands.
#[test]
fn programs_that_choose_their_link_themselves_reach_nobody() {
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    let targets = [
        INTERNET[0],
        INTERNET[1],
        IpAddr::V4(GATEWAY_V4),
        IpAddr::V4(Ipv4Addr::BROADCAST),
        IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)),
        IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
    ];
    let probe = |mark: Option<u32>| {
        tunnel.client().host().run(move || {
            for target in targets {
                let any: IpAddr =
                    if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                if mark.is_some() {
                    nix::unistd::setfsuid(12_345.into());
                }
                let socket = UdpSocket::bind((any, 0)).unwrap();
                nix::unistd::setfsuid(0.into());
                setsockopt(&socket, BindToDevice, &OsString::from(OUTER_LINK)).unwrap();
                setsockopt(&socket, Broadcast, &true).unwrap();
                mark.iter().for_each(|mark| setsockopt(&socket, Mark, mark).unwrap());
                drop(socket.send_to(b"adit-leak-probe", SocketAddr::new(target, 9_997)));
            }
        });
    };
    probe(None);
    probe(Some(CLIENT_MARK));
    watched.assert_tight("for programs of all kinds");
    succeeds(tunnel.client(), &["down"]);
    let control = Watched::new(&tunnel);
    probe(None);
    control.assert_open("disconnected");
    let seen = control.beside_the_tunnel();
    for target in targets {
        let is_probe =
            |packet: &Captured| packet.destination == target && packet.udp().is_some_and(|udp| udp.1 == 9_997);
        assert!(seen.iter().any(is_probe), "the probe to {target} is not seen on an open host");
    }
}

/// The file of the client's only profile.
fn profiles(client: &Client) -> [PathBuf; 1] {
    let listed = fs::read_dir(client.folder().join("clients")).unwrap();
    let files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    files.try_into().unwrap_or_else(|files| panic!("{files:?}"))
}

/// Puts a line into the client's profile.
fn set_in_profile(client: &Client, line: &str) {
    let [profile] = profiles(client);
    let text = fs::read_to_string(&profile).unwrap();
    fs::write(profile, format!("{line}\n{text}")).unwrap();
}

#[test]
fn local_networks_are_used_only_where_the_profile_says_so() {
    let Some(mut tunnel) = known_to_be_full() else { return };
    tunnel.gateway.start().unwrap();
    let (host, neighbour) = (tunnel.client().host().clone(), tunnel.gateway.host().clone());
    let net = |text: &str| text.parse().unwrap();
    neighbour.add_address(OUTER_LINK, net("192.168.77.1/24")).unwrap();
    host.add_address(OUTER_LINK, net("192.168.77.2/24")).unwrap();
    reach(&host, "192.168.77.1".parse().unwrap());
    tunnel.clients[0].up().unwrap();
    assert!(!answers(&host, "192.168.77.1".parse().unwrap()), "by default it belongs in the tunnel");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);

    set_in_profile(tunnel.client(), "lan = \"allow\"");
    tunnel.clients[0].up().unwrap();
    reach(&host, "192.168.77.1".parse().unwrap());
    reach(&host, INTERNET[0]);
    // The host moves to another network.
    neighbour.add_address(OUTER_LINK, net("192.168.78.1/24")).unwrap();
    host.replace_address(OUTER_LINK, net("192.168.77.2/24"), net("192.168.78.2/24")).unwrap();
    reach(&host, "192.168.78.1".parse().unwrap());
    let watched = Watched::new(&tunnel);
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        drop(socket.send_to(b"adit-leak-probe", (Ipv4Addr::new(192, 168, 78, 1), 53)));
        drop(socket.send_to(b"adit-leak-probe", (Ipv4Addr::new(192, 168, 77, 1), 9)));
    };
    host.run(ask);
    watched.assert_tight("beside a local network");
}

#[test]
fn a_firewall_that_is_flushed_is_put_back() {
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    let host = tunnel.client().host();
    nft(host, "flush ruleset");
    eventually("the kill switch is back", || nft(host, "list ruleset").contains("adit_client_").then_some(()));
    watched.assert_tight("put back");
}
