//! Doubles of what the core stands on.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use adit_host::HostError;
use adit_net::carrier::Carrier;
use adit_net::carrier::counters::Counters;
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::address_pool::{AddressPool, Lease, PoolConfig};
use adit_proto::login::token::LoginId;
use adit_proto::policy::DestinationPolicy;

use super::grant::{Grant, Resolvers, SessionLimits, Terms};
use super::leases::Flows;
use super::sessions::{About, Closing, Connection, Ending, Session};
use crate::accounts::{Accounts, AuthError, ClientLogin, Device, DeviceKind, KnownPerson, StoreFault};

/// Longest wait for what only a lock held too long can keep from happening.
const PATIENCE: Duration = Duration::from_secs(20);

/// Accounts that know every device, and whose writing a test can hold up or make fail.
#[derive(Default)]
pub(crate) struct FakeAccounts {
    state: Mutex<State>,
    changed: Condvar,
}

/// What is known of certificates.
#[derive(Default, Clone, Copy)]
pub(super) enum Certificate {
    /// Devices have none.
    #[default]
    None,
    /// They are good until then.
    Until(SystemTime),
    /// Nobody can tell.
    Unreadable,
}

#[derive(Default)]
struct State {
    leases: HashMap<String, Lease>,
    /// Whoever comes to write waits.
    held_up: bool,
    /// How many wait.
    waiting: usize,
    /// Whose addresses cannot be written.
    broken: Vec<String>,
    revoked: Vec<String>,
    /// Of every device.
    certificate: Certificate,
    /// The next one to read about a user waits.
    holds_up_reader: bool,
    /// Whether one waits.
    reader_waits: bool,
    people: HashMap<String, KnownPerson>,
    ended_logins: Vec<LoginId>,
}

impl FakeAccounts {
    /// Holds up whoever writes from now on.
    pub(super) fn hold_up(&self) {
        self.state.lock().unwrap().held_up = true;
    }

    /// Waits until so many are held up.
    pub(super) fn wait_for(&self, waiting: usize) {
        let state = self.state.lock().unwrap();
        let (_state, waited) =
            self.changed.wait_timeout_while(state, PATIENCE, |state| state.waiting < waiting).unwrap();
        assert!(!waited.timed_out(), "fewer than {waiting} came to write");
    }

    /// Lets everybody go on.
    pub(super) fn go_on(&self) {
        self.state.lock().unwrap().held_up = false;
        self.changed.notify_all();
    }

    /// Holds up the next one who reads about a user, once it has read.
    pub(super) fn hold_up_reader(&self) {
        self.state.lock().unwrap().holds_up_reader = true;
    }

    /// Waits until that one waits.
    pub(super) fn wait_for_reader(&self) {
        let state = self.state.lock().unwrap();
        let (_state, waited) = self.changed.wait_timeout_while(state, PATIENCE, |state| !state.reader_waits).unwrap();
        assert!(!waited.timed_out(), "nobody came to read");
    }

    /// Lets that one go on.
    pub(super) fn let_reader_go_on(&self) {
        self.state.lock().unwrap().reader_waits = false;
        self.changed.notify_all();
    }

    /// From now on the addresses of a device cannot be written.
    pub(super) fn break_for(&self, device: &str) {
        self.state.lock().unwrap().broken.push(device.to_owned());
    }

    /// Mends what [`Self::break_for`] broke.
    pub(super) fn mend(&self) {
        self.state.lock().unwrap().broken.clear();
    }

    /// Revokes a device.
    pub(super) fn revoke(&self, device: &str) {
        self.state.lock().unwrap().revoked.push(device.to_owned());
    }

    /// From now on this is known of every device's certificate.
    pub(super) fn certify(&self, certificate: Certificate) {
        self.state.lock().unwrap().certificate = certificate;
    }

    /// From now on this source says that a user is in these groups.
    pub(super) fn say(&self, user: &str, source: &str, groups: &[&str]) {
        let person = KnownPerson {
            user: user.to_owned(),
            source: source.to_owned(),
            subject: Some(user.to_owned()),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            generation: 0,
            is_disabled: false,
            checked_at: None,
        };
        self.state.lock().unwrap().people.insert(user.to_owned(), person);
    }

