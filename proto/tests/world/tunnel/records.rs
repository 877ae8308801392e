//! One end of one session whose packets go in records of DTLS.

use std::iter::from_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use adit_netem::random::Random;
use adit_proto::anyconnect::datagrams::{Datagrams, State as GatewayState};
use adit_proto::anyconnect::frame::FrameKind;
use adit_proto::anyconnect::record::{self, HEAD_LEN};
use adit_proto::anyconnect::record_path::RecordPath;
use adit_proto::drop_reason::DropReason;
use adit_proto::dtls::greeting::{Greeter, Greeting};
use adit_proto::dtls::handshake::{Credential, Setup};
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::{Inbound, Outbound};
use adit_proto::dtls::succession::{Change, Succession};
use adit_proto::dtls::suite::CipherSuite;
use adit_proto::esp::capsule::EspCapsule;
use adit_proto::esp::session::Hints;
use adit_proto::packet::IPV6_MIN_MTU;
use adit_proto::role::Role;
use zeroize::Zeroizing;

use crate::cipher::NotingCipher;
use crate::network::{WIDE, gateway};
use crate::promises::{Generation, Kept, broken, origin_for};

use super::{AFTERMATH, Origin, Outcome, Outgoing, Patience, SendOutcome, Told, Tunnel, Way};

/// How long either end may be silent before it is asked.
const CLIENT_INTERVAL: Duration = Duration::from_secs(20);
const GATEWAY_INTERVAL: Duration = Duration::from_secs(10);
/// Numbers that are skipped at a time: more than a receiver remembers.
const SKIPPED: u32 = 8200;
/// Bytes of the largest datagram of a handshake.
const HANDSHAKE: usize = 1200;

/// What an end begins with.
pub(crate) struct RecordTerms {
    pub(crate) role: Role,
    pub(crate) generation: Generation,
    /// What both ends know.
    pub(crate) secret: [u8; 32],
    pub(crate) suites: Vec<CipherSuite>,
    pub(crate) seed: [u8; 32],
}

/// Who decides whether packets go in records.
enum Decision {
    Client(RecordPath),
    Gateway { datagrams: Datagrams, greeter: Greeter },
}

/// One end of one session.
pub(crate) struct RecordTunnel {
    terms: RecordTerms,
    random: Random,
    succession: Succession<NotingCipher, Rc<Outbound<NotingCipher>>, Origin>,
    decision: Decision,
    /// The association that the worker has, and with whom.
    worker: Option<(SocketAddr, Inbound<NotingCipher>)>,
    passed: bool,
    interface: usize,
    outgoing: Vec<Outgoing>,
    told: Vec<Told>,
}

impl RecordTunnel {
    pub(crate) fn new(terms: RecordTerms, now: Instant) -> Kept<Self> {
        let seed = u64::from_le_bytes(*terms.seed.first_chunk().expect("a seed is longer"));
        let decision = match terms.role {
            Role::Client => Decision::Client(RecordPath::new(CLIENT_INTERVAL, now)),
            Role::Server => Decision::Gateway {
                datagrams: Datagrams::new(GATEWAY_INTERVAL, now),
                greeter: Greeter::new(terms.seed, now),
            },
        };
        let mut tunnel = Self {
            terms,
            random: Random::new(seed, "records"),
            succession: Succession::default(),
            decision,
            worker: None,
            passed: false,
            interface: usize::MAX,
            outgoing: Vec::new(),
            told: Vec::new(),
        };
        tunnel.handle_timeout(now)?;
        Ok(tunnel)
    }

