//! What a policy says that the gateway it is for cannot do.

use std::net::IpAddr;

use adit_host::is_forbidden_destination;
use adit_program::configuration::Problem;
use adit_proto::policy::Written;

use crate::config::Config;

use super::file::PolicyFile;

/// All misfits, group by group.
pub(super) fn misfits(policy: &PolicyFile, config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for group in policy.document.groups() {
        let place = |line, key: &str| policy.place(line, &format!("groups.{}.{key}", group.name));
        if let Some(mtu) = group.settings.mtu.as_ref().filter(|mtu| mtu.value > config.tun.mtu) {
            let reason = format!("{} is more than the TUN device takes, which is {}", mtu.value, config.tun.mtu);
            problems.push(Problem::new(place(mtu.line, "mtu"), reason, "write less, or raise tun.mtu"));
        }
        if let Some(dns) = &group.settings.dns {
            problems.extend(
                unreachable(dns, config).map(|(reason, next)| Problem::new(place(dns.line, "dns"), reason, next)),
            );
        }
        if let Some(domains) = group.settings.dns_domains.as_ref().filter(|domains| !domains.value.is_empty()) {
            let has_resolver =
                group.settings.dns.as_ref().map_or(!config.dns.servers.is_empty(), |dns| !dns.value.is_empty());
            if !has_resolver {
                let next = "set dns in this group, or dns.servers in the configuration";
                problems.push(Problem::new(place(domains.line, "dns_domains"), "no resolver answers for them", next));
            }
        }
    }
    problems
}

/// The resolvers that clients cannot ask, each with the reason and a next step.
fn unreachable(dns: &Written<Vec<IpAddr>>, config: &Config) -> impl Iterator<Item = (String, &'static str)> {
    dns.value.iter().filter_map(|server| {
        if is_forbidden_destination(*server) {
            let reason =
                format!("{server} is out of the clients' reach: it is link-local, or a cloud's metadata service");
            return Some((reason, "name a resolver that clients reach through the gateway"));
        }
        let is_isolated = !config.client_to_client && config.is_of_a_client(*server);
        let reason = || format!("{server} is an address for clients, and these do not reach each other");
        is_isolated.then(|| (reason(), "name another resolver, or set client_to_client = true"))
    })
}
