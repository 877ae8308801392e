//! One end of one session with the ESP carrier.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::capsule::{EspCapsule, Group};
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::esp::probe::Probe;
use adit_proto::esp::rekey::{RETIRE_AFTER, RETIRE_ANYWAY_AFTER};
use adit_proto::esp::sa::{Inbound, Opened, Outbound};
use adit_proto::esp::session::{Change, Command, EspSession, Hints, Report, Route};
use adit_proto::esp::spi::Spi;
use adit_proto::packet::ecn;
use adit_proto::role::Role;
use adit_proto::sealing::replay::Arrival;
use bytes::Bytes;

use crate::cipher::NotingCipher;
use crate::promises::{Generation, Kept, broken};

use super::{AFTERMATH, Origin, Outcome, Outgoing, Patience, SendOutcome, Told, Tunnel, Way};

type Handle = Rc<Outbound<NotingCipher>>;

/// Numbers that are skipped at a time: more than a receiver remembers.
const SKIPPED: u32 = 8200;
/// Most inbound SAs and claimed indices of an end.
const MOST_HELD: (usize, usize) = (17, 18);

/// An inbound SA.
struct Installed {
    epoch: u32,
    sa: Inbound<NotingCipher>,
}

/// One end of one session.
pub(crate) struct EspTunnel {
    session: EspSession<Handle, Origin>,
    role: Role,
    generation: Generation,
    route: Option<Route<Handle, Origin>>,
    /// The epoch that packets are sent with, and since when.
    epoch: Option<(u32, Instant)>,
    /// All epochs that packets were sent with, and since when.
    activated: Vec<(u32, Instant)>,
    /// The newest epoch of which something came.
    heard: Option<u32>,
    /// The path told that it is too narrow.
    narrow: bool,
    /// Larger datagrams are refused by this end's system.
    interface: usize,
    outgoing: Vec<Outgoing>,
    told: Vec<Told>,
    claimed: Vec<Spi>,
    inbound: BTreeMap<Spi, Installed>,
    /// The epochs of all indices so far, and since when.
    installed: BTreeMap<Spi, (u32, Instant)>,
    drawn: u32,
    share: Bytes,
    /// Says whether a packet sent is worth a signal.
    listens: bool,
}

impl EspTunnel {
    pub(crate) fn new(
        role: Role,
        generation: Generation,
        session: EspSession<Handle, Origin>,
        now: Instant,
    ) -> Kept<Self> {
        let mut tunnel = Self {
            session,
            role,
            generation,
            route: None,
            epoch: None,
            activated: Vec::new(),
            heard: None,
            narrow: false,
            interface: usize::MAX,
            outgoing: Vec::new(),
            told: Vec::new(),
            claimed: Vec::new(),
            inbound: BTreeMap::new(),
            installed: BTreeMap::new(),
            drawn: 0,
            share: Bytes::new(),
            listens: true,
        };
        tunnel.execute(now)?;
        Ok(tunnel)
    }

    fn open(&mut self, datagram: &mut [u8]) -> Result<(u32, Opened), DropReason> {
        let spi = datagram.first_chunk().and_then(|spi| Spi::from_wire(u32::from_be_bytes(*spi)));
        let installed = spi.and_then(|spi| self.inbound.get_mut(&spi)).ok_or(DropReason::UnknownSpi)?;
        Ok((installed.epoch, installed.sa.open(datagram)?))
    }

    /// Carries the machine's commands out.
    fn execute(&mut self, now: Instant) -> Kept {
        while let Some(command) = self.session.poll_command() {
            match command {
                Command::Prepare { group, peer_share: _ } => self.prepare(group, now),
                Command::Install { peer_share } => self.install(&peer_share, now)?,
                Command::Retire(spi) => {
                    self.inbound.remove(&spi);
                    self.claimed.retain(|claimed| *claimed != spi);
                }
                Command::SetRoute(route) => self.route = route,
                Command::Send { datagram, .. } if datagram.len() > self.interface => {
                    self.session.handle_refused(datagram.len(), now);
                }
                Command::Send { to, origin, datagram, ecn } => {
                    let marked = ecn != ecn::NOT_ECT;
                    self.outgoing.push(Outgoing { to, origin, bytes: datagram, marked, packet: None });
                }
                Command::ListenForSent => self.listens = true,
                Command::Tell(change) => self.note(change, now)?,
            }
        }
        Ok(())
    }

