//! Asking servers: one after the other, until one answers.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_program::random::{NoRandomness, random};
use adit_program::task::{self, Task};
use adit_proto::radius::attribute::NAS_IDENTIFIER;
use adit_proto::radius::patience::Patience;
use adit_proto::radius::reply::{MessageAuthenticator, Reply, ReplyFault};
use adit_proto::radius::request::{DoesNotFit, Draft, Request};
use adit_proto::radius::servers::Servers;
use adit_proto::radius::{AUTHENTICATOR_LEN, MAX_PACKET};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use zeroize::Zeroizing;

/// Requests that wait for an answer at a time. Each has a socket of its own, so its identifier need differ from no
/// other, and a stranger has its port to guess as well.
const MOST_WAITING: usize = 256;

/// Longest time for one question to all servers: a login has 60 seconds.
const LONGEST: Duration = Duration::from_secs(50);

/// How long a probe waits: for two answers.
const PROBE: Duration = Duration::from_secs(6);

/// Why no server answered.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// What is asked does not fit into a packet.
    DoesNotFit,
    /// Too many wait already.
    Busy,
    /// The system has no randomness or no socket.
    System(String),
    /// What each server did instead.
    Silent(Vec<(SocketAddr, Silence)>),
}

/// What a server did instead of answering.
#[derive(Debug)]
pub(super) enum Silence {
    /// It cannot be reached.
    Unreachable(io::Error),
    /// It said nothing for so long.
    Mute(Duration),
    /// It said something that is not believed.
    Unbelieved(ReplyFault),
}

impl From<DoesNotFit> for Unanswered {
    fn from(_: DoesNotFit) -> Self {
        Self::DoesNotFit
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoesNotFit => f.write_str("radius: what is asked does not fit into a packet"),
            Self::Busy => write!(f, "radius: {MOST_WAITING} logins wait for an answer already"),
            Self::System(reason) => write!(f, "radius: {reason}"),
            Self::Silent(servers) => {
                f.write_str("radius: ")?;
                for (place, (server, silence)) in servers.iter().enumerate() {
                    let between = if place == 0 { "" } else { "; " };
                    write!(f, "{between}{server} {silence}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot be reached ({error}): is the server up?"),
            Self::Mute(time) => write!(
                f,
                "does not answer in {} s: is it up, does its firewall let this gateway in, and is radius.secret_file its \
                 secret for this gateway? A server that knows another says nothing",
                time.as_secs()
            ),
            Self::Unbelieved(ReplyFault::WrongAuthenticator) => {
                f.write_str("answers with another secret: write the server's secret for this gateway to radius.secret_file")
            }
            Self::Unbelieved(ReplyFault::NoMessageAuthenticator) => f.write_str(
                "answers without Message-Authenticator, so anybody could have made the answer: update the server, or let \
                 it add one to each reply",
            ),
            Self::Unbelieved(fault) => write!(f, "gives an answer that is not believed: {fault}"),
        }
    }
}

/// The servers of one kind.
pub(super) struct Client {
    servers: Vec<SocketAddr>,
    health: Mutex<Servers>,
    secret: Zeroizing<Vec<u8>>,
    nas_identifier: String,
    rule: MessageAuthenticator,
    patience: Duration,
    waiting: Semaphore,
    /// For each server the probe that last went to it.
    probes: Mutex<Vec<Option<Task>>>,
}

impl Client {
    pub(super) fn new(
        servers: Vec<SocketAddr>,
        secret: Zeroizing<Vec<u8>>,
        nas_identifier: String,
        rule: MessageAuthenticator,
        patience: Duration,
    ) -> Self {
        Self {
            health: Mutex::new(Servers::new(servers.len())),
            waiting: Semaphore::new(MOST_WAITING),
            probes: Mutex::new(servers.iter().map(|_| None).collect()),
            servers,
            secret,
            nas_identifier,
            rule,
            patience,
        }
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.secret
    }

    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Asks the servers in turn; each gets a request of its own, which `write` fills.
    ///
    /// # Errors
    /// Why none answered.
    pub(super) async fn ask(
        self: &Arc<Self>,
        write: impl Fn(Draft) -> Result<Draft, DoesNotFit>,
    ) -> Result<(SocketAddr, Reply), Unanswered> {
        self.ask_each(|| self.access(&write)).await
    }

    /// Tells the servers in turn, until one has noted it.
    ///
    /// # Errors
    /// Why none has.
    pub(super) async fn tell(
        self: &Arc<Self>,
        write: impl Fn(Draft) -> Result<Draft, DoesNotFit>,
    ) -> Result<(), Unanswered> {
        let request = || {
            let [identifier] = random().map_err(without_randomness)?;
            let draft = Draft::accounting(identifier).text(NAS_IDENTIFIER, &self.nas_identifier)?;
            Ok(write(draft)?.seal(&self.secret))
        };
        self.ask_each(request).await.map(drop)
    }

