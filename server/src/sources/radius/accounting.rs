//! Telling servers of sessions (RFC 2866). Sessions never wait for it: what happens goes through a bounded channel to a
//! thread that writes it to the disk, and from there it is sent, oldest first, until a server has noted it.

mod record;
mod spool;

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use adit_net::carrier::counters::Traffic;
use adit_program::random::random;
use adit_program::task::{self, Task};
use adit_proto::radius::reply::MessageAuthenticator;
use data_encoding::HEXLOWER;
use tokio::sync::watch;

use self::record::{Event, Record, SessionFacts, Sums};
use self::spool::Spool;
use super::client::Client;
use super::settings::RadiusSettings;
use super::source::shared_secret;
use crate::config::Problem;
use crate::core::observer::SessionObserver;
use crate::core::sessions::{Ending, Session};

/// Beginnings and ends that wait to be written; beyond that they are lost, and counted.
const MOST_UNWRITTEN: usize = 4096;

/// Records that may wait before sessions that go on are told of no longer: their ends will be.
const MOST_BEFORE_INTERIM: usize = 1000;

/// How long servers are left alone of which none answered.
const REST: Duration = Duration::from_secs(30);

/// Reasons for an end (RFC 2866 section 5.10).
const USER_REQUEST: u32 = 1;
const IDLE_TIMEOUT: u32 = 4;
const SESSION_TIMEOUT: u32 = 5;
const ADMIN_RESET: u32 = 6;
const NAS_ERROR: u32 = 9;
const NAS_REBOOT: u32 = 11;

/// What happened to a session.
enum Happened {
    Opened { id: u64, facts: SessionFacts, session: Weak<Session>, at: u64 },
    Closed { id: u64, sums: Sums, cause: u32, at: u64 },
}

/// Tells servers of sessions. Dropping it ends that, once all that happened is written.
pub(super) struct Accounting {
    happened: Mutex<Option<SyncSender<Happened>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// What the names of this run's sessions begin with.
    run: String,
    /// By which servers are told.
    client: watch::Sender<Arc<Client>>,
    _sender: Task,
}

impl Accounting {
    /// Begins to tell servers; what waits in `folder` since before comes first, and that the gateway begins.
    ///
    /// # Errors
    /// What is missing or wrong in the settings, or with the folder.
    pub(super) fn start(settings: &RadiusSettings, folder: &Path) -> Result<Arc<Self>, Problem> {
        let problem = |reason: String| {
            let next = "mend the folder or its file system, or take out radius.accounting_servers";
            Problem::new(folder.display().to_string(), reason, next)
        };
        let client = watch::Sender::new(Arc::new(Self::client(settings)?));
        let spool = Arc::new(Spool::open(folder).map_err(|error| problem(error.to_string()))?);
        let begins = Record { at: unix_time(), event: Event::GatewayBegins };
        spool.push(&begins).map_err(|error| problem(error.to_string()))?;
        let (happened, receiver) = sync_channel(MOST_UNWRITTEN);
        let (writing, interim) = (Arc::clone(&spool), settings.accounting_interim);
        let writer = thread::Builder::new().name("accounting".to_owned());
        let writer = writer.spawn(move || write(&receiver, &writing, interim));
        let run: [u8; 8] = random().map_err(|error| problem(error.to_string()))?;
        Ok(Arc::new(Self {
            happened: Mutex::new(Some(happened)),
            writer: Mutex::new(Some(writer.map_err(|error| problem(error.to_string()))?)),
            run: HEXLOWER.encode(&run),
            _sender: task::spawn(send(spool, client.subscribe())),
            client,
        }))
    }

    /// What tells servers by these settings; reads the secret.
    ///
    /// # Errors
    /// What is missing or wrong in the settings.
    pub(super) fn client(settings: &RadiusSettings) -> Result<Client, Problem> {
        let secret = shared_secret(settings)?;
        let (servers, identifier) = (settings.accounting_servers.clone(), settings.nas_identifier.clone());
        Ok(Client::new(servers, secret, identifier, MessageAuthenticator::Optional, settings.timeout))
    }

    /// From now on servers are told by this client.
    pub(super) fn follow(&self, client: Client) {
        self.client.send_replace(Arc::new(client));
    }

    fn tell(&self, happened: Happened) {
        let sender = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        match sender.as_ref().map(|sender| sender.try_send(happened)) {
            None | Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => {
                tracing::warn!("RADIUS accounting does not keep up: a session is not told of");
            }
        }
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        self.finish();
    }
}