    /// Makes void whatever logins of a user have given so far.
    pub(super) fn void_logins(&self, user: &str) {
        let mut state = self.state.lock().unwrap();
        state.people.get_mut(user).expect("a source has said something of the user").generation += 1;
    }

    /// What is remembered for a device.
    pub(super) fn remembered(&self, device: &str) -> Option<Lease> {
        self.state.lock().unwrap().leases.get(device).copied()
    }
}

impl Accounts for FakeAccounts {
    fn authenticate_certificate(&self, _device: &str, _serial: &str, _now: SystemTime) -> Result<Device, AuthError> {
        Err(AuthError::Unknown)
    }

    fn authenticate_token(&self, token: &str) -> Result<Device, AuthError> {
        Ok(device(token))
    }

    fn device(&self, id: &str) -> Result<Option<Device>, StoreFault> {
        let revoked = self.state.lock().unwrap().revoked.iter().any(|revoked| revoked == id);
        Ok(Some(Device { revoked_at: revoked.then_some(1), ..device(id) }))
    }

    fn may_connect(&self, device: &str) -> Result<bool, StoreFault> {
        Ok(!self.state.lock().unwrap().revoked.iter().any(|revoked| revoked == device))
    }

    fn needs_login(&self, _device: &str) -> Result<bool, StoreFault> {
        Ok(false)
    }

    fn login_left(&self, login: &LoginId) -> Result<Option<Duration>, StoreFault> {
        let is_over = self.state.lock().unwrap().ended_logins.contains(login);
        Ok((!is_over).then_some(Duration::MAX))
    }

    fn device_of_login(
        &self,
        login: &ClientLogin<'_>,
        _is_live: &dyn Fn(&str) -> bool,
        _now: SystemTime,
    ) -> Result<Option<Device>, AuthError> {
        Ok(Some(device(login.device_name)))
    }

    fn end_login(&self, login: &LoginId) -> Result<(), StoreFault> {
        self.state.lock().unwrap().ended_logins.push(*login);
        Ok(())
    }

    fn certificates_end(&self, _device: &str) -> Result<Option<SystemTime>, StoreFault> {
        match self.state.lock().unwrap().certificate {
            Certificate::None => Ok(None),
            Certificate::Until(end) => Ok(Some(end)),
            Certificate::Unreadable => Err(StoreFault::new(std::io::Error::other("no space left on device"))),
        }
    }

    fn person(&self, user: &str) -> Result<Option<KnownPerson>, StoreFault> {
        let mut state = self.state.lock().unwrap();
        let person = state.people.get(user).cloned();
        if std::mem::take(&mut state.holds_up_reader) {
            state.reader_waits = true;
            self.changed.notify_all();
            drop(self.changed.wait_while(state, |state| state.reader_waits).unwrap());
        }
        Ok(person)
    }

    fn has_lease(&self, device: &str, lease: Lease) -> Result<bool, StoreFault> {
        Ok(self.remembered(device) == Some(lease))
    }

    fn save_lease(&self, device: &str, lease: Lease) -> Result<(), StoreFault> {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.held_up).unwrap();
        state.waiting -= 1;
        if state.broken.iter().any(|broken| broken == device) {
            return Err(StoreFault::new(std::io::Error::other("no space left on device")));
        }
        state.leases.insert(device.to_owned(), lease);
        Ok(())
    }
}

/// The flows of a host, of which is remembered whose were ended.
#[derive(Default)]
pub(crate) struct FakeFlows {
    ended: Mutex<Vec<Lease>>,
    broken: AtomicBool,
    /// Those of which there are flows; `None` if that cannot be told.
    addresses: Option<HashSet<IpAddr>>,
}