    async fn ask_each(
        self: &Arc<Self>,
        request: impl Fn() -> Result<Request, Unanswered>,
    ) -> Result<(SocketAddr, Reply), Unanswered> {
        self.probe_rested();
        let _place = self.waiting.try_acquire().map_err(|_full| Unanswered::Busy)?;
        let end = Instant::now() + LONGEST;
        let mut silent = Vec::new();
        let order = self.health().order(Instant::now());
        for place in order {
            let left = end.saturating_duration_since(Instant::now());
            let Some(&server) = self.servers.get(place).filter(|_| !left.is_zero()) else { break };
            match self.exchange(server, &request()?, self.patience.min(left)).await {
                Ok(reply) => {
                    self.health().handle_answer(place);
                    return Ok((server, reply));
                }
                Err(silence) => {
                    self.health().handle_silence(place, Instant::now());
                    tracing::debug!(%server, %silence, "RADIUS server passed over");
                    silent.push((server, silence));
                }
            }
        }
        Err(Unanswered::Silent(silent))
    }

    /// Asks this server and no other.
    ///
    /// # Errors
    /// Why it did not answer.
    pub(super) async fn ask_only(
        &self,
        server: SocketAddr,
        write: impl Fn(Draft) -> Result<Draft, DoesNotFit>,
    ) -> Result<Reply, Unanswered> {
        let _place = self.waiting.try_acquire().map_err(|_full| Unanswered::Busy)?;
        let request = self.access(&write)?;
        let silent = |silence| Unanswered::Silent(vec![(server, silence)]);
        self.exchange(server, &request, self.patience).await.map_err(silent)
    }

    /// Asks a server whether it is there.
    ///
    /// # Errors
    /// What it did instead of answering.
    pub(super) async fn probe(&self, server: SocketAddr) -> Result<(), Unanswered> {
        let (identifier, authenticator) = fresh()?;
        let draft = Draft::status(identifier, authenticator).text(NAS_IDENTIFIER, &self.nas_identifier)?;
        let answer = self.exchange(server, &draft.seal(&self.secret), PROBE.min(self.patience)).await;
        answer.map(drop).map_err(|silence| Unanswered::Silent(vec![(server, silence)]))
    }

    fn access(&self, write: impl Fn(Draft) -> Result<Draft, DoesNotFit>) -> Result<Request, Unanswered> {
        let (identifier, authenticator) = fresh()?;
        let draft = Draft::access(identifier, authenticator).text(NAS_IDENTIFIER, &self.nas_identifier)?;
        Ok(write(draft)?.seal(&self.secret))
    }

    /// Sends a request until its reply comes. What else comes is noted and does not end the wait: anybody may send it.
    async fn exchange(&self, server: SocketAddr, request: &Request, patience: Duration) -> Result<Reply, Silence> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await.map_err(Silence::Unreachable)?;
        // From here on the system passes on what comes from this address alone, and tells if nobody listens there.
        socket.connect(server).await.map_err(Silence::Unreachable)?;
        let mut waiting = Patience::new(Instant::now(), patience);
        let mut silence = Silence::Mute(patience);
        let mut datagram = vec![0; MAX_PACKET];
        loop {
            let now = Instant::now();
            if waiting.is_over(now) {
                return Err(silence);
            }
            if waiting.poll_transmit(now) {
                socket.send(request.packet()).await.map_err(Silence::Unreachable)?;
            }
            let Ok(heard) = timeout_at(waiting.poll_timeout().into(), socket.recv(&mut datagram)).await else {
                continue;
            };
            let length = heard.map_err(Silence::Unreachable)?;
            match Reply::read(&datagram[..length], request, &self.secret, self.rule) {
                Ok(reply) => return Ok(reply),
                Err(fault) => silence = Silence::Unbelieved(fault),
            }
        }
    }

    /// Sends a probe to each server that has rested long enough.
    fn probe_rested(self: &Arc<Self>) {
        while let Some(place) = { self.health().poll_probe(Instant::now()) } {
            let Some(&server) = self.servers.get(place) else { continue };
            let client = Arc::clone(self);
            let probe = task::spawn(async move {
                let answer = client.probe(server).await;
                match answer {
                    Ok(()) => client.health().handle_answer(place),
                    Err(_silent) => client.health().handle_silent_probe(place, Instant::now()),
                }
            });
            let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(former) = probes.get_mut(place) {
                *former = Some(probe);
            }
        }
    }

    fn health(&self) -> MutexGuard<'_, Servers> {
        // Its methods leave it whole.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An identifier, and an authenticator that nobody can guess.
fn fresh() -> Result<(u8, [u8; AUTHENTICATOR_LEN]), Unanswered> {
    let [identifier] = random().map_err(without_randomness)?;
    Ok((identifier, random().map_err(without_randomness)?))
}

fn without_randomness(error: NoRandomness) -> Unanswered {
    Unanswered::System(error.to_string())
}
