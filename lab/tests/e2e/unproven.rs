//! Strangers in the gateway's place, wrong clocks, networks without an address family: what the gateway has not proven
//! ends no client.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use adit_lab::programs::{Client, ToldStatus};
use adit_lab::{GATEWAY_V6, Host};
use adit_net::testing::forgery::{Forger, Forgery};
use adit_proto::invite::{Invite, Place};
use adit_testing::{PATIENCE, eventually};

use crate::harness::{Options, Tunnel, ip};
use crate::wrong_clock::{DAY, WrongClock};

/// The gateway's port.
const PORT: u16 = 443;
/// A gateway, and a client that has joined it and does not run.
fn joined() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    Some(tunnel)
}

fn stands(client: &Client, state: &str) -> ToldStatus {
    eventually(&format!("the client is {state}"), || {
        let status = client.status().unwrap();
        (status.state == state).then_some(status)
    })
}

/// Waits until a client that is not connected names a reason with these words in it.
fn says(client: &Client, words: &str) -> String {
    eventually(&format!("the client says {words:?}"), || {
        client.status().unwrap().reason.filter(|reason| reason.contains(words))
    })
}

/// Somebody at the gateway's port who forges an answer to each client's first packet.
struct Impostor {
    answered: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    fn start(host: &Host, forgery: Forgery) -> Self {
        let (answered, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, over) = (Arc::clone(&answered), Arc::clone(&is_over));
        let thread = host.start(move || {
            let socket = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT))).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let forger = Forger::default();
            let mut datagram = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut datagram) else { continue };
                if let Some(forged) = forger.answer(&datagram[..length], forgery) {
                    socket.send_to(&forged, client).unwrap();
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { answered, is_over, thread: Some(thread) }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn forged_packets_do_not_end_a_client_that_tries_for_ever() {
    let Some(mut tunnel) = joined() else { return };
    for forgery in Forgery::ALL {
        assert_eq!(tunnel.gateway.stop().unwrap(), 0);
        let impostor = Impostor::start(tunnel.gateway.host(), forgery);
        let client = tunnel.client();
        let running = client.host().spawn(client.command(&["up", "--timeout", "0s"])).unwrap();
        // It was deceived, and has come again.
        eventually("the client is deceived again", || (impostor.answered.load(Ordering::Relaxed) > 4).then_some(()));
        let reason = says(client, "broken off");
        assert!(!reason.contains(char::is_control) && !reason.contains('\u{202e}'), "{forgery:?}: {reason:?}");
        drop(impostor);
        tunnel.gateway.start().unwrap();
        stands(tunnel.client(), "connected");
        tunnel.client().run(&["down"]).unwrap().success().unwrap();
        drop(running);
    }
}

#[test]
fn client_whose_clock_is_years_behind_says_so_and_connects_once_it_is_right() {
    let Some(tunnel) = joined() else { return };
    let client = tunnel.client();
    let Some(clock) = WrongClock::new(client.host(), -2 * 365 * DAY) else { return };
    let up = |timeout: &str| {
        let mut command = client.command(&["up", "--timeout", timeout]);
        command.envs(clock.environment());
        command
    };
    let impatient = client.host().output(up("3s"), PATIENCE).unwrap();
    assert!(impatient.code == 5 && impatient.stderr.contains("this host's clock is wrong"), "{impatient:?}");
    let running = client.host().spawn(up("0s")).unwrap();
    says(client, "this host's clock is wrong");
    clock.set(0);
    stands(client, "connected");
    client.run(&["down"]).unwrap().success().unwrap();
    drop(running);
}

#[test]
fn network_of_ipv6_alone_is_enough_for_an_invite_that_names_both_families() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.gateway.start().unwrap();
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    let client = tunnel.client();
    let v4 = client.host().settled().unwrap();
    remove_ipv4(client.host());
    assert_ne!(client.host().settled().unwrap(), v4, "the host has IPv4 no longer");
    let refused = client.join(&link).unwrap();
    assert!(refused.code == 5 && refused.stderr.contains("no IPv4"), "{refused:?}");
    let mut invite: Invite = link.parse().unwrap();
    invite.others.push(Place { host: GATEWAY_V6.to_string(), port: PORT });
    client.join(&invite.to_string()).unwrap().success().unwrap();
    tunnel.clients[0].up().unwrap();
    stands(tunnel.client(), "connected");
}

/// Takes a host's IPv4 addresses, and its routes with them.
fn remove_ipv4(host: &Host) {
    ip(host, "-4 address flush scope global");
}
