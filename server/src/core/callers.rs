//! The connections on which devices have logged in, each to its end: how many a device has, and how they are closed
//! together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sessions::{Closing, Ending, Session};

/// Connections of one device at a time: its session's, the one that replaces it, and one that renews its certificate,
/// with one to spare.
const MOST: usize = 4;

/// The connections of all devices.
#[derive(Default)]
pub struct Callers {
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    last: u64,
    /// By device, the oldest connection first.
    devices: HashMap<String, Vec<Entry>>,
}

struct Entry {
    number: u64,
    has_session: bool,
    connection: Arc<dyn Closing>,
}

/// One connection, and the devices that have logged in on it: one usually, more with several tokens.
pub struct Caller {
    connection: Arc<dyn Closing>,
    logins: Mutex<Vec<Login>>,
}

/// The entry of a connection under one device; removed when this is dropped.
struct Login {
    callers: Arc<Callers>,
    device: String,
    number: u64,
}

impl Callers {
    /// Closes all connections of a device.
    pub fn close(&self, device: &str, ending: Ending) {
        self.close_where(device, ending, |_| true);
    }

    fn close_where(&self, device: &str, ending: Ending, pick: impl Fn(&Entry) -> bool) {
        // Closed without the lock: what ends with a connection may come back here.
        let picked: Vec<_> = match self.book().devices.get(device) {
            Some(entries) => {
                entries.iter().filter(|entry| pick(entry)).map(|entry| Arc::clone(&entry.connection)).collect()
            }
            None => return,
        };
        for connection in picked {
            connection.close(ending);
        }
    }

    /// Enters a connection under a device. If the device has too many, its oldest one without a session is closed.
    fn enter(self: &Arc<Self>, device: &str, connection: &Arc<dyn Closing>) -> Login {
        let mut book = self.book();
        book.last += 1;
        let number = book.last;
        let entries = book.devices.entry(device.to_owned()).or_default();
        let oldest = entries.iter().position(|entry| !entry.has_session);
        let evicted = oldest.filter(|_| entries.len() >= MOST).map(|place| entries.remove(place));
        entries.push(Entry { number, has_session: false, connection: Arc::clone(connection) });
        drop(book);
        if let Some(entry) = evicted {
            entry.connection.close(Ending::Replaced);
        }
        Login { callers: Arc::clone(self), device: device.to_owned(), number }
    }

    #[cfg(test)]
    pub(super) fn of_device(&self, device: &str) -> usize {
        self.book().devices.get(device).map_or(0, Vec::len)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// A connection on which nobody has logged in yet.
    pub fn new(connection: Arc<dyn Closing>) -> Self {
        Self { connection, logins: Mutex::default() }
    }

    /// A device has logged in on it. False if it had before.
    pub fn enter(&self, callers: &Arc<Callers>, device: &str) -> bool {
        let mut logins = self.logins();
        if logins.iter().any(|login| login.device == device) {
            return false;
        }
        logins.push(callers.enter(device, &self.connection));
        true
    }

    /// A session of a device lives on this connection: it is not closed to make room for the device's others.
    fn begin_session(&self, device: &str) {
        self.set_session(device, true);
    }

    /// The session has ended.
    fn end_session(&self, device: &str) {
        self.set_session(device, false);
    }

    /// Closes all other connections of a device that carry no session. The one of a session that was replaced is closed
    /// with it.
    fn close_others(&self, device: &str) {
        let of = |login: &&Login| login.device == device;
        let Some((callers, number)) =
            self.logins().iter().find(of).map(|login| (Arc::clone(&login.callers), login.number))
        else {
            return;
        };
        callers.close_where(device, Ending::Replaced, |entry| entry.number != number && !entry.has_session);
    }

    fn set_session(&self, device: &str, has_session: bool) {
        for login in self.logins().iter().filter(|login| login.device == device) {
            let mut book = login.callers.book();
            let entries = book.devices.get_mut(device).into_iter().flatten();
            entries.filter(|entry| entry.number == login.number).for_each(|entry| entry.has_session = has_session);
        }
    }

    fn logins(&self) -> MutexGuard<'_, Vec<Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a connection as the one that carries its device's session.
pub struct CallerSession<'a> {
    caller: &'a Caller,
    session: &'a Session,
}

impl<'a> CallerSession<'a> {
    /// A session that `replaces` another ends all that is left of the device's earlier connections.
    pub fn begin(caller: &'a Caller, session: &'a Session, replaces: bool) -> Self {
        caller.begin_session(&session.device.id);
        if replaces {
            caller.close_others(&session.device.id);
        }
        Self { caller, session }
    }
}

impl Drop for CallerSession<'_> {
    fn drop(&mut self) {
        self.caller.end_session(&self.session.device.id);
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let mut book = self.callers.book();
        let Some(entries) = book.devices.get_mut(&self.device) else { return };
        entries.retain(|entry| entry.number != self.number);
        if entries.is_empty() {
            book.devices.remove(&self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Nowhere;
    use super::*;

    /// A connection on which a device has logged in, and what became of it.
    fn caller(callers: &Arc<Callers>, device: &str) -> (Caller, Arc<Nowhere>) {
        let nowhere = Arc::<Nowhere>::default();
        let caller = Caller::new(Arc::<Nowhere>::clone(&nowhere));
        assert!(caller.enter(callers, device));
        assert!(!caller.enter(callers, device), "once is enough");
        (caller, nowhere)
    }

    #[test]
    fn newest_connections_of_a_device_stay_and_the_one_with_its_session() {
        let callers = Arc::<Callers>::default();
        let all: Vec<_> = (0..10)
            .map(|number| {
                let made = caller(&callers, "dev-a");
                if number == 0 {
                    made.0.begin_session("dev-a");
                }
                made
            })
            .collect();
        let (_other, untouched) = caller(&callers, "dev-b");
        let open: Vec<_> = (0..10).filter(|number| all[*number].1.closed().is_none()).collect();
        assert_eq!(open, [0, 7, 8, 9]);
        assert_eq!(untouched.closed(), None);
        assert_eq!(callers.of_device("dev-a"), MOST);
    }

    #[test]
    fn all_connections_of_a_device_are_closed_together() {
        let callers = Arc::<Callers>::default();
        let (first, second, other) = (caller(&callers, "dev-a"), caller(&callers, "dev-a"), caller(&callers, "dev-b"));
        callers.close("dev-a", Ending::Revoked);
        assert_eq!(
            [&first, &second, &other].map(|(_, end)| end.closed()),
            [Some(Ending::Revoked), Some(Ending::Revoked), None]
        );
        drop((first.0, second.0, other.0));
        assert_eq!(callers.of_device("dev-a") + callers.of_device("dev-b"), 0);
    }

    #[test]
    fn session_that_takes_over_closes_the_device_s_other_connections_but_no_session() {
        let callers = Arc::<Callers>::default();
        let (idle, live, new) = (caller(&callers, "dev-a"), caller(&callers, "dev-a"), caller(&callers, "dev-a"));
        live.0.begin_session("dev-a");
        new.0.begin_session("dev-a");
        new.0.close_others("dev-a");
        assert_eq!([&idle, &live, &new].map(|(_, end)| end.closed()), [Some(Ending::Replaced), None, None]);
        live.0.end_session("dev-a");
        new.0.close_others("dev-a");
        assert_eq!(live.1.closed(), Some(Ending::Replaced));
    }
}
