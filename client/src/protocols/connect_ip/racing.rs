//! Connects over QUIC or over TLS, whichever the network passes.

use std::future::pending;
use std::sync::Arc;

use adit_program::task::{self, Task};
use adit_proto::carrier_choice::{Failure, Race, RaceEvent, Transport};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::either::{EitherConnection, Proven};
use super::more_telling;
use crate::packet_source::Packets;
use crate::protocols::{ConnectError, GatewayAccess};

/// What a race ends with.
pub(super) struct Won {
    pub(super) connection: EitherConnection,
    /// Why packets do not go over UDP, in words, if they do not.
    pub(super) why: Option<String>,
}

/// Tries to reach a gateway over both kinds of connection, as [`Race`] says, and has its session on one of them, before
/// `deadline`. The error is the most telling one.
pub(super) async fn race(
    target: Arc<GatewayAccess>,
    packets: Packets,
    blocks_udp: bool,
    deadline: Instant,
) -> Result<Won, ConnectError> {
    let racing = Racing { target, packets, deadline, quic: Lane::default(), tls: Lane::default(), opened: None };
    racing.run(Race::new(blocks_udp, Instant::now().into_std())).await
}

struct Racing {
    target: Arc<GatewayAccess>,
    packets: Packets,
    deadline: Instant,
    quic: Lane,
    tls: Lane,
    opened: Option<EitherConnection>,
}

/// One of the two connections.
#[derive(Default)]
struct Lane {
    task: Option<Task<Step>>,
    proven: Option<Proven>,
    error: Option<ConnectError>,
}

impl Lane {
    /// Waits until something has come of the connection; for ever while nothing is under way. Cancel-safe.
    async fn next_step(&mut self) -> Step {
        let Some(task) = &mut self.task else { return pending().await };
        let step = task.await.unwrap_or_else(|error| Step::Failed(ConnectError::Protocol(error.to_string())));
        self.task = None;
        step
    }
}

/// How far a connection has come.
enum Step {
    Proven(Proven),
    Opened(Box<EitherConnection>),
    Failed(ConnectError),
}

impl Racing {
    async fn run(mut self, mut race: Race) -> Result<Won, ConnectError> {
        loop {
            while let Some(event) = race.poll_event() {
                match event {
                    RaceEvent::Dial(transport) => self.dial(transport),
                    RaceEvent::Ask(transport) => self.ask(transport),
                    RaceEvent::Drop(transport) => self.leave(transport),
                    RaceEvent::Won(transport) => return self.won(transport),
                    RaceEvent::Lost => return Err(self.error()),
                }
            }
            let timeout = race.poll_timeout();
            tokio::select! {
                biased;
                // Where something has come of both, QUIC comes first.
                step = self.quic.next_step() => self.take(Transport::Quic, step, &mut race),
                step = self.tls.next_step() => self.take(Transport::Tls, step, &mut race),
                () = until(timeout) => race.handle_timeout(Instant::now().into_std()),
            }
        }
    }

    fn take(&mut self, transport: Transport, step: Step, race: &mut Race) {
        let now = Instant::now().into_std();
        match step {
            Step::Proven(proven) => {
                self.lane(transport).proven = Some(proven);
                race.handle_proven(transport, now);
            }
            Step::Opened(connection) => {
                self.opened = Some(*connection);
                race.handle_accepted(transport);
            }
            Step::Failed(error) => {
                tracing::debug!(?transport, %error, "one of two connections could not be made");
                let failure = failure(transport, &error);
                self.lane(transport).error = Some(error);
                race.handle_failed(transport, failure, now);
            }
        }
    }

    fn dial(&mut self, transport: Transport) {
        let (target, left) = (Arc::clone(&self.target), self.deadline.saturating_duration_since(Instant::now()));
        self.lane(transport).task = Some(task::spawn(async move {
            Proven::dial(transport, &target, left).await.map_or_else(Step::Failed, Step::Proven)
        }));
    }

