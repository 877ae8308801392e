//! systemd-resolved, over D-Bus (`org.freedesktop.resolve1.Manager`).

mod servers;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use adit_proto::dns::{DnsScope, DnsSettings, is_domain};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::message::Message;
use zbus::{Connection, DynamicType, OwnedObjectPath, Type, as_variant, conn};

use super::SystemBus;
use crate::error::HostError;

pub(crate) use servers::LinkServers;

pub(super) const SERVICE: &str = "org.freedesktop.resolve1";
pub(super) const OBJECT: &str = "/org/freedesktop/resolve1";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
pub(super) const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const LINK: &str = "org.freedesktop.resolve1.Link";
/// The domain that all names are in.
const ROOT: &str = ".";
/// Switches TLS, or the check of signatures, off for a link. The tunnel protects the way to its servers, which may be
/// plain ones: many a forwarder passes no signatures on, and nobody outside can sign for the gateway's own domains.
const OFF: &str = "no";
/// A local service that has not answered by then does not run properly. `down` waits that long, and not much longer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What resolved says of a link that is gone, and whose settings went with it.
const NO_SUCH_LINK: &str = "org.freedesktop.resolve1.NoSuchLink";

/// A running systemd-resolved.
#[derive(Debug)]
pub(crate) struct Resolved(Connection);

impl Resolved {
    /// Finds a resolved that runs in this thread's network namespace; one elsewhere would take our link's index for
    /// another's.
    pub(crate) async fn find(bus: &SystemBus) -> Option<Self> {
        let connection = connect(bus).await?;
        if !is_running(&connection).await? {
            return None;
        }
        let process: u32 = ask_bus(&connection, "GetConnectionUnixProcessID").await?.body().deserialize().ok()?;
        in_this_network_namespace(process).then_some(Self(connection))
    }

    /// Sets a link's servers and domains, and has its plain servers asked whatever the host's settings want of others.
    pub(crate) async fn set(&self, index: u32, settings: &DnsSettings) -> Result<(), HostError> {
        let index = link_number(index);
        self.call("SetLinkDNS", &(index, servers(settings))).await?;
        self.call("SetLinkDomains", &(index, domains(settings))).await?;
        self.call("SetLinkDefaultRoute", &(index, settings.scope == DnsScope::All)).await?;
        self.accept_plain_answers(index).await?;
        if let Err(error) = self.call("FlushCaches", &()).await {
            tracing::debug!(%error, "answers from before the tunnel stay cached");
        }
        Ok(())
    }

    /// Whether a link has the settings that [`Self::set`] would give it.
    pub(crate) async fn has(&self, index: u32, settings: &DnsSettings) -> Result<bool, HostError> {
        let link = self.link(link_number(index)).await?;
        let asked: Vec<(i32, Vec<u8>)> = self.property(link.as_str(), LINK, "DNS").await?;
        let named: Vec<(String, bool)> = self.property(link.as_str(), LINK, "Domains").await?;
        let takes_all: bool = self.property(link.as_str(), LINK, "DefaultRoute").await?;
        Ok(asked == servers(settings)
            && are_same(&named, &domains(settings))
            && takes_all == (settings.scope == DnsScope::All)
            && self.text(&link, "DNSOverTLS").await? == OFF
            && self.text(&link, "DNSSEC").await? == OFF)
    }

    /// Takes a link's settings back; a link that is gone has none.
    pub(crate) async fn revert(&self, index: u32) -> Result<(), HostError> {
        match self.call("RevertLink", &link_number(index)).await {
            Err(HostError::Bus { source, .. }) if is_missing_link(&source) => Ok(()),
            other => other,
        }
    }

    async fn accept_plain_answers(&self, index: i32) -> Result<(), HostError> {
        let link = self.link(index).await?;
        for (setting, method) in [("DNSOverTLS", "SetLinkDNSOverTLS"), ("DNSSEC", "SetLinkDNSSEC")] {
            if self.text(&link, setting).await? != OFF {
                self.call(method, &(index, OFF)).await?;
            }
        }
        Ok(())
    }

    async fn call<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Result<(), HostError> {
        let called = self.0.call_method(Some(SERVICE), OBJECT, Some(MANAGER), method, body).await;
        called.map(drop).map_err(|source| HostError::bus(format!("call systemd-resolved's {method}"), source))
    }

    /// The object of a link.
    async fn link(&self, index: i32) -> Result<OwnedObjectPath, HostError> {
        let doing = |source| HostError::bus("call systemd-resolved's GetLink", source);
        let answer =
            self.0.call_method(Some(SERVICE), OBJECT, Some(MANAGER), "GetLink", &index).await.map_err(doing)?;
        answer.body().deserialize().map_err(doing)
    }

    async fn text(&self, link: &OwnedObjectPath, name: &str) -> Result<String, HostError> {
        self.property(link.as_str(), LINK, name).await
    }

