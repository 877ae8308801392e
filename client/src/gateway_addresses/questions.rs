//! Questions about names, each to everybody who may be asked, and their answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use adit_net::resolve::AddressFamily;
use adit_proto::dns::question::AddressKind;
use adit_proto::invite::Place;
use adit_proto::nat64::{self, Nat64Prefix};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::found::Telling;
use crate::own_question::LocalResolvers;

const BOTH: [AddressFamily; 2] = [AddressFamily::V6, AddressFamily::V4];

/// This host's resolver.
#[derive(Debug, Clone)]
pub(super) struct SystemResolver {
    /// How it is asked; blocks.
    pub(super) resolve: fn(&str, AddressFamily) -> io::Result<Vec<IpAddr>>,
    /// One for each question that may be open.
    pub(super) places: Arc<Semaphore>,
}

/// Who may be asked.
#[derive(Debug)]
pub(super) struct Askable {
    pub(super) system: Option<SystemResolver>,
    /// Whom the client asks itself, and the mark of its questions.
    pub(super) own_way: Option<(LocalResolvers, u32)>,
}

impl Askable {
    pub(super) fn is_anybody(&self) -> bool {
        self.system.is_some() || self.own_way.is_some()
    }

    /// Asks for the addresses of all names, in both families at once.
    pub(super) fn ask_names<'a>(&self, names: impl Iterator<Item = &'a Place>) -> JoinSet<Vec<SocketAddr>> {
        let mut questions = JoinSet::new();
        for Place { host, port } in names {
            let port = *port;
            self.ask(&mut questions, host, &BOTH, move |addresses| {
                addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
            });
        }
        questions
    }

    /// Asks for the prefix under which the local network shows hosts of IPv4 (RFC 7050).
    pub(super) fn ask_prefixes(&self) -> JoinSet<Vec<Nat64Prefix>> {
        let mut questions = JoinSet::new();
        self.ask(&mut questions, nat64::NAME, &[AddressFamily::V6], prefixes);
        questions
    }

    fn ask<T: Send + 'static>(
        &self,
        questions: &mut JoinSet<Vec<T>>,
        name: &str,
        families: &[AddressFamily],
        answer: impl Fn(Vec<IpAddr>) -> Vec<T> + Copy + Send + Sync + 'static,
    ) {
        if let Some((resolvers, mark)) = self.own_way.clone() {
            let (name, kinds) = (name.to_owned(), families.iter().map(kind).collect::<Vec<_>>());
            questions.spawn(async move { answer(resolvers.ask_for(&kinds, &name, mark).await) });
        }
        for (system, family) in
            self.system.iter().flat_map(|system| families.iter().map(move |family| (system, *family)))
        {
            let Ok(place) = Arc::clone(&system.places).try_acquire_owned() else { return };
            let (name, resolve) = (name.to_owned(), system.resolve);
            questions.spawn_blocking(move || {
                // A name may well have no address of one family.
                let addresses = resolve(&name, family).unwrap_or_default();
                drop(place);
                answer(addresses)
            });
        }
    }
}

/// Tells each answer as it comes.
pub(super) async fn look_up<T: PartialEq + 'static>(mut questions: JoinSet<Vec<T>>, telling: Telling<T>) {
    while let Some(answered) = questions.join_next().await {
        if let Ok(answers) = answered {
            telling.tell(answers);
        }
    }
}

fn kind(family: &AddressFamily) -> AddressKind {
    match family {
        AddressFamily::V4 => AddressKind::V4,
        AddressFamily::V6 => AddressKind::V6,
    }
}

/// The prefixes that the addresses of [`nat64::NAME`] tell.
fn prefixes(addresses: Vec<IpAddr>) -> Vec<Nat64Prefix> {
    let v6 = |address| match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    };
    Nat64Prefix::learn(&addresses.into_iter().filter_map(v6).collect::<Vec<_>>())
}
