//! The logins that last, each by the id that is in all that came of it: its session tokens, and the ticket that enrols
//! a device. A login that is not here is over, so whatever ends one need only take it away, and nothing that is
//! forgotten too early lets anybody in.
//!
//! Clients that have no certificate come with their session token alone. Such a login gets its device at its first
//! session, and has it for as long as it lasts, so that whoever comes with the same token finds the same addresses. A
//! device that has no session is taken over by the next login from a host of the same name; so a user has about as many
//! of them as hosts. It counts among the devices of its user while its login lasts, or it has a session.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use adit_proto::login::token::LoginId;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::device::device_of;
use super::enroll::{devices_of, insert_device, new_device_id};
use super::{Store, StoreError, clock, unix};
use crate::accounts::name::clean_device_name;
use crate::accounts::{AuthError, BegunLogin, ClientLogin, Device, DeviceKind};

/// Most logins of one user, lest somebody who knows a password fills the disk with them. One more ends the oldest.
const MOST_LOGINS: u32 = 1024;

/// Whether a login of a device lasts when the host has run for ?2 seconds.
pub(super) const LASTS: &str = "EXISTS (SELECT 1 FROM logins
    JOIN users ON users.name = logins.owner AND users.generation = logins.generation
    WHERE logins.device = devices.id AND logins.runs_out > ?2)";

/// A login that lasts.
enum Lasting {
    /// It has no device, or one that was enrolled.
    Alone,
    /// It began without a device, and has this one.
    On(Device),
}

impl Store {
    /// Makes a login known, whose tokens are good from then on.
    ///
    /// # Errors
    /// The store failed.
    pub fn begin_login(&self, login: &BegunLogin<'_>) -> Result<(), StoreError> {
        self.write(|transaction| begin(transaction, login))
    }

    /// See [`Accounts::device_of_login`](crate::accounts::Accounts::device_of_login).
    pub(super) fn login_device(
        &self,
        login: &ClientLogin<'_>,
        is_live: &dyn Fn(&str) -> bool,
        now: SystemTime,
    ) -> Result<Option<Device>, AuthError> {
        let most = self.devices_per_user.load(Ordering::Relaxed);
        let known = lasting(&self.read(), login.id)?;
        let device = match known {
            Some(Lasting::On(device)) => Some(device),
            Some(Lasting::Alone) => self.write(|transaction| bind(transaction, login, is_live, (most, now)))?,
            None => None,
        };
        Ok(device.map(|device| self.unwritten.shown(device)))
    }

    /// See [`Accounts::end_login`](crate::accounts::Accounts::end_login).
    pub(super) fn forget_login(&self, login: &LoginId) -> Result<(), StoreError> {
        // Whoever logs out once more costs a look-up.
        if lasting(&self.read(), login)?.is_none() {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.execute("DELETE FROM logins WHERE id = ?1", [login])?;
            Ok(())
        })
    }
}

fn begin(transaction: &Transaction<'_>, login: &BegunLogin<'_>) -> Result<(), StoreError> {
    // No user is of a generation that is larger: such a login is void.
    let generation = u32::try_from(login.generation).unwrap_or(u32::MAX);
    let runs_out = clock::ran(transaction)?.saturating_add_unsigned(login.lifetime.as_secs());
    let sql = "INSERT INTO logins (id, owner, generation, runs_out) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(sql, params![login.id, login.user, generation, runs_out])?;
    let sql = "DELETE FROM logins WHERE owner = ?1 AND number <=
        (SELECT number FROM logins WHERE owner = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
    transaction.execute(sql, params![login.user, MOST_LOGINS])?;
    Ok(())
}

/// See [`Accounts::login_left`](crate::accounts::Accounts::login_left).
pub(super) fn left(connection: &Connection, login: &LoginId) -> Result<Option<Duration>, StoreError> {
    let sql = "SELECT runs_out FROM logins JOIN users ON users.name = logins.owner
        WHERE id = ?1 AND users.generation = logins.generation";
    let runs_out: Option<i64> = connection.prepare_cached(sql)?.query_row([login], |row| row.get(0)).optional()?;
    let Some(runs_out) = runs_out else { return Ok(None) };
    let left = runs_out.saturating_sub(clock::ran(connection)?);
    Ok(Some(Duration::from_secs(u64::try_from(left).unwrap_or_default())))
}

fn lasting(connection: &Connection, login: &LoginId) -> Result<Option<Lasting>, StoreError> {
    let sql = "SELECT devices.id, devices.owner, devices.name, devices.kind, devices.created_at, devices.revoked_at
        FROM logins JOIN users ON users.name = logins.owner AND users.generation = logins.generation
            LEFT JOIN devices ON devices.id = logins.device
        WHERE logins.id = ?1";
    let read = |row: &Row<'_>| match row.get::<_, Option<String>>(0)? {
        Some(_) => Ok(Lasting::On(device_of(row)?)),
        None => Ok(Lasting::Alone),
    };
    Ok(connection.prepare_cached(sql)?.query_row([login], read).optional()?)
}

