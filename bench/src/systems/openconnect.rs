//! openconnect, the stock client of the AnyConnect family.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;

use super::anyconnect::{Carrier, PASSWORD, USER};
use super::{End, PATIENCE, wait_for};
use adit_lab::{GATEWAY_V4, Host, Process};

const LINK: &str = "vpnc0";

/// Has it log in at the gateway, which one of the authorities in a file vouches for, and waits for its tunnel.
pub(super) fn join(client: &Host, program: &Path, authority: &Path, carrier: Carrier) -> Result<(Process, End)> {
    let told = client.folder().join("told");
    let joined = start(client, program, authority, carrier, &told)?;
    let line = match carrier {
        Carrier::Dtls => "DTLS connection",
        Carrier::Tls => "SSL connected",
    };
    joined.wait_for_line(line, PATIENCE)?;
    let told = wait_for("the client's address", &joined, || fs::read_to_string(&told).ok())?;
    let (address, mtu) = told.trim().split_once(' ').context("openconnect tells an address and an MTU")?;
    let address: Ipv4Addr = address.parse().with_context(|| format!("read the address {address:?}"))?;
    client.set_mtu(LINK, mtu.parse().with_context(|| format!("read the MTU {mtu:?}"))?)?;
    client.add_address(LINK, Ipv4Net::new(address, 24).expect("24 bits fit").into())?;
    let end = End::of(client, LINK, address, &joined);
    Ok((joined, end))
}

/// Starts it. Its script only notes what it is told, in the file `told`: the lab configures the link.
fn start(client: &Host, program: &Path, authority: &Path, carrier: Carrier, told: &Path) -> Result<Process> {
    let path = |name: &str| client.folder().join(name);
    fs::write(path("password"), format!("{PASSWORD}\n")).context("write the password")?;
    let new = path("told.new");
    let note = format!(
        "if [ \"$reason\" = connect ]; then printf '%s %s' \"$INTERNAL_IP4_ADDRESS\" \"$INTERNAL_IP4_MTU\" >{}; mv {} {}; fi",
        new.display(),
        new.display(),
        told.display(),
    );
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" <\"$0\""]).arg(path("password")).arg(program);
    command.arg(format!("--user={USER}")).args(["--passwd-on-stdin", "--no-proxy", "--timestamp"]);
    if carrier == Carrier::Tls {
        command.arg("--no-dtls");
    }
    command.arg(format!("--interface={LINK}")).arg(format!("--script={note}"));
    command.arg(format!("--cafile={}", authority.display())).arg(format!("https://{GATEWAY_V4}"));
    client.spawn(command)
}
