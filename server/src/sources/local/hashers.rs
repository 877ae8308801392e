//! The threads that hash passwords.
//!
//! A hash takes 20 ms of a core and 19 MiB, so a flood of logins must not start as many as it likes: a few threads,
//! each with its memory kept, take from a queue of fixed length. Who finds it full is told to come again. A part of it
//! is kept free for users who come from where they logged in before, and these are served first: guesses from many
//! networks hold up strangers alone.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, available_parallelism};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::passwords::Memory;

/// Hashes that may wait for a thread: 32 take one thread less than a second.
pub const QUEUE: usize = 32;
/// Those of strangers among them.
const STRANGERS: usize = 24;
/// Most threads. Packets come first, so hashes get half of the cores at most.
const MAX_THREADS: usize = 4;

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// A fixed pool of threads that hash passwords. They end once it is dropped.
pub struct Hashers {
    shared: Arc<Shared>,
    turned_away: AtomicU64,
}

/// Whose password it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Somebody's who logged in from there before, or with a device of theirs.
    Known,
    /// Anybody's.
    Stranger,
}

/// What the threads have done since they were started, and what waits for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashCounts {
    /// Hashes that a thread has begun.
    pub begun: u64,
    /// Those that found the queue full.
    pub turned_away: u64,
    /// Those in the queue now.
    pub waiting: usize,
    /// The most that were in the queue at a time.
    pub most_waiting: usize,
}

/// As many passwords wait to be hashed as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at this moment")]
pub struct Busy;

/// What the threads share.
#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    begun: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    known: VecDeque<Job>,
    strangers: VecDeque<Job>,
    /// The most jobs there were.
    most: usize,
    /// Whether nobody will ask for anything more.
    is_over: bool,
}

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
        // Made first: should a thread be refused, its end ends the others.
        let hashers = Self { shared: Arc::default(), turned_away: AtomicU64::new(0) };
        for number in 0..count {
            let shared = Arc::clone(&hashers.shared);
            Builder::new().name(format!("passwords-{number}")).spawn(move || shared.work())?;
        }
        Ok(hashers)
    }

    /// Has a thread do something with its memory. Nothing is done if nobody waits for it any more when its turn comes.
    ///
    /// # Errors
    /// The queue is full.
    pub async fn run<T: Send + 'static>(
        &self,
        turn: Turn,
        job: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |memory| {
            if !answer.is_closed() {
                drop(answer.send(job(memory)));
            }
        });
        let answered = match self.shared.add(turn, job) {
            Ok(()) => answered.await.map_err(|_panicked| Busy),
            Err(busy) => Err(busy),
        };
        answered.inspect_err(|_| {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// What the threads have done so far, and what waits for them.
    pub fn counts(&self) -> HashCounts {
        let waiting = self.shared.waiting();
        HashCounts {
            begun: self.shared.begun.load(Ordering::Relaxed),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            waiting: waiting.len(),
            most_waiting: waiting.most,
        }
    }
}

impl Waiting {
    /// How many jobs there are.
    fn len(&self) -> usize {
        self.known.len() + self.strangers.len()
    }
}

impl Drop for Hashers {
    fn drop(&mut self) {
        self.shared.waiting().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn add(&self, turn: Turn, job: Job) -> Result<(), Busy> {
        let mut waiting = self.waiting();
        let all = waiting.len();
        match turn {
            Turn::Known if all < QUEUE => waiting.known.push_back(job),
            Turn::Stranger if all < QUEUE && waiting.strangers.len() < STRANGERS => waiting.strangers.push_back(job),
            Turn::Known | Turn::Stranger => return Err(Busy),
        }
        waiting.most = waiting.most.max(waiting.len());
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// What each thread does.
    fn work(&self) {
        let mut memory = Memory::default();
        while let Some(job) = self.next() {
            self.begun.fetch_add(1, Ordering::Relaxed);
            job(&mut memory);
        }
    }

    /// Waits for the next job; `None` once there will be none.
    fn next(&self) -> Option<Job> {
        let is_idle =
            |waiting: &mut Waiting| waiting.known.is_empty() && waiting.strangers.is_empty() && !waiting.is_over;
        let waited = self.changed.wait_while(self.waiting(), is_idle);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.known.pop_front().or_else(|| waiting.strangers.pop_front())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};
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
        hashers.shared.add(Turn::Stranger, Box::new(busy)).unwrap();
        began.recv().unwrap();
        (hashers, go_on)
    }

    /// A job that notes its name when it is done.
    fn noted(done: &Arc<Mutex<Vec<&'static str>>>, name: &'static str) -> Job {
        let done = Arc::clone(done);
        Box::new(move |_| done.lock().unwrap().push(name))
    }

    #[tokio::test]
    async fn full_queue_turns_away_and_serves_again_once_there_is_room() {
        let (hashers, go_on) = held_up();
        for _ in 0..QUEUE {
            hashers.shared.add(Turn::Known, Box::new(|_| {})).unwrap();
        }
        for turn in [Turn::Known, Turn::Stranger] {
            assert_eq!(hashers.run(turn, |_| 1).await, Err(Busy), "{turn:?}");
        }
        let full = HashCounts { begun: 1, turned_away: 2, waiting: QUEUE, most_waiting: QUEUE };
        assert_eq!(hashers.counts(), full);
        go_on.send(()).unwrap();
        while hashers.run(Turn::Stranger, |_| 1).await.is_err() {
            tokio::task::yield_now().await;
        }
        let counts = hashers.counts();
        assert_eq!(counts.begun, 1 + QUEUE as u64 + 1, "the positive control: all were served");
        assert_eq!((counts.waiting, counts.most_waiting), (0, QUEUE));
    }

    #[tokio::test]
    async fn flood_of_strangers_leaves_room_for_users_who_are_known_and_waits_for_them() {
        let (hashers, go_on) = held_up();
        let done = Arc::default();
        let mut strangers = 0;
        while hashers.shared.add(Turn::Stranger, noted(&done, "stranger")).is_ok() {
            strangers += 1;
        }
        assert_eq!(strangers, STRANGERS);
        for _ in STRANGERS..QUEUE {
            hashers.shared.add(Turn::Known, noted(&done, "known")).unwrap();
        }
        go_on.send(()).unwrap();
        while hashers.run(Turn::Stranger, |_| ()).await.is_err() {
            tokio::task::yield_now().await;
        }
        let done = done.lock().unwrap().clone();
        let (first, rest) = done.split_at(QUEUE - STRANGERS);
        assert!(first.iter().all(|name| *name == "known"), "{done:?}");
        assert_eq!(rest.len(), STRANGERS, "and nobody is forgotten");
    }

    #[tokio::test]
    async fn nothing_is_hashed_for_who_has_gone() {
        let (hashers, go_on) = held_up();
        let done = Arc::default();
        let job = noted(&done, "gone");
        let gone = tokio::time::timeout(Duration::ZERO, hashers.run(Turn::Known, job)).await;
        assert!(gone.is_err(), "it waits behind the other");
        go_on.send(()).unwrap();
        assert_eq!(hashers.run(Turn::Known, |_| 1).await, Ok(1));
        assert!(done.lock().unwrap().is_empty());
    }

    #[test]
    fn threads_end_with_the_pool() {
        let hashers = Hashers::with_threads(2).unwrap();
        let shared = Arc::downgrade(&hashers.shared);
        drop(hashers);
        let begun = std::time::Instant::now();
        while shared.strong_count() > 0 {
            assert!(begun.elapsed() < adit_testing::PATIENCE, "a thread goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
