//! What clients reach: decided by where a packet was sent to, before any destination NAT, and once more by where it
//! ended up.
//!
//! Published ports of containers and other DNAT rules of the host are no way round: they come after the first decision.

use std::fmt;

use ipnet::IpNet;

use super::{BEFORE_NAT, GatewayRules, INPUT, REFUSED, Rule, forbidden_destinations};

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
/// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443 section 3), without which IPv6
/// breaks.
const ERRORS_V6: [u8; 4] = [1, 2, 3, 4];
const DNS: [LocalService; 2] = [LocalService::Udp(53), LocalService::Tcp(53)];
/// Refused packets that are answered in a second; further ones are dropped. Enough for programs to hear it at once, too
/// little for a client to keep the host busy with.
pub(crate) const ANSWERS: u32 = 200;

const NOT_FOR_CLIENTS: &str = "not for clients";
pub(super) const CLIENT_TO_CLIENT: &str = "client to client";
pub(super) const FORBIDDEN: &str = "link-local, loopback or cloud metadata";

/// A service on the gateway's own host, by its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalService {
    /// Over TCP.
    Tcp(u16),
    /// Over UDP.
    Udp(u16),
}

impl fmt::Display for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
        }
    }
}

impl GatewayRules {
    /// What clients open, judged by its original destination; replies to what others opened were judged then.
    pub(super) fn before_nat_rules(&self) -> Vec<Rule> {
        let rule = || Rule::new(BEFORE_NAT);
        let mut rules = vec![rule().input_not(&self.tun).accept(), rule().established().accept()];
        rules.extend(forbidden_destinations().map(|prefix| rule().destination_in(prefix).go_to(REFUSED, FORBIDDEN)));
        rules.extend(self.served_rules(rule));
        rules.push(rule().for_this_host().go_to(REFUSED, NOT_FOR_CLIENTS));
        if !self.client_to_client {
            rules.extend(self.pools().map(|pool| rule().destination_in(pool).go_to(REFUSED, CLIENT_TO_CLIENT)));
        }
        rules
    }

    /// The same for what reaches the host itself in the end: every packet of a client that opened the connection, so
    /// that a service that is no longer one for clients is none for connections that stand.
    pub(super) fn input_rules(&self) -> Vec<Rule> {
        let rule = || Rule::new(INPUT).input(&self.tun);
        let elsewhere = Rule::new(INPUT).input_not(&self.tun);
        let mut rules = vec![elsewhere.accept(), rule().answer().accept(), rule().related().accept()];
        rules.extend(self.limit_rules(rule));
        rules.extend(self.served_rules(rule));
        rules.push(rule().go_to(REFUSED, NOT_FOR_CLIENTS));
        rules
    }

    /// Clients may ping the gateway at its tunnel addresses and ask it for names there, or where its configuration says
    /// that they find a resolver; of the rest of the host they reach the services that are named.
    fn served_rules(&self, rule: impl Fn() -> Rule) -> Vec<Rule> {
        let mut rules = Vec::new();
        for address in self.gateway_addresses() {
            let to = || rule().destination_in(address);
            match address {
                IpNet::V4(_) => rules.push(to().icmp(ECHO_REQUEST_V4).accept()),
                IpNet::V6(_) => {
                    rules.push(to().icmpv6(ECHO_REQUEST_V6).accept());
                    rules.extend(ERRORS_V6.map(|kind| to().icmpv6(kind).accept()));
                }
            }
        }
        let resolvers = self.resolvers.iter().copied().map(IpNet::from);
        for address in self.gateway_addresses().chain(resolvers) {
            rules.extend(DNS.map(|service| rule().destination_in(address).service(service).accept()));
        }
        let services = self.local_services.iter();
        rules.extend(services.map(|service| rule().for_this_host().service(*service).accept()));
        rules
    }

    /// Tells the sender of a packet that it may not go there, so that its program need not wait.
    pub(super) fn refusal_rules() -> [Rule; 3] {
        let rule = || Rule::new(REFUSED);
        [rule().more_than(ANSWERS).drop("refused without an answer"), rule().tcp().reset(), rule().prohibit()]
    }
}

impl Rule {
    fn service(self, service: LocalService) -> Self {
        match service {
            LocalService::Tcp(port) => self.tcp().destination_port(port),
            LocalService::Udp(port) => self.udp().destination_port(port),
        }
    }
}
