//! The log of keys that an operator may ask for, and Wireshark's opinion of it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use adit_lab::traffic::{UdpEcho, echo};
use adit_testing::{eventually, skip};

use super::observe::{Wire, stands};
use crate::harness::{INTERNET, Options, Tunnel};

const VARIABLE: &str = "ADIT_ESP_KEYLOG";
const SIZE: usize = 50;

#[test]
fn capture_can_be_read_with_the_logged_keys_only() {
    // Wireshark does not know the next headers of vouched packets.
    let settings = &[("esp.vouched", "false")];
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 1, settings }) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let log = tunnel.lab.folder().join("keys");
    tunnel.clients[0].up_with(&[], &[(VARIABLE, log.to_str().unwrap())]).unwrap();
    stands(&tunnel, 0, "esp");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o7777, 0o600);
    let said = tunnel.client().process().unwrap().stderr();
    assert!(said.contains(VARIABLE) && said.contains("WARN"), "there is a warning:\n{said}");

    let wire = Wire::start(tunnel.client().host());
    let server = UdpEcho::start(&tunnel.internet, INTERNET[0]).unwrap();
    assert_eq!(echo(tunnel.client().host(), server.address(), 5, 50, SIZE).unwrap().lost(), 0);
    let file = tunnel.lab.folder().join("capture");
    let datagrams = eventually("all echoes and their answers are captured", || {
        let esp = wire.datagrams().into_iter().filter(|one| one.is_esp() && one.length > SIZE);
        let datagrams: Vec<_> = esp.map(|one| one.packet).collect();
        (datagrams.len() >= 2 * 5).then_some(datagrams)
    });
    fs::write(&file, pcap(&datagrams)).unwrap();
    let table = fs::read_to_string(&log).unwrap();
    let port = server.address().port().to_string();
    let marker = "5a".repeat(SIZE - 4);
    let Some(shown) = tshark(&file, &table.lines().collect::<Vec<_>>()) else { return };
    for field in ["udp.srcport", "udp.dstport"] {
        let ports = shown.lines().filter(|line| line.starts_with(field) && line.split(',').any(|one| one == port));
        assert!(ports.count() >= 5, "{field} of inner packets:\n{shown}");
    }
    assert!(shown.matches(&marker).count() >= 10, "contents:\n{shown}");
    let blind = tshark(&file, &[]).unwrap();
    assert!(!blind.contains(&marker) && blind.contains("esp.spi"), "nothing can be read without keys:\n{blind}");
}

#[test]
fn nothing_is_logged_without_the_variable() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    stands(&tunnel, 0, "esp");
    let said = [tunnel.client().process(), tunnel.gateway.process()].map(|process| process.unwrap().stderr()).concat();
    assert!(!said.contains(VARIABLE), "{said}");
}

/// A capture of raw IP packets, as libpcap writes it.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    const RAW_IP: u32 = 101;
    let header = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, RAW_IP];
    let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_be_bytes).collect();
    for packet in packets {
        let length = u32::try_from(packet.len()).unwrap();
        bytes.extend([0, 0, length, length].into_iter().flat_map(u32::to_be_bytes));
        bytes.extend(packet);
    }
    bytes
}

/// What tshark makes of a capture with a table of keys, a field on each line; `None` without tshark.
fn tshark(capture: &Path, table: &[&str]) -> Option<String> {
    const FIELDS: [&str; 4] = ["esp.spi", "udp.srcport", "udp.dstport", "data.data"];
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-o", "esp.enable_encryption_decode:TRUE"]);
    command.args(["-d", "udp.port==443,udpencap", "-T", "fields", "-E", "separator=;"]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", *field]));
    command.args(table.iter().flat_map(|line| ["-o".to_owned(), format!("uat:esp_sa:{line}")]));
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let rows = String::from_utf8(output.stdout).unwrap();
            let cells = rows.lines().flat_map(|row| FIELDS.iter().zip(row.split(';')));
            Some(cells.map(|(field, value)| format!("{field},{value}\n")).collect())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip("tshark is not installed: apt-get install tshark");
            None
        }
        Err(error) => panic!("start tshark: {error}"),
    }
}