    fn ask(&mut self, transport: Transport) {
        let Some(proven) = self.lane(transport).proven.take() else { return };
        let (target, packets, deadline) = (Arc::clone(&self.target), self.packets.clone(), self.deadline);
        self.lane(transport).task = Some(task::spawn(async move {
            let asked = timeout_at(deadline, proven.ask(&target, packets)).await;
            let asked = asked.unwrap_or_else(|_elapsed| Err(ConnectError::Unreachable(target.authority())));
            asked.map_or_else(Step::Failed, |connection| Step::Opened(Box::new(connection)))
        }));
    }

    /// Drops what there is of a connection. Its error, if it has one already, still counts.
    fn leave(&mut self, transport: Transport) {
        let lane = self.lane(transport);
        (lane.proven, lane.task) = (None, None);
    }

    fn won(mut self, transport: Transport) -> Result<Won, ConnectError> {
        let Some(connection) = self.opened.take() else { return Err(self.error()) };
        let why = match (transport, &self.quic.error) {
            (Transport::Quic, _) => None,
            (Transport::Tls, Some(error)) => Some(error.to_string()),
            (Transport::Tls, None) => Some("no answer yet".to_owned()),
        };
        Ok(Won { connection, why })
    }

    fn error(&mut self) -> ConnectError {
        match (self.quic.error.take(), self.tls.error.take()) {
            (Some(quic), Some(tls)) => told_of_both(quic, tls),
            (Some(error), None) | (None, Some(error)) => error,
            (None, None) => ConnectError::Unreachable(self.target.authority()),
        }
    }

    fn lane(&mut self, transport: Transport) -> &mut Lane {
        match transport {
            Transport::Quic => &mut self.quic,
            Transport::Tls => &mut self.tls,
        }
    }
}

/// What is told where neither connection could be made: the more telling of both errors, and of two that tell as much
/// QUIC's, which is the usual way.
///
/// A gateway need not listen on TCP, and another program may do so in its place. What somebody says there who has not
/// proven to be the gateway is told beside a silence over UDP, and never instead of what QUIC met.
fn told_of_both(quic: ConnectError, tls: ConnectError) -> ConnectError {
    match (quic, tls) {
        (ConnectError::Unreachable(silent), tls @ (ConnectError::IdentityMismatch(_) | ConnectError::BrokenOff(_))) => {
            ConnectError::Unreachable(format!("{silent} over UDP; over TCP {tls}"))
        }
        (quic, ConnectError::IdentityMismatch(_) | ConnectError::BrokenOff(_)) => quic,
        (quic, tls) => more_telling(tls, quic),
    }
}

/// Whether a gateway that was asked has refused, or has just not answered. Whoever can forge packets can end a
/// connection over TCP.
fn failure(transport: Transport, error: &ConnectError) -> Failure {
    let is_forgeable = error.is_unproven() || transport == Transport::Tls && matches!(error, ConnectError::Closed(_));
    if is_forgeable { Failure::NoAnswer } else { Failure::Refused }
}

