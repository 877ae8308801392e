//! Who gets a session and who does not: the CONNECT-IP front-end over real QUIC and TLS.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_net::carrier::Carrier;
use adit_net::carrier::counters::Counters;
use adit_net::http::StreamError;
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::http::h3::error::Code;
use adit_server::admin::LiveGateway;
use adit_server::core::sessions::{About, Closing, Connection, Ending};
use adit_server::core::{Core as _, OpenError};
use adit_testing::namespace::in_namespace_async;
use bytes::Bytes;
use quinn::ConnectionError;
use world::{Certificate, PATIENCE, World, ask, eventually, tunnel, tunnel_at};

#[path = "front_end/clock.rs"]
mod clock;
#[path = "front_end/connections.rs"]
mod connections;
#[path = "front_end/device.rs"]
mod device;
#[path = "front_end/esp.rs"]
mod esp;
#[path = "front_end/terms.rs"]
mod terms;
#[path = "front_end/world.rs"]
mod world;

/// The same certificate and key once more.
fn copy((chain, key): &Certificate) -> Certificate {
    (chain.clone(), key.clone_key())
}

/// The code with which the peer closed a connection.
async fn closing_code(quic: &quinn::Connection, limit: Duration) -> u64 {
    let closed = tokio::time::timeout(limit, quic.closed()).await.expect("the gateway closes the connection");
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("closed otherwise: {closed}") };
    close.error_code.into()
}

#[test]
fn device_certificate_or_token_opens_a_session() {
    in_namespace_async(async || {
        let world = World::new().await;
        let by_certificate = world.connect(Some(world.enroll("alice"))).await;
        let by_token = world.connect(None).await;
        let (_, token) = world.token("bob");
        let first = tunnel(&by_certificate, None).await.unwrap();
        let second = tunnel(&by_token, Some(&token)).await.unwrap();
        assert_eq!((first.status, second.status), (200, 200));
        let users: Vec<_> = world.gateway.sessions().into_iter().map(|session| session.user).collect();
        assert_eq!(users, ["alice", "bob"]);
    });
}

#[test]
fn stranger_gets_401_and_a_wrong_token_no_more() {
    in_namespace_async(async || {
        let world = World::new().await;
        let http = world.connect(None).await;
        assert_eq!(tunnel(&http, None).await.unwrap().status, 401);
        assert_eq!(tunnel(&http, Some("adit_AAAAAAAA")).await.unwrap().status, 401);
        assert!(world.sessions.is_empty());
    });
}

#[test]
fn certificate_that_names_no_device_is_refused_even_with_a_good_token() {
    in_namespace_async(async || {
        let world = World::new().await;
        let (_, token) = world.token("alice");
        let http = world.connect(Some(world.nameless_certificate())).await;
        assert_eq!(tunnel(&http, None).await.unwrap().status, 403);
        assert_eq!(tunnel(&http, Some(&token)).await.unwrap().status, 403);
        assert!(world.sessions.is_empty());
    });
}

#[test]
fn good_token_does_not_help_a_revoked_device() {
    in_namespace_async(async || {
        let world = World::new().await;
        let certificate = world.enroll("mallory");
        world.store.revoke("mallory", SystemTime::now()).unwrap();
        let (_, token) = world.token("alice");
        let http = world.connect(Some(certificate)).await;
        let answer = tunnel(&http, Some(&token)).await.unwrap();
        assert_eq!((answer.status, answer.reason.as_deref()), (403, Some("this device was revoked")));
    });
}

#[test]
fn second_tunnel_on_a_connection_is_refused_and_the_first_lives_on() {
    in_namespace_async(async || {
        let world = World::new().await;
        let http = world.connect(Some(world.enroll("alice"))).await;
        let _first = tunnel(&http, None).await.unwrap();
        assert_eq!(tunnel(&http, None).await.unwrap().status, 409);
        assert_eq!(world.sessions.len(), 1);
        assert!(http.quic().close_reason().is_none());
    });
}

