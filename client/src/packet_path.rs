//! The packet path of a client with a TUN device: one worker, and its sockets for ESP and DTLS.
//!
//! It lives as long as the device, over all connections. The connection in use is its session: packets from the device
//! go to that, in datagrams or else by the connection, and only its packets reach the device. While there is none,
//! packets are dropped.

mod routing;

use std::io;
use std::sync::Arc;

use adit_net::carrier::counters::Counters;
use adit_net::carrier::esp::EspSettings;
use adit_net::tun::{LARGEST_PACKET, PacketQueue as _, Queue, Tun};
use adit_net::udp::{EspSocket, bind_any};
use adit_net::worker::{AssociationPlane, Settings, Workers, WorkersHandle};
use adit_proto::packet::IPV6_MIN_MTU;
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::packet_source::{BoxFuture, PacketWorkers, TunnelSession};
use routing::ClientRouting;

/// Largest packet that goes by ESP unless a profile says otherwise, in bytes. A datagram with it fits an IPv4 path of
/// 1500 bytes, and 44 of them one call.
pub const DEFAULT_MTU: u16 = 1420;

/// How a packet path works.
#[derive(Debug, Clone)]
pub struct PacketPathSettings {
    /// What is offered to the gateway, and when keys are replaced; `None` leaves only the carriers of connections.
    pub esp: Option<EspSettings>,
    /// Largest packet that goes by ESP or DTLS, in bytes, where the path takes it: 1280 to 9216.
    pub mtu: u16,
    /// How the worker works.
    pub worker: Settings,
    /// Whether the kernel segments and joins UDP datagrams.
    pub udp_offload: bool,
    /// Mark (SO_MARK) of the sockets; needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
}

impl Default for PacketPathSettings {
    fn default() -> Self {
        Self { esp: None, mtu: DEFAULT_MTU, worker: Settings::default(), udp_offload: false, mark: None }
    }
}

/// The worker of one TUN device. Dropping it stops the worker and deletes the device.
pub struct PacketPath {
    routing: Arc<ClientRouting>,
    handle: Arc<WorkersHandle<TunnelSession>>,
    /// Locked by whoever waits for the worker to fail, one after another.
    workers: Mutex<Workers<TunnelSession>>,
    esp: Option<EspSettings>,
    mtu: u16,
    tun: Tun,
}

impl PacketPath {
    /// Starts the worker of `tun`, in the network namespace of the calling thread. Without sockets for datagrams,
    /// packets go by connections alone.
    ///
    /// # Errors
    /// `InvalidInput` if the device has not exactly one queue, or [`PacketPathSettings::mtu`] is out of its bounds;
    /// else the system gives no thread.
    pub fn start(tun: Tun, settings: PacketPathSettings) -> io::Result<Self> {
        let [_queue] = tun.queues() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let PacketPathSettings { esp, mtu, worker, udp_offload, mark } = settings;
        if !(usize::from(IPV6_MIN_MTU)..=LARGEST_PACKET).contains(&usize::from(mtu)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the mtu of esp is not between 1280 and 9216"));
        }
        let sockets = esp.as_ref().map_or_else(Vec::new, |_| open_sockets(mark, udp_offload));
        let routing = Arc::new(ClientRouting::default());
        // One thread for both directions is as fast as two, and costs less.
        let workers = Workers::start(&routing, tun.queues(), vec![sockets], worker)?;
        let handle = Arc::clone(workers.handle());
        let esp = esp.filter(|_| handle.has_sockets());
        Ok(Self { routing, handle, workers: Mutex::new(workers), esp, mtu, tun })
    }

    /// The TUN device's name.
    pub fn link(&self) -> &str {
        self.tun.name()
    }

    fn queue(&self) -> &Arc<Queue> {
        self.tun.queues().first().expect("`start` takes no device without a queue")
    }
}

impl PacketWorkers for PacketPath {
    fn esp(&self) -> Option<&EspSettings> {
        self.esp.as_ref()
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn has_sockets(&self) -> bool {
        self.handle.has_sockets()
    }

    fn plane(&self) -> Arc<dyn AssociationPlane<TunnelSession>> {
        Arc::clone(&self.handle) as Arc<dyn AssociationPlane<TunnelSession>>
    }

    fn begin(&self, session: &Arc<TunnelSession>) {
        self.routing.begin(session);
    }

    fn end(&self, session: &Arc<TunnelSession>) {
        self.routing.end(session);
    }

    fn deliver(&self, packets: &[Bytes]) -> usize {
        self.queue().send(packets)
    }

    fn counters(&self) -> &Counters {
        self.routing.drops()
    }

    fn failed(&self) -> BoxFuture<'_, io::Error> {
        Box::pin(async { self.workers.lock().await.failed().await })
    }
}

