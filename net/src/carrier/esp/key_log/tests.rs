use std::process::Command;

use adit_proto::esp::capsule::{FLAG_EXTENDED_SEQUENCE, SaInit};
use adit_proto::esp::keys::KeyChain;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::esp::sa::Outbound;
use bytes::Bytes;

use super::*;
use crate::cipher::Cipher;

const PORT: u16 = 4433;

fn keys(suite: Suite) -> DirectionKeys {
    let spi = spi();
    let init = SaInit { epoch: 0, suite, flags: FLAG_EXTENDED_SEQUENCE, spi, group: None, share: Bytes::new() };
    KeyChain::new(&mut [7; 32]).advance(&init, &init, None).unwrap().client_to_server
}

fn spi() -> Spi {
    Spi::new(1, 0x2a).unwrap()
}

fn logged(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn lines_have_the_fields_of_the_table() {
    let line = line("IPv4", spi(), &keys(Suite::Aes128Gcm));
    let fields: Vec<&str> = line.trim_end().split(',').collect();
    assert_eq!(fields[..4], [r#""IPv4""#, r#""*""#, r#""*""#, r#""0x8100002a""#]);
    assert_eq!(fields[5].len(), r#""0x""#.len() + 2 * (16 + 4), "key and salt");
    assert_eq!(fields[6..], [r#""NULL""#, r#""""#, r#""64-bit""#, r#""0""#]);
}

#[test]
fn file_is_its_owners_alone_and_grows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    for opened in 1..=2 {
        let log = KeyLog::open(&path).unwrap();
        log.record(spi(), &keys(Suite::Aes256Gcm));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(logged(&path).len(), 2 * opened, "IPv4 and IPv6");
    }
}

#[test]
fn file_that_cannot_be_opened_is_none() {
    assert!(KeyLog::open_loudly(Path::new("/nonexistent/keys")).is_none());
}

/// An IPv4 packet with a UDP datagram; the checksums are left out.
fn ipv4(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(payload.len()).unwrap() + 8;
    let [total, udp_len] = [udp_len + 20, udp_len].map(u16::to_be_bytes);
    let [from, to] = ports.map(u16::to_be_bytes);
    let head = [[0x45, 0], total, [0, 0], [0, 0], [64, 17], [0, 0], [10, 0], [0, 1], [10, 0], [0, 2]];
    [&head.concat()[..], &from, &to, &udp_len, &[0, 0], payload].concat()
}

/// A capture of one raw IP packet, as libpcap writes it.
fn capture(packet: &[u8]) -> Vec<u8> {
    const RAW_IP: u32 = 101;
    let len = u32::try_from(packet.len()).unwrap();
    let header = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, RAW_IP, 0, 0, len, len];
    header.into_iter().flat_map(u32::to_be_bytes).chain(packet.iter().copied()).collect()
}

/// What tshark makes of a capture with a table; `None` without tshark.
fn tshark(capture: &Path, table: &[String]) -> Option<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-o", "esp.enable_encryption_decode:TRUE"]);
    command.args(["-d", &format!("udp.port=={PORT},udpencap"), "-T", "fields"]);
    command.args(["-e", "esp.spi", "-e", "udp.dstport", "-e", "data.data"]);
    for line in table {
        command.args(["-o", &format!("uat:esp_sa:{line}")]);
    }
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "tshark: {error}");
            eprintln!("SKIPPED: tshark: {error}");
            None
        }
    }
}

#[test]
fn wireshark_reads_what_was_sealed() {
    let folder = tempfile::tempdir().unwrap();
    for suite in [Suite::Aes256Gcm, Suite::Aes128Gcm] {
        let (table, file) = (folder.path().join(suite.label()), folder.path().join("capture"));
        KeyLog::open(&table).unwrap().record(spi(), &keys(suite));
        let inner = ipv4([1000, 2000], b"through the tunnel");
        let mut datagram = vec![0; sealed_len(inner.len())];
        datagram[PREFIX_LEN..PREFIX_LEN + inner.len()].copy_from_slice(&inner);
        let sa = Outbound::<Cipher>::new(spi(), keys(suite)).unwrap();
        sa.reserve(1, inner.len()).unwrap().seal(&mut datagram, inner.len(), NextHeader::Ipv4).unwrap();
        std::fs::write(&file, capture(&ipv4([PORT, PORT], &datagram))).unwrap();
        let Some(shown) = tshark(&file, &logged(&table)) else { return };
        let content: String = b"through the tunnel".iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown.trim_end(), format!("{}\t{PORT},2000\t{content}", spi()), "{suite}");
    }
}
