//! What is being measured now and how long it will still take, for whoever watches.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Shows progress on the standard error: one line that changes on a terminal, else one line for each turn.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    started: Instant,
    expected: Duration,
    turns: u32,
    done: u32,
    last: String,
}

impl Progress {
    /// Begins; `expected` is a guess for one turn, until the first is done.
    pub(crate) fn start(expected: Duration, turns: u32) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { terminal, started: Instant::now(), expected, turns, done: 0, last: String::new() }
    }

    /// Says what comes now.
    pub(super) fn show(&mut self, round: u32, system: &str, what: &str) {
        let left = short(remaining(self.started.elapsed(), self.expected, self.done, self.turns));
        let turn = format!("round {round}, {system}");
        let mut output = io::stderr().lock();
        // Whoever closed the output does not want to read it.
        let _closed = if self.terminal {
            write!(output, "\r\x1b[K{turn}: {what} ({left} left)").and_then(|()| output.flush())
        } else if self.last == turn {
            Ok(())
        } else {
            writeln!(output, "{turn} ({left} left)")
        };
        self.last = turn;
    }

    /// Notes that a system's turn is over.
    pub(crate) fn turn_done(&mut self) {
        self.done += 1;
    }

    /// Notes that more turns will come than it began with.
    pub(crate) fn expect_more(&mut self, turns: u32) {
        self.turns += turns;
    }

    pub(crate) fn end(&self) {
        if self.terminal {
            let _closed = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// From the turns that were done, else from the guess.
fn remaining(elapsed: Duration, guess: Duration, done: u32, turns: u32) -> Duration {
    let turn = if done > 0 { (elapsed / (done + 1)).max(guess / 4) } else { guess };
    (turn * turns).saturating_sub(elapsed)
}

fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn remaining_time_is_guessed_and_then_learnt() {
        assert_eq!(remaining(Duration::ZERO, SECOND * 10, 0, 4), SECOND * 40);
        assert_eq!(remaining(SECOND * 60, SECOND * 10, 2, 4), SECOND * 20);
        assert_eq!(remaining(SECOND * 900, SECOND * 10, 0, 4), Duration::ZERO);
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(short(SECOND * 59), "59 s");
        assert_eq!(short(SECOND * 61), "1 min 1 s");
    }
}