#[test]
fn newer_connection_of_a_device_replaces_the_older_and_keeps_its_addresses() {
    in_namespace_async(async || {
        let world = World::new().await;
        let (certificate, key) = world.enroll("alice");
        let older = world.connect(Some((certificate.clone(), key.clone_key()))).await;
        let _older_tunnel = tunnel(&older, None).await.unwrap();
        let addresses = world.gateway.sessions()[0].addresses.clone();
        let newer = world.connect(Some((certificate, key))).await;
        let _newer_tunnel = tunnel(&newer, None).await.unwrap();
        assert_eq!(closing_code(older.quic(), PATIENCE).await, Code::NO_ERROR.value());
        let sessions = world.gateway.sessions();
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions[0].addresses, addresses);
    });
}

#[test]
fn scoped_tunnels_are_not_offered() {
    in_namespace_async(async || {
        let world = World::new().await;
        let http = world.connect(Some(world.enroll("alice"))).await;
        let path = "/.well-known/masque/ip/192.0.2.1/17/";
        assert_eq!(tunnel_at(&http, path, None).await.unwrap().status, 501);
        assert!(world.sessions.is_empty());
    });
}

#[test]
fn request_whose_answer_is_left_unread_ends() {
    in_namespace_async(async || {
        let world = World::new().await;
        let http = world.connect_with(Some(world.enroll("alice")), |transport| {
            // Too little for any answer.
            transport.stream_receive_window(8_u8.into());
        });
        let http = http.await;
        let mut stream = ask(&http, "/.well-known/masque/ip/192.0.2.1/17/", None).await.unwrap();
        // The gateway gives up after a second; reading earlier would let the rest of the answer in.
        eventually("the gateway gives up", || http.quic().stats().frame_rx.reset_stream > 0).await;
        let ended = stream.next_event().await;
        let Err(StreamError::Reset(code)) = ended else { panic!("the gateway waits: {ended:?}") };
        assert_eq!(code, Code::EXCESSIVE_LOAD.value());
    });
}

#[test]
fn gateway_without_room_says_so() {
    in_namespace_async(async || {
        let world = World::with(|config| config.limits.sessions = 1).await;
        let (first, second) =
            (world.connect(Some(world.enroll("alice"))).await, world.connect(Some(world.enroll("bob"))).await);
        let _first = tunnel(&first, None).await.unwrap();
        let answer = tunnel(&second, None).await.unwrap();
        let reason = "the gateway has no room for another session";
        assert_eq!((answer.status, answer.reason.as_deref()), (503, Some(reason)));
        assert_eq!(world.sessions.len(), 1);
    });
}

#[test]
fn client_that_takes_no_datagrams_is_refused() {
    in_namespace_async(async || {
        let world = World::new().await;
        let deaf = world.connect_with(Some(world.enroll("alice")), |transport| {
            transport.datagram_receive_buffer_size(None);
        });
        // Its SETTINGS promise datagrams its transport does not take: a connection error (RFC 9297 section 2.1.1).
        assert_eq!(closing_code(deaf.await.quic(), PATIENCE).await, Code::SETTINGS_ERROR.value());
        let narrow = world.connect_with(Some(world.enroll("bob")), |transport| {
            transport.datagram_receive_buffer_size(Some(1000));
        });
        assert_eq!(tunnel(&narrow.await, None).await.unwrap().status, 400);
        assert!(world.sessions.is_empty());
    });
}

#[test]
fn malformed_datagram_before_login_closes_the_connection() {
    in_namespace_async(async || {
        let world = World::new().await;
        let http = world.connect(None).await;
        http.peer_settings().await.unwrap();
        http.quic().send_datagram(Bytes::from_static(&[0xff])).unwrap();
        assert_eq!(closing_code(http.quic(), PATIENCE).await, Code::DATAGRAM_ERROR.value());
    });
}

