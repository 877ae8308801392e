//! Asks for the names of a gateway.

use std::net::SocketAddr;
use std::time::Duration;

use adit_net::resolve::{AddressFamily, resolve};
use adit_proto::invite::Place;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::report::{NameReport, milliseconds};
use crate::own_question::LocalResolvers;

/// How long names are waited for.
const NAMES: Duration = Duration::from_secs(3);

/// Asks for names side by side; returns what came, and the addresses, each with the port of its place.
pub(super) async fn ask(
    places: &[&Place],
    own_way: Option<&(LocalResolvers, u32)>,
) -> (Vec<NameReport>, Vec<SocketAddr>) {
    let mut asking = JoinSet::new();
    for (number, Place { host, port }) in places.iter().copied().cloned().enumerate() {
        let own_way = own_way.cloned();
        asking.spawn(async move { (number, port, ask_name(&host, own_way).await) });
    }
    let mut answered = asking.join_all().await;
    answered.sort_by_key(|(number, ..)| *number);
    let mut found = Vec::new();
    for (_, port, reports) in &answered {
        let addresses = reports.iter().flat_map(|report| &report.addresses);
        found.extend(addresses.map(|address| SocketAddr::new(*address, *port)));
    }
    (answered.into_iter().flat_map(|(.., reports)| reports).collect(), found)
}

/// Asks this host's resolver, and those of the local network past it, as a client does on a closed host.
async fn ask_name(host: &str, own_way: Option<(LocalResolvers, u32)>) -> Vec<NameReport> {
    let began = Instant::now();
    let report = |asked, addresses| {
        let took_ms = milliseconds(began.elapsed());
        NameReport { name: host.to_owned(), asked, addresses, took_ms }
    };
    let by_host = async {
        let mut questions = JoinSet::new();
        for family in [AddressFamily::V6, AddressFamily::V4] {
            let host = host.to_owned();
            questions.spawn_blocking(move || resolve(&host, family));
        }
        let mut addresses = Vec::new();
        let all = async {
            while let Some(answered) = questions.join_next().await {
                addresses.extend(answered.ok().and_then(Result::ok).unwrap_or_default());
            }
        };
        // Answers of one family count where the other's is not answered.
        let _cut_short = timeout(NAMES, all).await;
        report("this host's resolver", addresses)
    };
    let by_network = async {
        let (resolvers, mark) = own_way?;
        let found = timeout(NAMES, resolvers.ask(host, mark)).await;
        Some(report("the local network's resolvers", found.unwrap_or_default()))
    };
    let (by_host, by_network) = tokio::join!(by_host, by_network);
    [by_host].into_iter().chain(by_network).collect()
}
