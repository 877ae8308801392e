//! Adit itself, in any number of variants that differ in settings or in the build.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use adit_program::exit::{Exit, Failure};
use anyhow::{Context, Result, ensure};

use super::{End, Owner, Restart, Running, System, told};
use adit_lab::programs::{Client, Gateway, TUN};
use adit_lab::{Binaries, INTERNET_V4, Lab, Process};

/// The link by which a host behind the gateway is reached.
const BEYOND: &str = "eth0";

/// Longest wait for the client's change to its faster carrier.
const SWITCH: Duration = Duration::from_secs(3);

/// Adit under one name, with the settings and programs that make it what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its name, as `--systems` takes it.
    pub name: String,
    /// Keys of `server.toml` that differ from what `adit-server init` writes.
    pub settings: Vec<(String, String)>,
    /// The folder with `adit-server` and `adit-client`; `None` for those of this build.
    pub programs: Option<PathBuf>,
    /// What the client is told of its carrier, as `--carrier` takes it; `None` leaves it to choose.
    pub carrier: Option<String>,
    /// Whether traffic ends at a host behind the gateway, which forwards it, and not at the gateway itself.
    pub beyond: bool,
}

impl FromStr for Variant {
    type Err = String;

    /// Reads `NAME`, `NAME:KEY=VALUE` or `NAME:KEY=VALUE;KEY=VALUE`; the key `programs` names a folder, and `carrier`
    /// what the client is told.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(format!("{name:?} is no name: letters, digits, - _ and . make one"));
        }
        let mut variant = Self::shipped(name);
        for pair in rest.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} has no `=`"))?;
            if key == "programs" {
                variant.programs = Some(PathBuf::from(value));
            } else if key == "carrier" {
                variant.carrier = Some(value.to_owned());
            } else {
                variant.settings.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(variant)
    }
}

impl Variant {
    fn shipped(name: &str) -> Self {
        Self { name: name.to_owned(), settings: Vec::new(), programs: None, carrier: None, beyond: false }
    }
}

/// The variants that need no flag: as shipped, with the smaller cipher, and with the QUIC or TLS carrier only.
#[must_use]
pub fn own_variants() -> Vec<Variant> {
    let variant = |name: &str, settings: &[(&str, &str)]| Variant {
        settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Variant::shipped(name)
    };
    vec![
        variant("adit", &[]),
        variant("adit-aes128", &[("esp.suites", "aes-128-gcm")]),
        variant("adit-quic", &[("esp.enabled", "false")]),
        Variant { carrier: Some("tls".to_owned()), ..Variant::shipped("adit-tls") },
    ]
}

/// Adit as a system to measure.
#[derive(Debug)]
pub(super) struct Adit {
    variant: Variant,
}

impl Adit {
    pub(super) fn new(variant: Variant) -> Self {
        Self { variant }
    }

    fn binaries(&self) -> Result<Binaries, Failure> {
        let Some(folder) = &self.variant.programs else { return adit_lab::binaries() };
        let program = |name: &str| {
            let path = folder.join(name);
            let next = format!("name the right folder in --adit {}:programs=…", self.variant.name);
            let missing = || Failure::new(Exit::Usage, path.display().to_string(), "is no file", next);
            if path.is_file() { Ok(path) } else { Err(missing()) }
        };
        Ok(Binaries { server: program("adit-server")?, client: program("adit-client")? })
    }
}

impl System for Adit {
    fn name(&self) -> &str {
        &self.variant.name
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.binaries().map(|binaries| vec![binaries.server, binaries.client])
    }

    fn settings(&self) -> Vec<(String, String)> {
        let of_variant = |wanted: &str| self.variant.settings.iter().find(|(key, _)| key == wanted);
        let suites = of_variant("esp.suites").map_or("aes-256-gcm", |(_, value)| value.as_str());
        let cipher = suites.split(',').next().unwrap_or(suites).to_uppercase();
        let workers = of_variant("workers.count").map_or("one a core", |(_, value)| value.as_str());
        let threads = format!("gateway: {workers}, client: 1, beside one for control");
        let mut settings = told(&[("cipher", &cipher), ("threads", &threads)]);
        settings.extend(self.variant.settings.iter().cloned());
        settings
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let binaries = self.binaries()?;
        let mut gateway = Gateway::new(&lab.host("gateway")?, &binaries);
        let mut client = Client::new(&lab.host("client")?, &binaries);
        for (key, value) in &self.variant.settings {
            gateway.set(key, value);
        }
        gateway.init()?.success()?;
        gateway.start()?;
        client.join(&gateway.invite("bench", &[])?)?.success()?;
        let carrier = self.variant.carrier.clone();
        up(&mut client, carrier.as_deref())?;
        let near = client_end(&client)?;
        let far = if self.variant.beyond {
            let process = gateway.process().map(Process::id);
            End { host: lab.add_internet()?, link: BEYOND.to_owned(), address: INTERNET_V4, process }
        } else {
            gateway_end(&gateway)?
        };
        let offers_esp = !self.variant.settings.contains(&("esp.enabled".to_owned(), "false".to_owned()));
        let fast = offers_esp && carrier.as_deref().is_none_or(|carrier| carrier == "auto");
        let owner = Programs { client, gateway, carrier, fast };
        owner.wait_for_fast_carrier();
        Ok(Running { client: near, gateway: far, owner: Box::new(owner), lab })
    }
}