async fn until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use adit_program::exit::Exit;
    use data_encoding::BASE64;
    use rustls::ServerConnection;
    use rustls::pki_types::CertificateDer;
    use tokio::time::timeout;

    use super::*;
    use crate::obstacle::obstacle;
    use crate::packet_source::tests::no_packets;
    use crate::protocols::connect_ip::changing::tests::nowhere;
    use crate::protocols::connect_ip::dial;

    /// Races to an address of a gateway of this authority, and tells why that led to nothing.
    async fn lost(address: SocketAddr, authority: &CertificateDer<'_>) -> ConnectError {
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(authority));
        let (port, addresses) = (address.port(), vec![address].into());
        let target = GatewayAccess { port, addresses, authority_pem: pem, ..nowhere() };
        match race(Arc::new(target), no_packets(), false, Instant::now() + Duration::from_secs(3)).await {
            Ok(_) => panic!("there is no session"),
            Err(error) => error,
        }
    }

    #[tokio::test]
    async fn what_quic_met_is_told_where_nobody_listens_on_tcp() {
        let ((stranger, _), (_, authority)) = (dial::tests::gateway(), dial::tests::gateway());
        let address = stranger.local_addr().unwrap();
        let error = dial::tests::served(&[&stranger], lost(address, &authority)).await;
        assert!(matches!(error, ConnectError::IdentityMismatch(_)), "{error}");
    }

    #[tokio::test]
    async fn silence_over_both_is_no_answer() {
        let (gateway, authority) = dial::tests::gateway();
        // Nobody serves its handshakes.
        let error = lost(gateway.local_addr().unwrap(), &authority).await;
        assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    }

    #[tokio::test]
    async fn stranger_on_tcp_does_not_stand_for_a_gateway_that_is_silent_over_udp() {
        let ((gateway, authority), (stranger, _)) = (dial::tests::gateway(), dial::tests::listener_tls());
        // Nobody serves the gateway's handshakes.
        let address = gateway.local_addr().unwrap();
        let web_server = std::net::TcpListener::bind(address).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut client, _) = web_server.accept().unwrap();
            // The client breaks it off when it has seen the certificate.
            ServerConnection::new(stranger).unwrap().complete_io(&mut client).is_err()
        });
        let error = lost(address, &authority).await;
        assert!(serving.join().unwrap(), "the stranger was met");
        assert_eq!(obstacle(&error).exit(), Exit::Unreachable, "{error}");
        let words = error.to_string();
        assert!(words.starts_with(&format!("no answer from {address} over UDP; over TCP ")), "{words}");
        assert!(words.contains("is not of the certificate authority"), "{words}");
    }

    #[test]
    fn what_tcp_met_is_told_where_the_gateway_said_it() {
        let silent = || ConnectError::Unreachable("192.0.2.1:443".to_owned());
        let words = || "words".to_owned();
        let told = told_of_both(silent(), ConnectError::Refused(words()));
        assert!(matches!(told, ConnectError::Refused(_)), "{told}");
        let told = told_of_both(ConnectError::Closed(words()), ConnectError::IdentityMismatch(words()));
        assert!(matches!(told, ConnectError::Closed(_)), "the gateway has proven itself over QUIC: {told}");
        let told = told_of_both(ConnectError::IdentityMismatch(words()), silent());
        assert!(matches!(told, ConnectError::IdentityMismatch(_)), "{told}");
    }

    #[tokio::test]
    async fn connection_whose_task_panics_has_failed() {
        let panicking = task::spawn(async { panic!("a fault of ours") });
        let mut lane = Lane { task: Some(panicking), ..Lane::default() };
        let step = timeout(adit_testing::PATIENCE, lane.next_step()).await.expect("it is told");
        assert!(matches!(step, Step::Failed(ConnectError::Protocol(_))));
        assert!(timeout(Duration::from_millis(50), lane.next_step()).await.is_err(), "it is told once");
    }

    #[test]
    fn only_what_the_gateway_said_itself_is_a_refusal() {
        let words = || "words".to_owned();
        for transport in [Transport::Quic, Transport::Tls] {
            assert_eq!(failure(transport, &ConnectError::Refused(words())), Failure::Refused);
            assert_eq!(failure(transport, &ConnectError::LoginNeeded(words())), Failure::Refused);
            assert_eq!(failure(transport, &ConnectError::Unreachable(words())), Failure::NoAnswer);
            assert_eq!(failure(transport, &ConnectError::BrokenOff(words())), Failure::NoAnswer);
        }
        assert_eq!(failure(Transport::Quic, &ConnectError::Closed(words())), Failure::Refused);
        assert_eq!(failure(Transport::Tls, &ConnectError::Closed(words())), Failure::NoAnswer);
    }
}
