//! Asks the local network for the gateway's name, and for no other, while this host's own resolver cannot: it is
//! closed, or its resolver is asked through the tunnel. The socket bears the mark of the client's outer sockets.
//!
//! An answer is only where to try: whether the gateway is there, its certificate shows.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use adit_net::dns;
use adit_program::random::random;
use adit_proto::dns::question::{AddressKind, Question};
use nix::net::if_::if_nametoindex;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Files that name resolvers; the later ones do where the first names only one on this host, which asks others itself.
const FILES: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];
/// Most resolvers that are asked: as many as the C library asks (`MAXNS`).
const MOST_RESOLVERS: usize = 3;
const DNS_PORT: u16 = 53;
const BOTH: [AddressKind; 2] = [AddressKind::V4, AddressKind::V6];
/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long further answers are waited for once there is an address: a resolver may drop every question for addresses
/// of the other family.
const FURTHER: Duration = Duration::from_millis(300);

/// The resolvers of the networks this host is in, best first.
#[derive(Debug, Clone, Default)]
pub(crate) struct LocalResolvers(Vec<SocketAddr>);

impl LocalResolvers {
    /// Takes those that the host has now in the place of those known, unless they are the tunnel's or none.
    pub(crate) fn refresh(&mut self, tunnels: &[IpAddr]) {
        let texts = FILES.iter().filter_map(|path| fs::read_to_string(path).ok());
        let found = texts.map(|text| resolvers(&text, tunnels)).find(|found| !found.is_empty());
        if let Some(found) = found {
            self.0 = found;
        }
    }

