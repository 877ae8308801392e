//! Against whom a try to log in counts, and whether it comes from a place that this user is known to log in from.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use adit_proto::login::limits::known_network;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::off_runtime;
use crate::accounts::sqlite::Store;
use crate::accounts::{Accounts as _, StoreFault, UserName, is_invisible};
use crate::sources::Origin;

/// Most names of another source that are remembered, in 8 bytes each.
const MOST_ALIASES: usize = 1 << 16;

/// Against whom a try counts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(super) struct Standing {
    /// The account, whether that exists or not.
    pub(super) account: String,
    /// The place, if the account is known to log in from there: its network, or the id of a device of its user.
    pub(super) known: Option<String>,
}

/// The places from which users are known to log in.
pub(super) struct Places {
    store: Arc<Store>,
    /// The networks of users in the store, by fingerprint: none is missing, and some may be known there no longer.
    /// `None` where they could not be read; then the store is asked about everybody.
    networks: Option<Mutex<HashSet<u64>>>,
    /// Which users have logged in here by another name, that their source takes for them, by fingerprint.
    aliases: Mutex<HashSet<u64>>,
    /// Makes fingerprints that nobody can foresee.
    hasher: RandomState,
}

impl Places {
    /// The places that the store knows. Blocks for reading them.
    pub(super) fn new(store: Arc<Store>) -> Self {
        let hasher = RandomState::new();
        let read = store.known_networks().inspect_err(|error| {
            tracing::warn!(%error, "the store is asked at each login from where users log in: it could not be read");
        });
        let networks = read.ok().map(|known| known.iter().map(|known| hasher.hash_one(known)).collect());
        Self { store, networks: networks.map(Mutex::new), aliases: Mutex::default(), hasher }
    }

    /// Against whom a try by this name counts. No stranger's reads the store.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn standing(&self, name: &str, origin: &Origin) -> Result<Standing, StoreFault> {
        let typed = UserName::parse(name).ok();
        let network = known_network(origin.address).to_string();
        if let Some(device) = origin.device.clone() {
            let store = Arc::clone(&self.store);
            let owner = off_runtime(move || Ok(store.device(&device)?.map(|device| device.user))).await?;
            if let Some(owner) = owner.filter(|owner| self.is_of(owner, name)) {
                return Ok(Standing { account: owner, known: origin.device.clone() });
            }
        }
        let of_stranger = Standing { account: folded(name), known: None };
        let Some(user) = typed.filter(|user| self.may_know(user.as_str(), &network)) else { return Ok(of_stranger) };
        let (store, user, of) = (Arc::clone(&self.store), user.to_string(), network.clone());
        let account = user.clone();
        let is_known = off_runtime(move || Ok(store.knows_network(&user, &of, SystemTime::now())?)).await?;
        Ok(if is_known { Standing { account, known: Some(network) } } else { of_stranger })
    }

    /// Somebody has logged in by this name from there, and is known as this user from now on.
    pub(super) fn note(&self, user: &str, name: &str, address: IpAddr) {
        if let Some(networks) = &self.networks {
            held(networks).insert(self.hasher.hash_one((user, known_network(address).to_string())));
        }
        let mut aliases = held(&self.aliases);
        if folded(name) != user && aliases.len() < MOST_ALIASES {
            aliases.insert(self.hasher.hash_one((user, folded(name))));
        }
    }

    /// Whether a name is a user's: a link for a browser is asked for without any.
    fn is_of(&self, user: &str, name: &str) -> bool {
        let name = folded(name);
        name.is_empty() || name == user || held(&self.aliases).contains(&self.hasher.hash_one((user, name)))
    }

    fn may_know(&self, user: &str, network: &str) -> bool {
        let print = self.hasher.hash_one((user, network));
        self.networks.as_ref().is_none_or(|networks| held(networks).contains(&print))
    }
}

fn held(prints: &Mutex<HashSet<u64>>) -> MutexGuard<'_, HashSet<u64>> {
    prints.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The form of a name under which its tries are counted. Directories look at neither case nor accents, width, spaces or
