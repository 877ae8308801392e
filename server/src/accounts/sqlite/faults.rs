//! Every verb that writes more than one row, broken off at each of them: by an error, and by the end of the process.
//! What is in the file afterwards is what was there before, and the verb can be done again.

use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use adit_proto::address_pool::Lease;
use adit_proto::login::Person;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value;

use super::tests::at;
use super::*;
use crate::accounts::{Accounts as _, ClientLogin, FirstPassword, UserName};
use crate::identity::DeviceCertificate;

/// Says to the child which verb to do, where, and at which write to end.
const VERB: &str = "ADIT_TEST_VERB";
const STORE: &str = "ADIT_TEST_STORE";
const POINT: &str = "ADIT_TEST_POINT";

/// How a verb is broken off.
#[derive(Clone, Copy)]
enum Fault {
    Error,
    Abort,
}

/// A verb, and what it needs to be there.
struct Case {
    name: &'static str,
    prepare: fn(&Store),
    verb: fn(&Store) -> Result<(), String>,
    /// Rows that it writes at least.
    writes: i64,
}

const CODE: [u8; 32] = [7; 32];
const LEASE: Lease = Lease { v4: Some(std::net::Ipv4Addr::new(10, 77, 0, 2)), v6: None };

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn password() -> FirstPassword {
    FirstPassword::Hash("$argon2id$".to_owned())
}

fn link() -> FirstPassword {
    FirstPassword::Link { hash: CODE, seconds: 60 }
}

fn told<T>(outcome: Result<T, impl std::fmt::Display>) -> Result<(), String> {
    outcome.map(|_| ()).map_err(|error| error.to_string())
}

/// Alice with everything that a user can have.
fn alice(store: &Store) {
    store.add_user(&user("alice"), &link(), at(0)).unwrap();
    store.set_factor(&user("alice"), b"sealed", 1, &[[1; 32], [2; 32]], at(0)).unwrap();
    store.remember_network("alice", "192.0.2.0/24", Duration::from_secs(1000), at(0)).unwrap();
    store.invite(&user("alice"), Duration::from_secs(60), at(0)).unwrap();
    let (device, _) = store.token(&user("alice"), at(0)).unwrap();
    store.write_lease(&device.id, LEASE).unwrap();
}

fn bob_of_a_directory() -> Person {
    let text = |text: &str| text.to_owned();
    let (source, subject, name) = (text("ldap"), text("u-1"), text("bob"));
    Person {
        source,
        subject,
        name,
        groups: vec![text("staff")],
        methods: Vec::new(),
        session_lifetime: None,
        generation: None,
    }
}

/// An invite whose code is known beforehand.
fn known_invite(store: &Store) {
    store.invite(&user("alice"), Duration::from_secs(60), at(0)).unwrap();
    let sql = "UPDATE invites SET code_hash = ?1 WHERE used_at IS NULL";
    assert_eq!(store.writer().execute(sql, [sha256(&[3; 16])]).unwrap(), 1);
}

fn enroll(store: &Store) -> Result<(), String> {
    let sign = |_: &str, _: &str| {
        let (pem, serial) = (String::new(), "01".to_owned());
        Ok::<_, Infallible>(DeviceCertificate { pem, serial, not_after: at(1000) })
    };
    told(store.enroll(&[3; 16], &[1; 32], "laptop", at(1), sign))
}

/// Gives the addresses of one device to another.
fn move_lease(store: &Store) -> Result<(), String> {
    let devices = store.devices().map_err(|error| error.to_string())?;
    let other = devices.iter().find(|device| device.user == "carol").expect("she has one");
    told(store.write_lease(&other.id, LEASE))
}

fn alice_and_carol(store: &Store) {
    alice(store);
    store.token(&user("carol"), at(0)).unwrap();
}

/// Something that ends, of each kind, given in this boot by a clock that was behind.
fn all_that_ends(store: &Store) {
    known_invite(store);
    enroll(store).unwrap();
    alice(store);
}

/// The same, with a login and its device, long after the end of it.
fn all_that_is_over(store: &Store) {
    all_that_ends(store);
    store.begin_logins_of("alice", &[[1; 16]]);
    let login = ClientLogin { id: &[1; 16], user: "alice", device_name: "laptop" };
    let device = store.device_of_login(&login, &|_| false, at(1)).unwrap().unwrap();
    store.write_lease(&device.id, Lease { v4: Some([10, 77, 0, 3].into()), v6: None }).unwrap();
    store.restart_host_after(40 * 86_400);
}

