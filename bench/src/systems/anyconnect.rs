//! The AnyConnect family: its stock client or ours at its stock gateway or ours, by DTLS or by TLS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use adit_program::exit::Failure;
use anyhow::{Context as _, Result, bail};

use super::adit::{client_end, drops_of, gateway_end};
use super::ocserv::{self, Ocserv};
use super::{End, Owner, PATIENCE, Programs, Running, System, openconnect, told};
use adit_lab::programs::{Client, Gateway};
use adit_lab::{GATEWAY_V4, Host, Lab, Process};

/// Who logs in at every gateway, and with what.
pub(super) const USER: &str = "bench";
pub(super) const PASSWORD: &str = "correct horse battery";
/// The profile of our client.
const PROFILE: &str = "bench";

/// openconnect at ocserv: what others are compared with.
pub(crate) const OCSERV: &str = "ocserv";
pub(crate) const OCSERV_TLS: &str = "ocserv-tls";
/// openconnect at our gateway.
pub(crate) const OPENCONNECT_TO_ADIT: &str = "openconnect-to-adit";
pub(crate) const OPENCONNECT_TO_ADIT_TLS: &str = "openconnect-to-adit-tls";
/// Our client at our gateway, by the family's protocol.
pub(crate) const ADIT_ANYCONNECT: &str = "adit-anyconnect";
pub(crate) const ADIT_ANYCONNECT_TLS: &str = "adit-anyconnect-tls";
/// Our client at ocserv.
pub(crate) const ADIT_TO_OCSERV: &str = "adit-to-ocserv";
pub(crate) const ADIT_TO_OCSERV_TLS: &str = "adit-to-ocserv-tls";

/// How long packets may travel by another carrier than the one that is to be measured.
const SWITCH: Duration = Duration::from_secs(10);
/// How often it is looked by which they travel.
const LOOK: Duration = Duration::from_millis(100);

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Dtls,
    Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    Openconnect,
    Adit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GatewayKind {
    Ocserv,
    Adit,
}

use self::Carrier::{Dtls, Tls};
use self::ClientKind::Openconnect;

/// A client of the family at a gateway of it.
#[derive(Debug)]
pub(super) struct AnyConnect {
    name: &'static str,
    client: ClientKind,
    gateway: GatewayKind,
    carrier: Carrier,
    peers: Programs,
}

/// All of them; the first two are what the family has without us.
pub(super) fn all(peers: &Programs) -> impl Iterator<Item = AnyConnect> {
    const ALL: [(&str, ClientKind, GatewayKind, Carrier); 8] = [
        (OCSERV, Openconnect, GatewayKind::Ocserv, Dtls),
        (OCSERV_TLS, Openconnect, GatewayKind::Ocserv, Tls),
        (OPENCONNECT_TO_ADIT, Openconnect, GatewayKind::Adit, Dtls),
        (OPENCONNECT_TO_ADIT_TLS, Openconnect, GatewayKind::Adit, Tls),
        (ADIT_ANYCONNECT, ClientKind::Adit, GatewayKind::Adit, Dtls),
        (ADIT_ANYCONNECT_TLS, ClientKind::Adit, GatewayKind::Adit, Tls),
        (ADIT_TO_OCSERV, ClientKind::Adit, GatewayKind::Ocserv, Dtls),
        (ADIT_TO_OCSERV_TLS, ClientKind::Adit, GatewayKind::Ocserv, Tls),
    ];
    let of = move |(name, client, gateway, carrier)| {
        let peers = peers.clone();
        AnyConnect { name, client, gateway, carrier, peers }
    };
    ALL.into_iter().map(of)
}

impl System for AnyConnect {
    fn name(&self) -> &str {
        self.name
    }

    fn is_by_name_only(&self) -> bool {
        !self.is_stock()
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        let gateway = match self.gateway {
            GatewayKind::Ocserv => self.ocserv().map(|[ocserv, _]| ocserv),
            GatewayKind::Adit => adit_lab::binaries().map(|binaries| binaries.server),
        };
        let client = match self.client {
            Openconnect => self.openconnect(),
            ClientKind::Adit => adit_lab::binaries().map(|binaries| binaries.client),
        };
        Ok(vec![gateway?, client?])
    }

    fn settings(&self) -> Vec<(String, String)> {
        let (cipher, carrier) = match self.carrier {
            Dtls => ("AES-256-GCM (DTLS 1.2)", "DTLS over UDP"),
            Tls => ("AES-256-GCM (TLS 1.3)", "TLS over TCP"),
        };
        let threads = match (self.client, self.gateway) {
            (Openconnect, GatewayKind::Ocserv) => "1 at each end",
            (Openconnect, GatewayKind::Adit) => "gateway: one a core, client: 1",
            (ClientKind::Adit, GatewayKind::Ocserv) => "gateway: 1, client: 1, beside one for control",
            (ClientKind::Adit, GatewayKind::Adit) => "gateway: one a core, client: 1, beside one for control",
        };
        let mut settings = told(&[("cipher", cipher), ("threads", threads), ("carrier", carrier)]);
        if self.gateway == GatewayKind::Ocserv {
            settings.extend(told(&[("mtu", &ocserv::mtu_of_cable(self.carrier).to_string())]));
        }
        settings
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let (near, far) = (lab.host("client")?, lab.host("gateway")?);
        let gateway = self.start_gateway(&far)?;
        let (client, near) = self.start_client(&near, &gateway.authority())?;
        let far = gateway.end(&far)?;
        let owner = Ends { client, gateway };
        let running = Running { client: near, gateway: far, owner: Box::new(owner), lab };
        self.await_carrier(&running)?;
        Ok(running)
    }
}

