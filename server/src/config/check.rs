//! Checks that look at more than one value, and at the key files.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use adit_host::is_forbidden_destination;
use adit_net::worker::MAX_SOCKETS;
use adit_program::guarded_file::GuardError;
use adit_proto::address_pool::{AddressPool, PoolConfig};
use ipnet::IpNet;

use crate::directories::StateDir;

use super::{Config, Problem, secret};

/// Longest path of a Unix socket on Linux, in bytes (`sun_path` of unix(7), less the final zero).
const MAX_SOCKET_PATH: usize = 107;

/// Problems between values that are each right by themselves.
pub(super) fn coherence(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.pool.v4.is_none() && config.pool.v6.is_none() {
        problems.push(Problem::new("pool", "neither v4 nor v6 is set", "set pool.v4, pool.v6 or both"));
    }
    for (key, pool) in pools(config) {
        problems.extend(pool_conflicts(config, key, pool));
    }
    problems.extend(listen_duplicates(&config.listen));
    if config.esp.enabled && config.listen.len() > MAX_SOCKETS {
        let reason = format!("{} addresses, but with esp the gateway takes {MAX_SOCKETS}", config.listen.len());
        problems.push(Problem::new(
            "listen",
            reason,
            "name a wildcard such as [::]:443 instead, or set esp.enabled = false",
        ));
    }
    problems.extend(dtls_port(config));
    problems.extend(duplicates("public", &config.public, |public| format!("{}:{}", public.host, public.port)));
    problems.extend(duplicates("local_services", &config.local_services, ToString::to_string));
    problems.extend(duplicates("routes", &config.routes, ToString::to_string));
    problems.extend(duplicates("esp.suites", &config.esp.permitted.offer.suites, ToString::to_string));
    problems.extend(duplicates("dns.servers", &config.dns.servers, ToString::to_string));
    let forbidden = config.dns.servers.iter().filter(|server| is_forbidden_destination(**server));
    problems.extend(forbidden.map(|server| {
        let reason = format!("{server} is out of the clients' reach: it is link-local, or a cloud's metadata service");
        Problem::new("dns.servers", reason, "name a resolver that clients reach through the gateway")
    }));
    if !config.client_to_client {
        problems.extend(config.dns.servers.iter().filter(|server| is_of_a_client(config, **server)).map(|server| {
            let reason = format!("{server} is an address for clients, and these do not reach each other");
            Problem::new("dns.servers", reason, "name another resolver, or set client_to_client = true")
        }));
    }
    if !config.dns.domains.is_empty() && config.dns.servers.is_empty() {
        problems.push(Problem::new(
            "dns.domains",
            "no dns.servers answer for them",
            "set dns.servers or remove dns.domains",
        ));
    }
    if config.runtime_dir.socket().as_os_str().as_bytes().len() > MAX_SOCKET_PATH {
        problems.push(Problem::new("runtime_dir", "the path of the socket in it is too long", "choose a shorter path"));
    }
    problems
}

/// Each worker has a socket for DTLS at every address, beside the one for ESP where that has another port.
fn dtls_port(config: &Config) -> Option<Problem> {
    let port = config.anyconnect.dtls_port?;
    if !config.serves_dtls() {
        let next = "remove it, or set anyconnect.enabled and listen_tcp to true";
        return Some(Problem::new("anyconnect.dtls_port", "nobody is told of it: its clients come by TCP first", next));
    }
    let most = MAX_SOCKETS / 2;
    if config.listen.len() > most {
        let reason = format!(
            "{} addresses to listen on, but with a port for DTLS the gateway takes {most}",
            config.listen.len()
        );
        let next = "name a wildcard such as [::]:443 in listen, or remove it";
        return Some(Problem::new("anyconnect.dtls_port", reason, next));
    }
    dtls_alone_before_all(config, port)
}

/// Sockets of one address get what comes there, before those of all addresses: where the former are for DTLS alone,
/// nobody would hear QUIC and ESP.
fn dtls_alone_before_all(config: &Config, port: u16) -> Option<Problem> {
    let dtls = config.listen.iter().map(|address| SocketAddr::new(address.ip(), port));
    let mut alone = dtls.filter(|address| !config.listen.contains(address));
    let (one, all) = alone.find_map(|one| Some((one, config.listen.iter().find(|all| covers(all, &one))?)))?;
    let reason = format!("{one} would be for DTLS alone, but {all} in listen is to take QUIC and ESP there");
    Some(Problem::new("anyconnect.dtls_port", reason, "choose a port that listen does not name, or remove it"))
}

/// The pools with the names of their keys.
pub(super) fn pools(config: &Config) -> impl Iterator<Item = (&'static str, IpNet)> + use<> {
    let v4 = config.pool.v4.map(|net| ("pool.v4", IpNet::V4(net)));
    let v6 = config.pool.v6.map(|net| ("pool.v6", IpNet::V6(net)));
    v4.into_iter().chain(v6)
}

/// Whether an address is in a pool and not the gateway's own there.
pub(super) fn is_of_a_client(config: &Config, address: IpAddr) -> bool {
    let pool = AddressPool::new(PoolConfig { v4: config.pool.v4, v6: config.pool.v6, cooldown: Duration::ZERO });
    let own = pool.gateway();
    let is_own = own.v4.map(IpAddr::V4) == Some(address) || own.v6.map(IpAddr::V6) == Some(address);
    !is_own && pools(config).any(|(_, pool)| pool.contains(&address))
}