/// Gives a login its device, from which on a former login of the device is over; `None` if the login is over.
fn bind(
    transaction: &Transaction<'_>,
    login: &ClientLogin<'_>,
    is_live: &dyn Fn(&str) -> bool,
    (most, now): (u32, SystemTime),
) -> Result<Option<Device>, AuthError> {
    // Since it was looked at, its user may have logged out, or the same token may have come on another connection.
    match lasting(transaction, login.id)? {
        Some(Lasting::Alone) => {}
        Some(Lasting::On(device)) => return Ok(Some(device)),
        None => return Ok(None),
    }
    let name = clean_device_name(login.device_name);
    let present = devices(transaction, login.user, is_live)?;
    let by_session = present.iter().filter(|had| had.is_live && !had.lasts).count();
    let counted = usize::try_from(devices_of(transaction, login.user, now)?).unwrap_or(usize::MAX);
    let device = match vacant(present, &name, counted.saturating_add(by_session), most)? {
        Some(device) => Device { name, ..device },
        None => new_device(transaction, login.user, name, now)?,
    };
    hand_over(transaction, login.id, &device)?;
    Ok(Some(device))
}

fn hand_over(transaction: &Transaction<'_>, login: &LoginId, device: &Device) -> Result<(), StoreError> {
    transaction.execute("UPDATE devices SET name = ?2 WHERE id = ?1", [&device.id, &device.name])?;
    transaction.execute("DELETE FROM logins WHERE device = ?1", [&device.id])?;
    transaction.execute("UPDATE logins SET device = ?2 WHERE id = ?1", params![login, device.id])?;
    let sql = "UPDATE devices SET used_until = (SELECT runs_out FROM logins WHERE id = ?1) WHERE id = ?2";
    transaction.execute(sql, params![login, device.id])?;
    Ok(())
}

/// Forgets the devices that came of logins, and their addresses, where none of their logins is known any more and the
/// last was to end before the host had run for so many seconds: no token is left that lets them in.
pub(super) fn forget_devices(transaction: &Transaction<'_>, ran_before: i64) -> Result<(), StoreError> {
    const OVER: &str = "SELECT id FROM devices WHERE kind = 'token' AND by_login = 1
        AND coalesce(used_until, 0) < ?1 AND NOT EXISTS (SELECT 1 FROM logins WHERE device = devices.id)";
    for (table, column) in [("leases", "device"), ("devices", "id")] {
        transaction.execute(&format!("DELETE FROM {table} WHERE {column} IN ({OVER})"), [ran_before])?;
    }
    Ok(())
}

/// A device that a login of its user has got.
struct Had {
    device: Device,
    /// Whether its login lasts.
    lasts: bool,
    is_live: bool,
}

/// The devices that logins of a user have got, the oldest first.
fn devices(transaction: &Transaction<'_>, user: &str, is_live: &dyn Fn(&str) -> bool) -> Result<Vec<Had>, StoreError> {
    let sql = format!(
        "SELECT id, owner, name, kind, created_at, revoked_at, {LASTS} FROM devices
         WHERE owner = ?1 AND kind = 'token' AND by_login = 1 AND revoked_at IS NULL ORDER BY created_at, id"
    );
    let mut query = transaction.prepare_cached(&sql)?;
    let had = query.query_map(params![user, clock::ran(transaction)?], |row| {
        let device = device_of(row)?;
        Ok(Had { is_live: is_live(&device.id), device, lasts: row.get(6)? })
    })?;
    Ok(had.collect::<Result<_, _>>()?)
}

