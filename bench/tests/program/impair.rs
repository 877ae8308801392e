//! Bad networks: the relay does to packets what a profile says, tunnels work through it, and nothing of it is left.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use adit_bench::systems::{self, Programs, Running};
use adit_lab::traffic::{
    Direction, EchoReport, NumberedPlan, NumberedReport, TcpServer, UdpEcho, echo, numbered, ping, transfer,
};
use adit_lab::{GATEWAY_V4, GATEWAY_V6, Host, Lab};
use adit_netem::{Counts, Profile, shipped};
use adit_testing::{alone, eventually};
use tempfile::TempDir;

use crate::harness::{bench, interrupt_at, report};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A client and a gateway with a network between them; `None`, loudly, where labs are not permitted.
fn through(profile: &Profile) -> Option<Lab> {
    match adit_lab::check_permission() {
        Ok(()) => Some(Lab::pair_through(profile, 1).unwrap()),
        Err(failure) => {
            adit_testing::skip(failure);
            None
        }
    }
}

fn profile(text: &str) -> Profile {
    Profile::parse("test", text).unwrap()
}

/// Tells a host the link-layer address of its neighbour for good.
fn know(host: &Host, neighbour: &Host) {
    let addresses = neighbour.addresses("eth0").unwrap();
    let address = addresses.iter().map(|net| net.addr()).find(IpAddr::is_ipv4).unwrap();
    let link = neighbour.ip("-o link show dev eth0").unwrap();
    let link_layer = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    host.ip(&format!("neigh replace {address} lladdr {link_layer} dev eth0 nud permanent")).unwrap();
}

/// Numbered packets from the client to the gateway, 4,000 at 2,000 a second, and what the relay says of all frames.
fn upload(text: &str) -> Option<(NumberedReport, Counts)> {
    let mut lab = through(&profile(text))?;
    let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
    // ARP has no checksum: a damaged answer would be believed, and nothing would arrive for half a minute.
    know(&client, &gateway);
    know(&gateway, &client);
    let plan = NumberedPlan { direction: Direction::Upload, flows: 1, sizes: vec![1_000], packets: 4_000, rate: 2_000 };
    let report = numbered(&client, &gateway, GATEWAY_V4.into(), &plan).unwrap();
    let [up, _down] = lab.relayed().unwrap();
    println!("{text}: {report:?} {up:?}");
    Some((report, up))
}

#[test]
fn nothing_but_the_delay_happens_to_packets_on_a_clean_way() {
    let _alone = alone();
    let Some((report, up)) = upload("delay_ms = 20") else { return };
    assert_eq!((report.reordered, report.duplicated, report.damaged), (0, 0, 0), "{report:?}");
    assert_eq!((up.lost, up.queue_full, up.doubled, up.damaged, up.held_back), (0, 0, 0, 0, 0));
    assert_all_accounted_for(&report, &up);
}

/// What did not arrive was dropped by the relay, which counts why. Where a busy machine lets it wait for so long that
/// its socket overflows, it counts that as well.
fn assert_all_accounted_for(report: &NumberedReport, up: &Counts) {
    let dropped = up.lost + up.queue_full + up.damaged + up.overrun;
    assert!(report.sent - report.received <= dropped, "{report:?} {up:?}");
}

#[test]
fn answers_take_the_delay_of_both_directions_and_addresses_are_those_of_the_plain_cable() {
    let _alone = alone();
    let Some(mut lab) = through(&profile("delay_ms = 15\n[down]\ndelay_ms = 25")) else { return };
    let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
    for target in [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)] {
        for _ in 0..5 {
            let rtt = ping(&client, target, LIMIT).unwrap().rtt().unwrap();
            assert!(rtt >= Duration::from_millis(40), "{rtt:?}");
        }
    }
    let mut plain = Lab::pair(false).unwrap();
    for (host, name) in [(client, "client"), (gateway, "gateway")] {
        let plain = plain.host(name).unwrap();
        let global = |host: &Host| {
            let mut addresses = host.addresses("eth0").unwrap();
            addresses.retain(|net| !matches!(net.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local()));
            addresses
        };
        assert_eq!(global(&host), global(&plain));
        assert_eq!(host.routes().unwrap().len(), plain.routes().unwrap().len());
        assert_eq!(host.mtu("eth0").unwrap(), 1_500);
    }
}

#[test]
fn packets_of_full_size_pass_whole_in_both_families() {
    let _alone = alone();
    let Some(mut lab) = through(&profile("")) else { return };
    let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
    for (address, size) in [(IpAddr::V4(GATEWAY_V4), 1_472), (IpAddr::V6(GATEWAY_V6), 1_452)] {
        let server = UdpEcho::start(&gateway, address).unwrap();
        // So few that every buffer on the way holds all of them, however long the machine does something else.
        let report = echo(&client, server.address(), 50, 500, size).unwrap();
        assert_eq!(report, EchoReport { sent: 50, received: 50, reordered: 0, duplicated: 0 });
    }
}

#[test]
fn as_many_packets_are_lost_as_the_profile_says() {
    let _alone = alone();
    let Some((report, up)) = upload("loss_percent = 10\nloss_burst_packets = 4") else { return };
    // 400 of 4,000, with a standard deviation of 47 as they come in bursts: five of them.
    assert!((165..635).contains(&up.lost), "{up:?}");
    assert!(report.sent - report.received >= 165, "{report:?}");
    assert_all_accounted_for(&report, &up);
    assert_eq!((report.reordered, report.duplicated, report.damaged), (0, 0, 0));
}