    fn setup(&mut self) -> Setup {
        let mut random = [0; 32];
        random.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.random.draw().to_le_bytes()));
        let RecordTerms { secret, suites, .. } = &self.terms;
        let credential = Credential::PreSharedKey { key: Zeroizing::new(secret.to_vec()), suites: suites.clone() };
        Setup { credential, session_id: self.session_id(), random, largest_datagram: HANDSHAKE }
    }

    /// By what the client names the session.
    fn session_id(&self) -> Vec<u8> {
        self.terms.secret.iter().map(|byte| !byte).collect()
    }

    /// Does what the machines ask for.
    fn drain(&mut self, now: Instant) {
        if let Decision::Client(path) = &mut self.decision
            && path.poll_association()
        {
            let setup = self.setup();
            self.succession.begin(gateway(), origin_for(gateway()), setup, now);
        }
        let handshake: Vec<_> = from_fn(|| self.succession.poll_transmit()).collect();
        while let Some(change) = self.succession.poll_change() {
            self.follow(change, now);
        }
        if let Decision::Client(path) = &mut self.decision
            && !self.succession.is_beginning()
        {
            path.handle_not_established(now);
        }
        for (to, origin, datagram) in handshake {
            self.push(to, origin, datagram);
        }
        while let Some(plaintext) = match &mut self.decision {
            Decision::Client(path) => path.poll_transmit(),
            Decision::Gateway { datagrams, .. } => datagrams.poll_transmit(),
        } {
            let sealed = self.succession.outbound().map(|sa| sa.record(ContentType::ApplicationData, &plaintext));
            if let (Some(Ok(record)), Some(peer)) = (sealed, self.peer()) {
                self.push(peer, origin_for(peer), record);
            }
        }
        let passes = self.way().is_some();
        if std::mem::replace(&mut self.passed, passes) != passes {
            self.told.push(if passes { Told::Up } else { Told::Down });
        }
    }

    fn follow(&mut self, change: Change, now: Instant) {
        match change {
            Change::Established(peer) => {
                let Some(sa) = self.succession.take_inbound() else { return };
                let before = self.worker.replace((peer, sa));
                self.told.push(match before {
                    Some((before, _)) if before == peer => Told::NewKeys,
                    Some(_) => Told::Moved,
                    None => Told::Other,
                });
                let largest = self.largest_packet();
                match &mut self.decision {
                    Decision::Client(path) => path.handle_established(largest, now),
                    Decision::Gateway { datagrams, .. } => datagrams.handle_established(),
                }
            }
            Change::Data(body) => self.handle_record(&body, now),
            Change::Closed(_) => {
                self.worker = None;
                match &mut self.decision {
                    Decision::Client(path) => path.handle_closed(now),
                    Decision::Gateway { datagrams, .. } => datagrams.handle_closed(),
                }
            }
        }
    }

    fn handle_record(&mut self, body: &[u8], now: Instant) {
        match &mut self.decision {
            Decision::Client(path) => path.handle_record(body, now),
            Decision::Gateway { datagrams, .. } => {
                let _farewell = datagrams.handle_record(body, now);
            }
        }
    }

    fn handle_heard(&mut self, now: Instant) {
        match &mut self.decision {
            Decision::Client(path) => path.handle_heard(),
            Decision::Gateway { datagrams, .. } => datagrams.handle_heard(now),
        }
    }

    fn push(&mut self, to: SocketAddr, origin: Origin, bytes: Vec<u8>) {
        if bytes.len() <= self.interface {
            self.outgoing.push(Outgoing { to, origin: Some(origin), bytes, marked: false, packet: None });
        }
    }

    /// Where records go.
    fn peer(&self) -> Option<SocketAddr> {
        self.worker.as_ref().map(|(peer, _)| *peer)
    }

    fn largest_packet(&self) -> u16 {
        let suite = self.succession.outbound().map(|sa| sa.suite());
        let largest = suite.map_or(0, |suite| suite.largest_plaintext(WIDE).saturating_sub(HEAD_LEN));
        u16::try_from(largest).expect("a datagram is short")
    }

    /// What the worker makes of a datagram; `None` if it has no use for it.
    fn open(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> Result<Option<Outcome>, DropReason> {
        let Some((_, sa)) = self.worker.as_mut().filter(|(peer, _)| *peer == from) else { return Ok(None) };
        let is_data = datagram.first() == Some(&ContentType::ApplicationData.code());
        let mut copy = datagram.to_vec();
        let opened = match sa.open(&mut copy) {
            Ok(opened) => opened,
            Err(reason) if is_data => return Err(reason),
            Err(_) => return Ok(None),
        };
        let plaintext = copy[opened.range].to_vec();
        if let (true, Some((FrameKind::Data, packet))) = (is_data, record::split(&plaintext)) {
            let packet = Some(packet.to_vec());
            self.handle_heard(now);
            return Ok(Some(Outcome::Opened { probe: None, packet, newest: true }));
        }
        match opened.content {
            ContentType::ApplicationData => self.handle_record(&plaintext, now),
            content @ (ContentType::ChangeCipherSpec | ContentType::Alert | ContentType::Handshake) => {
                let _dropped = self.succession.handle_opened(content, &plaintext, now);
            }
        }
        Ok(Some(Outcome::Opened { probe: None, packet: None, newest: true }))
    }

    /// What the control side makes of a datagram that no worker opens.
    fn take_stray(&mut self, from: SocketAddr, origin: Origin, mut datagram: Vec<u8>, now: Instant) -> Outcome {
        let greeting = match &self.decision {
            Decision::Client(_) => None,
            Decision::Gateway { greeter, .. } => greeter.greet(&datagram, from, now).ok(),
        };
        match greeting {
            Some(Greeting::Ask(answer)) => {
                self.push(from, origin, answer);
                Outcome::Unsealed
            }
            Some(Greeting::Proven(introduction)) if introduction.session == self.session_id() => {
                let setup = self.setup();
                let _late = self.succession.handle_hello(&introduction, from, origin, &mut datagram, || setup, now);
                Outcome::Cookie
            }
            Some(Greeting::Proven(_)) => Outcome::Unsealed,
            None => {
                let _dropped = self.succession.handle_datagram(&mut datagram, from, origin, now);
                Outcome::Unsealed
            }
        }
    }
}

