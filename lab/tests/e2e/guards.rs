//! What other programs do to a client's host neither stops the tunnel nor opens it.

use std::path::Path;
use std::process::Command;

use adit_lab::programs::TUN;
use adit_lab::{Host, Process};
use adit_testing::{PATIENCE, eventually};
use serde_json::Value;

use crate::daemons::{Bus, NETWORK_MANAGER, NetworkManager};
use crate::harness::{Carrier, INTERNET, Tunnel, assert_as_before, ip, reach};
use crate::leaks::{Watched, watched};

const RP_FILTER: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

/// What a stranger does with ip(8), and the guard that puts it right.
const DEEDS: [(&str, &str); 11] = [
    ("rule del pref 5300", "IPv4 rule 5300"),
    ("-6 rule del pref 5300", "IPv6 rule 5300"),
    ("route flush table 44311", "IPv4 routes of table 44311"),
    ("-6 route flush table 44311", "IPv6 routes of table 44311"),
    ("route replace default dev eth0 table 44311 metric 100", "IPv4 routes of table 44311"),
    ("-4 address flush dev adit0", "addresses of adit0"),
    ("-6 address flush dev adit0", "addresses of adit0"),
    ("link set adit0 down", "link adit0"),
    ("link set adit0 mtu 9000", "link adit0"),
    ("link set adit0 down name elsewhere", "link adit0"),
    ("link set adit0 name elsewhere", "link adit0"),
];

/// Runs ip(8) on a host, however it ends: what an earlier deed took away cannot be taken once more.
fn interfere(host: &Host, arguments: &str) {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    drop(host.output(command, PATIENCE).unwrap());
}

/// Sends to the internet ten times a second until it is dropped, by both families.
fn send_on_and_on(host: &Host) -> Process {
    let [v4, v6] = INTERNET;
    let send = format!("for to in {v4} {v6}; do echo adit >/dev/udp/$to/9; done");
    let mut command = Command::new("bash");
    command.args(["-c", &format!("while :; do {send}; sleep .1; done 2>/dev/null")]);
    host.spawn(command).unwrap()
}

/// How often a guard put its setting back, if it is well now.
fn mended(tunnel: &Tunnel, guard: &str) -> Option<u64> {
    let text = tunnel.client().run(&["status", "--json"]).unwrap().success().unwrap();
    let status: Value = serde_json::from_str(&text).unwrap();
    let guards = status["guards"].as_array().unwrap();
    let found = guards.iter().find(|report| report["guard"] == guard && report["state"] == "mended")?;
    found["times"].as_u64()
}

fn guards(tunnel: &Tunnel) -> Vec<Value> {
    let text = tunnel.client().run(&["status", "--json"]).unwrap().success().unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["guards"].as_array().unwrap().clone()
}

fn assert_tunnelled(tunnel: &Tunnel, watched: &Watched, when: &str) {
    INTERNET.iter().for_each(|target| reach(tunnel.client().host(), *target));
    watched.assert_tight(when);
}

#[test]
fn whatever_a_stranger_takes_away_is_put_back() {
    whatever_a_stranger_takes_away(Carrier::Esp);
    whatever_a_stranger_takes_away(Carrier::Quic);
}

fn whatever_a_stranger_takes_away(carrier: Carrier) {
    let Some((mut tunnel, watched)) = watched(carrier) else { return };
    assert_eq!(guards(&tunnel), Vec::<Value>::new(), "nobody has interfered");
    // What leaves while a setting is missing would be seen, too.
    let _sender = send_on_and_on(tunnel.client().host());
    for (deed, guard) in DEEDS {
        let times = mended(&tunnel, guard).unwrap_or(0);
        interfere(tunnel.client().host(), deed);
        let what = format!("after `ip {deed}`, {guard} is put back");
        eventually(&what, || mended(&tunnel, guard).filter(|now| *now > times));
        assert_tunnelled(&tunnel, &watched, deed);
    }
    tunnel.client().host().run(|| std::fs::write(RP_FILTER, "1").unwrap());
    let loose = || std::fs::read_to_string(RP_FILTER).unwrap().trim() == "2";
    eventually("the reverse path filter is loose", || tunnel.client().host().run(loose).then_some(()));
    assert_tunnelled(&tunnel, &watched, "reverse path filter");
    let text = tunnel.client().run(&["status"]).unwrap().success().unwrap();
    assert!(text.contains("warning    IPv4 rule 5300 was removed by another program, and put back"), "{text}");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    Watched::new(&tunnel).assert_open("ended");
}