const CASES: &[Case] = &[
    Case {
        name: "invite",
        prepare: |_| {},
        verb: |store| told(store.invite(&user("alice"), Duration::from_secs(60), at(0))),
        writes: 2,
    },
    Case { name: "token", prepare: |_| {}, verb: |store| told(store.token(&user("alice"), at(0))), writes: 3 },
    Case { name: "enroll", prepare: known_invite, verb: enroll, writes: 3 },
    Case { name: "lease moves", prepare: alice_and_carol, verb: move_lease, writes: 2 },
    Case { name: "revoke", prepare: alice, verb: |store| told(store.revoke("alice", at(1))), writes: 7 },
    Case {
        name: "add",
        prepare: |_| {},
        verb: |store| told(store.add_user(&user("bob"), &password(), at(0))),
        writes: 2,
    },
    Case {
        name: "add by code",
        prepare: |_| {},
        verb: |store| told(store.add_user(&user("bob"), &link(), at(0))),
        writes: 2,
    },
    Case {
        name: "reset",
        prepare: alice,
        verb: |store| told(store.reset_user(&user("alice"), &password(), at(1))),
        writes: 6,
    },
    Case {
        name: "choose a password",
        prepare: alice,
        verb: |store| told(store.use_password_link("alice", &CODE, "$argon2id$", at(1))),
        writes: 2,
    },
    Case {
        name: "second factor",
        prepare: alice,
        verb: |store| told(store.set_factor(&user("alice"), b"new", 1, &[[3; 32], [4; 32]], at(1))),
        writes: 5,
    },
    Case {
        name: "first login of another source",
        prepare: |_| {},
        verb: |store| told(store.record_person(&bob_of_a_directory(), at(0))),
        writes: 3,
    },
    Case {
        name: "link to another source",
        prepare: alice,
        verb: |store| told(store.link_person(&user("alice"), "ldap", "u-1")),
        writes: 5,
    },
    Case {
        name: "clock is set",
        prepare: all_that_ends,
        verb: |store| told(store.follow_clock(at(400 * 86_400))),
        writes: 5,
    },
    Case { name: "prune", prepare: all_that_is_over, verb: |store| told(store.prune(at(400 * 86_400))), writes: 7 },
];

/// Breaks the store off at its write number `point`, counted from one.
fn break_at(store: &Store, point: i64, fault: Fault) {
    let left = Arc::new(AtomicI64::new(point));
    let connection = store.writer();
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    let write = move |_: &rusqlite::functions::Context<'_>| -> rusqlite::Result<bool> {
        if left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return Ok(true);
        }
        match fault {
            Fault::Error => Err(rusqlite::Error::UserFunctionError("the disk is full".into())),
            Fault::Abort => std::process::abort(),
        }
    };
    connection.create_scalar_function("write_point", 0, flags, write).unwrap();
    for table in tables(&connection) {
        for change in ["INSERT", "UPDATE", "DELETE"] {
            let sql = format!(
                "CREATE TEMP TRIGGER {table}_{change} BEFORE {change} ON main.{table} BEGIN SELECT write_point(); END"
            );
            connection.execute_batch(&sql).unwrap();
        }
    }
}

fn tables(connection: &Connection) -> Vec<String> {
    let mut query =
        connection.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// All rows of all tables. SQLite must find the file in order, too.
fn content(path: &Path) -> Vec<(String, Vec<Vec<Value>>)> {
    let connection = connect(path).unwrap();
    let sound: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let rows = |table: &str| {
        let mut query = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = query.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        let rows: rusqlite::Result<Vec<Vec<Value>>> = query.query_map([], row).unwrap().collect();
        rows.unwrap()
    };
    tables(&connection).into_iter().map(|table| (table.clone(), rows(&table))).collect()
}

/// Breaks each case off at each of its writes. `attempt` says whether the verb was done whole; where it was not, the
/// store must be what it was, and the verb can be done again.
fn break_off_everywhere(attempt: fn(usize, i64, &Path) -> bool) {
    for (number, case) in CASES.iter().enumerate() {
        for point in 1.. {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store.db");
            (case.prepare)(&Store::create(&path).unwrap());
            let before = content(&path);
            if attempt(number, point, &path) {
                assert_ne!(content(&path), before, "{}", case.name);
                assert!(point > case.writes, "{}: it writes only {} times", case.name, point - 1);
                break;
            }
            assert_eq!(content(&path), before, "{} at {point}", case.name);
            (case.verb)(&Store::open(&path).unwrap()).unwrap_or_else(|error| panic!("{} {point}: {error}", case.name));
        }
    }
}

#[test]
fn verb_that_fails_at_any_write_changes_nothing_and_can_be_done_again() {
    break_off_everywhere(|number, point, path| {
        let store = Store::open(path).unwrap();
        break_at(&store, point, Fault::Error);
        (CASES[number].verb)(&store).is_ok()
    });
}

#[test]
fn process_that_ends_at_any_write_leaves_the_store_as_it_was() {
    break_off_everywhere(did_it_all);
}

/// Does a verb in a process of its own; `false` if that ended at the write.
fn did_it_all(verb: usize, point: i64, path: &Path) -> bool {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "accounts::sqlite::faults::child", "--nocapture"])
        .env(VERB, verb.to_string())
        .env(POINT, point.to_string())
        .env(STORE, path)
        .output()
        .unwrap();
    match child.status.signal() {
        Some(signal) => {
            assert_eq!(signal, nix::sys::signal::Signal::SIGABRT as i32, "{}", String::from_utf8_lossy(&child.stderr));
            false
        }
        None => {
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            assert!(child.status.success() && said.contains("1 passed"), "{said}");
            true
        }
    }
}

/// What the other process does; nothing where the tests are run as usual.
#[test]
fn child() {
    let Ok(path) = std::env::var(STORE) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<i64>().unwrap();
    let store = Store::open(Path::new(&path)).unwrap();
    break_at(&store, number(POINT), Fault::Abort);
    (CASES[usize::try_from(number(VERB)).unwrap()].verb)(&store).unwrap();
}
