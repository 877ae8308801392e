//! A program's wall clock, set wrong while it runs, or moved as if its host had slept.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Host, compile};

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
#[derive(Debug)]
pub struct MovedClock {
    library: String,
    file: String,
}

impl MovedClock {
    /// A clock that is off by so many seconds.
    ///
    /// # Errors
    /// Fails where there is no C compiler.
    pub fn new(host: &Host, seconds: i64) -> Result<Self> {
        let library = compile(host.folder(), "clock.so", LIBRARY, &["-shared", "-fPIC"])?.display().to_string();
        let clock = Self { library, file: host.folder().join("clock.seconds").display().to_string() };
        clock.set(seconds)?;
        Ok(clock)
    }

    /// Sets it off by so many seconds from now on.
    ///
    /// # Errors
    /// Fails where the host's folder cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // In one step, as programs read it at any time.
        let new = format!("{}.new", self.file);
        fs::write(&new, seconds.to_string()).with_context(|| format!("write {new}"))?;
        fs::rename(&new, &self.file).with_context(|| format!("rename {new}"))
    }

    /// What a program has to be started with.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("ADIT_TEST_CLOCK", &self.file)]
    }

    /// The same for a program whose host seems to have slept when the clock moves ahead.
    pub fn environment_of_sleep(&self) -> [(&str, &str); 3] {
        let [library, clock] = self.environment();
        [library, clock, ("ADIT_TEST_SLEEP", "1")]
    }
}
