//! A device that speaks ESP: a tunnel whose capsules are at hand, and all of a client's data path in a network
//! namespace of its own.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use adit_host::{LinkSettings, Netlink};
use adit_net::carrier::counters::Counters;
use adit_net::carrier::esp::{EspControl, EspSetup, exporter_secret};
use adit_net::carrier::quic::Datagrams;
use adit_net::carrier::{Carried, Carriers};
use adit_net::http::StreamError;
use adit_net::http::h3::{H3Connection, RequestStream};
use adit_net::tun::Tun;
use adit_net::udp::bind_any;
use adit_net::worker::{Routing, Settings, Workers};
use adit_program::task::{self, Task};
use adit_proto::connect_ip::client::{Client, ClientConfig, ClientEvent};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::capsule::EspCapsule;
use adit_proto::esp::field::Offer;
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::http::field::Field;
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::packet::IpPacket;
use ipnet::IpNet;
use nix::sched::CloneFlags;

use crate::world::{Certificate, HOST, World};

/// An open tunnel on a connection.
pub(crate) struct Tunnel {
    pub(crate) machine: Client,
    pub(crate) stream: RequestStream,
    /// The header section of the response.
    pub(crate) response: Vec<Field>,
}

impl Tunnel {
    /// Opens a tunnel and offers ESP so.
    pub(crate) async fn open(http: &H3Connection, esp: Option<Offer>) -> Self {
        let (authority, path) = (HOST.to_owned(), FULL_TUNNEL_PATH.to_owned());
        let mut machine =
            Client::new(ClientConfig { authority, path, bearer: None, wants_dns: true, login: None, esp });
        http.peer_settings().await.unwrap();
        let mut stream = http.open_request().await.unwrap();
        stream.expect_tunnel();
        stream.send_headers(&machine.request()).await.unwrap();
        let Some(MessageEvent::Headers(response)) = stream.next_event().await.unwrap() else { panic!("no response") };
        machine.handle_response(&response, Instant::now()).unwrap();
        Self { machine, stream, response }
    }

    /// Sends capsules of ESP.
    pub(crate) async fn send(&mut self, capsules: impl IntoIterator<Item = EspCapsule>) -> Result<(), StreamError> {
        capsules.into_iter().for_each(|capsule| self.machine.send_esp(capsule));
        while let Some(bytes) = self.machine.poll_transmit() {
            self.stream.send_data(&bytes).await?;
        }
        Ok(())
    }

    /// Waits for a part of the gateway's message and gives the capsules of ESP in it; `None` at its end. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Result<Option<Vec<EspCapsule>>, StreamError> {
        let Some(event) = self.stream.next_event().await? else { return Ok(None) };
        if let MessageEvent::Data(data) = event {
            self.machine.handle_data(&data).unwrap();
        }
        let mut capsules = Vec::new();
        while let Some(event) = self.machine.poll_event() {
            if let ClientEvent::Esp(capsule) = event {
                capsules.push(capsule);
            }
        }
        Ok(Some(capsules))
    }
}

/// What the device knows of its session.
pub(crate) struct DeviceSession(pub(crate) Carriers);

impl Carried for DeviceSession {
    fn carriers(&self) -> &Carriers {
        &self.0
    }
}

/// Everything goes to the gateway, and everything from there may come in.
struct ToTheGateway {
    session: Arc<DeviceSession>,
    counters: Counters,
}

impl Routing for ToTheGateway {
    type Session = DeviceSession;

    fn session_of(&self, _packet: &IpPacket) -> Option<Arc<DeviceSession>> {
        Some(Arc::clone(&self.session))
    }

    fn admit(&self, _session: &DeviceSession, _packet: &IpPacket) -> Result<(), DropReason> {
        Ok(())
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// A device with a session that uses ESP as soon as it can.
pub(crate) struct Device {
    pub(crate) http: H3Connection,
    pub(crate) session: Arc<DeviceSession>,
    /// A socket of the device's host that talks through the tunnel.
    pub(crate) socket: UdpSocket,
    /// Ends when the tunnel does.
    pub(crate) following: Task,
    _workers: Workers<DeviceSession>,
}

impl Device {
    /// Connects a device and sets its host up.
    pub(crate) async fn connect(world: &World, certificate: Certificate) -> Self {
        let http = world.connect(Some(certificate)).await;
        let tunnel = Tunnel::open(&http, Some(Offer::default())).await;
        let datagrams = Datagrams::new(http.quic().clone(), tunnel.stream.id());
        let session = Arc::new(DeviceSession(Carriers::new(Arc::new(datagrams))));
        let address = world.sessions.all().last().and_then(|session| session.lease.v4).unwrap();
        let (tun, socket) = host(address);
        let routing = ToTheGateway { session: Arc::clone(&session), counters: Counters::default() };
        let sockets = vec![vec![Arc::new(bind_any(false, None, true).unwrap())]];
        let workers = Workers::start(&Arc::new(routing), tun.queues(), sockets, Settings::default()).unwrap();
        let setup = EspSetup {
            negotiated: tunnel.machine.esp().unwrap(),
            secret: &mut exporter_secret(http.quic()).unwrap(),
            plane: Arc::clone(workers.handle()) as _,
            session: Arc::clone(&session),
            policy: RekeyPolicy::default(),
            largest_packet: 1400,
        };
        let esp = EspControl::client(setup, http.quic().remote_address(), Instant::now());
        let following = task::spawn(follow(tunnel, esp));
        Self { http, session, socket, following, _workers: workers }
    }
}

/// The network of the device's host: a TUN device with its address, and a socket there.
fn host(address: Ipv4Addr) -> (Tun, UdpSocket) {
    let set_up = move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let tun = Tun::create("adit0", 1, true).unwrap();
        let up = async {
            let netlink = Netlink::open().unwrap();
            let link = LinkSettings { mtu: Some(1400), up: Some(true), ..LinkSettings::default() };
            netlink.set_link("adit0", link).await.unwrap();
            netlink.add_address("adit0", IpNet::new(IpAddr::V4(address), 24).unwrap()).await.unwrap();
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(up);
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        (tun, socket)
    };
    thread::spawn(set_up).join().unwrap()
}

/// Keeps ESP going until the tunnel ends.
async fn follow(mut tunnel: Tunnel, mut esp: EspControl<DeviceSession>) {
    loop {
        if tunnel.send(std::iter::from_fn(|| esp.poll_capsule())).await.is_err() {
            return;
        }
        tokio::select! {
            received = tunnel.receive() => match received {
                Ok(Some(capsules)) => {
                    for capsule in capsules {
                        esp.handle_capsule(capsule, Instant::now()).unwrap();
                    }
                }
                Ok(None) | Err(_) => return,
            },
            kept = esp.drive() => kept.unwrap(),
        }
    }
}
