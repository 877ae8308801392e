//! Looks up the names in the policy's rules, so that the kernel knows their addresses.
//!
//! Each name is asked for again when its answer is over. An address that an answer no longer has is allowed for a while
//! longer, since clients remember answers, too. Without any answer a name loses its addresses when their time is over:
//! then its rules allow nothing.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_host::PolicyTable;
use adit_net::dns;
use adit_program::causes::with_causes;
use adit_program::random::random;
use adit_proto::dns::question::{AddressKind, Answer, Question};
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::task::{JoinSet, spawn_blocking};

use crate::config::Config;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// How often it is looked which names are due.
const PACE: Duration = Duration::from_secs(1);
/// How long a resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon and how late at most an answer is asked for again, whatever it says itself.
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(3600);
/// When a name is asked for again that has no address.
const WITHOUT_ADDRESS: Duration = Duration::from_secs(30);
/// How long after its answer an address is still allowed.
const GRACE: Duration = Duration::from_secs(60);
/// Names that are asked for at the same time.
const AT_ONCE: usize = 16;
/// Most addresses of a name; further ones are not allowed.
const MOST_ADDRESSES: usize = 256;

/// Looks up the names in rules of the table that there is, for as long as the gateway runs. Asked are the resolvers
/// that clients are told of by now, whose answers are those that clients get; where they are told of none, the host's
/// own.
pub(super) async fn look_up(table: Arc<ArcSwapOption<PolicyTable>>, config: Arc<ArcSwap<Config>>) {
    let mut known = Known::default();
    loop {
        match table.load_full() {
            Some(table) => {
                let config = config.load_full();
                known.ask_for_due(&table, &config.dns.servers).await;
            }
            None => known = Known::default(),
        }
        tokio::time::sleep(PACE).await;
    }
}

/// What is known of the names in rules.
#[derive(Debug, Default)]
struct Known(HashMap<String, Name>);

impl Known {
    /// Asks for the names that are due, and tells the table.
    async fn ask_for_due(&mut self, table: &Arc<PolicyTable>, told: &[IpAddr]) {
        let due = self.due(table.names(), Instant::now());
        let resolvers = if told.is_empty() && !due.is_empty() { hosts_resolvers() } else { told.to_vec() };
        let mut asking = JoinSet::new();
        for name in due {
            let resolvers = resolvers.clone();
            asking.spawn(async move { (ask(&resolvers, &name).await, name) });
        }
        for (answer, name) in asking.join_all().await {
            let of_name = self.0.entry(name.clone()).or_default();
            of_name.learn(answer, Instant::now());
            tell(table, name, of_name).await;
        }
    }

    /// Those of all `names` that are to be asked for now: the ones that have waited for longest, so that none has to
    /// wait for others to be asked for twice. Names that are in no rule any more are forgotten.
    fn due(&mut self, names: Vec<String>, now: Instant) -> Vec<String> {
        let names: BTreeSet<String> = names.into_iter().collect();
        self.0.retain(|name, _| names.contains(name));
        for name in names {
            self.0.entry(name).or_insert_with(|| Name { due: now, addresses: HashMap::new() });
        }
        let mut due: Vec<_> = self.0.iter().filter(|(_, known)| known.due <= now).collect();
        due.sort_by_key(|(name, known)| (known.due, *name));
        due.into_iter().take(AT_ONCE).map(|(name, _)| name.clone()).collect()
    }
}

/// What is known of a name.
#[derive(Debug)]
struct Name {
    /// When it is asked for again.
    due: Instant,
    /// Its addresses, each with when it is no longer allowed.
    addresses: HashMap<IpAddr, Instant>,
}

impl Default for Name {
    fn default() -> Self {
        Self { due: Instant::now(), addresses: HashMap::new() }
    }
}

impl Name {
    /// Takes an answer, or that there was none.
    fn learn(&mut self, answer: Option<Answer>, now: Instant) {
        self.addresses.retain(|_, until| *until > now);
        let Some(Answer { addresses, seconds }) = answer else {
            self.due = now + SOONEST;
            return;
        };
        if addresses.is_empty() {
            self.due = now + WITHOUT_ADDRESS;
            return;
        }
        let lasts = Duration::from_secs(seconds.into()).clamp(SOONEST, LATEST);
        self.due = now + lasts;
        for address in addresses {
            if self.addresses.len() < MOST_ADDRESSES || self.addresses.contains_key(&address) {
                self.addresses.insert(address, now + lasts + GRACE);
            }
        }
    }
}