impl Tunnel for RecordTunnel {
    fn role(&self) -> Role {
        self.terms.role
    }

    fn generation(&self) -> Generation {
        self.terms.generation
    }

    /// It is tried again every minute. A gateway follows its client, and learns nothing of what gets lost on the way
    /// there; of sizes it learns what the client asks for no more.
    fn patience(&self) -> Patience {
        Patience { hole: Duration::MAX, large: Duration::from_secs(75), calm: Duration::from_secs(75) }
    }

    fn handle_timeout(&mut self, now: Instant) -> Kept {
        match &mut self.decision {
            Decision::Client(path) => path.handle_timeout(now),
            Decision::Gateway { datagrams, .. } => datagrams.handle_timeout(now),
        }
        self.succession.handle_timeout(now);
        self.drain(now);
        Ok(())
    }

    fn handle_hints(&mut self, hints: Hints, now: Instant) -> Kept {
        if hints.doubt {
            match &mut self.decision {
                Decision::Client(path) => path.handle_doubt(now),
                Decision::Gateway { datagrams, .. } => datagrams.handle_doubt(),
            }
        }
        self.drain(now);
        Ok(())
    }

    fn handle_rebind(&mut self, now: Instant) -> Kept {
        self.handle_hints(Hints { doubt: true, ..Hints::default() }, now)
    }

    fn handle_capsule(&mut self, capsule: EspCapsule, _now: Instant) -> Kept {
        broken("AnyConnect's channel has no capsules", &capsule)
    }

