//! Wrong passwords, so many a second: the flood.
//!
//! A refusal takes a second, and a connection has four requests at a time, so a flood has many connections. Each is
//! made again once it has ended. No two passwords are alike, as the gateway remembers wrong ones.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_net::http::h3::H3Connection;
use adit_program::task::Task;
use adit_proto::login::message::{LoginAnswer, LoginRequest};
use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::wire::{Door, credentials, endpoint};
use crate::runtime::on;

/// Connections made at a time before the flood begins.
const CONNECTING: usize = 16;
/// Pause between two of these.
const PAUSE: Duration = Duration::from_millis(4);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tries under way for each one a second; those that are due then are left out.
const UNDER_WAY: usize = 4;

/// Where a flood comes from, and how much of it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The addresses, each with as many connections as the others.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// Connections in all.
    pub(super) connections: usize,
    /// Wrong passwords a second.
    pub(super) rate: u32,
    /// Users whose names come with half of the passwords; the others come with names of nobody.
    pub(super) users: Vec<String>,
    /// What makes these passwords others than those of every other flood.
    pub(super) mark: String,
}

/// A flood whose connections are open.
pub(super) struct Flood {
    // Before the connections it uses.
    tries: Option<Task>,
    shared: Arc<Shared>,
}

struct Shared {
    door: Door,
    plan: Plan,
    lanes: Vec<Lane>,
    counts: Counts,
}

/// One connection, and what makes it again.
struct Lane {
    endpoint: quinn::Endpoint,
    http: Mutex<Option<Arc<H3Connection>>>,
}

#[derive(Default)]
struct Counts {
    offered: AtomicU64,
    refused: AtomicU64,
    told_to_wait: AtomicU64,
    let_in: AtomicU64,
    lost: AtomicU64,
    handshakes: AtomicU64,
}

/// What became of the tries of a flood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tries {
    /// Tries that were due.
    pub(super) offered: u64,
    /// Those that the gateway refused.
    pub(super) refused: u64,
    /// Of these, those that it told to wait, as there were too many failures.
    pub(super) told_to_wait: u64,
    /// Those that it let in, which would be a fault.
    pub(super) let_in: u64,
    /// Those whose connection ended, or that could not be sent in time.
    pub(super) lost: u64,
    /// Connections that were opened, and opened again.
    pub(super) handshakes: u64,
}

impl Flood {
    /// Opens the connections, in the runtime's host.
    ///
    /// # Errors
    /// What the system refuses, or why nobody answers.
    pub(super) fn connect(runtime: &Runtime, door: &Door, plan: Plan) -> Result<Self> {
        let door = door.clone();
        let connecting = on(runtime, async move {
            let endpoints = plan.addresses.iter().map(|address| endpoint(*address)).collect::<Result<Vec<_>>>()?;
            let lanes = endpoints.iter().cycle().take(plan.connections);
            let lanes = lanes.map(|endpoint| Lane { endpoint: endpoint.clone(), http: Mutex::default() }).collect();
            let shared = Arc::new(Shared { door, plan, lanes, counts: Counts::default() });
            open_all(&shared).await?;
            anyhow::Ok(shared)
        });
        let shared = runtime.block_on(connecting).context("open the connections of a flood")??;
        Ok(Self { tries: None, shared })
    }

    /// Begins to send.
    pub(super) fn begin(&mut self, runtime: &Runtime) {
        self.shared.counts.clear();
        self.tries = Some(on(runtime, send(Arc::clone(&self.shared))));
    }

    /// Tries that were refused so far.
    pub(super) fn refused(&self) -> u64 {
        self.shared.counts.refused.load(Ordering::Relaxed)
    }

    /// Ends, and tells what became of the tries.
    pub(super) fn end(mut self) -> Tries {
        self.tries = None;
        self.shared.counts.told()
    }
}

/// Opens every connection, a few at a time.
async fn open_all(shared: &Arc<Shared>) -> Result<()> {
    let mut opening = JoinSet::new();
    for lane in 0..shared.lanes.len() {
        let shared = Arc::clone(shared);
        opening.spawn(async move { shared.connection(lane).await.map(drop) });
        sleep(PAUSE).await;
        while opening.len() >= CONNECTING {
            opening.join_next().await.transpose()?.transpose()?;
        }
    }
    while let Some(opened) = opening.join_next().await {
        opened??;
    }
    Ok(())
}

/// Sends tries when they are due, until it is dropped.
async fn send(shared: Arc<Shared>) {
    let (start, most) = (Instant::now(), UNDER_WAY * shared.plan.rate as usize);
    let mut under_way = JoinSet::new();
    for number in 0_u32.. {
        let due = start + Duration::from_secs_f64(f64::from(number) / f64::from(shared.plan.rate));
        sleep_until(due.into()).await;
        while under_way.try_join_next().is_some() {}
        count(&shared.counts.offered);
        if under_way.len() >= most {
            count(&shared.counts.lost);
            continue;
        }
        let shared = Arc::clone(&shared);
        under_way.spawn(async move { shared.attempt(number).await });
    }
}

impl Shared {
    /// Tries one wrong password.
    async fn attempt(&self, number: u32) {
        let lane = number as usize % self.lanes.len();
        let answer = timeout(PATIENCE, async {
            let http = self.connection(lane).await?;
            self.door.step(&http, &self.request(number)).await
        });
        match answer.await {
            Ok(Ok(LoginAnswer::Refused { retry_after, .. })) => {
                count(&self.counts.refused);
                if retry_after.is_some() {
                    count(&self.counts.told_to_wait);
                }
            }
            Ok(Ok(LoginAnswer::Done { .. })) => count(&self.counts.let_in),
            Ok(Ok(LoginAnswer::Ask { .. } | LoginAnswer::Open { .. } | LoginAnswer::Wait { .. }) | Err(_)) | Err(_) => {
                count(&self.counts.lost);
            }
        }
    }

    fn request(&self, number: u32) -> LoginRequest {
        let users = &self.plan.users;
        let user = match users.get(number as usize / 2 % users.len().max(1)) {
            Some(user) if number.is_multiple_of(2) => user.clone(),
            _ => format!("nobody{number}"),
        };
        let password = format!("wrong {} {number}", self.plan.mark);
        LoginRequest { handle: None, answers: credentials(&user, &password), browser: false }
    }

    /// The connection of a lane, made anew if it has ended.
    async fn connection(&self, lane: usize) -> Result<Arc<H3Connection>> {
        let Lane { endpoint, http } = self.lanes.get(lane).context("a flood has lanes")?;
        let mut http = http.lock().await;
        if let Some(open) = http.as_ref().filter(|http| http.quic().close_reason().is_none()) {
            return Ok(Arc::clone(open));
        }
        count(&self.counts.handshakes);
        let opened = Arc::new(self.door.connect(endpoint).await?);
        *http = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

impl Counts {
    /// Forgets all but the handshakes.
    fn clear(&self) {
        for counter in [&self.offered, &self.refused, &self.told_to_wait, &self.let_in, &self.lost] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    fn told(&self) -> Tries {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tries {
            offered: read(&self.offered),
            refused: read(&self.refused),
            told_to_wait: read(&self.told_to_wait),
            let_in: read(&self.let_in),
            lost: read(&self.lost),
            handshakes: read(&self.handshakes),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