#[test]
fn a_stranger_that_does_not_give_up_is_named_and_the_tunnel_goes_on() {
    let Some((mut tunnel, watched)) = watched(Carrier::Esp) else { return };
    let mut command = Command::new("bash");
    command.args(["-c", "while :; do ip rule del pref 5300; ip -6 rule del pref 5300; sleep .1; done 2>/dev/null"]);
    let stranger = tunnel.client().host().spawn(command).unwrap();
    let fought_over = |report: &Value| {
        report["state"] == "broken"
            && report["reason"].as_str().is_some_and(|reason| reason.contains("again and again"))
    };
    let _sender = send_on_and_on(tunnel.client().host());
    eventually("the fight is told", || guards(&tunnel).iter().any(fought_over).then_some(()));
    drop(stranger);
    let rules = || tunnel.client().host().snapshot().unwrap().matches("Priority(5300)").count();
    eventually("both rules are back", || (rules() == 2).then_some(()));
    assert_tunnelled(&tunnel, &watched, "while and after the rules were fought over");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    Watched::new(&tunnel).assert_open("ended");
}

#[test]
fn nothing_leaves_a_client_whose_device_was_deleted_until_it_is_up_or_cleaned_up() {
    let Some((mut tunnel, watched)) = watched(Carrier::Esp) else { return };
    ip(tunnel.client().host(), "link del adit0");
    assert_eq!(tunnel.client().process().unwrap().wait(PATIENCE).unwrap(), 1);
    let said = tunnel.client().process().unwrap().tail();
    assert!(said.contains("this host stays closed"), "{said}");
    watched.assert_tight("without its device");
    tunnel.clients[0].up().unwrap();
    let watched = Watched::new(&tunnel);
    assert_tunnelled(&tunnel, &watched, "up again");
    ip(tunnel.client().host(), "link del adit0");
    tunnel.client().process().unwrap().wait(PATIENCE).unwrap();
    watched.assert_tight("without its device again");
    tunnel.client().run(&["cleanup"]).unwrap().success().unwrap();
    Watched::new(&tunnel).assert_open("cleaned up");
}

/// Has a real systemd-networkd, in namespaces of its own for all but the network, configure a link that has nothing to
/// do with the tunnel, and whatever is called `adit…`; `FILES` tell it more. Then has it configure the link once more.
/// Prints what became of a stranger's rule, and what it thinks of the tunnel's device.
const NETWORKD: &str = r#"
set -eu
mount --make-rprivate /
mount -o remount,bind,ro /sys
for folder in /run/dbus /run/systemd "$(readlink -f /etc/systemd)"; do
    mkdir -p "$folder"
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network:systemd-network /run/systemd/netif
cat >/run/dbus/open.conf <<'XML'
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>
XML
mkdir -p /etc/systemd/network /etc/systemd/networkd.conf.d
network() { printf '[Match]\nName=%s\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' "$1"; }
network 'adit*' >/etc/systemd/network/90-adopted.network
{ network other; echo Address=10.255.255.1/24; } >/etc/systemd/network/20-other.network
for file in $FILES; do
    case $file in
        *.network) cp "$file" /etc/systemd/network/ ;;
        *) cp "$file" /etc/systemd/networkd.conf.d/ ;;
    esac
