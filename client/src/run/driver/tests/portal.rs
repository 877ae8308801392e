//! Sessions in networks with a captive portal.

use adit_proto::captive_portal::PageAddress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::captive_portal::CaptiveProbe;

/// A site that is asked for, and a network that answers in its place until it is passed.
async fn network() -> (PageAddress, watch::Sender<bool>, Task) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let page = PageAddress::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let (pass, passed) = watch::channel(false);
    let answering = task::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _request = stream.read(&mut [0; 4096]).await.unwrap();
            let head = if *passed.borrow() { "204 No Content" } else { "302 Found\r\nLocation: http://p.example/in" };
            stream.write_all(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
        }
    });
    (page, pass, answering)
}

fn silence() -> ConnectError {
    ConnectError::Unreachable("192.0.2.1:443".to_owned())
}

#[tokio::test]
async fn portal_is_told_with_its_page_until_it_is_passed() {
    let (page, pass, _answering) = network().await;
    let mut prepared = World::prepare(None, None);
    prepared.profile.captive_probe = CaptiveProbe::Site(page);
    let world = prepared.begin();
    world.refuse(silence()).await;
    world.reach(State::CaptivePortal).await;
    let status = world.session.handle().status().await.unwrap();
    assert_eq!((status.state.as_str(), status.portal.as_deref()), ("captive portal", Some("http://p.example/in")));
    assert!(status.reason.unwrap().contains("http://p.example/in"));
    let (event, _) = world.session.handle().follow().await.unwrap();
    assert_eq!(event.standing.portal.as_deref(), Some("http://p.example/in"));

    pass.send(true).unwrap();
    world.refuse(silence()).await;
    world.reach(State::Connecting).await;
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    let status = world.session.handle().status().await.unwrap();
    assert_eq!((status.portal, status.reason), (None, None));
}

#[tokio::test]
async fn connection_ends_what_is_known_of_a_portal() {
    let (page, _pass, _answering) = network().await;
    let mut prepared = World::prepare(None, None);
    prepared.profile.captive_probe = CaptiveProbe::Site(page);
    let world = prepared.begin();
    let gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    gateway.send(lost()).await.unwrap();
    world.refuse(silence()).await;
    world.reach(State::CaptivePortal).await;
    let _gateway = world.accept("10.64.3.2/32").await;
    world.reach(State::Connected).await;
    assert_eq!(world.session.handle().status().await.unwrap().portal, None);
}
