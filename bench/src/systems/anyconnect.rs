//! The AnyConnect family: its stock client at its stock gateway, by DTLS or by TLS.

use std::path::PathBuf;

use adit_program::exit::Failure;
use anyhow::Result;

use super::ocserv::{self, Ocserv};
use super::{Programs, Running, System, openconnect, told};
use adit_lab::Lab;

/// Who logs in at every gateway, and with what.
pub(super) const USER: &str = "bench";
pub(super) const PASSWORD: &str = "correct horse battery";

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Dtls,
    Tls,
}

use self::Carrier::{Dtls, Tls};

/// A client of the family at a gateway of it.
#[derive(Debug)]
pub(super) struct AnyConnect {
    name: &'static str,
    carrier: Carrier,
    peers: Programs,
}

/// All of them.
pub(super) fn all(peers: &Programs) -> impl Iterator<Item = AnyConnect> {
    let of = move |(name, carrier)| AnyConnect { name, carrier, peers: peers.clone() };
    [("ocserv", Dtls), ("ocserv-tls", Tls)].into_iter().map(of)
}

impl System for AnyConnect {
    fn name(&self) -> &str {
        self.name
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        let [gateway, _] = self.ocserv()?;
        Ok(vec![gateway, self.openconnect()?])
    }

    fn settings(&self) -> Vec<(String, String)> {
        let (cipher, carrier) = match self.carrier {
            Dtls => ("AES-256-GCM (DTLS 1.2)", "DTLS over UDP"),
            Tls => ("AES-256-GCM (TLS 1.3)", "TLS over TCP"),
        };
        let mtu = ocserv::mtu_of_cable(self.carrier).to_string();
        told(&[("cipher", cipher), ("threads", "1 at each end"), ("carrier", carrier), ("mtu", &mtu)])
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let (near, far) = (lab.host("client")?, lab.host("gateway")?);
        let gateway = Ocserv::start(&far, &self.ocserv()?, self.carrier)?;
        let (process, client) = openconnect::join(&near, &self.openconnect()?, &gateway.certificate, self.carrier)?;
        let far = gateway.end(&far)?;
        Ok(Running { client, gateway: far, owner: Box::new(vec![process, gateway.process]), lab })
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
}
