//! What others want of a worker.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_proto::esp::spi::Spi;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;

use super::{Association, Installation, Stray};

/// One thing to do between two batches.
pub(super) enum Command<S> {
    /// Open the packets of this SA.
    Install(Box<Installation<S>>),
    /// Open no more of them.
    Retire(Spi),
    /// Open the records of this association.
    Associate(Box<Association<S>>),
    /// Open no more of those from this peer, if they are counted there.
    Dissociate(SocketAddr, Arc<AtomicU64>),
    /// Hand over datagrams of DTLS that are of no association.
    HandOver(mpsc::Sender<Stray>),
}

/// Commands for one worker, and what wakes it. It cannot grow long: each session makes new SAs and associations at a
/// bounded rate.
pub(super) struct Mailbox<S> {
    commands: Mutex<Vec<Command<S>>>,
    waiting: AtomicBool,
    stopped: AtomicBool,
    wake: EventFd,
}

impl<S> Mailbox<S> {
    pub(super) fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { commands: Mutex::default(), waiting: false.into(), stopped: false.into(), wake })
    }

    /// Leaves a command and wakes the worker.
    pub(super) fn put(&self, command: Command<S>) {
        self.commands().push(command);
        self.waiting.store(true, Ordering::Release);
        self.wake();
    }

    /// Ends the worker.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Takes the commands; costs one load while there are none.
    pub(super) fn take(&self) -> Vec<Command<S>> {
        if !self.waiting.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut commands = self.commands();
        self.waiting.store(false, Ordering::Release);
        std::mem::take(&mut commands)
    }

    /// Forgets that the worker was woken.
    pub(super) fn clear(&self) {
        // An error means that there is nothing to read, which is as good.
        self.wake.read().ok();
    }

    fn wake(&self) {
        // An error means that the counter is full, which wakes the worker as well.
        self.wake.write(1).ok();
    }

    fn commands(&self) -> MutexGuard<'_, Vec<Command<S>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> AsFd for Mailbox<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