impl FakeFlows {
    /// The flows of these addresses.
    pub(super) fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { addresses: Some(addresses.into_iter().collect()), ..Self::default() }
    }

    /// Whose were ended, in turn.
    pub(super) fn ended(&self) -> Vec<Lease> {
        self.ended.lock().unwrap().clone()
    }

    /// From now on none can be ended.
    pub(super) fn break_down(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Mends what [`Self::break_down`] broke.
    pub(super) fn mend(&self) {
        self.broken.store(false, Ordering::Relaxed);
    }
}

impl Flows for FakeFlows {
    fn end(&self, addresses: Lease) -> Result<(), HostError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(HostError::NoSuchLink { name: "adit0".to_owned() });
        }
        self.ended.lock().unwrap().push(addresses);
        Ok(())
    }

    fn addresses(&self) -> Result<HashSet<IpAddr>, HostError> {
        self.addresses.clone().ok_or_else(|| HostError::NoSuchLink { name: "adit0".to_owned() })
    }
}

/// A device with a token, which is its id.
pub(crate) fn device(id: &str) -> Device {
    Device {
        id: id.to_owned(),
        user: "alice".to_owned(),
        name: "laptop".to_owned(),
        kind: DeviceKind::Token,
        created_at: 0,
        revoked_at: None,
    }
}

/// A connection to nobody, which remembers why it was closed.
#[derive(Default)]
pub(crate) struct Nowhere {
    counters: Arc<Counters>,
    closed: Mutex<Option<Ending>>,
    broken: AtomicBool,
    group: Option<String>,
}

impl Nowhere {
    /// One whose user has chosen a group.
    pub(super) fn of_group(group: Option<&str>) -> Self {
        Self { group: group.map(str::to_owned), ..Self::default() }
    }

    /// From now on closing it panics, as a connection does whose own task has.
    pub(super) fn break_down(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) -> Option<Ending> {
        *self.closed.lock().unwrap()
    }
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
    fn remote(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 1).into()
    }

    fn about(&self) -> About<'_> {
        About { front_end: "none", cipher: None, client: None }
    }

    fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }
}

impl Closing for Nowhere {
    fn close(&self, ending: Ending) {
        assert!(!self.broken.load(Ordering::Relaxed), "broken down");
        self.closed.lock().unwrap().get_or_insert(ending);
    }
}

/// Terms with one route.
pub(crate) fn terms(route: &str) -> Terms {
    let limits = SessionLimits::unlimited(1400);
    Terms::new(vec![route.parse().unwrap()], Resolvers::default(), DestinationPolicy::default(), limits)
}

/// A session of a device with the address `host` of [`pool`].
pub(crate) fn session(id: u64, of: &str, host: u8) -> Arc<Session> {
    let lease = Lease { v4: Some(address(host)), v6: None };
    let grant = Grant { lease, terms: Arc::new(terms("0.0.0.0/0")) };
    Session::new(id, device(of), grant, Arc::new(Nowhere::default()), Instant::now())
}

/// A session of a user on these terms.
pub(crate) fn session_on(user: &str, terms: Terms) -> Arc<Session> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let grant = Grant { lease: Lease::default(), terms: Arc::new(terms) };
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let device = Device { user: user.to_owned(), ..device(user) };
    Session::new(id, device, grant, Arc::new(Nowhere::default()), Instant::now())
}

/// A pool with five addresses for clients, which rest for no time.
pub(crate) fn pool() -> AddressPool {
    AddressPool::new(PoolConfig { v4: "10.77.0.0/29".parse().ok(), v6: None, cooldown: Duration::ZERO })
}

/// How many addresses [`pool`] has for clients.
pub(super) const POOL: usize = 5;

/// An address of [`pool`].
pub(super) fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

/// Runs `work` on a thread of its own, and gives what tells its result.
pub(super) fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (tell, told): (SyncSender<T>, _) = mpsc::sync_channel(1);
    thread::spawn(move || tell.send(work()));
    told
}

/// The result of work that nothing may hold up.
pub(super) fn result<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(PATIENCE).expect("it waits for the accounts, or has panicked")
}

/// Runs `work`, which must not wait for accounts that somebody is writing.
pub(super) fn at_once<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    result(&apart(work))
}
