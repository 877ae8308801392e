//! systemd-resolved, over D-Bus (`org.freedesktop.resolve1.Manager`).

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use adit_proto::dns::{DnsScope, DnsSettings, is_domain};
use serde::Serialize;
use zbus::message::Message;
use zbus::{Connection, DynamicType, conn};

use super::SystemBus;
use crate::error::HostError;

const SERVICE: &str = "org.freedesktop.resolve1";
const OBJECT: &str = "/org/freedesktop/resolve1";
const INTERFACE: &str = "org.freedesktop.resolve1.Manager";
/// A local service that has not answered by then does not run properly.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What resolved says of a link that is gone, and whose settings went with it.
const NO_SUCH_LINK: &str = "org.freedesktop.resolve1.NoSuchLink";

/// A running systemd-resolved.
#[derive(Debug)]
pub(crate) struct Resolved(Connection);

impl Resolved {
    /// Finds a resolved that runs in this thread's network namespace; one elsewhere would take our link's index for
    /// another's.
    pub(crate) async fn find(bus: &SystemBus) -> Option<Self> {
        let builder = match bus {
            SystemBus::System => conn::Builder::system(),
            SystemBus::Address(address) => conn::Builder::address(address.as_str()),
            SystemBus::Absent => return None,
        };
        let connecting = builder.method_timeout(TIMEOUT).build();
        let connection = match tokio::time::timeout(TIMEOUT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no system bus");
                return None;
            }
            Err(_) => {
                tracing::debug!("the system bus does not answer");
                return None;
            }
        };
        let owned: bool = ask_bus(&connection, "NameHasOwner").await?.body().deserialize().ok()?;
        let process: u32 = match owned {
            true => ask_bus(&connection, "GetConnectionUnixProcessID").await?.body().deserialize().ok()?,
            false => return None,
        };
        in_this_network_namespace(process).then_some(Self(connection))
    }

    /// Sets a link's servers and domains.
    pub(crate) async fn set(&self, index: u32, settings: &DnsSettings) -> Result<(), HostError> {
        let index = link_number(index);
        let servers: Vec<(i32, Vec<u8>)> = settings.servers.iter().map(server).collect();
        self.call("SetLinkDNS", &(index, servers)).await?;
        self.call("SetLinkDomains", &(index, domains(settings))).await?;
        self.call("SetLinkDefaultRoute", &(index, settings.scope == DnsScope::All)).await?;
        if let Err(error) = self.call("FlushCaches", &()).await {
            tracing::debug!(%error, "answers from before the tunnel stay cached");
        }
        Ok(())
    }

    /// Takes a link's settings back; a link that is gone has none.
    pub(crate) async fn revert(&self, index: u32) -> Result<(), HostError> {
        match self.call("RevertLink", &link_number(index)).await {
            Err(HostError::Bus { source, .. }) if is_missing_link(&source) => Ok(()),
            other => other,
        }
    }

    async fn call<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Result<(), HostError> {
        let called = self.0.call_method(Some(SERVICE), OBJECT, Some(INTERFACE), method, body).await;
        called.map(drop).map_err(|source| HostError::bus(format!("call systemd-resolved's {method}"), source))
    }
}

/// Whether the resolver's file leads to resolved: by its stub's address, or as a link into its directory.
pub(crate) fn is_behind(resolver_file: &Path) -> bool {
    let linked = fs::read_link(resolver_file).is_ok_and(|target| target.to_string_lossy().contains("systemd/resolve/"));
    let stub = |line: &str| {
        let server = line.strip_prefix("nameserver").map(str::trim);
        matches!(server, Some("127.0.0.53" | "127.0.0.54"))
    };
    linked || fs::read_to_string(resolver_file).is_ok_and(|text| text.lines().any(stub))
}

async fn ask_bus(connection: &Connection, question: &str) -> Option<Message> {
    let bus = "org.freedesktop.DBus";
    let answer = connection.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), question, &SERVICE).await;
    answer.inspect_err(|error| tracing::debug!(%error, question, "the system bus refused")).ok()
}

/// False only if both namespaces can be read and differ.
fn in_this_network_namespace(process: u32) -> bool {
    let theirs = fs::read_link(format!("/proc/{process}/ns/net"));
    let ours = fs::read_link("/proc/thread-self/ns/net");
    !matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs != ours)
}

fn is_missing_link(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, _, _) if name.as_str() == NO_SUCH_LINK)
}

/// D-Bus carries link indices as signed numbers.
fn link_number(index: u32) -> i32 {
    index.cast_signed()
}

fn server(address: &IpAddr) -> (i32, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    }
}

/// Domains with whether they only route queries, and are not appended to short names. The root routes all names.
fn domains(settings: &DnsSettings) -> Vec<(String, bool)> {
    let mut domains: Vec<_> = settings.search_domains().map(|domain| (domain.to_owned(), false)).collect();
    let routed = match &settings.scope {
        DnsScope::All => &[".".to_owned()][..],
        DnsScope::Domains(routed) => routed,
    };
    for domain in routed.iter().filter(|domain| *domain == "." || is_domain(domain)) {
        if !settings.search.contains(domain) {
            domains.push((domain.clone(), true));
        }
    }
    domains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_routed_by_the_root_domain() {
        let settings = DnsSettings { servers: Vec::new(), search: vec!["corp.example".into()], scope: DnsScope::All };
        assert_eq!(domains(&settings), [("corp.example".into(), false), (".".into(), true)]);
    }

    #[test]
    fn searched_domains_need_no_route_of_their_own() {
        let scope = DnsScope::Domains(vec!["corp.example".into(), "lab.example".into(), "bad name".into()]);
        let settings = DnsSettings { servers: Vec::new(), search: vec!["corp.example".into()], scope };
        assert_eq!(domains(&settings), [("corp.example".into(), false), ("lab.example".into(), true)]);
    }

    #[test]
    fn a_resolver_file_is_known_by_the_stub_or_the_link() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        assert!(!is_behind(&path));
        fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
        assert!(!is_behind(&path));
        fs::write(&path, "nameserver 127.0.0.53\n").unwrap();
        assert!(is_behind(&path));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("../run/systemd/resolve/resolv.conf", &path).unwrap();
        assert!(is_behind(&path));
    }
}