/// Both programs while they run.
#[derive(Debug)]
struct Programs {
    client: Client,
    gateway: Gateway,
    /// What the client is told of its carrier.
    carrier: Option<String>,
    /// Whether both ends may come to use `esp`.
    fast: bool,
}

impl Programs {
    /// Gives the client time to change from `quic`, which it begins with, to `esp`; without it `quic` is what is
    /// measured.
    fn wait_for_fast_carrier(&self) {
        let deadline = Instant::now() + SWITCH;
        while self.fast && self.carrier().as_deref() != Some("esp") && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn start_client_again(&mut self) -> Result<Restart> {
        self.client.stop()?;
        let ended = Instant::now();
        up(&mut self.client, self.carrier.as_deref())?;
        self.wait_for_fast_carrier();
        restarted(ended, self.client.process())
    }

    fn start_gateway_again(&mut self) -> Result<Restart> {
        self.gateway.kill();
        let ended = Instant::now();
        self.gateway.start()?;
        restarted(ended, self.gateway.process())
    }
}

fn up(client: &mut Client, carrier: Option<&str>) -> Result<()> {
    let arguments: Vec<&str> = carrier.into_iter().flat_map(|carrier| ["--carrier", carrier]).collect();
    client.up_with(&arguments, &[])
}

fn restarted(ended: Instant, process: Option<&Process>) -> Result<Restart> {
    let process = process.context("the program runs")?;
    Ok(Restart { ended, started: process.started(), process: process.id() })
}

impl Owner for Programs {
    fn carrier(&self) -> Option<String> {
        self.client.status().ok()?.carrier
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        drops_of(Some(&self.client), Some(&self.gateway))
    }

    fn restart_client(&mut self) -> Option<Result<Restart>> {
        Some(self.start_client_again())
    }

    fn restart_gateway(&mut self) -> Option<Result<Restart>> {
        Some(self.start_gateway_again())
    }
}

/// Packets that a client and the sessions of a gateway dropped until now, by reason.
pub(super) fn drops_of(client: Option<&Client>, gateway: Option<&Gateway>) -> BTreeMap<String, u64> {
    let of_client = client.and_then(|client| client.status().ok()).map(|status| status.drops);
    let sessions = gateway.and_then(|gateway| gateway.sessions().ok()).unwrap_or_default();
    let mut drops = BTreeMap::new();
    for (reason, count) in sessions.into_iter().map(|session| session.drops).chain(of_client).flatten() {
        *drops.entry(reason).or_default() += count;
    }
    drops
}

/// The end of a tunnel where our client is.
pub(super) fn client_end(client: &Client) -> Result<End> {
    let (address, process) = (v4(&client.inner_addresses()?)?, client.process().map(Process::id));
    Ok(End { host: client.host().clone(), link: TUN.to_owned(), address, process })
}

/// The end of a tunnel where our gateway is.
pub(super) fn gateway_end(gateway: &Gateway) -> Result<End> {
    let (address, process) = (v4(&gateway.inner_addresses()?)?, gateway.process().map(Process::id));
    Ok(End { host: gateway.host().clone(), link: TUN.to_owned(), address, process })
}

fn v4(addresses: &[IpAddr]) -> Result<Ipv4Addr> {
    let found = addresses.iter().find_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None });
    ensure!(found.is_some(), "{TUN} has no IPv4 address");
    found.context("just looked")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn variants_are_read_from_the_command_line() {
        let variant: Variant = "old:programs=/tmp/old;esp.enabled=true".parse().unwrap();
        assert_eq!(variant.name, "old");
        assert_eq!(variant.programs.as_deref(), Some(Path::new("/tmp/old")));
        assert_eq!(variant.settings, [("esp.enabled".to_owned(), "true".to_owned())]);
        assert_eq!("adit".parse::<Variant>().unwrap().settings, []);
        let by_tls: Variant = "mine:carrier=tls".parse().unwrap();
        assert_eq!((by_tls.carrier.as_deref(), by_tls.settings.len()), (Some("tls"), 0));
        assert!("two words".parse::<Variant>().is_err());
        assert!("x:key".parse::<Variant>().is_err());
    }

    #[test]
    fn settings_tell_the_cipher() {
        let cipher = |variant: &str| {
            let settings = Adit::new(variant.parse().unwrap()).settings();
            settings.into_iter().find(|(key, _)| key == "cipher").unwrap().1
        };
        assert_eq!(cipher("adit"), "AES-256-GCM");
        assert_eq!(cipher("small:esp.suites=aes-128-gcm"), "AES-128-GCM");
    }

    #[test]
    fn missing_programs_of_a_variant_are_named() {
        let adit = Adit::new("old:programs=/nonexistent".parse().unwrap());
        assert!(adit.programs().unwrap_err().to_string().contains("/nonexistent/adit-server"));
    }
}