#[test]
fn stranger_who_does_not_log_in_is_closed_however_busy() {
    in_namespace_async(async || {
        let world = World::new().await;
        let since = Instant::now();
        let http = world.connect(None).await;
        let busy = async {
            while tunnel(&http, None).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let code = tokio::select! {
            code = closing_code(http.quic(), PATIENCE * 2) => code,
            () = busy => unreachable!("it waits for ever"),
        };
        assert_eq!(code, Code::EXCESSIVE_LOAD.value());
        assert!(since.elapsed() > Duration::from_secs(8), "{:?}", since.elapsed());
    });
}

#[test]
fn connection_without_a_tunnel_does_not_stay() {
    in_namespace_async(async || {
        let world = World::new().await;
        let http = world.connect(Some(world.enroll("alice"))).await;
        let mut answer = tunnel(&http, None).await.unwrap();
        assert_eq!(answer.status, 200);
        answer.stream.finish();
        eventually("the session ends", || world.sessions.is_empty()).await;
        assert_eq!(closing_code(http.quic(), PATIENCE * 2).await, Code::NO_ERROR.value());
    });
}

#[test]
fn place_of_a_connection_is_free_again_whatever_it_asked() {
    in_namespace_async(async || {
        let world = World::with(|config| config.limits.pending_sessions = 1).await;
        let certificate = world.enroll("alice");
        let http = world.connect(Some((certificate.0.clone(), certificate.1.clone_key()))).await;
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push(ask(&http, adit_proto::connect_ip::template::FULL_TUNNEL_PATH, None).await.unwrap());
        }
        drop(asked);
        drop(http);
        let next =
            tokio::time::timeout(PATIENCE * 3, world.connect(Some(certificate))).await.expect("there is a place");
        assert_eq!(tunnel(&next, None).await.unwrap().status, 200);
    });
}

#[derive(Default)]
struct Nowhere {
    counters: Arc<Counters>,
}

impl Carrier for Nowhere {
    fn name(&self) -> &'static str {
        "none"
    }
    fn mtu(&self) -> u16 {
        1280
    }
    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
    fn send(&self, packets: &mut Vec<PacketBuffer>) {
        packets.clear();
    }
}

impl Connection for Nowhere {
    fn remote(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, 1).into()
    }
    fn about(&self) -> About<'_> {
        About { front_end: "none", cipher: None, client: None }
    }
}

impl Closing for Nowhere {
    fn close(&self, _ending: Ending) {}
}

#[test]
fn device_revoked_between_login_and_session_gets_none() {
    in_namespace_async(async || {
        let world = World::new().await;
        let (device, _) = world.token("alice");
        world.store.revoke(&device.id, SystemTime::now()).unwrap();
        let opened = world.core.open_session(device, Arc::new(Nowhere::default()));
        assert!(matches!(opened, Err(OpenError::Revoked)));
        assert!(world.sessions.is_empty());
    });
}

#[test]
fn address_of_a_device_stays_its_own_over_a_replacement() {
    in_namespace_async(async || {
        let world = World::with(|config| {
            config.pool.v4 = "10.77.0.0/29".parse().ok();
            config.pool.v6 = None;
            config.lease_cooldown = Duration::ZERO;
        })
        .await;
        let (alice, _) = world.token("alice");
        let old = world.core.open_session(alice.clone(), Arc::new(Nowhere::default())).unwrap();
        let new = world.core.open_session(alice, Arc::new(Nowhere::default())).unwrap();
        world.core.close(&old);
        assert_eq!(new.lease, old.lease);
        // A /29 has five addresses for clients: four are left for others, none of them alice's.
        let others: Vec<_> = (0..5)
            .map(|number| {
                world.core.open_session(world.token(&format!("user{number}")).0, Arc::new(Nowhere::default()))
            })
            .collect();
        assert_eq!(others.iter().filter(|opened| opened.is_ok()).count(), 4);
        assert!(others.iter().flatten().all(|session| session.lease != new.lease));
        assert!(matches!(others.last(), Some(Err(OpenError::NoAddress(_)))));
    });
}
