//! The traffic generator counts what the kernel counts, and iperf3 finds the same figures.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::traffic::{BarragePlan, BarrageTarget, Direction, StreamPlan, Streams};
use adit_lab::{GATEWAY_V4, Host, Lab};
use adit_testing::{PATIENCE, alone, eventually};
use serde_json::Value;

use crate::esp::counters;

/// How often each generator has its turn in one attempt.
const TURNS: usize = 6;
/// Attempts, of which one must succeed: other load on the machine meets both, but not alike.
const ATTEMPTS: usize = 3;
/// Time of counting.
const DURATION: Duration = Duration::from_secs(1);
/// Largest difference of the medians.
const TOLERANCE: f64 = 0.10;
/// Ratios of medians that agree.
const EQUAL: RangeInclusive<f64> = 1.0 - TOLERANCE..=1.0 + TOLERANCE;
/// UDP packets per second, and their payload: what any machine carries without loss.
const RATE: u32 = 10_000;
const SIZE: usize = 1_200;
/// What TCP moves while its bytes are counted.
const MOVED: u64 = 256 << 20;
/// More than a receiver's buffer holds of it, where its reader does not know of it yet.
const UNREAD: u64 = 32 << 20;

/// A client and a gateway on one cable; `None` where the test cannot run.
fn cable() -> Option<(Lab, Host, Host)> {
    if let Err(failure) = adit_lab::check_permission() {
        adit_testing::skip(failure);
        return None;
    }
    let mut lab = Lab::pair(false).unwrap();
    let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
    Some((lab, client, gateway))
}

fn plan() -> StreamPlan {
    StreamPlan {
        server: (GATEWAY_V4, 53).into(),
        connections: 1,
        direction: Direction::Upload,
        congestion: "cubic".to_owned(),
    }
}

fn barrage() -> BarragePlan {
    let drain = Duration::from_millis(200);
    BarragePlan { size: SIZE, rate: Some(RATE), warm_up: Duration::ZERO, duration: DURATION, drain }
}

#[test]
fn udp_packets_are_counted_as_by_the_kernel() {
    let _alone = alone();
    let Some((_lab, client, gateway)) = cable() else { return };
    let target = BarrageTarget::start(&gateway, SocketAddr::from((GATEWAY_V4, 53))).unwrap();
    let count = |counted: &BTreeMap<String, u64>, name: &str| counted.get(name).copied().unwrap_or_default();
    let before = [&client, &gateway].map(counters);
    let report = target.send_from(&client, barrage(), || Ok(())).unwrap();
    let after = [&client, &gateway].map(counters);
    let sent = count(&after[0], "UdpOutDatagrams") - count(&before[0], "UdpOutDatagrams");
    let [arrived, full] =
        ["UdpInDatagrams", "UdpRcvbufErrors"].map(|name| count(&after[1], name) - count(&before[1], name));
    println!("{report:?}; the kernels sent {sent}, {arrived} arrived, {full} found the socket's buffer full");
    assert_eq!((report.sent, report.duplicated), (sent, 0));
    assert!(report.received > 0 && report.received <= arrived, "no more is counted than came");
    // Those that come after the drain are late, and not counted.
    assert!(arrived + full <= sent, "nothing comes that was not sent");
}

#[test]
fn bytes_of_tcp_are_counted_as_by_the_kernel() {
    let _alone = alone();
    let Some((_lab, client, gateway)) = cable() else { return };
    let before = received_by_link(&gateway);
    let streams = Streams::start(&client, &gateway, &plan()).unwrap();
    eventually("much has arrived", || (streams.received() > MOVED).then_some(()));
    let least = streams.received();
    let by_link = received_by_link(&gateway) - before;
    let most = streams.received();
    println!("{least} to {most} bytes counted, {by_link} by the link");
    assert!(least <= by_link, "no more is counted than came");
    assert!(by_link - by_link / 20 <= most + UNREAD, "nothing is forgotten but headers");
}