impl AnyConnect {
    fn ocserv(&self) -> Result<[PathBuf; 2], Failure> {
        let [gateway, passwords] = ocserv::PROGRAMS;
        Ok([self.peers.find(gateway)?, self.peers.find(passwords)?])
    }

    fn openconnect(&self) -> Result<PathBuf, Failure> {
        self.peers.find("openconnect")
    }

    fn start_gateway(&self, host: &Host) -> Result<GatewayEnd> {
        match self.gateway {
            GatewayKind::Ocserv => Ok(GatewayEnd::Ocserv(Ocserv::start(host, &self.ocserv()?, self.carrier)?)),
            GatewayKind::Adit => {
                let mut gateway = Gateway::new(host, &adit_lab::binaries()?);
                gateway.init()?.success()?;
                let add = host.with_input(&gateway.command(&["user", "add", USER]), &format!("{PASSWORD}\n"))?;
                host.output(add, PATIENCE)?.success()?;
                gateway.start()?;
                Ok(GatewayEnd::Adit(gateway))
            }
        }
    }

    /// Has the client log in at a gateway for which an authority in that file vouches.
    fn start_client(&self, host: &Host, authority: &Path) -> Result<(ClientEnd, End)> {
        match self.client {
            Openconnect => {
                let (process, end) = openconnect::join(host, &self.openconnect()?, authority, self.carrier)?;
                Ok((ClientEnd::Openconnect { _process: process }, end))
            }
            ClientKind::Adit => {
                let mut client = Client::new(host, &adit_lab::binaries()?);
                let authority = authority.to_str().context("the path of the authority is UTF-8")?;
                let gateway = format!("https://{GATEWAY_V4}");
                // An Adit gateway would be joined by its own protocol otherwise.
                let protocol = ["--protocol", "anyconnect"];
                let known = ["--user", USER, "--name", PROFILE, "--authority", authority];
                client.run(&[&["add", &gateway], &protocol[..], &known[..]].concat())?.success()?;
                let by_tls: &[&str] = if self.carrier == Tls { &["--carrier", "tls"] } else { &[] };
                client.up_with_input(&[&[PROFILE], by_tls].concat(), &format!("{PASSWORD}\n"))?;
                let end = client_end(&client)?;
                Ok((ClientEnd::Adit(client), end))
            }
        }
    }

    /// Waits, while packets pass, until they travel as is to be measured.
    fn await_carrier(&self, running: &Running) -> Result<()> {
        if self.is_stock() {
            // Nobody tells; openconnect was waited for until its log said so.
            return Ok(());
        }
        let wanted = self.carrier.name();
        let (began, _packets) = (Instant::now(), running.beacon());
        loop {
            let carrier = running.carrier().unwrap_or_else(|| "no carrier".to_owned());
            if carrier == wanted {
                return Ok(());
            }
            if began.elapsed() > SWITCH {
                bail!("cannot be measured by {wanted}: packets went by {carrier} {SWITCH:?} after the tunnel was up");
            }
            thread::sleep(LOOK);
        }
    }

    /// Whether neither end is ours.
    fn is_stock(&self) -> bool {
        (self.client, self.gateway) == (Openconnect, GatewayKind::Ocserv)
    }
}

impl Carrier {
    /// Its name as our programs tell it.
    fn name(self) -> &'static str {
        match self {
            Dtls => "dtls",
            Tls => "tls",
        }
    }
}

/// A gateway that runs.
#[derive(Debug)]
enum GatewayEnd {
    Ocserv(Ocserv),
    Adit(Gateway),
}

impl GatewayEnd {
    /// The file with the authority of its certificate.
    fn authority(&self) -> PathBuf {
        match self {
            Self::Ocserv(ocserv) => ocserv.certificate.clone(),
            Self::Adit(gateway) => gateway.folder().join("state/authority.pem"),
        }
    }

    fn end(&self, host: &Host) -> Result<End> {
        match self {
            Self::Ocserv(ocserv) => ocserv.end(host),
            Self::Adit(gateway) => gateway_end(gateway),
        }
    }
}

/// A client with a tunnel.
#[derive(Debug)]
enum ClientEnd {
    Openconnect { _process: Process },
    Adit(Client),
}

/// Both programs while they run.
#[derive(Debug)]
struct Ends {
    client: ClientEnd,
    gateway: GatewayEnd,
}

impl Ends {
    fn ours(&self) -> (Option<&Client>, Option<&Gateway>) {
        let client = if let ClientEnd::Adit(client) = &self.client { Some(client) } else { None };
        let gateway = if let GatewayEnd::Adit(gateway) = &self.gateway { Some(gateway) } else { None };
        (client, gateway)
    }
}

impl Owner for Ends {
    fn carrier(&self) -> Option<String> {
        match self.ours() {
            (Some(client), _) => client.status().ok()?.carrier,
            (None, Some(gateway)) => gateway.sessions().ok()?.pop().map(|session| session.carrier),
            (None, None) => None,
        }
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        let (client, gateway) = self.ours();
        drops_of(client, gateway)
    }
}