    fn note(&mut self, change: Change, now: Instant) -> Kept {
        self.told.push(match change {
            Change::NewKeys { epoch } => {
                if self.epoch.is_some_and(|(before, _)| before >= epoch) {
                    return broken("epochs only grow", &(self.epoch, epoch));
                }
                self.epoch = Some((epoch, now));
                self.activated.push((epoch, now));
                if epoch == 0 { Told::Other } else { Told::NewKeys }
            }
            Change::TooNarrow => {
                self.narrow = true;
                Told::Narrow
            }
            Change::Size(_) => {
                self.narrow = false;
                Told::Other
            }
            Change::Up(_) => Told::Up,
            Change::Moved(_) => Told::Moved,
            Change::Down => Told::Down,
            Change::Marks(_) => Told::Other,
        });
        Ok(())
    }

    /// Any bytes do for a share: what the two ends make of them is the secret. Indices are the same in each session, so
    /// that datagrams of an earlier one find an SA.
    fn prepare(&mut self, group: Option<Group>, now: Instant) {
        self.drawn += 1;
        let (base, len) = match self.role {
            Role::Client => (0x1000, group.map_or(0, Group::client_share_len)),
            Role::Server => (0x2000, group.map_or(0, Group::server_share_len)),
        };
        let spi = Spi::new(0, base + self.drawn).expect("there is a worker 0");
        let byte = u8::try_from(self.drawn % 200).expect("below 200") + self.role as u8;
        self.claimed.push(spi);
        self.share = Bytes::from(vec![byte; len]);
        self.session.handle_prepared(spi, self.share.clone(), now);
    }

    fn install(&mut self, peer_share: &[u8], now: Instant) -> Kept {
        let shares = self.share.first().zip(peer_share.first());
        let secret = shares.map(|(&ours, &theirs)| [(ours ^ theirs) | 0x80, ours.max(theirs)]);
        let new = match self.session.handle_secret(secret.as_ref().map(|secret| &secret[..])) {
            Ok(new) => new,
            Err(error) => return broken("two honest ends always agree on keys", &error),
        };
        let (epoch, accept) = (new.epoch, new.accept);
        let (inbound, outbound) = new.into_inbound_and_outbound();
        if !self.claimed.contains(&inbound.spi) {
            return broken("only a claimed index gets an SA", &inbound.spi);
        }
        let spi = inbound.spi;
        let sa = Inbound::new(spi, inbound.keys, accept).expect("the cipher takes every key");
        let outbound = Rc::new(Outbound::new(outbound.spi, outbound.keys).expect("the cipher takes every key"));
        self.inbound.insert(spi, Installed { epoch, sa });
        self.installed.insert(spi, (epoch, now));
        self.session.handle_installed(outbound, now);
        Ok(())
    }

    /// How many inbound SAs and claimed indices there are.
    fn held(&self) -> (usize, usize) {
        (self.inbound.len(), self.claimed.len())
    }
}

