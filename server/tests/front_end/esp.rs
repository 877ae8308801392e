//! The ESP carrier: who gets it, what it carries, and that it ends with its session.

use std::net::UdpSocket;
use std::time::Duration;

use adit_host::{LinkSettings, Netlink};
use adit_net::http::StreamError;
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::capsule::{Capsule, CapsuleDecoder};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::esp::capsule::{EspCapsule, FLAG_EXTENDED_SEQUENCE, FLAG_PROBE_ANSWERS, SaInit};
use adit_proto::esp::field::Offer;
use adit_proto::esp::spi::Spi;
use adit_proto::http::field::value;
use adit_proto::http::h3::error::Code;
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::sealing::suite::Suite;
use adit_server::admin::LiveGateway;
use adit_server::core::sessions::Ending;
use adit_testing::namespace::in_namespace_async;
use bytes::Bytes;
use ipnet::IpNet;

use crate::device::{Device, Tunnel};
use crate::world::{PATIENCE, World, ask, eventually};

/// Silence after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(500);

/// The SA_INIT with which a client starts the first epoch.
fn first_epoch() -> SaInit {
    SaInit {
        epoch: 0,
        suite: Suite::Aes256Gcm,
        flags: FLAG_EXTENDED_SEQUENCE | FLAG_PROBE_ANSWERS,
        spi: Spi::new(0, 7).unwrap(),
        group: None,
        share: Bytes::new(),
    }
}

/// Waits until ESP passes from both ends.
async fn up(world: &World, device: &Device) {
    eventually("esp carries packets", || {
        device.session.0.name() == "esp" && world.gateway.sessions().iter().any(|session| session.carrier == "esp")
    })
    .await;
}

/// What comes to a socket.
async fn receive(socket: &UdpSocket) -> (Vec<u8>, std::net::SocketAddr) {
    let mut buffer = [0; 2000];
    let mut received = None;
    eventually("a datagram comes", || {
        received = socket.recv_from(&mut buffer).ok();
        received.is_some()
    })
    .await;
    let (len, from) = received.unwrap();
    (buffer[..len].to_vec(), from)
}

#[test]
fn packets_travel_by_esp_both_ways() {
    in_namespace_async(async || {
        let world = World::new().await;
        let netlink = Netlink::open().unwrap();
        netlink.set_link("adit0", LinkSettings { up: Some(true), ..LinkSettings::default() }).await.unwrap();
        netlink.add_address("adit0", "10.77.0.1/24".parse::<IpNet>().unwrap()).await.unwrap();
        let device = Device::connect(&world, world.enroll("alice")).await;
        up(&world, &device).await;

        let service = UdpSocket::bind("10.77.0.1:0").unwrap();
        service.set_nonblocking(true).unwrap();
        device.socket.send_to(b"there", service.local_addr().unwrap()).unwrap();
        let (there, from) = receive(&service).await;
        service.send_to(b"and back", from).unwrap();
        let (back, _) = receive(&device.socket).await;
        assert_eq!((&there[..], &back[..]), (&b"there"[..], &b"and back"[..]));

        let session = world.gateway.sessions().remove(0);
        assert_eq!((session.carrier.as_str(), session.suite.as_deref()), ("esp", Some("aes-256-gcm")));
        assert!(session.rx_packets > 0 && session.tx_packets > 0, "{session:?}");
        assert!((1280..=1400).contains(&session.mtu), "{session:?}");
    });
}

#[test]
fn packet_that_comes_by_quic_passes_while_esp_is_up() {
    in_namespace_async(async || {
        let world = World::new().await;
        let device = Device::connect(&world, world.enroll("alice")).await;
        up(&world, &device).await;
        let session = world.sessions.all().remove(0);
        let before = session.carriers.counters().traffic().rx_packets;
        // An IPv4 header alone (RFC 791 section 3.1), of no protocol.
        let mut packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 0, 0, 0, 0, 10, 77, 0, 1];
        packet[12..16].copy_from_slice(&session.lease.v4.unwrap().octets());
        let carriers = &device.session.0;
        carriers.connection().send(&mut vec![PacketBuffer::copy_from(&packet)]);
        eventually("it was let in", || session.carriers.counters().traffic().rx_packets > before).await;
        // It casts doubt on esp, which then proves itself.
        up(&world, &device).await;
    });
}

#[test]
fn gateway_chooses_as_it_is_configured() {
    in_namespace_async(async || {
        let world = World::with(|config| {
            config.esp.permitted.offer.suites = vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm];
            config.esp.permitted.offer.vouched = false;
        })
        .await;
        let http = world.connect(Some(world.enroll("alice"))).await;
        let answer = Tunnel::open(&http, Some(Offer::default())).await.machine.esp().unwrap();
        assert_eq!((answer.suite, answer.vouched), (Suite::ChaCha20Poly1305, false));
        let http = world.connect(Some(world.enroll("bob"))).await;
        let only = Offer { suites: vec![Suite::Aes128Gcm], ..Offer::default() };
        let tunnel = Tunnel::open(&http, Some(only)).await;
        assert_eq!((tunnel.machine.esp(), value(&tunnel.response, "adit-esp")), (None, None));
        assert_eq!(world.gateway.sessions().last().unwrap().carrier, "quic");
    });
}