/// A pool must not hold an address that is reached outside the tunnel.
fn pool_conflicts(config: &Config, key: &str, pool: IpNet) -> Vec<Problem> {
    let next = "choose a pool that nothing else uses";
    let public = config.public.iter().filter_map(|public| public.host.parse::<IpAddr>().ok());
    let public = public.map(|address| ("public", address));
    let listen = config.listen.iter().map(|address| ("listen", address.ip()));
    public
        .chain(listen)
        .filter(|(_, address)| pool.contains(address))
        .map(|(other, address)| Problem::new(key, format!("{pool} overlaps the {other} address {address}"), next))
        .collect()
}

/// Whether what comes to an address is for who listens at `own`, unless somebody listens at that very address.
pub(super) fn covers(own: &SocketAddr, address: &SocketAddr) -> bool {
    let all = own.ip().is_unspecified() && (own.is_ipv6() || address.is_ipv4());
    own.port() == address.port() && (all || own.ip() == address.ip())
}

fn listen_duplicates(listen: &[SocketAddr]) -> Vec<Problem> {
    let mut problems = duplicates("listen", listen, ToString::to_string);
    for wide in listen.iter().filter(|address| address.ip().is_unspecified()) {
        for other in listen.iter().filter(|other| *other != wide && covers(wide, other)) {
            let reason = format!("{wide} already covers {other}");
            problems.push(Problem::new("listen", reason, "remove one of them"));
        }
    }
    problems
}

fn duplicates<T>(key: &str, items: &[T], form: impl Fn(&T) -> String) -> Vec<Problem> {
    let mut seen = HashSet::new();
    let again = items.iter().map(form).filter(|item| !seen.insert(item.clone())).collect::<Vec<_>>();
    again.iter().map(|item| Problem::new(key, format!("{item} is named twice"), "remove one of them")).collect()
}

/// Problems of the files that `init` makes.
pub(super) fn key_files(state_dir: &StateDir) -> Vec<Problem> {
    let path = state_dir.path();
    if let Err(error) = secret::guard().check_directory(path) {
        // One problem, not four: each file would tell of its directory again.
        if error.is_missing() {
            let next = "run `adit-server init`, or mend state_dir";
            return vec![Problem::new(path.display().to_string(), "the state directory does not exist", next)];
        }
        return vec![refused(error)];
    }
    let files = [state_dir.authority_key(), state_dir.endpoint_keys(), state_dir.store()];
    files.iter().filter_map(|path| secret::open_secret(path).err()).map(refused).collect()
}

fn refused(error: GuardError) -> Problem {
    Problem::new(error.path.display().to_string(), error.reason, error.next)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::{Source, interpret};

    fn reasons(text: &str) -> Vec<String> {
        let (_, problems) = interpret(text, &Source::file(Path::new("server.toml")));
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn gateway_without_a_pool_is_refused() {
        assert_eq!(reasons("public = [\"a.example\"]\n").len(), 1);
    }

    #[test]
    fn pool_that_holds_an_outer_address_is_refused() {
        let found = reasons("public = [\"10.77.0.9\"]\nlisten = [\"10.77.0.9:443\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("overlaps the public address 10.77.0.9"));
    }

    #[test]
    fn wildcard_covers_specific_addresses_of_the_same_port() {
        let text =
            |listen: &str| format!("public = [\"a.example\"]\nlisten = {listen}\n[pool]\nv4 = \"10.77.0.0/24\"\n");
        assert_eq!(reasons(&text("[\"[::]:443\", \"0.0.0.0:443\"]")).len(), 1);
        assert_eq!(reasons(&text("[\"0.0.0.0:443\", \"192.0.2.1:443\"]")).len(), 1);
        assert_eq!(reasons(&text("[\"0.0.0.0:443\", \"[::1]:443\"]")).len(), 0);
        assert_eq!(reasons(&text("[\"192.0.2.1:443\", \"192.0.2.1:443\"]")).len(), 1);
        assert_eq!(reasons(&text("[\"[::]:443\", \"[::]:8443\"]")).len(), 0);
    }

    #[test]
    fn more_addresses_than_workers_can_serve_are_refused_before_the_start() {
        let found = |addresses: usize, esp: bool| {
            let listen: Vec<_> = (1..=addresses).map(|number| format!("\"192.0.2.{number}:443\"")).collect();
            reasons(&format!(
                "public = [\"a.example\"]\nlisten = [{}]\n[pool]\nv4 = \"10.77.0.0/24\"\n[esp]\nenabled = {esp}\n",
                listen.join(", ")
            ))
        };
        assert_eq!(found(30, true), Vec::<String>::new());
        assert_eq!(found(31, false), Vec::<String>::new());
        let refused = found(31, true);
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].contains("31 addresses, but with esp the gateway takes 30"), "{refused:?}");
    }

    #[test]
    fn resolver_that_the_firewall_keeps_from_clients_is_refused() {
        for (server, refused) in [("169.254.169.253", 1), ("168.63.129.16", 1), ("fe80::1", 1), ("10.1.0.53", 0)] {
            let text =
                format!("public = [\"a.example\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n[dns]\nservers = [{server:?}]\n");
            assert_eq!(reasons(&text).len(), refused, "{server}");
        }
    }

    #[test]
    fn resolver_that_is_a_client_is_refused_unless_clients_reach_each_other() {
        for (server, client_to_client, refused) in
            [("10.77.0.9", false, 1), ("10.77.0.9", true, 0), ("10.77.0.1", false, 0), ("10.77.1.9", false, 0)]
        {
            let text = format!(
                "public = [\"a.example\"]\nclient_to_client = {client_to_client}\n[pool]\nv4 = \"10.77.0.0/24\"\n\
                 [dns]\nservers = [{server:?}]\n"
            );
            assert_eq!(reasons(&text).len(), refused, "{server}");
        }
    }

    #[test]
    fn domains_need_a_resolver() {
        let found =
            reasons("public = [\"a.example\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n[dns]\ndomains = [\"corp.example\"]\n");
        assert_eq!(found.len(), 1);
    }
}