/// Tells the kernel. An address whose time is over is gone at the next answer, or with the last of them.
async fn tell(table: &Arc<PolicyTable>, name: String, known: &Name) {
    let Some(last) = known.addresses.values().max() else { return };
    let left = last.saturating_duration_since(Instant::now());
    let (table, addresses): (_, Vec<_>) = (Arc::clone(table), known.addresses.keys().copied().collect());
    let done = spawn_blocking(move || table.resolved(&name, &addresses, left)).await;
    if let Ok(Err(error)) = done {
        tracing::warn!(error = with_causes(&error), "the addresses of a name in a rule are not those it has now");
    }
}

/// Asks for both kinds of addresses of a name; `None` if nobody answered.
async fn ask(resolvers: &[IpAddr], name: &str) -> Option<Answer> {
    let (v4, v6) = tokio::join!(ask_for(resolvers, name, AddressKind::V4), ask_for(resolvers, name, AddressKind::V6));
    match (v4, v6) {
        (Some(v4), Some(v6)) => {
            let seconds = v4.seconds.min(v6.seconds);
            Some(Answer { addresses: [v4.addresses, v6.addresses].concat(), seconds })
        }
        (one, other) => one.or(other),
    }
}

/// The answer of the first resolver that gives one.
async fn ask_for(resolvers: &[IpAddr], name: &str, kind: AddressKind) -> Option<Answer> {
    for resolver in resolvers {
        let question = Question { id: u16::from_ne_bytes(random().ok()?), name: name.to_owned(), kind };
        let asking = dns::ask(SocketAddr::new(*resolver, DNS_PORT), &question, None);
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%error, name, "a resolver cannot be asked"),
            Err(_silent) => tracing::debug!(name, "a resolver does not answer"),
        }
    }
    None
}

fn hosts_resolvers() -> Vec<IpAddr> {
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(last: &[u8], seconds: u32) -> Option<Answer> {
        Some(Answer { addresses: last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect(), seconds })
    }

    fn allowed(name: &Name) -> Vec<u8> {
        let last = |address: &IpAddr| if let IpAddr::V4(v4) = address { v4.octets()[3] } else { 0 };
        let mut allowed: Vec<u8> = name.addresses.keys().map(last).collect();
        allowed.sort_unstable();
        allowed
    }

    #[test]
    fn name_keeps_an_address_for_its_time_and_a_while_and_is_asked_for_when_its_answer_is_over() {
        let (mut name, start) = (Name::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        name.learn(answer(&[1, 2], 300), start);
        assert_eq!((allowed(&name), name.due), (vec![1, 2], after(300)));
        name.learn(answer(&[2, 3], 300), after(300));
        assert_eq!(allowed(&name), [1, 2, 3], "clients may still have the earlier answer");
        name.learn(None, after(600));
        assert_eq!((allowed(&name), name.due), (vec![2, 3], after(605)));
        name.learn(None, after(661));
        assert_eq!(allowed(&name), [0; 0]);
    }

    #[test]
    fn slow_names_keep_no_other_waiting_for_more_than_one_turn() {
        let (mut known, start) = (Known::default(), Instant::now());
        let names: Vec<String> = (0..100).map(|number| format!("host{number:03}.example.org")).collect();
        let mut turns = HashMap::<String, usize>::new();
        // Nobody answers, and each turn takes as long as that may: the first of them are due again before the last have
        // had their turn.
        for turn in 0..21 {
            let now = start + turn * PATIENCE * 2;
            for name in known.due(names.clone(), now) {
                *turns.entry(name.clone()).or_default() += 1;
                known.0.get_mut(&name).unwrap().learn(None, now + PATIENCE * 2);
            }
        }
        let turns: Vec<usize> = names.iter().map(|name| turns.get(name).copied().unwrap_or_default()).collect();
        assert!(turns.iter().all(|turns| (3..=4).contains(turns)), "{turns:?}");
    }

    #[test]
    fn name_that_comes_is_asked_for_at_once_and_one_that_goes_is_forgotten() {
        let (mut known, start) = (Known::default(), Instant::now());
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(known.due(names(&["b", "a", "a"]), start), ["a", "b"]);
        for name in ["a", "b"] {
            known.0.get_mut(name).unwrap().learn(answer(&[1], 300), start);
        }
        assert!(known.due(names(&["a", "b"]), start).is_empty());
        assert_eq!(known.due(names(&["a", "c"]), start), ["c"]);
        assert_eq!(known.due(names(&["a", "b", "c"]), start), ["b", "c"], "what was known of it is gone");
    }

    #[test]
    fn times_without_measure_are_bounded() {
        let (mut name, start) = (Name::default(), Instant::now());
        name.learn(answer(&[1], 0), start);
        assert_eq!(name.due, start + SOONEST);
        name.learn(answer(&[1], u32::MAX), start);
        assert_eq!(name.due, start + LATEST);
        name.learn(answer(&[], u32::MAX), start);
        assert_eq!((name.due, allowed(&name)), (start + WITHOUT_ADDRESS, vec![1]));
    }
}
