//! When clients come, when they send, and how punctual all that is.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_program::task::{self, Task};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep_until;

use crate::load::client::{live, visit};
use crate::load::histogram::{Histogram, Percentiles};
use crate::load::plan::{Load, Shared};

/// Packets sent before others get their turn.
const BURST: u32 = 64;
/// Visits under way at a time; who is due then comes later. 1 MiB of tasks.
const MAX_VISITS: usize = 2_048;
/// How much longer than planned a load that the generator cannot keep up with goes on.
const OVERDUE: Duration = Duration::from_secs(1);

/// Starts the clients when they are due.
pub(super) async fn arrive(shared: Arc<Shared>, rate: f64) -> (Vec<Task>, Percentiles) {
    let (start, lateness) = (Instant::now(), Histogram::default());
    let mut clients = Vec::with_capacity(shared.passes.len());
    for number in 0..shared.passes.len() {
        let number = u32::try_from(number).expect("clients are numbered by u32");
        await_turn(start, f64::from(number) / rate, &lateness).await;
        let shared = Arc::clone(&shared);
        clients.push(task::spawn(async move {
            let Some(pass) = shared.passes.get(number as usize) else { return };
            if let Err(error) = live(&shared, number, pass, shared.roams(number)).await {
                shared.note_failed(&shared.ended, &error);
            }
        }));
    }
    (clients, lateness.percentiles())
}

/// Starts visits when they are due, each by the next client, and waits until the last have ended; says how many there
/// were.
pub(super) async fn churn(shared: Arc<Shared>, rate: f64, duration: Duration) -> (u32, Percentiles) {
    let (start, lateness) = (Instant::now(), Histogram::default());
    let mut visits = JoinSet::new();
    let mut count = 0;
    let clients = u32::try_from(shared.passes.len()).expect("clients are numbered by u32").max(1);
    while f64::from(count) / rate < duration.as_secs_f64() {
        await_turn(start, f64::from(count) / rate, &lateness).await;
        while visits.len() >= MAX_VISITS {
            visits.join_next().await;
        }
        let (shared, number) = (Arc::clone(&shared), count % clients);
        visits.spawn(async move {
            let Some(pass) = shared.passes.get(number as usize) else { return };
            match visit(&shared, number, pass).await {
                Ok(after) => shared.visit_times.note(after),
                Err(error) => shared.note_failed(&shared.visits_failed, &error),
            }
        });
        count += 1;
        while visits.try_join_next().is_some() {}
    }
    while visits.join_next().await.is_some() {}
    (count, lateness.percentiles())
}

/// Sends echo requests when they are due, each from the next session.
pub(super) async fn send(load: Load, gateway: Ipv4Addr, duration: Duration) -> Percentiles {
    let (start, lateness) = (Instant::now(), Histogram::default());
    for (number, session) in (0_u32..).zip(load.sessions.iter().cycle()) {
        let due = f64::from(number) / load.rate;
        if due >= duration.as_secs_f64() || start.elapsed() >= duration + OVERDUE {
            break;
        }
        await_turn(start, due, &lateness).await;
        session.ping(gateway);
        if number % BURST == 0 {
            yield_now().await;
        }
    }
    lateness.percentiles()
}

/// Waits until so many seconds after `start`, and notes how late it is then.
async fn await_turn(start: Instant, seconds: f64, lateness: &Histogram) {
    let due = start + Duration::from_secs_f64(seconds);
    if Instant::now() < due {
        sleep_until(due.into()).await;
    }
    lateness.note(due.elapsed());
}