/// Bytes that came by all links but the loopback (`/proc/net/dev`).
fn received_by_link(host: &Host) -> u64 {
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let links = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    links.map(|(_, columns)| columns.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
}

/// What iperf3 measures; `pointer` says where its JSON object has it.
fn iperf3(client: &Host, gateway: &Host, arguments: &[&str], pointer: &str) -> f64 {
    let command = |arguments: &[&str]| {
        let mut command = Command::new("iperf3");
        command.args(arguments);
        command
    };
    let server = gateway.spawn(command(&["--server", "--one-off", "--forceflush"])).unwrap();
    server.wait_for_line("listening", PATIENCE).unwrap();
    let (address, seconds) = (GATEWAY_V4.to_string(), DURATION.as_secs().to_string());
    let common = ["--json", "--client", &address, "--time", &seconds];
    let said = client.output(command(&[&common[..], arguments].concat()), PATIENCE).unwrap().success().unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    said.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} in {said:#}"))
}

/// Lets both measure in turns, and compares their medians; again where they differ.
fn compare(what: &str, mut own: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64, permitted: RangeInclusive<f64>) {
    let mut seen = Vec::new();
    while seen.len() < ATTEMPTS {
        let (mut a, mut b) = turns(&mut own, &mut theirs);
        let ratio = median(&mut a) / median(&mut b);
        println!("{what}: {ratio:.3} times what iperf3 measures: {a:.3?}, {b:.3?}");
        if permitted.contains(&ratio) {
            return;
        }
        seen.push(ratio);
    }
    panic!("{what}: {seen:#?}");
}

/// What both measure in turns, A B B A.
fn turns(own: &mut impl FnMut() -> f64, theirs: &mut impl FnMut() -> f64) -> (Vec<f64>, Vec<f64>) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        if turn % 2 == 0 {
            a.push(own());
            b.push(theirs());
        } else {
            b.push(theirs());
            a.push(own());
        }
    }
    (a, b)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[values.len() / 2], values[(values.len() - 1) / 2])
}

/// Gbit/s that arrive while the streams that `start` opens are under load.
fn arriving(start: impl FnOnce(&StreamPlan) -> Streams) -> f64 {
    let streams = start(&plan());
    thread::sleep(Duration::from_secs(1));
    let (start, before) = (Instant::now(), streams.received());
    thread::sleep(DURATION);
    let kibibytes = u32::try_from((streams.received() - before) >> 10).unwrap();
    f64::from(kibibytes) * 1024.0 * 8.0 / start.elapsed().as_secs_f64() / 1e9
}

/// Where nothing but the processors is the limit, iperf3 reaches less: what it can is no measure of what there is.
#[test]
#[ignore = "compares rates with those of iperf3, which wants a quiet machine"]
fn one_tcp_stream_is_not_slower_than_with_iperf3() {
    let _alone = alone();
    let Some((_lab, client, gateway)) = cable() else { return };
    let own = || arriving(|plan| Streams::start(&client, &gateway, plan).unwrap());
    let arguments = ["--omit", "1", "--congestion", "cubic"];
    let theirs = || iperf3(&client, &gateway, &arguments, "/end/sum_received/bits_per_second") / 1e9;
    compare("Gbit/s of one TCP stream", own, theirs, 1.0 - TOLERANCE..=f64::INFINITY);
}

#[test]
#[ignore = "compares rates with those of iperf3, which wants a quiet machine"]
fn paced_tcp_stream_is_counted_as_by_iperf3() {
    let _alone = alone();
    let Some((_lab, client, gateway)) = cable() else { return };
    let own = || arriving(|plan| Streams::start_paced(&client, &gateway, plan, 1e9 / 8.0).unwrap());
    let arguments = ["--omit", "1", "--congestion", "cubic", "--bitrate", "1G"];
    let theirs = || iperf3(&client, &gateway, &arguments, "/end/sum_received/bits_per_second") / 1e9;
    compare("Gbit/s of one TCP stream at 1 Gbit/s", own, theirs, EQUAL);
}

#[test]
#[ignore = "compares rates with those of iperf3, which wants a quiet machine"]
fn udp_packets_at_a_fixed_rate_are_counted_as_by_iperf3() {
    let _alone = alone();
    let Some((_lab, client, gateway)) = cable() else { return };
    let target = BarrageTarget::start(&gateway, SocketAddr::from((GATEWAY_V4, 53))).unwrap();
    let own = || target.send_from(&client, barrage(), || Ok(())).unwrap().delivered();
    let (bits, size) = ((SIZE * 8 * RATE as usize).to_string(), SIZE.to_string());
    let arguments = ["--udp", "--bandwidth", &bits, "--length", &size];
    let theirs = || {
        let bits = iperf3(&client, &gateway, &arguments, "/end/sum_received/bits_per_second");
        bits / 8.0 / f64::from(u32::try_from(SIZE).unwrap())
    };
    compare("UDP packets delivered per second", own, theirs, EQUAL);
}
