//! Quincy: QUIC datagrams, with Noise for keys, which its authors measure it with.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_proto::exit::Failure;
use anyhow::{Context, Result, bail};
use data_encoding::BASE64;

use super::keys::KeyPair;
use super::{End, Programs, Running, System, wait_for};
use crate::lab::{GATEWAY_V4, Host, Lab, Process};

const LINK: &str = "quincy0";
const PORT: u16 = 55_555;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Quincy's server and client.
#[derive(Debug)]
pub(super) struct Quincy {
    programs: Result<[PathBuf; 2], Failure>,
}

impl Quincy {
    /// Looks for both programs.
    pub(super) fn new(programs: &Programs) -> Self {
        let find = || Ok([programs.find("quincy-server")?, programs.find("quincy-client")?]);
        Self { programs: find() }
    }
}

impl System for Quincy {
    fn name(&self) -> &'static str {
        "quincy"
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.programs.clone().map(Vec::from)
    }

    fn settings(&self) -> Vec<(String, String)> {
        vec![("protocol.mode".to_owned(), "noise".to_owned())]
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let [server_program, client_program] = self.programs.clone()?;
        let (client, gateway) = (lab.host("client")?, lab.host("gateway")?);
        let (near, far) = (KeyPair::generate()?, KeyPair::generate()?);
        let server = run(&gateway, &server_program, &server_settings(gateway.folder(), &far, &near)?)?;
        wait_for("the server's tunnel device", &server, || address(&gateway))?;
        let joined = run(&client, &client_program, &client_settings(&near, &far))?;
        let own = wait_for("the client's tunnel device", &joined, || address(&client))?;
        let end = |host: &Host, address, process: &Process| End {
            host: host.clone(),
            link: LINK.to_owned(),
            address,
            process: Some(process.id()),
        };
        let (near, far) = (end(&client, own, &joined), end(&gateway, GATEWAY, &server));
        Ok(Running { client: near, gateway: far, owner: Box::new(vec![joined, server]), _lab: lab })
    }
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

fn server_settings(folder: &Path, own: &KeyPair, client: &KeyPair) -> Result<String> {
    let users = folder.join("users.toml");
    let key = BASE64.encode(&client.public);
    fs::write(&users, format!("[users.client]\nauthorized_keys = [\"{key}\"]\nauthorized_certs = []\n"))
        .with_context(|| format!("write {}", users.display()))?;
    let Some(users) = users.to_str() else { bail!("{} is no text", users.display()) };
    Ok(format!(
        "name = \"bench\"\ninterface_name = \"{LINK}\"\nbind_address = \"0.0.0.0\"\nbind_port = {PORT}\n\
         tunnel_network = \"{GATEWAY}/24\"\nusers_file = \"{users}\"\n\n\
         [protocol]\nmode = \"noise\"\nkey_exchange = \"standard\"\nprivate_key = \"{}\"\n\n[log]\nlevel = \"warn\"\n",
        BASE64.encode(&own.private),
    ))
}

fn client_settings(own: &KeyPair, server: &KeyPair) -> String {
    format!(
        "connection_string = \"{GATEWAY_V4}:{PORT}\"\n\n\
         [protocol]\nmode = \"noise\"\nkey_exchange = \"standard\"\nserver_public_key = \"{}\"\nprivate_key = \"{}\"\n\n\
         [network]\nroutes = []\ndns_servers = []\ninterface_name = \"{LINK}\"\n\n[log]\nlevel = \"warn\"\n",
        BASE64.encode(&server.public),
        BASE64.encode(&own.private),
    )
}
