//! The name servers of other links, which a full tunnel takes over: resolved asks them through their own link, whatever
//! the routes say.

use serde::{Deserialize, Serialize};
use zbus::DynamicType;

use super::{MANAGER, OBJECT, Resolved, is_missing_link, link_number};
use crate::error::HostError;

/// What resolved says where another service manages a link.
const MANAGED: &str = "org.freedesktop.resolve1.LinkBusy";
/// systemd-networkd, which takes settings of the links it manages.
const NETWORKD: &str = "org.freedesktop.network1";
const NETWORKD_OBJECT: &str = "/org/freedesktop/network1";
const NETWORKD_MANAGER: &str = "org.freedesktop.network1.Manager";

/// The name servers of one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkServers {
    /// Index of the link.
    pub(crate) index: u32,
    /// Its servers, best first.
    servers: Vec<Server>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Server {
    family: i32,
    address: Vec<u8>,
    /// 0 is the usual port.
    port: u16,
    /// Name in the server's certificate; empty without one.
    name: String,
}

impl Resolved {
    /// The servers of all links that have any.
    pub(crate) async fn servers(&self) -> Result<Vec<LinkServers>, HostError> {
        let all: Vec<(i32, i32, Vec<u8>, u16, String)> = self.property(OBJECT, MANAGER, "DNSEx").await?;
        let mut links: Vec<LinkServers> = Vec::new();
        for (index, family, address, port, name) in all {
            // Servers of no link are asked by way of the routes.
            let Ok(index @ 1..) = u32::try_from(index) else { continue };
            let server = Server { family, address, port, name };
            match links.iter_mut().find(|link| link.index == index) {
                Some(link) => link.servers.push(server),
                None => links.push(LinkServers { index, servers: vec![server] }),
            }
        }
        Ok(links)
    }

    /// Takes all servers from a link.
    pub(crate) async fn take_servers(&self, index: u32) -> Result<(), HostError> {
        let none: Vec<(i32, Vec<u8>)> = Vec::new();
        match self.call("SetLinkDNS", &(link_number(index), &none)).await {
            Err(error) if is_managed(&error) => self.call_networkd("SetLinkDNS", &(link_number(index), none)).await,
            other => other,
        }
    }

    /// Gives a link the servers it had, unless it has got others meanwhile.
    pub(crate) async fn give_back(&self, link: &LinkServers) -> Result<(), HostError> {
        if self.servers().await?.iter().any(|now| now.index == link.index) {
            return Ok(());
        }
        let index = link_number(link.index);
        let servers: Vec<_> =
            link.servers.iter().map(|server| (server.family, &server.address, server.port, &server.name)).collect();
        match self.call("SetLinkDNSEx", &(index, servers)).await {
            Err(error) if is_managed(&error) => self.call_networkd("RevertLinkDNS", &index).await,
            // It is gone, and has taken its settings along.
            Err(HostError::Bus { source, .. }) if is_missing_link(&source) => Ok(()),
            other => other,
        }
    }

    async fn call_networkd<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Result<(), HostError> {
        let manager = Some(NETWORKD_MANAGER);
        let called = self.0.call_method(Some(NETWORKD), NETWORKD_OBJECT, manager, method, body).await;
        called.map(drop).map_err(|source| HostError::bus(format!("call systemd-networkd's {method}"), source))
    }
}

fn is_managed(error: &HostError) -> bool {
    matches!(error, HostError::Bus { source, .. }
        if matches!(&**source, zbus::Error::MethodError(name, _, _) if name.as_str() == MANAGED))
}