    async fn property<T: Type + DeserializeOwned>(
        &self,
        object: &str,
        interface: &str,
        name: &str,
    ) -> Result<T, HostError> {
        let doing = |source| HostError::bus(format!("read systemd-resolved's {name}"), source);
        let asked = self.0.call_method(Some(SERVICE), object, Some(PROPERTIES), "Get", &(interface, name)).await;
        let body = asked.map_err(doing)?.body();
        let value: as_variant::Deserialize<'_, T> = body.deserialize().map_err(doing)?;
        Ok(value.0)
    }
}

/// Whether the resolver's file leads to resolved: by its stub's address, or as a link into its directory.
pub(crate) fn is_behind(resolver_file: &Path) -> bool {
    fs::read_link(resolver_file).is_ok_and(|target| is_resolveds(&target))
        || fs::read_to_string(resolver_file).is_ok_and(|text| names_stub(&text))
}

/// Whether a link leads to a file of resolved's.
pub(super) fn is_resolveds(target: &Path) -> bool {
    target.to_string_lossy().contains("systemd/resolve/")
}

/// Whether a resolver's file names the addresses at which resolved answers.
pub(super) fn names_stub(text: &str) -> bool {
    let server = |line: &str| line.strip_prefix("nameserver").map(str::trim).map(str::to_owned);
    text.lines().filter_map(server).any(|server| server == "127.0.0.53" || server == "127.0.0.54")
}

/// Connects to a bus; `None` if there is none, or it does not answer.
pub(crate) async fn connect(bus: &SystemBus) -> Option<Connection> {
    let builder = match bus {
        SystemBus::System => conn::Builder::system(),
        SystemBus::Address(address) => conn::Builder::address(address.as_str()),
        SystemBus::Absent => return None,
    };
    let connecting = builder.method_timeout(TIMEOUT).build();
    match tokio::time::timeout(TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no system bus");
            None
        }
        Err(_) => {
            tracing::debug!("the system bus does not answer");
            None
        }
    }
}

/// Whether resolved is on the bus. A call to it would start it.
pub(super) async fn is_running(connection: &Connection) -> Option<bool> {
    ask_bus(connection, "NameHasOwner").await?.body().deserialize().ok()
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

/// The servers, each once, as D-Bus carries them.
fn servers(settings: &DnsSettings) -> Vec<(i32, Vec<u8>)> {
    let mut servers = Vec::new();
    for address in &settings.servers {
        let server = match address {
            IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// Domains, each once, with whether they only route queries, and are not appended to short names. The root routes all
/// names.
fn domains(settings: &DnsSettings) -> Vec<(String, bool)> {
    let searched = settings.search_domains().map(|domain| (domain, false));
    let routed = match &settings.scope {
        DnsScope::All => vec![(ROOT, true)],
        DnsScope::Domains(routed) => routed.iter().map(|domain| (domain.as_str(), true)).collect(),
    };
    let mut domains: Vec<(String, bool)> = Vec::new();
    for (domain, only_routes) in searched.chain(routed).filter(|(domain, _)| *domain == ROOT || is_domain(domain)) {
        let without_end = domain.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(domain);
        if !domains.iter().any(|(known, _)| known.eq_ignore_ascii_case(without_end)) {
            domains.push((without_end.to_owned(), only_routes));
        }
    }
    domains
}

fn are_same(ours: &[(String, bool)], theirs: &[(String, bool)]) -> bool {
    let same = |((ours, routes), (theirs, route)): (&(String, bool), &(String, bool))| {
        ours.eq_ignore_ascii_case(theirs) && routes == route
    };
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_routed_by_the_root_domain() {
        let search = vec!["corp.example".into()];
        let settings = DnsSettings { servers: Vec::new(), search, scope: DnsScope::All, exclusive: true };
        assert_eq!(domains(&settings), [("corp.example".into(), false), (".".into(), true)]);
    }

    #[test]
    fn domains_are_told_as_resolved_tells_them() {
        let search = vec!["corp.example.".into(), "Corp.Example".into()];
        let scope = DnsScope::Domains(vec![".".into(), "corp.example".into()]);
        let settings = DnsSettings { servers: Vec::new(), search, scope, exclusive: false };
        assert_eq!(domains(&settings), [("corp.example".into(), false), (".".into(), true)]);
        assert!(are_same(&domains(&settings), &[("CORP.example".into(), false), (".".into(), true)]));
        assert!(!are_same(&domains(&settings), &[("corp.example".into(), false)]));
    }

    #[test]
    fn searched_domains_need_no_route_of_their_own() {
        let scope = DnsScope::Domains(vec!["corp.example".into(), "lab.example".into(), "bad name".into()]);
        let search = vec!["corp.example".into()];
        let settings = DnsSettings { servers: Vec::new(), search, scope, exclusive: false };
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