impl Tunnel for EspTunnel {
    fn role(&self) -> Role {
        self.role
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    /// The longest pause before a path is tried again is 16 s.
    fn patience(&self) -> Patience {
        Patience { hole: Duration::from_secs(3), large: Duration::from_secs(25), calm: Duration::from_secs(22) }
    }

    fn handle_timeout(&mut self, now: Instant) -> Kept {
        self.session.handle_timeout(now);
        self.execute(now)
    }

    fn handle_hints(&mut self, hints: Hints, now: Instant) -> Kept {
        self.session.handle_hints(hints, now);
        self.execute(now)
    }

    fn handle_rebind(&mut self, now: Instant) -> Kept {
        self.session.handle_rebind(now);
        self.execute(now)
    }

    fn handle_capsule(&mut self, capsule: EspCapsule, now: Instant) -> Kept {
        if let Err(error) = self.session.handle_capsule(capsule, now) {
            return broken("an honest peer's capsules are never against the rules", &error);
        }
        self.execute(now)
    }

    fn send_packet(&mut self, content: &[u8], packet: usize, marked: bool, now: Instant) -> Kept<SendOutcome> {
        let Some(route) = self.route.clone().filter(|route| content.len() <= usize::from(route.mtu)) else {
            return Ok(SendOutcome::NotInDatagrams);
        };
        let mut bytes = vec![0; sealed_len(content.len())];
        bytes[PREFIX_LEN..][..content.len()].copy_from_slice(content);
        let sealed = route.sa.reserve(1, content.len());
        let sealed = sealed.and_then(|mut numbers| numbers.seal(&mut bytes, content.len(), NextHeader::Ipv4));
        if let Err(reason) = sealed {
            return broken("keys are replaced long before they are used up", &reason);
        }
        let signalled = std::mem::take(&mut self.listens);
        if bytes.len() > self.interface {
            let too_big = u16::try_from(bytes.len()).ok();
            self.handle_hints(Hints { sent: signalled, too_big, ..Hints::default() }, now)?;
            let largest = self.route.as_ref().map_or(0, |route| sealed_len(usize::from(route.mtu)));
            if largest >= bytes.len() {
                return broken("what the system refuses is not tried with the next packet", &(bytes.len(), largest));
            }
            return Ok(SendOutcome::NotInDatagrams);
        }
        let (to, origin, marked) = (route.to, route.origin, marked && route.marked);
        self.outgoing.push(Outgoing { to, origin, bytes, marked, packet: Some(packet) });
        if signalled {
            self.handle_hints(Hints { sent: true, ..Hints::default() }, now)?;
        }
        Ok(SendOutcome::Sent)
    }

    fn skip_numbers(&mut self) -> Kept {
        match self.route.as_ref().map(|route| route.sa.reserve(SKIPPED, 0)) {
            Some(Err(reason)) => broken("keys are replaced long before they are used up", &reason),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn receive(&mut self, from: SocketAddr, origin: Origin, mut datagram: Vec<u8>, now: Instant) -> Kept<Outcome> {
        let (epoch, opened) = match self.open(&mut datagram) {
            Ok(opened) => opened,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        let is_dummy = opened.next_header == NextHeader::Nothing;
        let content = datagram[opened.range()].to_vec();
        let probe = is_dummy.then(|| Probe::decode(&content)).flatten();
        let is_proven = self.route.as_ref().is_some_and(|route| route.to == from);
        if probe.is_some() || !is_proven {
            let (len, newest) = (datagram.len(), opened.arrival == Arrival::Newest);
            self.session.handle_report(&Report { epoch, from, origin, len, newest, probe }, now);
            self.execute(now)?;
        }
        self.heard = self.heard.max(Some(epoch));
        let newest = opened.arrival == Arrival::Newest && self.heard == Some(epoch);
        Ok(Outcome::Opened { probe, packet: (!is_dummy).then_some(content), newest })
    }

    fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.session.poll_timeout(now)
    }

    fn poll_capsule(&mut self) -> Option<EspCapsule> {
        self.session.poll_transmit()
    }

    fn outgoing(&mut self) -> &mut Vec<Outgoing> {
        &mut self.outgoing
    }

    fn told(&mut self) -> &mut Vec<Told> {
        &mut self.told
    }

    fn take_unanswered(&mut self) -> bool {
        self.session.take_unanswered()
    }

    fn set_interface(&mut self, largest: usize) {
        self.interface = largest;
    }

    fn way(&self) -> Option<Way> {
        self.route.as_ref().map(|route| Way { to: route.to, origin: route.origin, mtu: route.mtu })
    }

    fn is_narrow(&self) -> bool {
        self.narrow
    }

    fn keys_since(&self) -> Option<Instant> {
        self.epoch.map(|(_, since)| since)
    }

    /// Only if its SA has gone as it should.
    fn may_refuse(&self, _from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let spi = datagram.first_chunk().and_then(|spi| Spi::from_wire(u32::from_be_bytes(*spi)));
        spi.and_then(|spi| self.installed.get(&spi)).is_some_and(|&(epoch, installed)| {
            let newer = self.activated.iter().find(|(active, _)| *active > epoch);
            newer.is_some_and(|(_, since)| now - *since >= RETIRE_AFTER || now - installed >= RETIRE_ANYWAY_AFTER)
        })
    }

    fn check(&self, now: Instant) -> Kept {
        let (inbound, claimed) = self.held();
        if inbound > MOST_HELD.0 || claimed > MOST_HELD.1 || inbound > claimed {
            return broken("old SAs and their indices go", &(self.role, inbound, claimed));
        }
        let oldest = self.inbound.values().map(|installed| installed.epoch).min();
        if let (Some((epoch, since)), Some(oldest)) = (self.epoch, oldest)
            && oldest < epoch
            && now - since > RETIRE_AFTER
        {
            return broken("old SAs are gone ten seconds after new ones are in use", &(self.role, oldest, epoch));
        }
        Ok(())
    }

    fn close(mut self: Box<Self>, now: Instant) -> Kept {
        self.outgoing.clear();
        self.told.clear();
        self.session.handle_closed();
        for later in AFTERMATH {
            let now = now + later;
            self.execute(now)?;
            self.session.handle_timeout(now);
            self.session.handle_hints(Hints { sent: true, doubt: true, too_big: None, rekey: true }, now);
            self.session.handle_rebind(now);
            self.execute(now)?;
            let is_silent = self.outgoing.is_empty() && self.told.is_empty();
            let has_nothing = self.route.is_none() && self.held() == (0, 0);
            let (capsule, due) = (self.session.poll_transmit(), self.session.poll_timeout(now));
            if !is_silent || !has_nothing || capsule.is_some() || due.is_some() {
                let promise = "what is closed gives everything back, sends nothing and wants nothing";
                return broken(promise, &(self.role, later, &self.told, self.outgoing.len(), capsule, due.is_some()));
            }
        }
        Ok(())
    }
}
