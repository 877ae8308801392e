//! Base chains of other firewalls that refuse forwarded packets, such as Docker's, ufw's or firewalld's.

use std::io;

use ipnet::IpNet;

use super::{GatewayRules, table};
use crate::error::HostError;
use crate::nft::{FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6, Hook, ListedChain, Socket};

/// Type of the attribute that holds what a rule compares with (`NFTA_DATA_VALUE`).
const COMPARED: u16 = 1;

/// What was found when the ruleset was last looked at.
#[derive(Debug, Default)]
pub(crate) struct ForeignChains {
    generation: Option<u32>,
    refusing: Vec<String>,
}

impl ForeignChains {
    /// Names the chains that refuse forwarded packets: `ip filter FORWARD`. The ruleset is listed only if it changed.
    ///
    /// Found are policies "drop" and chains that end with an unconditional "drop" or "reject", in tables that name
    /// neither the TUN device nor a pool: those that do are taken to let them pass. Rules of the older iptables
    /// interface are not visible to nftables.
    ///
    /// # Errors
    /// Fails without `CAP_NET_ADMIN`, or when the kernel has no nftables.
    pub(crate) fn refusing(&mut self, rules: &GatewayRules) -> Result<&[String], HostError> {
        let listing = |source: io::Error| HostError::system("list the firewall's chains", source);
        let socket = Socket::open().map_err(listing)?;
        let generation = socket.generation().map_err(listing)?;
        if self.generation != Some(generation) {
            self.refusing = refusing(&socket, rules).map_err(listing)?;
            self.generation = Some(generation);
        }
        Ok(&self.refusing)
    }
}

fn refusing(socket: &Socket, rules: &GatewayRules) -> io::Result<Vec<String>> {
    let (mut found, names) = (Vec::new(), names_of_the_tunnel(rules));
    for chain in socket.chains()?.iter().filter(|chain| is_foreign_forward(chain)) {
        let refuses = chain.drops
            || socket
                .rules(chain.family, &chain.table, &chain.name)?
                .last()
                .is_some_and(|rule| rule.refuses_everything());
        if refuses && !socket.some_rule_contains(chain.family, &chain.table, &names)? {
            found.push(format!("{} {} {}", family_name(chain.family), chain.table, chain.name));
        }
    }
    Ok(found)
}

/// How a rule's bytes name the TUN device or a pool. A prefix of whole octets is compared by those octets alone.
fn names_of_the_tunnel(rules: &GatewayRules) -> Vec<Vec<u8>> {
    let octets = |pool: IpNet| match pool {
        IpNet::V4(pool) => pool.network().octets().to_vec(),
        IpNet::V6(pool) => pool.network().octets().to_vec(),
    };
    let mut names = vec![rules.tun.as_bytes().to_vec()];
    for pool in rules.pools() {
        let all = octets(pool);
        let significant = usize::from(pool.prefix_len().div_ceil(8));
        for compared in [&all[..significant], &all] {
            let length = u16::try_from(4 + compared.len()).expect("an address has at most 16 octets");
            names.push([&length.to_ne_bytes()[..], &COMPARED.to_ne_bytes(), compared].concat());
        }
    }
    names
}

fn is_foreign_forward(chain: &ListedChain) -> bool {
    let sees_ip = [FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6].contains(&chain.family);
    let ours = chain.family == FAMILY_INET && table::is_of_a_gateway(&chain.table);
    sees_ip && !ours && chain.hook == Some(Hook::Forward as u32)
}

pub(super) fn family_name(family: u8) -> &'static str {
    match family {
        FAMILY_IPV4 => "ip",
        FAMILY_IPV6 => "ip6",
        _ => "inet",
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use adit_testing::namespace::in_namespace;
    use adit_testing::skip;

    use super::super::tests::{load, rules};
    use super::*;

    fn nft(commands: &str) -> bool {
        let status = Command::new("nft").arg(commands).status();
        status.is_ok_and(|status| status.success())
    }

    #[test]
    fn chains_that_refuse_forwarding_are_named_unless_they_know_the_tunnel() {
        in_namespace(|| {
            let _table = load(&rules()).unwrap();
            let mut foreign = ForeignChains::default();
            assert_eq!(foreign.refusing(&rules()).unwrap(), Vec::<String>::new());
            let stranger = "add table inet stranger; \
                            add chain inet stranger fine { type filter hook forward priority 10; }; \
                            add rule inet stranger fine iifname eth0 drop; \
                            add chain inet stranger ending { type filter hook forward priority 10; }; \
                            add rule inet stranger ending ct state established accept; \
                            add rule inet stranger ending counter drop; \
                            add chain inet stranger strict { type filter hook forward priority 20; policy drop; }; \
                            add chain inet stranger elsewhere { type filter hook input priority 0; policy drop; }";
            if !nft(stranger) {
                return skip("needs the program nft");
            }
            let mut found = foreign.refusing(&rules()).unwrap().to_vec();
            found.sort();
            assert_eq!(found, ["inet stranger ending", "inet stranger strict"]);
            for allowing in
                ["iifname adit0 accept", "ip saddr 10.64.3.0/24 accept", "ip6 daddr fd12:3456:789a::/64 accept"]
            {
                assert!(nft(&format!("add rule inet stranger fine {allowing}")));
                assert_eq!(foreign.refusing(&rules()).unwrap(), Vec::<String>::new(), "{allowing}");
                assert!(nft("flush chain inet stranger fine; add rule inet stranger fine iifname eth0 accept"));
                assert_eq!(foreign.refusing(&rules()).unwrap().len(), 2);
            }
        });
    }
}
