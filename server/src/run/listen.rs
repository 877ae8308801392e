//! Binds the sockets a gateway listens on.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use adit_net::quic;
use adit_net::udp::{EspSocket, Group, bind_group};
use adit_program::exit::{Exit, Failure};

use crate::config::Config;

/// The sockets of all addresses.
pub(super) struct Sockets {
    /// One per address.
    pub(super) quic: Vec<UdpSocket>,
    /// One per worker and address, workers first; none for any worker when ESP is off.
    pub(super) esp: Vec<Vec<Arc<EspSocket>>>,
}

impl Sockets {
    /// Binds every address of `listen`, for ESP as well if it is on.
    pub(super) fn bind(config: &Config) -> Result<Self, Failure> {
        let workers = config.workers.threads();
        let mut sockets = Self { quic: Vec::new(), esp: vec![Vec::new(); workers] };
        for &address in &config.listen {
            if config.esp.enabled {
                let group = bind_group(address, workers, config.workers.udp_offload);
                sockets.add(group.map_err(|error| failure(address, &error))?);
            } else {
                sockets.quic.push(quic::bind(address, None).map_err(|error| failure(address, &error))?);
            }
        }
        Ok(sockets)
    }

    fn add(&mut self, group: Group) {
        self.quic.push(group.main);
        for (sockets, socket) in self.esp.iter_mut().zip(group.esp) {
            sockets.push(Arc::new(socket));
        }
    }
}

fn failure(address: SocketAddr, error: &io::Error) -> Failure {
    let kind = error.kind();
    let (exit, next) = if kind == ErrorKind::AddrInUse {
        (Exit::Other, "stop what listens there (`ss -lunp`), or change `listen` in the configuration")
    } else if kind == ErrorKind::PermissionDenied {
        (Exit::Permission, "run as root, or grant CAP_NET_BIND_SERVICE, or choose a port above 1023")
    } else if kind == ErrorKind::AddrNotAvailable {
        (Exit::Other, "choose an address of this host for `listen`, or wait until it has it")
    } else {
        (Exit::Other, "look at the address in `listen`")
    };
    Failure::new(exit, format!("listen on {address}/udp"), error.to_string(), next)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use adit_net::udp::DatagramSocket as _;

    use super::*;
    use crate::config::config_for_tests;

    fn config(esp: bool, workers: usize) -> Config {
        let mut config = config_for_tests(Path::new("/nowhere"));
        config.listen = vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()];
        (config.esp.enabled, config.workers.count) = (esp, workers);
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
    fn address_in_use_is_told_with_what_to_do() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for esp in [true, false] {
            let mut config = config(esp, 1);
            config.listen = vec![taken.local_addr().unwrap()];
            let failure = Sockets::bind(&config).err().unwrap();
            assert!(failure.next.contains("ss -lunp"), "{failure}");
        }
    }
}