/// The device that a login from a host of this name takes over, of those that its user has: one of that name without a
/// session, or the oldest whose login is over if there are `most` of them. `None` where it gets a new one. The user has
/// `counted` devices that can connect.
fn vacant(present: Vec<Had>, name: &str, counted: usize, most: u32) -> Result<Option<Device>, AuthError> {
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    let (is_full, has_many) = (counted >= limit, present.len() >= limit);
    let mut idle: Vec<Had> = present.into_iter().filter(|had| !had.is_live).collect();
    // Beyond the limit only one that counts already.
    let named = idle.iter().position(|had| had.device.name == name && (had.lasts || !is_full));
    if named.is_none() && is_full {
        return Err(AuthError::TooManyDevices(most));
    }
    let over = || idle.iter().position(|had| has_many && !had.lasts);
    let place = named.or_else(over);
    Ok(place.map(|place| idle.swap_remove(place).device))
}

fn new_device(transaction: &Transaction<'_>, user: &str, name: String, now: SystemTime) -> Result<Device, StoreError> {
    let (id, user, kind, created_at) = (new_device_id()?, user.to_owned(), DeviceKind::Token, unix(now));
    let device = Device { id, user, name, kind, created_at, revoked_at: None };
    insert_device(transaction, &device)?;
    transaction.execute("UPDATE devices SET by_login = 1 WHERE id = ?1", [&device.id])?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use adit_proto::address_pool::Lease;

    use super::super::KEEP;
    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::{Accounts as _, FirstPassword, UserName};

    const HOUR: Duration = Duration::from_secs(3600);

    impl Store {
        /// Begins these logins of a user of the first generation, each of an hour.
        pub(crate) fn begin_logins_of(&self, user: &str, logins: &[LoginId]) {
            let begun = |id| BegunLogin { id, user, generation: 0, lifetime: HOUR };
            self.write(|transaction| logins.iter().try_for_each(|id| begin(transaction, &begun(id)))).unwrap();
        }
    }

    /// A store that knows alice, bob, and some logins of each: those of alice have even numbers.
    fn gateway() -> Scratch {
        let scratch = scratch();
        for (user, first) in [("alice", 0), ("bob", 1)] {
            let hash = FirstPassword::Hash("hash".to_owned());
            scratch.store.add_user(&UserName::parse(user).unwrap(), &hash, at(0)).unwrap();
            let logins: Vec<_> = (first..20).step_by(2).map(id).collect();
            scratch.store.begin_logins_of(user, &logins);
        }
        scratch
    }

    fn id(number: u8) -> LoginId {
        [number; 16]
    }

    /// The device of a login of alice, from a host of that name.
    fn device(store: &Store, number: u8, name: &str, live: &[&str]) -> Option<String> {
        device_of_user(store, ("alice", number), name, live)
    }

    fn device_of_user(store: &Store, (user, number): (&str, u8), name: &str, live: &[&str]) -> Option<String> {
        let login = ClientLogin { id: &id(number), user, device_name: name };
        let device = store.device_of_login(&login, &|id| live.contains(&id), at(1)).unwrap();
        device.map(|device| device.id)
    }

    fn lasts(store: &Store, number: u8) -> bool {
        store.login_left(&id(number)).unwrap().is_some()
    }

    fn count(store: &Store) -> u32 {
        store.read().query_row("SELECT count(*) FROM logins", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn login_has_the_same_device_whenever_it_comes() {
        let Scratch { store, directory: _directory } = gateway();
        let first = device(&store, 0, "laptop", &[]).unwrap();
        assert_eq!(device(&store, 0, "laptop", &[&first]), Some(first.clone()), "also beside itself");
        assert_eq!(device(&store, 0, "renamed", &[]), Some(first.clone()));
        assert_ne!(device_of_user(&store, ("bob", 1), "laptop", &[]), Some(first.clone()), "of another user");
        assert!(store.needs_login(&first).unwrap());
        let made = store.device(&first).unwrap().unwrap();
        assert_eq!((made.user.as_str(), made.name.as_str(), made.kind), ("alice", "laptop", DeviceKind::Token));
    }

    #[test]
    fn device_that_nobody_uses_is_taken_over_and_its_former_login_is_over() {
        let Scratch { store, directory: _directory } = gateway();
        let first = device(&store, 0, "laptop", &[]).unwrap();
        let beside = device(&store, 2, "laptop", &[&first]).unwrap();
        let other = device(&store, 4, "phone", &[]).unwrap();
        assert!(first != beside && beside != other && first != other);
        assert_eq!(device(&store, 6, "laptop", &[&beside]), Some(first.clone()));
        assert_eq!(device(&store, 0, "laptop", &[]), None, "void for ever");
        assert_eq!(device(&store, 6, "laptop", &[]), Some(first));
        assert_eq!(device(&store, 2, "laptop", &[]), Some(beside), "untouched");
    }

    #[test]
    fn login_that_was_ended_is_over_and_no_other() {
        let Scratch { store, directory: _directory } = gateway();
        let laptop = device(&store, 0, "laptop", &[]).unwrap();
        let phone = device(&store, 2, "phone", &[]);
        for ended in [0, 8, 77] {
            store.end_login(&id(ended)).unwrap();
        }
        assert_eq!(device(&store, 0, "laptop", &[]), None);
        assert_eq!(device(&store, 8, "laptop", &[]), None, "it never had a device");
        assert_eq!(device(&store, 2, "phone", &[]), phone);
        assert_eq!(device(&store, 4, "laptop", &[]), Some(laptop), "the next one has its device");
    }

    #[test]
    fn login_that_is_ended_before_it_gets_its_device_gets_none() {
        let Scratch { store, directory: _directory } = gateway();
        let bind = |number| {
            let login = ClientLogin { id: &id(number), user: "alice", device_name: "laptop" };
            store.write(|transaction| bind(transaction, &login, &|_| false, (u32::MAX, at(1)))).unwrap()
        };
        // Whoever looked at it before found that it lasts.
        store.end_login(&id(0)).unwrap();
        assert_eq!(bind(0), None);
        assert_eq!(store.devices().unwrap(), []);
        assert!(bind(2).is_some(), "the positive control");
    }

    #[test]
    fn login_of_a_former_generation_is_over() {
        let Scratch { store, directory: _directory } = gateway();
        assert!(lasts(&store, 0) && lasts(&store, 1));
        assert!(store.end_logins_as_asked(&store.person("alice").unwrap().unwrap()).unwrap());
        assert_eq!([0, 1].map(|number| lasts(&store, number)), [false, true], "alice's, and bob's");
        assert_eq!(device(&store, 0, "laptop", &[]), None);
    }

    #[test]
    fn revoked_device_is_told_to_its_login_and_taken_over_by_none() {
        let Scratch { store, directory: _directory } = gateway();
        let first = device(&store, 0, "laptop", &[]).unwrap();
        store.revoke(&first, at(2)).unwrap();
        let login = ClientLogin { id: &id(0), user: "alice", device_name: "laptop" };
        let known = store.device_of_login(&login, &|_| false, at(3)).unwrap().unwrap();
        assert!(known.revoked_at.is_some());
        assert_ne!(device(&store, 2, "laptop", &[]), Some(first));
    }

    #[test]
    fn user_with_as_many_devices_as_may_be_gets_another_once_a_login_is_over() {
        let Scratch { store, directory: _directory } = gateway();
        let connect = |number, name, live: &[&str]| {
            let login = ClientLogin { id: &id(number), user: "alice", device_name: name };
            store.login_device(&login, &|id| live.contains(&id), at(1)).map(|device| device.unwrap().id)
        };
        let is_refused =
            |number, name, live: &[&str]| matches!(connect(number, name, live), Err(AuthError::TooManyDevices(_)));
        store.limit_devices(2);
        store.token(&UserName::parse("alice").unwrap(), at(0)).unwrap();
        let laptop = connect(0, "laptop", &[]).unwrap();
        assert!(is_refused(2, "phone", &[]), "a token counts, too");
        assert!(device_of_user(&store, ("bob", 1), "phone", &[]).is_some(), "the control: another user");
        assert_eq!(connect(4, "laptop", &[]).unwrap(), laptop, "it is no further one");
        store.restart_host_after(3600);
        assert!(is_refused(2, "phone", &[&laptop]), "the login is over, but it has a session");
        assert_ne!(connect(2, "phone", &[]).unwrap(), laptop);

        store.limit_devices(3);
        store.begin_logins_of("alice", &[50, 51, 52, 53].map(id));
        assert_eq!(connect(50, "laptop", &[]).unwrap(), laptop);
        connect(51, "phone", &[]).unwrap();
        assert!(is_refused(52, "tablet", &[]));
        store.end_login(&id(50)).unwrap();
        connect(52, "tablet", &[]).unwrap();
        assert!(is_refused(53, "desk", &[]));
        assert!(store.end_logins_as_asked(&store.person("alice").unwrap().unwrap()).unwrap());
        store.begin_login(&BegunLogin { id: &id(99), user: "alice", generation: 1, lifetime: HOUR }).unwrap();
        connect(99, "desk", &[]).expect("all logins of before are void");
    }

    #[test]
    fn user_has_no_more_devices_than_may_be_however_hosts_are_called() {
        let Scratch { store, directory: _directory } = gateway();
        store.limit_devices(3);
        let named = |number: u8| device(&store, number, &format!("host{number}"), &[]).unwrap();
        let first: Vec<String> = [0, 2, 4].map(named).into();
        for number in [6, 8, 10, 12] {
            store.end_login(&id(number - 6)).unwrap();
            assert!(first.contains(&named(number)), "of those whose login is over");
        }
        assert_eq!(store.devices().unwrap().len(), 3);
    }

    #[test]
    fn device_is_forgotten_long_after_the_end_of_its_last_login() {
        let Scratch { store, directory: _directory } = gateway();
        let (token, _) = store.token(&UserName::parse("alice").unwrap(), at(0)).unwrap();
        let laptop = device(&store, 0, "laptop", &[]).unwrap();
        let phone = device(&store, 2, "phone", &[]).unwrap();
        for (host, device) in [(2, &token.id), (3, &laptop), (4, &phone)] {
            store.write_lease(device, Lease { v4: Some([10, 77, 0, host].into()), v6: None }).unwrap();
        }
        store.end_login(&id(0)).unwrap();
        store.begin_login(&BegunLogin { id: &id(99), user: "alice", generation: 0, lifetime: KEEP }).unwrap();
        assert_eq!(device(&store, 99, "phone", &[]).as_ref(), Some(&phone));
        let left_after = |time: Duration| {
            store.restart_host_after(i64::try_from(time.as_secs()).unwrap());
            store.prune(SystemTime::now()).unwrap();
            let leases: HashSet<String> = store.leases().unwrap().into_iter().map(|lease| lease.device).collect();
            let devices: HashSet<String> = store.devices().unwrap().into_iter().map(|device| device.id).collect();
            assert_eq!(leases, devices);
            devices
        };
        let ids = |ids: &[&String]| ids.iter().copied().cloned().collect::<HashSet<_>>();
        assert_eq!(left_after(KEEP), ids(&[&token.id, &laptop, &phone]), "its user comes back to its addresses");
        assert_eq!(left_after(HOUR + HOUR), ids(&[&token.id, &phone]));
        assert_eq!(left_after(KEEP), ids(&[&token.id]), "an administrator made it");
    }

    #[test]
    fn user_has_no_more_logins_than_may_be_and_the_oldest_is_over() {
        let Scratch { store, directory: _directory } = gateway();
        let many: Vec<LoginId> = (0..u128::from(MOST_LOGINS)).map(|number| (number << 64).to_be_bytes()).collect();
        store.begin_logins_of("alice", &many[1..]);
        assert_eq!([0, 1, 16, 18].map(|number| lasts(&store, number)), [false, true, false, true]);
        assert!(many[1..].iter().all(|login| store.login_left(login).unwrap().is_some()));
    }

    #[test]
    fn login_is_forgotten_by_no_clock_that_is_set_and_over_once_it_is_forgotten() {
        let Scratch { store, directory: _directory } = gateway();
        assert!(device(&store, 0, "laptop", &[]).is_some() && device(&store, 2, "phone", &[]).is_some());
        store.end_login(&id(0)).unwrap();
        store.prune(SystemTime::now() + 1000 * KEEP).unwrap();
        assert!(device(&store, 2, "phone", &[]).is_some(), "the positive control");
        store.restart_host_after(i64::try_from((KEEP + 2 * HOUR).as_secs()).unwrap());
        store.prune(SystemTime::now()).unwrap();
        assert_eq!(count(&store), 0);
        assert_eq!(device(&store, 0, "laptop", &[]), None);
        assert_eq!(device(&store, 2, "phone", &[]), None, "nobody knows any more whether it was ended");
    }

    #[test]
    fn login_has_less_left_when_the_host_has_run_and_as_much_as_before_when_its_clock_is_set() {
        let Scratch { store, directory: _directory } = gateway();
        let left = || store.login_left(&id(0)).unwrap().unwrap().as_secs();
        assert!((3500..=3600).contains(&left()), "the positive control");
        for clock in [SystemTime::UNIX_EPOCH, SystemTime::now() + 1000 * KEEP, SystemTime::now()] {
            store.follow_clock(clock).unwrap();
            assert!((3500..=3600).contains(&left()));
        }
        store.restart_host_after(1800);
        assert!((1700..=1800).contains(&left()));
        // Whoever writes first after a restart takes it over.
        store.follow_clock(SystemTime::now()).unwrap();
        assert!((1700..=1800).contains(&left()));
        store.restart_host_after(1800);
        assert_eq!(left(), 0);
    }
}