#[test]
fn as_many_packets_are_held_back_as_the_profile_says_and_overtaken() {
    let _alone = alone();
    // So long that some packets are overtaken however the machine divides its time; which, the relay cannot choose.
    let Some((report, up)) = upload("reorder_percent = 10\nreorder_ms = 200") else { return };
    assert!((300..500).contains(&up.held_back), "{up:?}");
    assert!(report.reordered > 0 && report.reordered <= up.held_back, "{report:?} {up:?}");
    assert_eq!((report.duplicated, report.damaged), (0, 0));
    assert_all_accounted_for(&report, &up);
}

#[test]
fn as_many_packets_arrive_twice_as_the_profile_says() {
    let _alone = alone();
    let Some((report, up)) = upload("duplicate_percent = 10") else { return };
    assert!((300..500).contains(&report.duplicated), "{report:?}");
    assert_eq!((report.reordered, report.damaged), (0, 0));
    assert!(up.doubled >= report.duplicated, "{up:?}");
    assert_all_accounted_for(&report, &up);
}

#[test]
fn damaged_packets_are_found_out_by_their_checksums() {
    let _alone = alone();
    let Some((report, up)) = upload("corrupt_percent = 10") else { return };
    assert!((300..500).contains(&up.damaged) && report.sent - report.received >= 300, "{report:?} {up:?}");
    assert_eq!((report.damaged, report.duplicated), (0, 0), "what is damaged does not arrive");
    assert_all_accounted_for(&report, &up);
}

#[test]
fn what_finds_the_queue_of_a_slow_way_full_is_dropped() {
    let _alone = alone();
    // 16 Mbit/s of packets, half of which fit. How many pass in a time, the tests of `netem` ask under virtual time.
    let Some((report, up)) = upload("rate_mbit = 8\nqueue_ms = 50") else { return };
    assert!(report.received > 0 && up.queue_full > 0 && up.lost == 0, "{report:?} {up:?}");
    assert_eq!(report.reordered, 0);
    assert_all_accounted_for(&report, &up);
}

/// Adit with a network between its ends.
fn adit_through(name: &str) -> Option<Running> {
    let lab = through(&adit_lab::network(name).unwrap())?;
    let systems = systems::catalogue(&systems::own_variants(), &Programs::default());
    let adit = systems.iter().find(|system| system.name() == "adit").unwrap();
    let running = adit.start(lab).unwrap();
    eventually("packets travel by esp", || (running.carrier().as_deref() == Some("esp")).then_some(()));
    Some(running)
}

/// Lets Adit carry some megabytes each way, and says how fast that was.
fn carries(name: &str, bytes: u64) {
    let _alone = alone();
    let Some(running) = adit_through(name) else { return };
    // The gateway may connect to the client; the other way its firewall has one port open, which is no test's.
    let server = TcpServer::start(&running.client.host, running.client.address.into()).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        let done = transfer(&running.gateway.host, server.address(), direction, bytes).unwrap();
        assert!(done.is_intact() && done.bytes == bytes);
        println!("{name}, {direction:?} of the gateway: {:.1} Mbit/s", done.megabits_per_second());
    }
    assert_eq!(running.carrier().as_deref(), Some("esp"), "no fall-back");
}

#[test]
fn adit_carries_over_esp_through_a_clean_relay() {
    carries("clean", 64_000_000);
}

#[test]
fn adit_carries_over_esp_through_lossy_wifi() {
    carries("lossy-wifi", 500_000);
}

#[test]
fn adit_carries_over_esp_across_the_atlantic() {
    carries("transatlantic", 4_000_000);
}

#[test]
fn faults_of_a_profile_are_usage_errors_that_name_file_key_and_remedy() {
    let (folder, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = files.path().join("bad.toml");
    fs::write(&file, "delay_ms = 20\n[up]\nlos_percent = 3\n").unwrap();
    let bad = file.to_str().unwrap();
    let cases = [
        (bad, vec![bad, "[up] los_percent", "did you mean `loss_percent`?"]),
        ("transatlantik", vec!["transatlantik", "did you mean `transatlantic`?"]),
        ("/nonexistent/x.toml", vec!["/nonexistent/x.toml", "No such file", "lossy-wifi"]),
    ];
    let seed = bench(&folder, &["run", "--quick", "--seed", "3"]).output().unwrap();
    assert_eq!(seed.status.code(), Some(2), "a seed decides about nothing without a profile");
    for (name, expected) in cases {
        let output = bench(&folder, &["run", "--quick", "--profile", name]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(expected.iter().all(|part| said.contains(part)), "{said}");
    }
}

#[test]
fn shipped_profiles_let_packets_through() {
    let _alone = alone();
    for name in shipped() {
        let Some(mut lab) = through(&adit_lab::network(name).unwrap()) else { return };
        let client = lab.host("client").unwrap();
        eventually(&format!("an answer through {name}"), || ping(&client, GATEWAY_V4.into(), LIMIT).unwrap().rtt());
    }
}

#[test]
fn interrupted_run_through_a_relay_leaves_nothing() {
    if let Err(failure) = adit_lab::check_permission() {
        return adit_testing::skip(failure);
    }
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let task = ["--only", "rtt-idle", "--seconds", "0.5", "--rounds", "1000"];
    let network = ["--profile", "lte", "--seed", "7"];
    let arguments = [&["run", "--json", "--systems", "plain"][..], &task, &network].concat();
    let report = report(&interrupt_at("round 2,", bench(&folder, &arguments), &folder));
    assert_eq!((&report["profile"], &report["seed"]), (&"lte".into(), &7.into()));
}
