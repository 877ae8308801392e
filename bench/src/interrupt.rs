//! Ctrl-C and TERM, noticed between two steps so that the lab is taken down in order.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use adit_program::signals::Termination;
use anyhow::{Context, Result, bail};

/// Whether the user wants the work to end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<(Mutex<bool>, Condvar)>);

impl Interrupt {
    /// Takes over INT and TERM for the rest of the process's life.
    pub(crate) fn listen() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let mut termination = runtime.block_on(async { Termination::listen() }).context("listen for signals")?;
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let wanted = Arc::clone(&shared);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(termination.wanted());
                *wanted.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                wanted.1.notify_all();
            })
            .context("start a thread")?;
        Ok(Self(shared))
    }

    /// Fails once the user wants the work to end.
    pub(crate) fn check(&self) -> Result<()> {
        if *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Sleeps, and fails as soon as the user wants the work to end.
    pub(crate) fn pause(&self, duration: Duration) -> Result<()> {
        let wanted = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_timeout_while(wanted, duration, |wanted| !*wanted));
        self.check()
    }

    /// Waits until the user wants the work to end.
    pub(crate) fn wait(&self) {
        let wanted = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(wanted, |wanted| !*wanted));
    }
}
