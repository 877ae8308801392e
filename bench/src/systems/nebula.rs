//! Nebula: two hosts of one authority that find each other without a lighthouse.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use adit_program::exit::Failure;
use anyhow::{Context, Result};

use super::{End, MTU, PATIENCE, Programs, QUEUE_LENGTH, Running, System, told, wait_for};
use adit_lab::{GATEWAY_V4, Host, Lab};

const LINK: &str = "nebula1";
const PORT: u16 = 4_242;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 2);
/// Bytes of each socket buffer: what its authors' example configuration names.
const SOCKET_BUFFER: u32 = 10_485_760;

/// Nebula, and the program that signs its certificates.
#[derive(Debug)]
pub(super) struct Nebula {
    programs: Result<[PathBuf; 2], Failure>,
}

impl Nebula {
    /// Looks for both programs.
    pub(super) fn new(programs: &Programs) -> Self {
        let find = || Ok([programs.find("nebula")?, programs.find("nebula-cert")?]);
        Self { programs: find() }
    }
}

impl System for Nebula {
    fn name(&self) -> &'static str {
        "nebula"
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.programs.clone().map(|[program, _]| vec![program])
    }

    fn settings(&self) -> Vec<(String, String)> {
        let routines = routines().to_string();
        told(&[
            ("cipher", "AES-256-GCM"),
            ("threads", "Go's default, a core each"),
            ("routines", &routines),
            ("listen.read_buffer, listen.write_buffer", "10 MiB"),
        ])
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let [program, signer] = self.programs.clone()?;
        let (client, gateway) = (lab.host("client")?, lab.host("gateway")?);
        let authority = Authority::create(&gateway, signer)?;
        let start = |host: &Host, address| {
            authority.sign(host, address)?;
            let path = host.folder().join("nebula.yml");
            let text = settings(host.folder(), &authority.folder, address);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            let mut command = Command::new(&program);
            command.arg("-config").arg(path);
            let process = host.spawn(command)?;
            wait_for("its tunnel device", &process, || has_address(host, address).then_some(()))?;
            anyhow::Ok((End::of(host, LINK, address, &process), process))
        };
        let (gateway, server) = start(&gateway, GATEWAY)?;
        let (client, joined) = start(&client, CLIENT)?;
        Ok(Running { client, gateway, owner: Box::new(vec![joined, server]), lab })
    }
}

/// The authority both hosts trust.
#[derive(Debug)]
struct Authority {
    host: Host,
    signer: PathBuf,
    folder: PathBuf,
}

impl Authority {
    /// Makes its key and certificate in the folder of `host`.
    fn create(host: &Host, signer: PathBuf) -> Result<Self> {
        let authority = Self { host: host.clone(), signer, folder: host.folder().to_owned() };
        let mut command = Command::new(&authority.signer);
        command.args(["ca", "-name", "bench"]);
        command.arg("-out-crt").arg(authority.folder.join("ca.crt"));
        command.arg("-out-key").arg(authority.folder.join("ca.key"));
        authority.host.output(command, PATIENCE)?.success().context("make an authority")?;
        Ok(authority)
    }

    /// Makes the key and the certificate of `host`, in its folder.
    fn sign(&self, host: &Host, address: Ipv4Addr) -> Result<()> {
        let mut command = Command::new(&self.signer);
        command.args(["sign", "-name", host.name(), "-networks", &format!("{address}/24")]);
        for (flag, path) in [
            ("-ca-crt", self.folder.join("ca.crt")),
            ("-ca-key", self.folder.join("ca.key")),
            ("-out-crt", host.folder().join("host.crt")),
            ("-out-key", host.folder().join("host.key")),
        ] {
            command.arg(flag).arg(path);
        }
        let output = self.host.output(command, PATIENCE)?;
        output.success().with_context(|| format!("sign the certificate of {}", host.name()))?;
        Ok(())
    }
}

/// Pairs of threads that read the tunnel and the cable: one a core, as its documentation's half of them is slower on
/// two.
fn routines() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The configuration of one host (nebula.defined.net/docs/config).
fn settings(folder: &Path, authority: &Path, address: Ipv4Addr) -> String {
    let (folder, authority) = (folder.display(), authority.display());
    let known = if address == CLIENT { format!("\"{GATEWAY}\": [\"{GATEWAY_V4}:{PORT}\"]") } else { String::new() };
    format!(
        "pki: {{ca: \"{authority}/ca.crt\", cert: \"{folder}/host.crt\", key: \"{folder}/host.key\"}}\n\
         static_host_map: {{{known}}}\n\
         lighthouse: {{am_lighthouse: false, hosts: []}}\n\
         listen: {{host: 0.0.0.0, port: {PORT}, read_buffer: {SOCKET_BUFFER}, write_buffer: {SOCKET_BUFFER}}}\n\
         routines: {}\n\
         cipher: aes\n\
         relay: {{use_relays: false}}\n\
         punchy: {{punch: false}}\n\
         tun: {{dev: {LINK}, mtu: {MTU}, tx_queue: {QUEUE_LENGTH}}}\n\
         logging: {{level: error}}\n\
         firewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  inbound: [{{port: any, proto: any, host: any}}]\n",
        routines(),
    )
}

fn has_address(host: &Host, address: Ipv4Addr) -> bool {
    let addresses = host.addresses(LINK).unwrap_or_default();
    addresses.iter().any(|net| net.addr() == IpAddr::V4(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_client_knows_where_the_other_is() {
        let of = |address| settings(Path::new("/host"), Path::new("/ca"), address);
        assert!(of(CLIENT).contains("static_host_map: {\"10.81.0.1\": [\"192.0.2.17:4242\"]}\n"), "{}", of(CLIENT));
        assert!(of(GATEWAY).contains("static_host_map: {}\n") && of(GATEWAY).contains("cert: \"/host/host.crt\""));
    }
}
