//! A program's wall clock, set wrong while it runs, or moved as if its host had slept.

use std::fs;
use std::path::PathBuf;

use adit_lab::Host;

use crate::harness::preloaded;

/// Seconds of a day.
pub(crate) const DAY: i64 = 24 * 60 * 60;

/// A library that moves the wall clock of a program by as many seconds as a file says, and, if it is to look like
/// sleep, the clock that counts sleep as well.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, time);
  const char *path = getenv("ADIT_TEST_CLOCK");
  int moves = clock == CLOCK_REALTIME || (clock == CLOCK_BOOTTIME && getenv("ADIT_TEST_SLEEP"));
  FILE *file = moves && path ? fopen(path, "r") : NULL;
  long seconds = 0;
  if (file) {
    if (fscanf(file, "%ld", &seconds) == 1) time->tv_sec += seconds;
    fclose(file);
  }
  return result;
}
"#;

/// The clock of the programs on a host that are started with its environment.
pub(crate) struct WrongClock {
    library: PathBuf,
    file: PathBuf,
}

impl WrongClock {
    /// A clock that is off by so many seconds; `None`, loudly, where it cannot be made.
    pub(crate) fn new(host: &Host, seconds: i64) -> Option<Self> {
        let clock =
            Self { library: preloaded(host.folder(), "clock", LIBRARY)?, file: host.folder().join("clock.seconds") };
        clock.set(seconds);
        Some(clock)
    }

    /// Sets it off by so many seconds from now on.
    pub(crate) fn set(&self, seconds: i64) {
        // In one step, as programs read it at any time.
        let new = self.file.with_extension("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    /// What a program has to be started with.
    pub(crate) fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", self.library.to_str().unwrap()), ("ADIT_TEST_CLOCK", self.file.to_str().unwrap())]
    }

    /// The same for a program whose host seems to have slept when the clock moves ahead.
    pub(crate) fn environment_of_sleep(&self) -> [(&str, &str); 3] {
        let [library, clock] = self.environment();
        [library, clock, ("ADIT_TEST_SLEEP", "1")]
    }
}