done
ip link add other type veth peer name other-end
ip link set other-end up
ip rule add pref 99 fwmark 0x99 lookup main
dbus-daemon --config-file=/run/dbus/open.conf --fork --nopidfile
/lib/systemd/systemd-networkd &
state() { sed -n 's/^ADMIN_STATE=//p' "/run/systemd/netif/links/$(cat "/sys/class/net/$1/ifindex")" 2>/dev/null; }
settled() { for try in $(seq 100); do [ "$(state other)" != configured ] || return 0; sleep .1; done; return 1; }
settled
networkctl reconfigure other
[ -n "$FILES" ] || networkctl reconfigure adit0
sleep 1
settled
echo "device $(state adit0)"
if ip rule | grep -q ^99:; then echo rule stays; else echo rule gone; fi
ip rule del pref 99 2>/dev/null || true
ip link del other
"#;

/// Runs [`NETWORKD`]; `None` where it is not installed.
fn networkd(host: &Host, files: &[&str]) -> Option<String> {
    for tool in ["/lib/systemd/systemd-networkd", "/usr/bin/dbus-daemon"] {
        if !Path::new(tool).exists() {
            adit_testing::skip(format!("{tool} is not installed"));
            return None;
        }
    }
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/networkd/");
    let files: Vec<String> = files.iter().map(|file| format!("{deploy}{file}")).collect();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", NETWORKD]);
    command.env("FILES", files.join(" "));
    Some(host.output(command, PATIENCE * 2).unwrap().success().unwrap())
}

#[test]
fn networkd_opens_no_tunnel_of_which_it_knows_nothing() {
    let Some((mut tunnel, watched)) = watched(Carrier::Esp) else { return };
    let Some(said) = networkd(tunnel.client().host(), &[]) else { return };
    assert!(said.contains("rule gone"), "it removes what it does not know: {said}");
    assert!(said.contains("device config"), "it takes the device for its own: {said}");
    let what = "the addresses that it removed are put back";
    eventually(what, || mended(&tunnel, "addresses of adit0"));
    assert_tunnelled(&tunnel, &watched, "networkd");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
}

#[test]
fn networkd_that_read_our_files_touches_nothing() {
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    let Some(said) = networkd(tunnel.client().host(), &["10-adit.network", "adit.conf"]) else { return };
    assert!(said.contains("rule stays"), "{said}");
    assert!(said.contains("device unmanaged"), "{said}");
    assert_eq!(guards(&tunnel), Vec::<Value>::new(), "there was nothing to put back");
    assert_tunnelled(&tunnel, &watched, "networkd");
}

#[test]
fn networkmanager_that_read_our_file_leaves_the_device_alone() {
    const OTHERS: &str = "interface-name:lo,interface-name:eth0";
    let Some((tunnel, watched)) = watched(Carrier::Esp) else { return };
    let Some(bus) = Bus::start_for(tunnel.client().host(), &[NETWORK_MANAGER]) else { return };
    let host = tunnel.client().host();
    // The device follows its session to ESP a moment after the session says so.
    let esp = format!("/{TUN}/mtu = 1420");
    eventually("the device has the MTU of ESP", || host.snapshot().unwrap().contains(&esp).then_some(()));
    let before = host.settled().unwrap();
    // The control: without the file it takes the device for one that it may manage.
    let manager = NetworkManager::start_with(&bus, OTHERS, None);
    let state = eventually("it has seen the device", || manager.state_of(TUN).filter(|state| state != "unmanaged"));
    assert!(state.contains("connected"), "{state}");
    drop(manager);
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/NetworkManager/10-adit.conf"));
    let manager = NetworkManager::start_with(&bus, OTHERS, Some(file));
    eventually("it leaves the device alone", || manager.state_of(TUN).filter(|state| state == "unmanaged"));
    ip(tunnel.client().host(), "link add other0 type veth peer name other1");
    let other = eventually("it has seen another device", || manager.state_of("other0"));
    assert_ne!(other, "unmanaged", "its own configuration is read, too");
    ip(tunnel.client().host(), "link del other0");
    assert_tunnelled(&tunnel, &watched, "NetworkManager");
    drop(manager);
    assert_as_before(tunnel.client().host(), &before);
}
