//! The signals that programs obey.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// The two signals that ask a program to end: INT (Ctrl-C) and TERM.
///
/// From [`Self::listen`] on, and for the rest of the process's life, they no longer end the process by themselves.
#[derive(Debug)]
pub struct Termination {
    interrupt: Signal,
    terminate: Signal,
}

impl Termination {
    /// Takes the two signals over. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits until one of them comes. Cancelling it loses no signal.
    pub async fn wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a signal asks of a program that runs for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalRequest {
    /// INT or TERM: undo everything and leave.
    Stop,
    /// HUP: a gateway is asked to read its configuration again; a client's terminal was closed.
    HangUp,
    /// USR1: log statistics.
    Statistics,
}

/// The signals of a program that runs for long.
///
/// From [`Self::listen`] on, and for the rest of the process's life, they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    termination: Termination,
    hang_up: Signal,
    statistics: Signal,
}

impl Signals {
    /// Takes the signals over. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn listen() -> Result<Self, Failure> {
        Self::try_listen().map_err(|error| Failure::new(Exit::Other, "signals", error.to_string(), ""))
    }

    fn try_listen() -> io::Result<Self> {
        Ok(Self {
            termination: Termination::listen()?,
            hang_up: signal(SignalKind::hangup())?,
            statistics: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next signal. Cancelling it loses none.
    pub async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            () = self.termination.wanted() => SignalRequest::Stop,
            _ = self.hang_up.recv() => SignalRequest::HangUp,
            _ = self.statistics.recv() => SignalRequest::Statistics,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Number, raise};

    use super::*;

    // One test for all of them: signals go to the whole process, and tests share it.
    #[tokio::test]
    async fn each_signal_is_one_request() {
        let mut signals = Signals::listen().unwrap();
        for (number, request) in [
            (Number::SIGHUP, SignalRequest::HangUp),
            (Number::SIGUSR1, SignalRequest::Statistics),
            (Number::SIGINT, SignalRequest::Stop),
            (Number::SIGTERM, SignalRequest::Stop),
        ] {
            raise(number).unwrap();
            assert_eq!(signals.next().await, request, "{number}");
        }
    }
}