    /// The addresses of those known, but for those that count on one link alone.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let counts_anywhere = |server: &&SocketAddr| !matches!(server, SocketAddr::V6(v6) if v6.scope_id() != 0);
        self.0.iter().filter(counts_anywhere).map(SocketAddr::ip).collect()
    }

    /// Asks all of them for the addresses of `name`; empty where none answers in time, or the mark may not be set.
    pub(crate) async fn ask(&self, name: &str, mark: u32) -> Vec<IpAddr> {
        self.ask_for(&BOTH, name, mark).await
    }

    /// As [`Self::ask`], for addresses of these kinds alone.
    pub(crate) async fn ask_for(&self, kinds: &[AddressKind], name: &str, mark: u32) -> Vec<IpAddr> {
        self.ask_within(PATIENCE, kinds, name, mark).await
    }

    async fn ask_within(&self, patience: Duration, kinds: &[AddressKind], name: &str, mark: u32) -> Vec<IpAddr> {
        let mut asking = JoinSet::new();
        for server in &self.0 {
            for kind in kinds.iter().copied() {
                let Ok(id) = random().map(u16::from_ne_bytes) else { return Vec::new() };
                let question = Question { id, name: name.to_owned(), kind };
                let server = *server;
                asking
                    .spawn(async move { dns::ask(server, &question, Some(mark)).await.map(|answer| answer.addresses) });
            }
        }
        let mut found: Vec<IpAddr> = Vec::new();
        let mut deadline = Instant::now() + patience;
        // What is silent by then is asked no longer.
        while let Ok(Some(asked)) = tokio::time::timeout_at(deadline, asking.join_next()).await {
            let is_first = found.is_empty();
            found.extend(asked.unwrap_or_else(|error| Err(io::Error::other(error))).unwrap_or_default());
            if is_first && !found.is_empty() {
                deadline = deadline.min(Instant::now() + FURTHER);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The resolvers that a file names, but those on this host and those in the tunnel.
fn resolvers(text: &str, tunnels: &[IpAddr]) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| resolver(line.trim().strip_prefix("nameserver")?.trim()));
    let is_near = |server: &SocketAddr| !server.ip().is_loopback() && !tunnels.contains(&server.ip());
    named.filter(is_near).take(MOST_RESOLVERS).collect()
}

/// A resolver by its address; one of IPv6 that counts on one link alone, as routers announce them, names that behind
/// `%` (RFC 4007 section 11).
fn resolver(text: &str) -> Option<SocketAddr> {
    let Some((address, link)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, DNS_PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let link = link.parse().or_else(|_no_number| if_nametoindex(link)).ok()?;
    Some(SocketAddrV6::new(address, DNS_PORT, 0, link).into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Server;
    use std::thread;

    use adit_testing::namespace::{in_namespace_async, ip};

    use super::*;

    #[test]
    fn resolvers_of_this_host_and_of_the_tunnel_are_not_asked() {
        let text = "# by hand\nnameserver 127.0.0.53\n nameserver 192.0.2.53\nnameserver 10.64.3.1\nnameserver fd00::1\n\
            search example.net\nnameserver 192.0.2.54\n";
        let expected =
            ["192.0.2.53:53", "[fd00::1]:53", "192.0.2.54:53"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(resolvers(text, &["10.64.3.1".parse().unwrap()]), expected);
    }

    #[test]
    fn resolver_that_a_router_announces_counts_on_its_link() {
        let text = "nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%no-such-link\nnameserver ::1%lo\n";
        let links = [("fe80::1", if_nametoindex("lo").unwrap()), ("fe80::2", 7)];
        let on_link = |(address, link): (&str, u32)| SocketAddrV6::new(address.parse().unwrap(), DNS_PORT, 0, link);
        assert_eq!(resolvers(text, &[]), links.map(|link| SocketAddr::from(on_link(link))));
    }

    /// What is answered to a question: an address of IPv4 and none of IPv6.
    fn answered(question: &[u8]) -> Vec<u8> {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        if question[question.len() - 3] == 1 {
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 17]);
        }
        answer
    }

    /// Answers questions for `gw.example`: first to another number, then as asked.
    fn answer(server: &Server) {
        let mut question = [0; 512];
        for _ in 0..2 {
            let (length, asker) = server.recv_from(&mut question).unwrap();
            let answer = answered(&question[..length]);
            let mut forged = answer.clone();
            forged[0] ^= 1;
            for message in [forged, answer] {
                server.send_to(&message, asker).unwrap();
            }
        }
    }

    #[test]
    fn gateways_name_is_asked_for_and_forged_answers_are_passed_by() {
        in_namespace_async(|| async {
            ip("link set lo up");
            let server = Server::bind("127.0.0.9:53").unwrap();
            let answering = thread::spawn(move || answer(&server));
            let resolvers = LocalResolvers(vec!["127.0.0.9:53".parse().unwrap()]);
            let found = resolvers.ask("gw.example", 22).await;
            assert_eq!(found, ["192.0.2.17".parse::<IpAddr>().unwrap()]);
            answering.join().unwrap();
        });
    }

    /// The name that tells a translator's prefix has addresses of IPv4 as well, which come at once from any cache.
    #[test]
    fn only_the_kind_that_counts_is_asked_for() {
        in_namespace_async(|| async {
            ip("link set lo up");
            let server = Server::bind("127.0.0.9:53").unwrap();
            let answering = thread::spawn(move || {
                let mut question = [0; 512];
                let (length, asker) = server.recv_from(&mut question).unwrap();
                server.send_to(&answered(&question[..length]), asker).unwrap();
                server.set_nonblocking(true).unwrap();
                (question[length - 3], server.recv_from(&mut question).is_err())
            });
            let resolvers = LocalResolvers(vec!["127.0.0.9:53".parse().unwrap()]);
            assert_eq!(resolvers.ask_for(&[AddressKind::V6], "ipv4only.arpa", 22).await, Vec::<IpAddr>::new());
            assert_eq!(answering.join().unwrap(), (28, true), "one question, for addresses of IPv6");
        });
    }

    /// As some resolvers of home routers are: they know nothing of IPv6 and say nothing, and lose a question at times.
    #[test]
    fn resolver_that_drops_questions_for_ipv6_does_not_hold_up_the_others() {
        const FOR_EVER: Duration = Duration::from_secs(3600);
        in_namespace_async(|| async {
            ip("link set lo up");
            let server = Server::bind("127.0.0.9:53").unwrap();
            let answering = thread::spawn(move || {
                let mut question = [0; 512];
                let mut heard_before = 0;
                loop {
                    let (length, asker) = server.recv_from(&mut question).unwrap();
                    if question[length - 3] != 1 {
                        continue;
                    }
                    heard_before += 1;
                    if heard_before == 2 {
                        server.send_to(&answered(&question[..length]), asker).unwrap();
                        return;
                    }
                }
            });
            let _silent = Server::bind("127.0.0.8:53").unwrap();
            let resolvers =
                LocalResolvers(["127.0.0.8:53", "127.0.0.9:53"].map(|server| server.parse().unwrap()).to_vec());
            let asked = resolvers.ask_within(FOR_EVER, &BOTH, "gw.example", 22);
            let found =
                tokio::time::timeout(adit_testing::PATIENCE, asked).await.expect("it waits for no other answer");
            assert_eq!(found, ["192.0.2.17".parse::<IpAddr>().unwrap()]);
            answering.join().unwrap();
        });
    }
}