#[test]
fn gateway_with_esp_off_does_not_answer() {
    in_namespace_async(async || {
        let world = World::with(|config| config.esp.enabled = false).await;
        let http = world.connect(Some(world.enroll("alice"))).await;
        let tunnel = Tunnel::open(&http, Some(Offer::default())).await;
        assert_eq!((tunnel.machine.esp(), value(&tunnel.response, "adit-esp")), (None, None));
    });
}

#[test]
fn client_that_does_not_offer_esp_sees_nothing_of_it() {
    in_namespace_async(async || {
        let world = World::new().await;
        let http = world.connect(Some(world.enroll("alice"))).await;
        let mut stream = ask(&http, FULL_TUNNEL_PATH, None).await.unwrap();
        let mut capsule = Vec::new();
        adit_proto::capsule::encode(&Capsule::Esp(EspCapsule::SaInit(first_epoch())), &mut capsule);
        let Some(MessageEvent::Headers(response)) = stream.next_event().await.unwrap() else { panic!("no response") };
        assert_eq!(value(&response, "adit-esp"), None);
        // An unknown capsule to the gateway, too, then.
        stream.send_data(&capsule).await.unwrap();
        let mut decoder = CapsuleDecoder::new();
        decoder.expect_esp();
        let mut capsules = 0;
        // Addresses and routes have to come; whatever else does comes with them.
        let within = |capsules| if capsules == 0 { PATIENCE } else { QUIET };
        while let Ok(event) = tokio::time::timeout(within(capsules), stream.next_event()).await {
            if let Some(MessageEvent::Data(data)) = event.unwrap() {
                decoder.handle(&data).unwrap();
            }
            while let Some(capsule) = decoder.poll_event() {
                assert!(!matches!(capsule, Capsule::Esp(_)), "{capsule:?}");
                capsules += 1;
            }
        }
        assert!(capsules > 0, "addresses and routes came");
        assert!(world.plane.installed().is_empty());
        assert_eq!(world.sessions.len(), 1);
    });
}

#[test]
fn capsule_that_breaks_the_rules_ends_the_session() {
    in_namespace_async(async || {
        let world = World::new().await;
        for (user, capsule) in [
            ("alice", EspCapsule::SaInit(SaInit { epoch: 1, ..first_epoch() })),
            ("bob", EspCapsule::SaInit(SaInit { suite: Suite::Aes128Gcm, ..first_epoch() })),
            ("carol", EspCapsule::RekeyRequest(1)),
        ] {
            let http = world.connect(Some(world.enroll(user))).await;
            let mut tunnel = Tunnel::open(&http, Some(Offer::default())).await;
            assert_eq!(world.sessions.len(), 1);
            tunnel.send([capsule]).await.unwrap();
            let ended = loop {
                match tunnel.receive().await {
                    Ok(received) => assert_eq!(received, Some(vec![]), "{user} gets no answer"),
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(ended, StreamError::Reset(code) if code == Code::MESSAGE_ERROR.value()),
                "{user}: {ended}"
            );
            eventually("the session ends", || world.sessions.is_empty()).await;
            assert!(world.plane.installed().is_empty());
        }
    });
}

#[test]
fn revoked_device_loses_its_sas_at_once() {
    in_namespace_async(async || {
        let world = World::new().await;
        let device = Device::connect(&world, world.enroll("alice")).await;
        up(&world, &device).await;
        let session = world.sessions.all().remove(0);
        assert_eq!(world.plane.installed().len(), 1);
        assert_eq!(world.gateway.close_device(&session.device.id, Ending::Revoked), 1);
        // Before any task had a chance to run.
        assert!(session.carriers.is_closed() && session.carriers.route().is_none());
        assert!(world.sessions.is_empty());
        eventually("its sas are gone", || world.plane.installed().is_empty()).await;
        tokio::time::timeout(PATIENCE, device.following).await.expect("the tunnel ends").unwrap();
    });
}

#[test]
fn newer_connection_of_a_device_takes_the_sas_of_the_older() {
    in_namespace_async(async || {
        let world = World::new().await;
        let (certificate, key) = world.enroll("alice");
        let older = Device::connect(&world, (certificate.clone(), key.clone_key())).await;
        up(&world, &older).await;
        let (session, sas) = (world.sessions.all().remove(0), world.plane.installed());
        let newer = Device::connect(&world, (certificate, key)).await;
        assert!(session.carriers.is_closed() && session.carriers.route().is_none());
        eventually("its sas are gone", || world.plane.installed().is_disjoint(&sas)).await;
        up(&world, &newer).await;
        assert_eq!(world.plane.installed().len(), 1);
        drop(older);
        assert_eq!(world.gateway.sessions()[0].carrier, "esp");
    });
}

#[test]
fn sas_end_with_their_connection() {
    in_namespace_async(async || {
        let world = World::new().await;
        let device = Device::connect(&world, world.enroll("alice")).await;
        up(&world, &device).await;
        drop(device.http);
        let ended = || world.sessions.is_empty() && world.plane.installed().is_empty();
        eventually("session and sas are gone", ended).await;
    });
}

#[test]
fn gateway_has_keys_replaced_as_it_is_configured() {
    in_namespace_async(async || {
        let world = World::with(|config| config.esp.permitted.policy.after = Duration::from_secs(1)).await;
        let device = Device::connect(&world, world.enroll("alice")).await;
        up(&world, &device).await;
        let session = world.sessions.all().remove(0);
        eventually("keys were replaced", || session.carriers.rekeys() >= 2).await;
        assert_eq!((session.carriers.name(), device.session.0.name()), ("esp", "esp"));
    });
}
