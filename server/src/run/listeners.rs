//! Starts what listens on TCP.

use std::net::TcpListener;
use std::sync::Arc;

use adit_net::tls::{self, ServerIdentity};
use adit_program::exit::{Exit, Failure};
use adit_program::task::{self, Task};
use rustls::ServerConfig;

use super::sources::Sources;
use super::{RAISE_LIMITS, RESTORE_KEYS};
use crate::core::admission::Pending;
use crate::identity::Authority;
use crate::listener::{Guests, Listener};

/// Serves the pages of a login where they are wanted.
pub(super) fn start(
    identity: &Arc<ServerIdentity>,
    authority: &Authority,
    sources: &mut Sources,
    pending: &Arc<Pending>,
) -> Result<Vec<Task>, Failure> {
    let tls = tls::listener_config(Arc::clone(identity), &authority.certificate(), false)
        .map_err(|error| Failure::new(Exit::Other, "TLS", error.to_string(), RESTORE_KEYS))?;
    let pages = Arc::new(Guests::new(sources.pages().into_iter().collect(), Arc::clone(pending)));
    let mut tasks = Vec::new();
    for socket in sources.take_sockets() {
        let is_loopback = socket.local_addr().is_ok_and(|address| address.ip().is_loopback());
        tasks.push(serve(socket, (!is_loopback).then(|| Arc::clone(&tls)), &pages)?);
    }
    Ok(tasks)
}

fn serve(socket: TcpListener, tls: Option<Arc<ServerConfig>>, guests: &Arc<Guests>) -> Result<Task, Failure> {
    let listener = Listener::new(socket, tls)
        .map_err(|error| Failure::new(Exit::Other, "listen on TCP", error.to_string(), RAISE_LIMITS))?;
    Ok(task::spawn(listener.serve(Arc::clone(guests))))
}
