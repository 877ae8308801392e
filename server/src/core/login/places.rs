//! Against whom a try to log in counts, and whether it comes from a place that this user is known to log in from.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use adit_proto::login::limits::known_network;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::in_store;
use crate::accounts::sqlite::Store;
use crate::accounts::{Accounts as _, StoreFault, UserName, is_invisible};
use crate::sources::Origin;

/// Most names that are remembered beside the users' own, and most of one user, lest one fills them up. With the longest
/// that is some 30 MB.
const MOST_ALIASES: usize = 1 << 16;
const MOST_OF_ONE: usize = 8;
/// Longest of these names, in bytes: no source takes a longer one.
const LONGEST_ALIAS: usize = 256;

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
    /// The names by which users have logged in here that their source takes for them, and that are not theirs here;
    /// with the user whom each last led to. Only a login that is complete makes an entry.
    aliases: Mutex<HashMap<String, String>>,
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
        let network = known_network(origin.address).to_string();
        let account = folded(name);
        if let Some(device) = origin.device.clone() {
            let store = Arc::clone(&self.store);
            let owner = in_store(move || Ok(store.device(&device)?.map(|device| device.user))).await?;
            if let Some(owner) = owner.filter(|owner| self.is_of(owner, &account)) {
                return Ok(Standing { account: owner, known: origin.device.clone() });
            }
        }
        let typed = UserName::parse(name).ok().map(|user| user.to_string());
        let led_to = held(&self.aliases).get(&account).cloned();
        let mut users: Vec<String> = typed.into_iter().chain(led_to).collect();
        users.retain(|user| self.may_know(user, &network));
        let (store, of) = (Arc::clone(&self.store), network.clone());
        let known = if users.is_empty() { None } else { in_store(move || known_of(&store, users, &of)).await? };
        Ok(match known {
            Some(account) => Standing { account, known: Some(network) },
            // By the name as it was typed: what one name has left must not tell strangers what others lead to.
            None => Standing { account, known: None },
        })
    }

    /// Somebody has logged in by this name from there, and is known as this user from now on. The name is empty where
    /// none was asked for.
    pub(super) fn note(&self, user: &str, name: &str, address: IpAddr) {
        if let Some(networks) = &self.networks {
            held(networks).insert(self.hasher.hash_one((user, known_network(address).to_string())));
        }
        let name = folded(name);
        let mut aliases = held(&self.aliases);
        if name == user {
            // It is nobody else's any longer.
            aliases.remove(&name);
        } else if aliases.contains_key(&name) || has_room(&aliases, user, &name) {
            aliases.insert(name, user.to_owned());
        }
    }

    /// All names that lead where this one does, with itself.
    pub(super) fn names_beside(&self, name: &str) -> BTreeSet<String> {
        let name = folded(name);
        let aliases = held(&self.aliases);
        let user = aliases.get(&name).unwrap_or(&name);
        let others = aliases.iter().filter(|(_, of)| [user, &name].contains(of)).map(|(alias, _)| alias);
        others.chain([user, &name]).cloned().collect()
    }

    /// Whether a name is a user's: a link for a browser is asked for without any.
    fn is_of(&self, user: &str, name: &str) -> bool {
        name.is_empty() || name == user || held(&self.aliases).get(name).is_some_and(|of| of == user)
    }

    fn may_know(&self, user: &str, network: &str) -> bool {
        let print = self.hasher.hash_one((user, network));
        self.networks.as_ref().is_none_or(|networks| held(networks).contains(&print))
    }
}

/// The first of these users who is known to log in from a network. Blocks.
fn known_of(store: &Store, users: Vec<String>, network: &str) -> Result<Option<String>, StoreFault> {
    for user in users {
        if store.knows_network(&user, network, SystemTime::now())? {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// Whether a further name of a user is remembered.
fn has_room(aliases: &HashMap<String, String>, user: &str, name: &str) -> bool {
    (1..=LONGEST_ALIAS).contains(&name.len())
        && aliases.len() < MOST_ALIASES
        && aliases.values().filter(|of| *of == user).count() < MOST_OF_ONE
}

fn held<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn device_and_network_know_their_user_by_each_name_that_the_user_logged_in_by() {
        let world = world();
        let device = world.store.token(&UserName::parse("alice").unwrap(), SystemTime::now()).unwrap().0.id;
        let places = Places::new(Arc::clone(&world.store));
        let (home, away) = (from("198.51.100.9", None), from("203.0.113.9", None));
        let with_device = from("203.0.113.9", Some(&device));
        for origin in [&home, &with_device] {
            assert_eq!(known(&places, "a.liddell@corp", origin).await, None, "anybody's name could be tried so");
        }
        places.note("alice", "A.Liddell@corp", home.address);
        for (origin, place) in [(&home, "198.51.100.0/24"), (&with_device, device.as_str())] {
            let standing = places.standing("a.liddell@CORP", origin).await.unwrap();
            assert_eq!((standing.account.as_str(), standing.known.as_deref()), ("alice", Some(place)));
        }
        let stranger = places.standing("A.Liddell@corp", &away).await.unwrap();
        assert_eq!((stranger.account.as_str(), stranger.known), ("a.liddell@corp", None), "it leads nowhere else");
        places.note("bob", "b.builder@corp", away.address);
        assert_eq!(known(&places, "b.builder@corp", &home).await, None, "from where bob is not known");
        assert_eq!(known(&places, "b.builder@corp", &with_device).await, None, "with the device of another");
    }

    #[tokio::test]
    async fn name_leads_to_whom_it_last_led_to_and_a_user_has_few_of_them() {
        let world = world();
        let places = Places::new(Arc::clone(&world.store));
        let home = from("198.51.100.9", None);
        let names = |name: &str| places.names_beside(name).into_iter().collect::<Vec<_>>();
        places.note("alice", "Al", home.address);
        assert_eq!(names("ALICE"), ["al", "alice"]);
        assert_eq!(names("al"), names("alice"));
        places.note("bob", "al", home.address);
        assert_eq!(names("alice"), ["alice"]);
        assert_eq!(names("al"), ["al", "bob"]);
        places.note("al", "al", home.address);
        assert_eq!(names("al"), ["al"], "there is a user of that name now");
        places.note("alice", "", home.address);
        assert_eq!(names("alice"), ["alice"], "in a browser");
        for number in 0..2 * MOST_OF_ONE {
            places.note("alice", &format!("alice+{number}@corp"), home.address);
        }
        places.note("bob", &"b".repeat(LONGEST_ALIAS + 1), home.address);
        assert_eq!((names("alice").len(), names("bob").len()), (1 + MOST_OF_ONE, 1));
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
        places.note("alice", "a.liddell@corp", home.address);
        assert_eq!(places.standing("a.liddell@corp", &away).await.unwrap().known, None);
        for name in ["alice", "a.liddell@corp"] {
            assert!(places.standing(name, &home).await.is_err(), "the positive control: that reads it");
        }
    }
}