impl SessionObserver for Accounting {
    fn opened(&self, session: &Arc<Session>) {
        let facts = SessionFacts {
            name: format!("{}-{}", self.run, session.id),
            user: session.device.user.clone(),
            remote: session.connection.remote().ip(),
            v4: session.lease.v4,
            v6: session.lease.v6,
        };
        self.tell(Happened::Opened { id: session.id, facts, session: Arc::downgrade(session), at: unix_time() });
    }

    fn finish(&self) {
        drop(self.happened.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic there was told already, and the gateway stops anyway.
            writer.join().ok();
        }
    }

    fn closed(&self, session: &Session, traffic: &Traffic) {
        let sums = Sums::new(session.since.elapsed().as_secs(), traffic);
        self.tell(Happened::Closed { id: session.id, sums, cause: cause(session.ending()), at: unix_time() });
    }
}

fn cause(ending: Option<Ending>) -> u32 {
    match ending {
        None | Some(Ending::Replaced | Ending::Crowded) => USER_REQUEST,
        Some(Ending::Idle) => IDLE_TIMEOUT,
        Some(Ending::OutsideHours | Ending::LoginOver | Ending::CertificateOver) => SESSION_TIMEOUT,
        Some(Ending::Revoked | Ending::Disabled) => ADMIN_RESET,
        Some(Ending::Shutdown | Ending::Restart(_)) => NAS_REBOOT,
    }
}

/// A session that was told of and has not ended yet.
struct Live {
    facts: SessionFacts,
    session: Weak<Session>,
    sums: Sums,
}

/// Writes what happens to the disk until nobody tells any more.
fn write(happened: &Receiver<Happened>, spool: &Spool, interim: Duration) {
    let mut live: HashMap<u64, Live> = HashMap::new();
    let mut next = Instant::now() + interim;
    loop {
        match happened.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Happened::Opened { id, facts, session, at }) => {
                push(spool, at, Event::Start(facts.clone()));
                live.insert(id, Live { facts, session, sums: Sums::default() });
            }
            Ok(Happened::Closed { id, sums, cause, at }) => {
                if let Some(ended) = live.remove(&id) {
                    push(spool, at, Event::Stop(ended.facts, sums, cause));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                tell_of_live(&mut live, spool);
                next = Instant::now() + interim;
            }
            Err(RecvTimeoutError::Disconnected) => return end_all(live, spool),
        }
    }
}

/// Notes how much each session has moved. One that is gone although nobody said so ends now.
fn tell_of_live(live: &mut HashMap<u64, Live>, spool: &Spool) {
    let at = unix_time();
    live.retain(|_, session| {
        let Some(found) = session.session.upgrade() else {
            push(spool, at, Event::Stop(session.facts.clone(), session.sums.clone(), NAS_ERROR));
            return false;
        };
        session.sums = sums_of(&found);
        if spool.len() < MOST_BEFORE_INTERIM {
            push(spool, at, Event::Interim(session.facts.clone(), session.sums.clone()));
        }
        true
    });
}

/// The gateway stops, and with it whatever has not ended yet.
fn end_all(live: HashMap<u64, Live>, spool: &Spool) {
    let at = unix_time();
    for session in live.into_values() {
        let sums = session.session.upgrade().map_or(session.sums, |found| sums_of(&found));
        push(spool, at, Event::Stop(session.facts, sums, NAS_REBOOT));
    }
}

fn sums_of(session: &Session) -> Sums {
    Sums::new(session.since.elapsed().as_secs(), &session.carriers.counters().traffic())
}

fn push(spool: &Spool, at: u64, event: Event) {
    if let Err(error) = spool.push(&Record { at, event }) {
        tracing::warn!(%error, "the disk does not take what RADIUS servers should be told of a session");
    }
}

/// Sends what was written, oldest first.
async fn send(spool: Arc<Spool>, mut clients: watch::Receiver<Arc<Client>>) {
    let mut told = None;
    loop {
        let (number, record) = spool.oldest().await;
        let client = Arc::clone(&clients.borrow_and_update());
        match client.tell(|draft| record.write(draft, unix_time())).await {
            Ok(()) => {
                told = None;
                spool.remove(number).await;
            }
            Err(unanswered) => {
                let reason = unanswered.to_string();
                if told.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "RADIUS accounting waits for its servers");
                }
                told = Some(reason);
                // Other settings may be what was missing.
                let _rested_or_changed = tokio::time::timeout(REST, clients.changed()).await;
            }
        }
    }
}

/// The clock may stand before 1970 on a host without a battery; then it is that moment.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