/// characters that nobody sees, so whatever differs in these alone is one account. For the names of users here it
/// changes nothing but the case.
fn folded(name: &str) -> String {
    let plain = name.nfkd().filter(|character| !is_combining_mark(*character));
    // By way of upper case, or `ß` and `ss` would be two.
    let one_case = plain.flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    let shown: String = one_case.filter(|character| character.is_whitespace() || !is_invisible(*character)).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct World {
        directory: tempfile::TempDir,
        store: Arc<Store>,
    }

    /// A store with alice, who has a device and logs in from 198.51.100.0/24, and bob.
    fn world() -> World {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
        let now = SystemTime::now();
        for name in ["alice", "bob"] {
            store.invite(&UserName::parse(name).unwrap(), Duration::from_secs(60), now).unwrap();
        }
        store.remember_network("alice", "198.51.100.0/24", Duration::from_secs(60), now).unwrap();
        World { directory, store }
    }

    fn from(address: &str, device: Option<&str>) -> Origin {
        Origin { address: address.parse().unwrap(), device: device.map(str::to_owned) }
    }

    async fn known(places: &Places, name: &str, origin: &Origin) -> Option<String> {
        places.standing(name, origin).await.unwrap().known
    }

    #[test]
    fn spellings_that_a_directory_takes_for_one_name_are_one() {
        for spelling in
            ["Alice", " alice ", "ALICE", "ａｌｉｃｅ", "al\u{200b}ice", "álice", "a\u{301}lice", "al\u{ad}ice"]
        {
            assert_eq!(folded(spelling), "alice", "{spelling:?}");
        }
        assert_eq!(folded("Straße  Weiß"), folded("STRASSE WEISS"));
        assert_eq!(folded("a.b-c_d@example.org"), "a.b-c_d@example.org");
        assert_ne!(folded("alice"), folded("al ice"), "the control: this is another");
    }

    #[tokio::test]
    async fn user_is_known_by_network_and_by_device_and_nobody_else_is() {
        let world = world();
        let device = world.store.token(&UserName::parse("alice").unwrap(), SystemTime::now()).unwrap().0.id;
        let places = Places::new(Arc::clone(&world.store));
        let (home, away) = (from("198.51.100.9", None), from("203.0.113.9", None));
        let with_device = from("203.0.113.9", Some(&device));
        assert_eq!(known(&places, "Alice", &home).await.as_deref(), Some("198.51.100.0/24"));
        assert_eq!(known(&places, "alice", &away).await, None);
        assert_eq!(known(&places, "bob", &home).await, None);
        assert_eq!(known(&places, "alice", &with_device).await.as_ref(), Some(&device));
        assert_eq!(known(&places, "bob", &with_device).await, None, "with another's device");
        assert_eq!(known(&places, "", &with_device).await.as_ref(), Some(&device), "who asks for a link");
        places.note("bob", "bob", home.address);
        world.store.remember_network("bob", "198.51.100.0/24", Duration::from_secs(60), SystemTime::now()).unwrap();
        assert!(known(&places, "bob", &home).await.is_some(), "from now on");
    }

    #[tokio::test]
    async fn device_knows_its_user_by_each_name_that_the_user_logged_in_by() {
        let world = world();
        let device = world.store.token(&UserName::parse("alice").unwrap(), SystemTime::now()).unwrap().0.id;
        let places = Places::new(Arc::clone(&world.store));
        let with_device = from("203.0.113.9", Some(&device));
        assert_eq!(known(&places, "a.liddell@corp", &with_device).await, None, "anybody's name could be tried so");
        places.note("alice", "A.Liddell@corp", with_device.address);
        let standing = places.standing("a.liddell@CORP", &with_device).await.unwrap();
        assert_eq!((standing.account.as_str(), standing.known.as_ref()), ("alice", Some(&device)));
        assert_eq!(known(&places, "a.liddell@corp", &from("203.0.113.9", None)).await, None, "without the device");
    }

    #[tokio::test]
    async fn tries_of_strangers_read_no_store() {
        let world = world();
        let places = Places::new(Arc::clone(&world.store));
        let away = from("203.0.113.9", None);
        // Whoever reads it fails from now on.
        let store = rusqlite::Connection::open(world.directory.path().join("store.db")).unwrap();
        store.execute_batch("ALTER TABLE known_networks RENAME TO gone").unwrap();
        assert_eq!(places.standing("alice", &away).await.unwrap().known, None);
        let home = from("198.51.100.9", None);
        assert_eq!(places.standing("bob", &home).await.unwrap().known, None);
        assert!(places.standing("alice", &home).await.is_err(), "the positive control: that reads it");
    }
}
