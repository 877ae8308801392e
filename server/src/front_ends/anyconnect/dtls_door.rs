//! Where associations of DTLS begin: datagrams that no worker can open find their session here.
//!
//! Nothing is kept of strangers, so there is nothing to count: whoever says hello gets a cookie, in an answer no longer
//! than the hello, and what comes back with it has to name a session that is open. That name is told over TLS alone.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_net::carrier::Origin;
use adit_net::udp::Arrivals;
use adit_net::worker::{AssociationPlane, Stray};
use adit_proto::anyconnect::tunnel::APP_ID_LEN;
use adit_proto::dtls::greeting::{Greeter, Greeting, Introduction};
use adit_proto::packet::ecn::NOT_ECT;
use tokio::sync::mpsc;
use tokio::task::coop::consume_budget;
use tokio::time::sleep;

use crate::core::sessions::Session;

/// Datagrams that wait for a session, and those that workers hand over at a time; more are dropped, and repeated by who
/// means them. Each has at most 2 KiB.
const WAITING: usize = 16;
const STRAYS: usize = 256;
/// Addresses of one session: that of its association, and that of the next one.
const ADDRESSES: usize = 2;
/// The longest datagram that is taken: more than any message of a handshake needs.
const LONGEST: usize = 2048;
/// Pause after an error that may last.
const PAUSE: Duration = Duration::from_millis(10);

type AppId = [u8; APP_ID_LEN];

/// The door, one for all addresses of the gateway.
pub struct DtlsDoor {
    greeter: Greeter,
    plane: Arc<dyn AssociationPlane<Session>>,
    /// The UDP port, where that is not the one of TCP.
    port: Option<u16>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    sessions: HashMap<AppId, Known>,
    addresses: HashMap<SocketAddr, AppId>,
}

/// A session that has been offered DTLS.
struct Known {
    sender: mpsc::Sender<FromClient>,
    /// Where it came from, the newest last.
    addresses: VecDeque<SocketAddr>,
}

/// A datagram for a session.
pub(super) struct FromClient {
    /// If it begins an association.
    pub(super) introduction: Option<Introduction>,
    pub(super) stray: Stray,
}

/// Keeps a session known at the door.
pub(super) struct Registration {
    pub(super) door: Arc<DtlsDoor>,
    pub(super) app_id: AppId,
}

impl DtlsDoor {
    /// Makes the door of a gateway whose workers are reached by `plane`, at the UDP port `port` if that is not the one
    /// of TCP.
    pub fn new(plane: Arc<dyn AssociationPlane<Session>>, port: Option<u16>) -> Arc<Self> {
        let greeter = Greeter::new(random(), Instant::now());
        Arc::new(Self { greeter, plane, port, book: Mutex::default() })
    }

    /// The UDP port for a client that has connected to this one of TCP.
    pub(super) fn port_beside(&self, tcp: u16) -> u16 {
        self.port.unwrap_or(tcp)
    }

    /// The workers.
    pub(super) fn plane(&self) -> &Arc<dyn AssociationPlane<Session>> {
        &self.plane
    }

    /// Makes a session known, by a name that nobody has.
    pub(super) fn register(self: &Arc<Self>) -> (Registration, mpsc::Receiver<FromClient>) {
        let (app_id, (sender, receiver)) = (random(), mpsc::channel(WAITING));
        self.book().sessions.insert(app_id, Known { sender, addresses: VecDeque::new() });
        (Registration { door: Arc::clone(self), app_id }, receiver)
    }

    /// Takes what workers cannot open.
    pub async fn serve_workers(self: Arc<Self>) {
        let (sender, mut strays) = mpsc::channel(STRAYS);
        self.plane.hand_strays_to(&sender);
        while let Some(stray) = strays.recv().await {
            self.handle(stray, Instant::now());
        }
    }

    /// Takes what comes by a socket, that of the address with this number in the workers' order.
    pub async fn serve(self: Arc<Self>, number: usize, socket: Arrivals) {
        let mut buffer = vec![0; LONGEST];
        loop {
            // A socket that is always ready must not keep the thread from other tasks.
            consume_budget().await;
            let Ok(message) = socket.next(&mut buffer).await else {
                sleep(PAUSE).await;
                continue;
            };
            let origin = Origin { socket: number, local: message.local };
            if let Some(datagram) = buffer.get(..message.len).filter(|_| !message.truncated) {
                self.handle(Stray { from: message.from, origin, datagram: datagram.to_vec() }, Instant::now());
            }
        }
    }

    pub(super) fn handle(&self, stray: Stray, now: Instant) {
        let introduction = match self.greeter.greet(&stray.datagram, stray.from, now) {
            Ok(Greeting::Ask(answer)) => {
                // Whoever does not get it says hello again.
                self.plane.send(stray.origin, stray.from, &answer, NOT_ECT).ok();
                return;
            }
            Ok(Greeting::Proven(introduction)) => Some(introduction),
            Err(_no_hello) => None,
        };
        self.book().pass_on(FromClient { introduction, stray });
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Gives a datagram to its session, if there is one.
    fn pass_on(&mut self, datagram: FromClient) {
        let from = datagram.stray.from;
        let named = datagram.introduction.as_ref().map(|introduction| AppId::try_from(&introduction.session[..]));
        let app_id = named.map_or_else(|| self.addresses.get(&from).copied(), Result::ok);
        let Some((app_id, known)) = app_id.and_then(|app_id| Some((app_id, self.sessions.get_mut(&app_id)?))) else {
            return;
        };
        let mut forgotten = None;
        if datagram.introduction.is_some() {
            known.addresses.retain(|address| *address != from);
            known.addresses.push_back(from);
            forgotten = (known.addresses.len() > ADDRESSES).then(|| known.addresses.pop_front()).flatten();
            self.addresses.insert(from, app_id);
        }
        known.sender.try_send(datagram).ok();
        if let Some(address) = forgotten {
            self.forget(address, &app_id);
        }
    }

    /// Forgets that an address is of that session; it may be another one's by now.
    fn forget(&mut self, address: SocketAddr, app_id: &AppId) {
        if self.addresses.get(&address) == Some(app_id) {
            self.addresses.remove(&address);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut book = self.door.book();
        let Some(known) = book.sessions.remove(&self.app_id) else { return };
        for address in known.addresses {
            book.forget(address, &self.app_id);
        }
    }
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    adit_program::random::random().expect("the system has randomness: TLS came before")
}

#[cfg(test)]
pub(super) mod tests;
