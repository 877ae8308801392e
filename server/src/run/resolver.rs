//! Asks the resolvers that clients are told of and that run on this host, as a client would, and warns of one that does
//! not answer: many serve their own host alone until they are told otherwise.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_proto::packet::icmp::GatewayAddresses;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::config::{Config, host_addresses};

const DNS_PORT: u16 = 53;
/// Longest wait for one answer; a resolver may have to ask others first.
const PATIENCE: Duration = Duration::from_secs(5);
/// A resolver may start together with the gateway.
const ATTEMPTS: usize = 6;
const BETWEEN: Duration = Duration::from_secs(5);
/// Name servers of the root (RFC 1035 section 4.1): id, recursion desired, one question; the root, NS, IN.
const QUESTION: [u8; 17] = [0xad, 0x17, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
/// `REFUSED` of RFC 1035 section 4.1.1.
const REFUSED: u8 = 5;

/// Asks each resolver on this host once, from the gateway's own address in the pools if it has one now, and says which
/// do not serve clients.
pub(crate) async fn unhelpful(config: &Config) -> Vec<String> {
    let here = here();
    let is_of_pool = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => config.pool.v4.is_some_and(|pool| pool.contains(v4)),
        IpAddr::V6(v6) => config.pool.v6.is_some_and(|pool| pool.contains(v6)),
    };
    let mut warnings = Vec::new();
    for server in config.dns.servers.iter().filter(|server| here.contains(server)) {
        let own = here.iter().filter(is_of_pool).find(|own| own.is_ipv4() == server.is_ipv4());
        if let Err(reason) = ask(*own.unwrap_or(server), SocketAddr::new(*server, DNS_PORT)).await {
            let next = "have it listen there and answer the pools";
            warnings.push(format!("clients are told of the resolver {server} on this host: {reason}; {next}"));
        }
    }
    warnings
}

/// The addresses of this host.
fn here() -> Vec<IpAddr> {
    host_addresses().iter().map(|address| address.net.addr()).collect()
}

/// Warns of each resolver on this host that does not serve the pools.
pub(super) async fn warn_of_unhelpful(config: &Config, own: GatewayAddresses) {
    let here = here();
    for server in config.dns.servers.iter().filter(|server| here.contains(server)) {
        let as_client = match server {
            IpAddr::V4(_) => own.v4.map(IpAddr::V4),
            IpAddr::V6(_) => own.v6.map(IpAddr::V6),
        };
        let Some(from) = as_client else { continue };
        if let Err(reason) = ask_patiently(from, SocketAddr::new(*server, DNS_PORT)).await {
            let next = format!("have it listen there and answer the pool of {from}");
            tracing::warn!(%server, reason, next, "clients are told of a resolver on this host that does not serve them");
        }
    }
}

async fn ask_patiently(from: IpAddr, server: SocketAddr) -> Result<(), &'static str> {
    for _ in 1..ATTEMPTS {
        if ask(from, server).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(BETWEEN).await;
    }
    ask(from, server).await
}

/// Whether a resolver answers who asks from an address, whatever it answers but "refused".
async fn ask(from: IpAddr, server: SocketAddr) -> Result<(), &'static str> {
    match timeout(PATIENCE, exchange(from, server)).await {
        Ok(Ok(REFUSED)) => Err("it refuses clients' addresses"),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err("nothing listens there"),
        Ok(Err(_)) => Err("it cannot be asked"),
        Err(_elapsed) => Err("it does not answer"),
    }
}

/// Asks once; gives the code of the answer.
async fn exchange(from: IpAddr, server: SocketAddr) -> io::Result<u8> {
    let socket = UdpSocket::bind((from, 0)).await?;
    socket.connect(server).await?;
    socket.send(&QUESTION).await?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        if let Some([id_high, id_low, flags, code, ..]) = answer.get(..length)
            && [*id_high, *id_low] == QUESTION[..2]
            && flags & 0x80 != 0
        {
            return Ok(code & 0x0f);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// What is said of a resolver that answers with this code.
    async fn said_of(code: u8) -> Result<(), &'static str> {
        let socket = UdpSocket::bind((HERE, 0)).await.unwrap();
        let server = socket.local_addr().unwrap();
        let serving = async {
            let mut question = [0; 64];
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            assert_eq!(question[..length], QUESTION);
            // A stranger's words first.
            socket.send_to(b"x", from).await.unwrap();
            socket.send_to(&[0xad, 0x17, 0x81, 0x80 | code], from).await.unwrap();
        };
        tokio::join!(ask(HERE, server), serving).0
    }

    #[tokio::test]
    async fn every_answer_will_do_but_refused() {
        for code in [0, 2, 3] {
            assert_eq!(said_of(code).await, Ok(()), "{code}");
        }
        assert_eq!(said_of(REFUSED).await, Err("it refuses clients' addresses"));
    }

    #[tokio::test]
    async fn resolver_that_is_not_there_is_told_as_that() {
        let gone = UdpSocket::bind((HERE, 0)).await.unwrap().local_addr().unwrap();
        assert_eq!(ask(HERE, gone).await, Err("nothing listens there"));
    }
}
