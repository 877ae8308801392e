//! Waiting for what a test wants to see, with a limit instead of a guess.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything that should happen soon: generous, for a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `probe` gives something.
///
/// # Panics
/// Where nothing came within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened in {PATIENCE:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Makes tests of one program that move much, or measure, run one after the other: hold the value for as long.
#[must_use = "the next test begins when the value is dropped"]
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that would matter to the next.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