    fn send_packet(&mut self, content: &[u8], packet: usize, _marked: bool, now: Instant) -> Kept<SendOutcome> {
        let way = self.way().filter(|way| content.len() <= usize::from(way.mtu));
        let (Some(way), Some(sa)) = (way, self.succession.outbound().cloned()) else {
            return Ok(SendOutcome::NotInDatagrams);
        };
        let at = sa.suite().prefix_len() + HEAD_LEN;
        let mut bytes = vec![0; sa.suite().sealed_len(content.len() + HEAD_LEN)];
        bytes[at..][..content.len()].copy_from_slice(content);
        let numbers = sa.reserve(1, content.len() + HEAD_LEN);
        let sealed = numbers.and_then(|mut numbers| record::seal_packet(&mut numbers, &mut bytes, content.len()));
        if let Err(reason) = sealed {
            return broken("a packet that fits a record can be sealed", &reason);
        }
        if bytes.len() > self.interface {
            let narrower = u16::try_from(content.len() - (bytes.len() - self.interface)).unwrap_or(0);
            if let Decision::Client(path) = &mut self.decision {
                path.handle_narrow(narrower);
            }
            if narrower < IPV6_MIN_MTU {
                self.succession.handle_close();
            }
            self.drain(now);
            return Ok(SendOutcome::NotInDatagrams);
        }
        let (to, origin) = (way.to, way.origin);
        self.outgoing.push(Outgoing { to, origin, bytes, marked: false, packet: Some(packet) });
        if let Decision::Client(path) = &mut self.decision {
            path.handle_sent(now);
        }
        Ok(SendOutcome::Sent)
    }

    fn skip_numbers(&mut self) -> Kept {
        match self.succession.outbound().map(|sa| sa.reserve(SKIPPED, 0)) {
            Some(Err(reason)) => broken("keys last longer than that", &reason),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn receive(&mut self, from: SocketAddr, origin: Origin, datagram: Vec<u8>, now: Instant) -> Kept<Outcome> {
        let outcome = match self.open(from, &datagram, now) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => self.take_stray(from, origin, datagram, now),
            Err(reason) => Outcome::Refused(reason),
        };
        self.drain(now);
        Ok(outcome)
    }

    fn poll_timeout(&self, _now: Instant) -> Option<Instant> {
        let decision = match &self.decision {
            Decision::Client(path) => path.poll_timeout(),
            Decision::Gateway { datagrams, .. } => datagrams.poll_timeout(),
        };
        [decision, self.succession.poll_timeout()].into_iter().flatten().min()
    }

    fn poll_capsule(&mut self) -> Option<EspCapsule> {
        None
    }

    fn outgoing(&mut self) -> &mut Vec<Outgoing> {
        &mut self.outgoing
    }

    fn told(&mut self) -> &mut Vec<Told> {
        &mut self.told
    }

    fn take_unanswered(&mut self) -> bool {
        false
    }

    fn set_interface(&mut self, largest: usize) {
        self.interface = largest;
    }

    fn way(&self) -> Option<Way> {
        let largest = match &self.decision {
            Decision::Client(path) => path.mtu(),
            Decision::Gateway { datagrams, .. } => {
                let largest = self.largest_packet();
                let mtu = datagrams.path_mtu().map_or(largest, |mtu| mtu.min(largest));
                Some(mtu).filter(|_| datagrams.state() == GatewayState::Passing)
            }
        };
        let to = self.peer().filter(|_| self.succession.outbound().is_some());
        to.zip(largest).map(|(to, mtu)| Way { to, origin: self.succession.origin(), mtu })
    }

    fn is_narrow(&self) -> bool {
        false
    }

    fn keys_since(&self) -> Option<Instant> {
        None
    }

    /// What belongs to the association before the present one, or comes before the present one is complete, is lost.
    fn may_refuse(&self, _from: SocketAddr, _datagram: &[u8], _now: Instant) -> bool {
        true
    }

    fn check(&self, _now: Instant) -> Kept {
        Ok(())
    }

    /// The last word is an alert, and nothing follows it.
    fn close(mut self: Box<Self>, now: Instant) -> Kept {
        self.succession.handle_close();
        self.drain(now);
        for later in AFTERMATH {
            self.succession.handle_timeout(now + later);
            let words = self.succession.poll_transmit();
            let due = self.succession.poll_timeout();
            if words.is_some() || due.is_some() || self.worker.is_some() {
                return broken("associations that are closed say nothing more", &(self.terms.role, later, words));
            }
        }
        Ok(())
    }
}
