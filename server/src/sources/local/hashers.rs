//! The threads that hash passwords.
//!
//! A hash takes 20 ms of a core and 19 MiB, so a flood of logins must not start as many as it likes: a few threads,
//! each with its memory kept, take from a queue of fixed length. Who finds it full is told to come again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, available_parallelism};

use tokio::sync::oneshot;

use super::passwords::Memory;

/// Hashes that may wait for a thread: 32 take one thread less than a second.
pub const QUEUE: usize = 32;
/// Most threads. Packets come first, so hashes get half of the cores at most.
const MAX_THREADS: usize = 4;

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// A fixed pool of threads that hash passwords. They end once it is dropped.
pub struct Hashers {
    queue: SyncSender<Job>,
    turned_away: AtomicU64,
    taken: Arc<AtomicU64>,
}

/// As many passwords wait to be hashed as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at this moment")]
pub struct Busy;

impl Hashers {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, usize::from);
        Self::with_threads((cores / 2).clamp(1, MAX_THREADS))
    }

    fn with_threads(count: usize) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let (jobs, taken) = (Arc::new(Mutex::new(jobs)), Arc::new(AtomicU64::new(0)));
        for number in 0..count {
            let (jobs, taken) = (Arc::clone(&jobs), Arc::clone(&taken));
            Builder::new().name(format!("passwords-{number}")).spawn(move || work(&jobs, &taken))?;
        }
        Ok(Self { queue, turned_away: AtomicU64::new(0), taken })
    }

    /// Has a thread do something with its memory. Nothing is done if nobody waits for it any more when its turn comes.
    ///
    /// # Errors
    /// The queue is full.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Memory) -> T + Send + 'static) -> Result<T, Busy> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |memory| {
            if !answer.is_closed() {
                drop(answer.send(job(memory)));
            }
        });
        let queued = self.queue.try_send(job).map_err(|_full| Busy);
        let answered = match queued {
            Ok(()) => answered.await.map_err(|_panicked| Busy),
            Err(busy) => Err(busy),
        };
        answered.inspect_err(|_| {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Jobs that found the queue full.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Jobs that a thread has taken from the queue.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, taken: &AtomicU64) {
    let mut memory = Memory::default();
    loop {
        // Held while it waits: the other threads wait for the lock instead of for the queue.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        taken.fetch_add(1, Ordering::Relaxed);
        job(&mut memory);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;

    /// One thread, which is busy until told to go on.
    fn held_up() -> (Hashers, SyncSender<()>) {
        let hashers = Hashers::with_threads(1).unwrap();
        let (go_on, told) = sync_channel::<()>(0);
        let (begin, began) = sync_channel::<()>(0);
        let busy = move |_: &mut Memory| {
            begin.send(()).unwrap();
            told.recv().unwrap();
        };
        assert!(hashers.queue.try_send(Box::new(busy)).is_ok());
        began.recv().unwrap();
        (hashers, go_on)
    }

    #[tokio::test]
    async fn full_queue_turns_away_and_serves_again_once_there_is_room() {
        let (hashers, go_on) = held_up();
        for _ in 0..QUEUE {
            assert!(hashers.queue.try_send(Box::new(|_| {})).is_ok());
        }
        assert_eq!(hashers.run(|_| 1).await, Err(Busy));
        assert_eq!((hashers.turned_away(), hashers.taken()), (1, 1));
        go_on.send(()).unwrap();
        while hashers.run(|_| 1).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(hashers.taken(), 1 + QUEUE as u64 + 1, "the positive control: all were served");
    }

    #[tokio::test]
    async fn nothing_is_hashed_for_who_has_gone() {
        let (hashers, go_on) = held_up();
        let hashed = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&hashed);
        let gone =
            tokio::time::timeout(Duration::ZERO, hashers.run(move |_| note.store(true, Ordering::Relaxed))).await;
        assert!(gone.is_err(), "it waits behind the other");
        go_on.send(()).unwrap();
        assert_eq!(hashers.run(|_| 1).await, Ok(1));
        assert!(!hashed.load(Ordering::Relaxed));
    }
}
