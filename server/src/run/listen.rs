//! Binds the sockets a gateway listens on.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use adit_net::quic;
use adit_net::udp::{DtlsGroup, EspSocket, bind_dtls, bind_dtls_group, bind_group};
use adit_program::exit::{Exit, Failure};
use adit_program::rights::Capability;
use nix::errno::Errno;

use crate::config::Config;
use crate::listener;

/// The key of the addresses.
const LISTEN: &str = "listen";

/// The sockets of all addresses.
pub(super) struct Sockets {
    /// One per address.
    pub(super) quic: Vec<UdpSocket>,
    /// One per worker and address, workers first, and behind those the ones at a port for DTLS alone; none for any
    /// worker when ESP and DTLS are off.
    pub(super) esp: Vec<Vec<Arc<EspSocket>>>,
    /// One per address, for handshakes of DTLS, each with the place of its address among the sockets of a worker; none
    /// when that is off.
    pub(super) dtls: Vec<(usize, EspSocket)>,
    /// One per address, unless TCP is off.
    pub(super) tcp: Vec<TcpListener>,
}

impl Sockets {
    /// Binds every address of `listen`, for ESP and TCP as well if they are on.
    pub(super) fn bind(config: &Config) -> Result<Self, Failure> {
        let workers = config.workers.threads();
        let mut sockets = Self { quic: Vec::new(), esp: vec![Vec::new(); workers], dtls: Vec::new(), tcp: Vec::new() };
        for &address in &config.listen {
            match sockets.bind_one(config, address) {
                Ok(()) => {}
                Err(error) => {
                    let instead = instead_of(address, &error).ok_or_else(|| failure(address, &error, LISTEN))?;
                    tracing::warn!("this kernel runs without IPv6; listening on all IPv4 addresses instead");
                    sockets.bind_one(config, instead).map_err(|error| failure(instead, &error, LISTEN))?;
                }
            }
        }
        if let Some(port) = config.anyconnect.dtls_port.filter(|_| config.serves_dtls()) {
            sockets.bind_dtls_port(config, port)?;
        }
        if config.listen_tcp {
            sockets.bind_tcp(&config.listen)?;
        }
        Ok(sockets)
    }

    /// Binds the addresses, where UDP has been given them, on TCP.
    fn bind_tcp(&mut self, listen: &[SocketAddr]) -> Result<(), Failure> {
        for (socket, asked) in self.quic.iter().zip(listen) {
            let address = socket.local_addr().map_err(|error| failure(*asked, &error, LISTEN))?;
            self.tcp.push(listener::bind(address, "listen", ", or set `listen_tcp = false`")?);
        }
        Ok(())
    }

    fn bind_one(&mut self, config: &Config, address: SocketAddr) -> io::Result<()> {
        let is_port = config.anyconnect.dtls_port.is_none_or(|port| port == address.port());
        let has_dtls = config.serves_dtls() && is_port;
        if !config.esp.enabled && !has_dtls {
            self.quic.push(quic::bind(address, None)?);
            return Ok(());
        }
        let group = bind_group(address, config.workers.threads(), config.workers.udp_offload)?;
        if has_dtls {
            self.dtls.push((self.places(), bind_dtls(&group)?));
        }
        self.quic.push(group.main);
        self.give_workers(group.esp);
        Ok(())
    }

    /// Binds the port of DTLS at each address that does not have it anyway.
    fn bind_dtls_port(&mut self, config: &Config, port: u16) -> Result<(), Failure> {
        let mut bound: Vec<SocketAddr> = self.quic.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        for mut address in bound.clone() {
            address.set_port(port);
            if bound.contains(&address) {
                continue;
            }
            let group = bind_dtls_group(address, config.workers.threads(), config.workers.udp_offload);
            let DtlsGroup { door, workers } =
                group.map_err(|error| failure(address, &error, "anyconnect.dtls_port"))?;
            self.dtls.push((self.places(), door));
            self.give_workers(workers);
            bound.push(address);
        }
        Ok(())
    }

    /// How many sockets each worker has.
    fn places(&self) -> usize {
        self.esp.first().map_or(0, Vec::len)
    }

    fn give_workers(&mut self, sockets: Vec<EspSocket>) {
        for (of_worker, socket) in self.esp.iter_mut().zip(sockets) {
            of_worker.push(Arc::new(socket));
        }
    }
}

/// Whether the kernel knows no IPv6 sockets at all.
fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

