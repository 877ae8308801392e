//! What a client was granted, and that an order of the core changes it while the session goes on.

use std::sync::Arc;

use adit_net::carrier::Carrier as _;
use adit_net::carrier::quic::Datagrams;
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::connect_ip::client::ClientEvent;
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::policy::DestinationPolicy;
use adit_proto::range::{RouteRange, from_prefixes};
use adit_server::core::Order;
use adit_server::core::grant::{Resolvers, SessionLimits, Terms};
use adit_testing::namespace::in_namespace_async;
use ipnet::IpNet;

use crate::device::Tunnel;
use crate::world::{World, eventually};

/// The next routes and resolvers that the client is told, as far as the same piece of the stream has them.
async fn told(tunnel: &mut Tunnel) -> (Vec<RouteRange>, Vec<std::net::IpAddr>) {
    loop {
        let (mut routes, mut servers) = (None, Vec::new());
        while let Some(event) = tunnel.machine.poll_event() {
            match event {
                ClientEvent::Routes(ranges) => routes = Some(ranges),
                ClientEvent::Dns(dns) => servers = dns.plain_servers(),
                ClientEvent::Addresses(_) | ClientEvent::Packet(_) | ClientEvent::Esp(_) => {}
            }
        }
        if let Some(routes) = routes {
            return (routes, servers);
        }
        let Some(MessageEvent::Data(data)) = tunnel.stream.next_event().await.unwrap() else { panic!("it ended") };
        tunnel.machine.handle_data(&data).unwrap();
    }
}

#[test]
fn new_terms_reach_the_client_and_hold_for_its_packets() {
    in_namespace_async(async || {
        let world = World::new().await;
        let http = world.connect(Some(world.enroll("alice"))).await;
        let mut tunnel = Tunnel::open(&http, None).await;
        let (routes, servers) = told(&mut tunnel).await;
        assert!(routes.contains(&from_prefixes(&["0.0.0.0/0".parse().unwrap()])[0]), "{routes:?}");
        assert!(servers.is_empty());

        let session = world.sessions.all().remove(0);
        let only: IpNet = "192.0.2.0/24".parse().unwrap();
        let dns = Resolvers { servers: vec!["192.0.2.53".parse().unwrap()], domains: Vec::new() };
        let limits = SessionLimits::unlimited(1400);
        let terms = Arc::new(Terms::new(vec![only], dns, DestinationPolicy::default(), limits));
        assert!(world.core.order(&session.device.id, Order::Terms(terms)));
        let told = told(&mut tunnel).await;
        assert_eq!(told, (from_prefixes(&[only]), vec!["192.0.2.53".parse().unwrap()]));

        // An IPv4 header alone (RFC 791 section 3.1), of no protocol, to where a route led before.
        let mut packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 0, 0, 0, 0, 198, 51, 100, 1];
        packet[12..16].copy_from_slice(&session.lease.v4.unwrap().octets());
        let datagrams = Datagrams::new(http.quic().clone(), tunnel.stream.id());
        datagrams.send(&mut vec![PacketBuffer::copy_from(&packet)]);
        let dropped = || session.carriers.counters().traffic().drops;
        eventually("the packet is refused", || !dropped().is_empty()).await;
        assert_eq!(dropped(), [("no_route", 1)]);
        assert_eq!(world.sessions.all().remove(0).id, session.id, "it is the same session");
    });
}
