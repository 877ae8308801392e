//! Quincy: QUIC datagrams, with keys by TLS, which is its default, or by Noise, which its authors measure it with.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_program::exit::Failure;
use anyhow::{Context, Result};
use data_encoding::{BASE64, HEXLOWER};

use super::identity::Identity;
use super::keys::KeyPair;
use super::{End, MTU, Programs, Running, System, told, wait_for};
use adit_lab::{GATEWAY_V4, Host, Lab, Process};

const LINK: &str = "quincy0";
const PORT: u16 = 55_555;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Where its keys come from, which decides on the cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tls,
    Noise,
}

/// Quincy's server and client.
#[derive(Debug)]
pub(super) struct Quincy {
    mode: Mode,
    programs: Result<[PathBuf; 2], Failure>,
}

impl Quincy {
    /// With TLS.
    pub(super) fn tls(programs: &Programs) -> Self {
        Self::new(programs, Mode::Tls)
    }

    /// With Noise.
    pub(super) fn noise(programs: &Programs) -> Self {
        Self::new(programs, Mode::Noise)
    }

    fn new(programs: &Programs, mode: Mode) -> Self {
        let find = || Ok([programs.find("quincy-server")?, programs.find("quincy-client")?]);
        Self { mode, programs: find() }
    }
}

impl System for Quincy {
    fn name(&self) -> &'static str {
        match self.mode {
            Mode::Tls => "quincy",
            Mode::Noise => "quincy-noise",
        }
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.programs.clone().map(Vec::from)
    }

    fn settings(&self) -> Vec<(String, String)> {
        let (mode, cipher) = match self.mode {
            Mode::Tls => ("tls", "AES-256-GCM"),
            Mode::Noise => ("noise", "ChaCha20-Poly1305"),
        };
        let mtu = MTU.to_string();
        told(&[
            ("cipher", cipher),
            ("threads", "tokio's default, a core each"),
            ("protocol.mode", mode),
            ("connection.mtu", &mtu),
        ])
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let [server_program, client_program] = self.programs.clone()?;
        let (client, gateway) = (lab.host("client")?, lab.host("gateway")?);
        let [near, far] = match self.mode {
            Mode::Tls => with_tls(&client, &gateway)?,
            Mode::Noise => with_noise()?,
        };
        let server = run(&gateway, &server_program, &server_settings(gateway.folder(), &far)?)?;
        wait_for("the server's tunnel device", &server, || address(&gateway))?;
        let joined = run(&client, &client_program, &client_settings(&near))?;
        let own = wait_for("the client's tunnel device", &joined, || address(&client))?;
        let (client, gateway) = (End::of(&client, LINK, own, &joined), End::of(&gateway, LINK, GATEWAY, &server));
        Ok(Running { client, gateway, owner: Box::new(vec![joined, server]), lab })
    }
}

/// What one end knows of itself and of the other.
#[derive(Debug)]
struct Keys {
    /// The table `protocol` of its configuration.
    protocol: String,
    /// The other end, as a line in the file of users.
    peer: String,
}

/// The keys of client and server where both have a certificate.
fn with_tls(client: &Host, gateway: &Host) -> Result<[Keys; 2]> {
    let near = Identity::create(client.folder(), "client")?;
    let far = Identity::create(gateway.folder(), &GATEWAY_V4.to_string())?;
    let peer = |of: &Identity| {
        format!("authorized_keys = []\nauthorized_certs = [\"sha256:{}\"]", HEXLOWER.encode(&of.fingerprint))
    };
    let of_client = format!(
        "mode = \"tls\"\ntrusted_certificate_paths = [\"{}\"]\n\
         client_certificate_file = \"{}\"\nclient_certificate_key_file = \"{}\"\n",
        far.certificate.display(),
        near.certificate.display(),
        near.key.display(),
    );
    let of_server = format!(
        "mode = \"tls\"\ncertificate_file = \"{}\"\ncertificate_key_file = \"{}\"\n",
        far.certificate.display(),
        far.key.display(),
    );
    Ok([Keys { protocol: of_client, peer: peer(&far) }, Keys { protocol: of_server, peer: peer(&near) }])
}

/// The keys of client and server where both have a Noise key.
fn with_noise() -> Result<[Keys; 2]> {
    let (near, far) = (KeyPair::generate()?, KeyPair::generate()?);
    let protocol = |own: &KeyPair| {
        let private = BASE64.encode(&own.private);
        format!("mode = \"noise\"\nkey_exchange = \"standard\"\nprivate_key = \"{private}\"\n")
    };
    let peer = |of: &KeyPair| format!("authorized_keys = [\"{}\"]\nauthorized_certs = []", BASE64.encode(&of.public));
    let of_client = format!("{}server_public_key = \"{}\"\n", protocol(&near), BASE64.encode(&far.public));
    Ok([Keys { protocol: of_client, peer: peer(&far) }, Keys { protocol: protocol(&far), peer: peer(&near) }])
}

fn run(host: &Host, program: &Path, settings: &str) -> Result<Process> {
    let path = host.folder().join("quincy.toml");
    fs::write(&path, settings).with_context(|| format!("write {}", path.display()))?;
    let mut command = Command::new(program);
    command.arg("--config-path").arg(path);
    host.spawn(command)
}

/// The first IPv4 address of the tunnel device.
fn address(host: &Host) -> Option<Ipv4Addr> {
    let addresses = host.addresses(LINK).ok()?;
    addresses.iter().find_map(|net| if let IpAddr::V4(v4) = net.addr() { Some(v4) } else { None })
}

fn server_settings(folder: &Path, keys: &Keys) -> Result<String> {
    let users = folder.join("users.toml");
    fs::write(&users, format!("[users.client]\n{}\n", keys.peer))
        .with_context(|| format!("write {}", users.display()))?;
    Ok(format!(
        "name = \"bench\"\ninterface_name = \"{LINK}\"\nbind_address = \"0.0.0.0\"\nbind_port = {PORT}\n\
         tunnel_network = \"{GATEWAY}/24\"\nusers_file = \"{}\"\n\n\
         [protocol]\n{}\n[connection]\nmtu = {MTU}\n\n[log]\nlevel = \"warn\"\n",
        users.display(),
        keys.protocol,
    ))
}

fn client_settings(keys: &Keys) -> String {
    format!(
        "connection_string = \"{GATEWAY_V4}:{PORT}\"\n\n[protocol]\n{}\n[connection]\nmtu = {MTU}\n\n\
         [network]\nroutes = []\ndns_servers = []\ninterface_name = \"{LINK}\"\n\n[log]\nlevel = \"warn\"\n",
        keys.protocol,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_keys_are_told_to_the_other_end() {
        let [near, far] = with_noise().unwrap();
        let public = |peer: &str| peer.split('"').nth(1).map(str::to_owned).unwrap();
        assert!(near.protocol.contains(&format!("server_public_key = \"{}\"", public(&near.peer))));
        assert!(!far.protocol.contains("server_public_key"));
        let settings = client_settings(&near);
        assert!(
            settings.contains("[connection]\nmtu = 1420\n") && settings.contains("mode = \"noise\"\n"),
            "{settings}"
        );
    }
}
