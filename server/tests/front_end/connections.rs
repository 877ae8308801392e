//! How many connections a device has, and what becomes of those that carry no session.

use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_proto::enrollment::RENEW_PATH;
use adit_proto::http::field::{Field, status};
use adit_proto::http::h3::error::Code;
use adit_proto::http::h3::message::MessageEvent;
use adit_server::admin::LiveGateway as _;
use adit_server::core::sessions::Ending;
use adit_testing::namespace::in_namespace_async;

use crate::world::{Certificate, HOST, PATIENCE, World, eventually, tunnel};
use crate::{closing_code, copy};

/// Connects and logs in by a renewal that asks for nothing.
async fn log_in(world: &World, certificate: &Certificate) -> H3Connection {
    let http = world.connect(Some(copy(certificate))).await;
    let mut stream = TunnelStream::from(http.open_request().await.unwrap());
    let fields = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", RENEW_PATH)];
    stream.send_headers(&fields.map(|(name, value)| Field::new(name, value))).await.unwrap();
    stream.finish();
    let Some(MessageEvent::Headers(answer)) = stream.next_event().await.unwrap() else { panic!("no answer") };
    assert_eq!(status(&answer).unwrap(), 400, "it is known, and its request is empty");
    http
}

fn is_open(http: &H3Connection) -> bool {
    http.quic().close_reason().is_none()
}

#[test]
fn device_holds_its_session_and_a_few_connections_besides_however_many_it_opens() {
    in_namespace_async(async || {
        let world = World::new().await;
        let (certificate, other) = (world.enroll("alice"), world.enroll("bob"));
        let untouched = log_in(&world, &other).await;
        let with_session = world.connect(Some(copy(&certificate))).await;
        let _tunnel = tunnel(&with_session, None).await.unwrap();
        let mut others = Vec::new();
        for _ in 0..8 {
            others.push(log_in(&world, &certificate).await);
        }
        eventually("the older ones are closed", || others[..5].iter().all(|http| !is_open(http))).await;
        assert!(others[5..].iter().all(is_open), "the newest stay");
        assert!(is_open(&with_session) && is_open(&untouched));
        assert_eq!(world.sessions.len(), 1);
    });
}

#[test]
fn revocation_closes_every_connection_of_the_device() {
    in_namespace_async(async || {
        let world = World::new().await;
        let (certificate, other) = (world.enroll("alice"), world.enroll("bob"));
        let untouched = log_in(&world, &other).await;
        let without = log_in(&world, &certificate).await;
        let with_session = world.connect(Some(copy(&certificate))).await;
        let _tunnel = tunnel(&with_session, None).await.unwrap();
        let device = world.gateway.sessions()[0].device.clone();
        assert_eq!(world.gateway.close_device(&device, Ending::Revoked), 1);
        for http in [&without, &with_session] {
            assert_eq!(closing_code(http.quic(), PATIENCE).await, Code::REQUEST_REJECTED.value());
        }
        assert!(is_open(&untouched));
    });
}

#[test]
fn session_that_replaces_another_closes_what_is_left_of_the_device() {
    in_namespace_async(async || {
        let world = World::new().await;
        let certificate = world.enroll("alice");
        let idle = log_in(&world, &certificate).await;
        let first = world.connect(Some(copy(&certificate))).await;
        let _first = tunnel(&first, None).await.unwrap();
        assert!(is_open(&idle), "a first session replaces nothing");
        let second = world.connect(Some(copy(&certificate))).await;
        let answer = tunnel(&second, None).await.unwrap();
        assert_eq!(answer.status, 200);
        for http in [&idle, &first] {
            assert_eq!(closing_code(http.quic(), PATIENCE).await, Code::NO_ERROR.value());
        }
        assert!(is_open(&second));
    });
}

#[test]
fn tunnels_take_no_place_from_who_is_on_his_way_in() {
    in_namespace_async(async || {
        let world = World::with(|config| config.limits.pending_sessions = 1).await;
        let mut tunnels = Vec::new();
        for user in ["alice", "bob", "carol"] {
            let http = world.connect(Some(world.enroll(user))).await;
            tunnels.push((tunnel(&http, None).await.unwrap(), http));
        }
        assert_eq!(world.sessions.len(), 3);
    });
}