/// All IPv4 addresses, for all addresses on a kernel that refused those for want of IPv6.
fn instead_of(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let all = address.ip() == Ipv6Addr::UNSPECIFIED;
    (all && lacks_ipv6(error)).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// What is told where an address cannot be had that a key names, or whose port it does.
fn failure(address: SocketAddr, error: &io::Error, key: &str) -> Failure {
    let kind = error.kind();
    let (exit, next) = if kind == ErrorKind::AddrInUse {
        (Exit::Other, format!("stop what listens there (`ss -lunp`), or change `{key}` in the configuration"))
    } else if kind == ErrorKind::PermissionDenied {
        let next = format!("{}; or choose a port above 1023", Capability::NetBindService.next_step());
        (Exit::Permission, next)
    } else if kind == ErrorKind::AddrNotAvailable {
        (Exit::Other, "choose an address of this host for `listen`, or wait until it has it".to_owned())
    } else if lacks_ipv6(error) {
        (Exit::Other, "this kernel runs without IPv6: name an IPv4 address in `listen`".to_owned())
    } else {
        (Exit::Other, format!("look at `{key}`"))
    };
    Failure::new(exit, format!("listen on {address}/udp"), error.to_string(), next)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use adit_net::udp::DatagramSocket as _;

    use super::*;
    use crate::config::config_for_tests;

    fn config(esp: bool, workers: usize) -> Config {
        let mut config = config_for_tests(Path::new("/nowhere"));
        config.listen = vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()];
        (config.esp.enabled, config.workers.count) = (esp, workers);
        // A port that is free for UDP need not be so for TCP.
        config.listen_tcp = false;
        config
    }

    #[test]
    fn each_worker_has_a_socket_of_each_address() {
        let sockets = Sockets::bind(&config(true, 3)).unwrap();
        let addresses: Vec<_> = sockets.quic.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert_eq!(addresses.len(), 2);
        assert_eq!(sockets.esp.len(), 3);
        for worker in &sockets.esp {
            assert_eq!(worker.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>(), addresses);
        }
    }

    #[test]
    fn without_esp_there_are_workers_but_no_sockets_of_theirs() {
        let sockets = Sockets::bind(&config(false, 2)).unwrap();
        assert_eq!((sockets.quic.len(), sockets.esp.len()), (2, 2));
        assert!(sockets.esp.iter().all(Vec::is_empty));
    }

    #[test]
    fn port_of_dtls_is_bound_once_at_each_address_and_served_there_alone() {
        let free = || loop {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            if UdpSocket::bind(address).is_ok() {
                break address;
            }
        };
        let (mut config, dtls) = (config(true, 2), free());
        (config.listen_tcp, config.anyconnect.enabled) = (true, true);
        config.listen = vec![free(), free()];
        config.anyconnect.dtls_port = Some(dtls.port());
        let sockets = Sockets::bind(&config).unwrap_or_else(|failure| panic!("{failure}"));
        let [(place, door)] = &sockets.dtls[..] else { panic!("both addresses have one port of DTLS") };
        assert_eq!((*place, door.local_addr().unwrap()), (2, dtls));
        for worker in &sockets.esp {
            assert_eq!(worker[*place].local_addr().unwrap(), dtls, "the door's number is that of its worker's socket");
        }
        assert_eq!(config.udp_ports(), [config.listen[0].port(), config.listen[1].port(), dtls.port()]);
        drop(sockets);

        config.anyconnect.dtls_port = Some(config.listen[1].port());
        let sockets = Sockets::bind(&config).unwrap_or_else(|failure| panic!("{failure}"));
        let [(1, door)] = &sockets.dtls[..] else { panic!("it is that of the second address, and covers the first") };
        assert_eq!(door.local_addr().unwrap(), config.listen[1]);
        drop(sockets);

        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        config.anyconnect.dtls_port = Some(taken.local_addr().unwrap().port());
        let failure = Sockets::bind(&config).err().unwrap();
        assert!(failure.next.contains("`anyconnect.dtls_port`"), "{failure}");
        config.anyconnect.enabled = false;
        assert!(Sockets::bind(&config).is_ok_and(|sockets| sockets.dtls.is_empty()), "nobody would come");
    }

    #[test]
    fn address_in_use_is_told_with_what_to_do() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for esp in [true, false] {
            let mut config = config(esp, 1);
            config.listen = vec![taken.local_addr().unwrap()];
            let failure = Sockets::bind(&config).err().unwrap();
            assert!(failure.next.contains("ss -lunp"), "{failure}");
        }
    }

    #[test]
    fn address_in_use_on_tcp_alone_is_told_with_both_ways_out() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut config = config(false, 1);
        config.listen = vec![taken.local_addr().unwrap()];
        assert!(Sockets::bind(&config).is_ok_and(|sockets| sockets.tcp.is_empty()));
        config.listen_tcp = true;
        let failure = Sockets::bind(&config).err().unwrap();
        assert_eq!(failure.exit, Exit::Other);
        assert!(failure.to_string().contains(&format!("{}/tcp", config.listen[0])), "{failure}");
        assert!(failure.next.contains("`ss -ltnp`") && failure.next.contains("`listen_tcp = false`"), "{failure}");
        drop(taken);
        let sockets = Sockets::bind(&config).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(sockets.tcp[0].local_addr().unwrap(), config.listen[0]);
    }

    #[test]
    fn all_addresses_are_those_of_ipv4_on_a_kernel_without_ipv6() {
        let (without, in_use) =
            (io::Error::from_raw_os_error(Errno::EAFNOSUPPORT as i32), io::Error::from(ErrorKind::AddrInUse));
        let all: SocketAddr = "[::]:443".parse().unwrap();
        assert_eq!(instead_of(all, &without), Some("0.0.0.0:443".parse().unwrap()));
        assert_eq!(instead_of(all, &in_use), None);
        let one: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        assert_eq!(instead_of(one, &without), None);
        assert!(failure(one, &without, LISTEN).next.contains("IPv4 address"), "it is told what to do");
    }
}