/// One socket for each address family this host has; none if the system refuses, since there is another carrier.
fn open_sockets(mark: Option<u32>, offload: bool) -> Vec<Arc<EspSocket>> {
    let ipv4 = match bind_any(false, mark, offload) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "no socket for datagrams; packets go by connections");
            return Vec::new();
        }
    };
    let ipv6 =
        bind_any(true, mark, offload).inspect_err(|error| tracing::debug!(%error, "no IPv6 socket for datagrams"));
    [Some(ipv4), ipv6.ok()].into_iter().flatten().map(Arc::new).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use adit_net::carrier::Carried as _;
    use adit_net::testing::Keeper;

    use super::*;
    use adit_testing::namespace::{in_namespace_async, ip, up};

    /// A packet path over the device `adit0`, which is up, has the address 10.64.3.2, and carries nothing of its own
    /// accord.
    fn path(settings: PacketPathSettings) -> PacketPath {
        let path = PacketPath::start(Tun::create("adit0", 1, true).unwrap(), settings).unwrap();
        ip("address add 10.64.3.2/24 dev adit0");
        up("adit0");
        path
    }

    fn session(carrier: &Arc<Keeper>) -> Arc<TunnelSession> {
        let session = TunnelSession::new(Arc::<Keeper>::clone(carrier));
        session.set_addresses(vec!["10.64.3.2".parse().unwrap()]);
        Arc::new(session)
    }

    #[test]
    fn packets_of_the_device_go_to_the_session_in_use() {
        in_namespace_async(|| async {
            let path = path(PacketPathSettings::default());
            let host = UdpSocket::bind("10.64.3.2:0").unwrap();
            let to: SocketAddr = "10.64.3.9:9".parse().unwrap();
            let dropped = || path.counters().traffic().drops.iter().map(|(_, count)| count).sum::<u64>();
            host.send_to(b"to nobody", to).unwrap();
            while dropped() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for _connection in 0..2 {
                let keeper = Arc::new(Keeper::new(1400));
                let session = session(&keeper);
                path.begin(&session);
                host.send_to(b"hello", to).unwrap();
                while keeper.packets.lock().unwrap().is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                assert!(keeper.packets.lock().unwrap()[0].ends_with(b"hello"));
                session.carriers().close();
                path.end(&session);
            }
        });
    }

    #[test]
    fn esp_needs_settings_and_sockets() {
        in_namespace_async(|| async {
            let without = path(PacketPathSettings::default());
            assert!(without.esp().is_none() && !without.has_sockets() && without.plane().claim_spi(None).is_some());
            drop(without);
            let settings = PacketPathSettings { esp: Some(EspSettings::default()), ..PacketPathSettings::default() };
            let with = path(PacketPathSettings { mark: Some(adit_proto::mark::Mark::CLIENT.value), ..settings });
            assert!(with.esp() == Some(&EspSettings::default()) && with.has_sockets());
            assert_eq!(with.link(), "adit0");
        });
    }

    #[test]
    fn mtu_out_of_bounds_is_refused() {
        in_namespace_async(|| async {
            for mtu in [1279, 9217] {
                let settings = PacketPathSettings { mtu, ..PacketPathSettings::default() };
                let started = PacketPath::start(Tun::create("adit0", 1, true).unwrap(), settings);
                assert_eq!(started.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
            }
        });
    }

    #[test]
    fn deleted_device_fails_the_path_for_whoever_asks() {
        in_namespace_async(|| async {
            let path = path(PacketPathSettings::default());
            let deleting = async {
                tokio::task::yield_now().await;
                ip("link delete adit0");
            };
            let both = async { tokio::join!(path.failed(), deleting).0 };
            tokio::time::timeout(Duration::from_secs(5), both).await.expect("nobody notices");
            tokio::time::timeout(Duration::from_secs(5), path.failed()).await.expect("it is forgotten");
        });
    }
}
