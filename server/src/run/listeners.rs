//! Starts what listens on TCP.

use std::net::TcpListener;
use std::sync::Arc;

use adit_net::tls::{self, ServerIdentity};
use adit_program::exit::{Exit, Failure};
use adit_program::task::{self, Task};
use rustls::ServerConfig;

use super::sources::Sources;
use super::{RAISE_LIMITS, RESTORE_KEYS};
use crate::config::Config;
use crate::core::admission::Pending;
use crate::identity::Authority;
use crate::listener::{Challenges, Guest, Guests, Listener, Portal};

/// What there is for whoever is not known yet.
pub(super) struct Strangers<'a> {
    /// Places for callers.
    pub(super) pending: &'a Arc<Pending>,
    /// Answers for ACME authorities.
    pub(super) challenges: &'a Arc<Challenges>,
}

/// Serves `front_ends` and the pages for browsers on `sockets`, the gateway's own addresses, and the pages of a login
/// where else they are wanted.
pub(super) fn start(
    config: &Config,
    identity: &Arc<ServerIdentity>,
    authority: &Authority,
    sockets: Vec<TcpListener>,
    sources: &Sources,
    front_ends: Vec<Arc<dyn Guest>>,
    strangers: Strangers<'_>,
) -> Result<Vec<Task>, Failure> {
    let tls = tls::listener_config(Arc::clone(identity), &authority.certificate(), config.anyconnect.tls12)
        .map_err(|error| Failure::new(Exit::Other, "TLS", error.to_string(), RESTORE_KEYS))?;
    let guests_of =
        |guests| Arc::new(Guests::new(guests, Arc::clone(strangers.pending)).answering(strangers.challenges));
    let pages: Vec<_> = sources.pages().into_iter().collect();
    let elsewhere = guests_of(pages.clone());
    let mut guests = [pages, front_ends].concat();
    if let Some(public) = config.public.first() {
        guests.push(Arc::new(Portal::new(public, config.anyconnect.enabled)));
    }
    let guests = guests_of(guests);
    let mut tasks = Vec::new();
    for socket in sockets {
        tasks.push(serve(socket, Some(Arc::clone(&tls)), &guests)?);
    }
    for socket in sources.take_sockets() {
        let is_loopback = socket.local_addr().is_ok_and(|address| address.ip().is_loopback());
        tasks.push(serve(socket, (!is_loopback).then(|| Arc::clone(&tls)), &elsewhere)?);
    }
    Ok(tasks)
}

fn serve(socket: TcpListener, tls: Option<Arc<ServerConfig>>, guests: &Arc<Guests>) -> Result<Task, Failure> {
    let listener = Listener::new(socket, tls)
        .map_err(|error| Failure::new(Exit::Other, "listen on TCP", error.to_string(), RAISE_LIMITS))?;
    Ok(task::spawn(listener.serve(Arc::clone(guests))))
}
