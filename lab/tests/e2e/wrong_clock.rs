//! A program's wall clock, set wrong while it runs, or moved as if its host had slept.

use adit_lab::{Host, MovedClock};

use crate::harness::tool;

/// Seconds of a day.
pub(crate) const DAY: i64 = 24 * 60 * 60;

/// [`MovedClock`], of a lab that has a C compiler.
pub(crate) struct WrongClock(MovedClock);

impl WrongClock {
    /// A clock that is off by so many seconds; `None`, loudly, where it cannot be made.
    pub(crate) fn new(host: &Host, seconds: i64) -> Option<Self> {
        tool(MovedClock::new(host, seconds)).map(Self)
    }

    /// Sets it off by so many seconds from now on.
    pub(crate) fn set(&self, seconds: i64) {
        self.0.set(seconds).unwrap();
    }

    /// What a program has to be started with.
    pub(crate) fn environment(&self) -> [(&str, &str); 2] {
        self.0.environment()
    }

    /// The same for a program whose host seems to have slept when the clock moves ahead.
    pub(crate) fn environment_of_sleep(&self) -> [(&str, &str); 3] {
        self.0.environment_of_sleep()
    }
}
