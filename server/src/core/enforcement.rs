//! Has the kernel hold the sessions' addresses to the rules of the policy.
//!
//! One thread has the table, and makes one transaction of all that waits for it. A session is admitted before its
//! client hears of its addresses; it is dismissed before another device can get them. Without a policy there is no
//! table: then it is only known who would have to be held to rules if one came.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use adit_host::{HostError, MemberChange, PolicyClass, PolicyTable};
use adit_program::causes::with_causes;
use adit_proto::address_pool::Lease;

/// How long after a refusal something is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What holds addresses to rules.
pub trait RuleTable: Send + Sync {
    /// Changes whom it holds to what, all at once; see [`PolicyTable::change`].
    ///
    /// # Errors
    /// The kernel's refusal; then nothing is changed.
    fn change(&self, changes: &[MemberChange]) -> Result<(), HostError>;

    /// Replaces all of it at once; see [`PolicyTable::replace`].
    ///
    /// # Errors
    /// The kernel's refusal; then nothing is changed.
    fn replace(&self, members: HashMap<IpAddr, Arc<PolicyClass>>) -> Result<(), HostError>;
}

impl RuleTable for PolicyTable {
    fn change(&self, changes: &[MemberChange]) -> Result<(), HostError> {
        Self::change(self, changes)
    }

    fn replace(&self, members: HashMap<IpAddr, Arc<PolicyClass>>) -> Result<(), HostError> {
        Self::replace(self, members)
    }
}

/// The rules that the kernel holds each session to.
#[derive(Default)]
pub struct Enforcement {
    shared: Arc<Shared>,
    /// There is one since there was a table.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Addresses that a session on its way is admitted with. They are dismissed when this is dropped, unless they were
/// kept.
#[must_use]
pub struct Admitted<'a> {
    enforcement: &'a Enforcement,
    addresses: Lease,
    kept: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    /// None without a policy.
    table: Option<Arc<dyn RuleTable>>,
    holders: HashMap<IpAddr, Holder>,
    /// What the thread has not taken yet. Each session and each thread that waits for an answer has one task at most.
    tasks: Vec<Task>,
    over: bool,
}

/// The sessions of one address: two while one replaces another.
struct Holder {
    sessions: usize,
    /// Those of the newest session; `None` without a policy.
    rules: Option<Arc<PolicyClass>>,
}

/// Something to be done in the table, and who waits for it.
struct Task {
    what: What,
    answer: Option<Answer>,
}

/// What is to be done, and in which table if there is one.
type Work = (Option<Arc<dyn RuleTable>>, Vec<Task>);

type Answer = SyncSender<Result<(), HostError>>;

enum What {
    Change(Vec<MemberChange>),
    Replace(HashMap<IpAddr, Arc<PolicyClass>>),
}

impl Enforcement {
    /// Holds sessions to rules by a table that has no members.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(table: Arc<dyn RuleTable>) -> io::Result<Self> {
        let enforcement = Self::default();
        enforcement.start_thread()?;
        enforcement.shared.state().table = Some(table);
        Ok(enforcement)
    }

    fn start_thread(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let named = std::thread::Builder::new().name("adit-policy".to_owned());
            *thread = Some(named.spawn(move || shared.work())?);
        }
        Ok(())
    }

    /// Holds the addresses of one more session to rules, where there are some. Blocks until the kernel does.
    ///
    /// # Errors
    /// The kernel's refusal; the addresses then reach nothing.
    pub fn admit(&self, addresses: Lease, rules: Option<&Arc<PolicyClass>>) -> Result<Admitted<'_>, HostError> {
        let mut state = self.shared.state();
        for address in both(addresses) {
            let holder = state.holders.entry(address).or_insert(Holder { sessions: 0, rules: None });
            holder.sessions += 1;
            holder.rules = rules.map(Arc::clone);
        }
        let admitted = Admitted { enforcement: self, addresses, kept: false };
        let Some(rules) = rules.filter(|_| state.table.is_some()) else { return Ok(admitted) };
        let admit = both(addresses).map(|address| MemberChange::Admit(address, Arc::clone(rules)));
        let waiting = state.task_to_wait_for(What::Change(admit.collect()));
        drop(state);
        self.shared.more.notify_one();
        waiting()?;
        Ok(admitted)
    }

    /// Holds the addresses of live sessions to other rules. Does not wait for the kernel; what it refuses is tried
    /// again with the next change.
    pub fn reclass(&self, addresses: Lease, rules: &Arc<PolicyClass>) {
        self.shared.change(both(addresses).collect(), |address, state| {
            let holder = state.holders.get_mut(&address)?;
            holder.rules = Some(Arc::clone(rules));
            Some(MemberChange::Admit(address, Arc::clone(rules)))
        });
    }

    /// Says that a session with these addresses is over. Does not wait for the kernel.
    pub fn dismiss(&self, addresses: Lease) {
        self.shared.change(both(addresses).collect(), |address, state| {
            let Entry::Occupied(mut holder) = state.holders.entry(address) else { return None };
            holder.get_mut().sessions -= 1;
            (holder.get().sessions == 0).then(|| {
                holder.remove();
                MemberChange::Dismiss(address)
            })
        });
    }

    /// Replaces the policy: sessions with an address in `rules` are held to these from now on, all at once, and their
    /// connections are judged anew. Blocks until the kernel does so; without a table there is nothing to do.
    ///
    /// # Errors
    /// The kernel's refusal; then everybody is held to the former rules.
    pub fn replace(&self, rules: &HashMap<IpAddr, Arc<PolicyClass>>) -> Result<(), HostError> {
        self.replace_in(self.shared.state(), rules)
    }

    fn replace_in(
        &self,
        mut state: MutexGuard<'_, State>,
        rules: &HashMap<IpAddr, Arc<PolicyClass>>,
    ) -> Result<(), HostError> {
        if state.table.is_none() {
            return Ok(());
        }
        let held = |(address, holder): (&IpAddr, &Holder)| {
            let rules = rules.get(address).or(holder.rules.as_ref())?;
            Some((*address, Arc::clone(rules)))
        };
        let waiting = {
            let members = state.holders.iter().filter_map(held).collect();
            state.task_to_wait_for(What::Replace(members))
        };
        drop(state);
        self.shared.more.notify_one();
        waiting()?;
        let mut state = self.shared.state();
        for (address, rules) in rules {
            if let Some(holder) = state.holders.get_mut(address) {
                holder.rules = Some(Arc::clone(rules));
            }
        }
        Ok(())
    }

    /// A policy comes: from now on this table holds the sessions with an address in `rules` to these, and lets all
    /// others reach nothing. Blocks until the kernel does so.
    ///
    /// # Errors
    /// The kernel's refusal, or the system gives no thread; then there is no table as before.
    pub fn bring(&self, table: Arc<dyn RuleTable>, rules: &HashMap<IpAddr, Arc<PolicyClass>>) -> Result<(), HostError> {
        self.start_thread()
            .map_err(|error| HostError::System { doing: "start the policy's thread".to_owned(), source: error })?;
        let mut state = self.shared.state();
        state.table = Some(table);
        self.replace_in(state, rules).inspect_err(|_| self.release())
    }

    /// The policy goes, and its table, of which nothing is asked any more.
    pub fn release(&self) {
        let mut state = self.shared.state();
        state.table = None;
        state.holders.values_mut().for_each(|holder| holder.rules = None);
    }
}

impl Drop for Enforcement {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.more.notify_one();
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // Its panic has been told.
            let _ended = thread.join();
        }
    }
}

impl Admitted<'_> {
    /// From now on a session has the addresses, at whose end they must be [dismissed](Enforcement::dismiss).
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.enforcement.dismiss(self.addresses);
        }
    }
}

impl State {
    /// Adds a task; what is returned waits for it, without the lock.
    fn task_to_wait_for(&mut self, what: What) -> impl FnOnce() -> Result<(), HostError> + use<> {
        let (answer, answered) = sync_channel(1);
        self.tasks.push(Task { what, answer: Some(answer) });
        // The thread lives as long as there is anybody to ask it.
        move || answered.recv().expect("the thread answers whoever waits")
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread make a change of each address for which there is one, where there is a table.
    fn change(&self, addresses: Vec<IpAddr>, change: impl Fn(IpAddr, &mut State) -> Option<MemberChange>) {
        let mut state = self.state();
        let changes: Vec<_> = addresses.into_iter().filter_map(|address| change(address, &mut state)).collect();
        if !changes.is_empty() && state.table.is_some() {
            state.tasks.push(Task { what: What::Change(changes), answer: None });
            drop(state);
            self.more.notify_one();
        }
    }

    /// Does what waits until it is over.
    fn work(&self) {
        let mut undone = HashSet::new();
        while let Some((table, tasks)) = self.next_tasks(&undone) {
            undone = match table {
                Some(table) => work_off(&*table, tasks),
                None => {
                    tasks.into_iter().for_each(|task| tell(task.answer, Ok(())));
                    HashSet::new()
                }
            };
        }
    }

    /// Waits for tasks, and tells for which table. Those that were left undone come once more after them, or after a
    /// while, as they are by then.
    fn next_tasks(&self, undone: &HashSet<IpAddr>) -> Option<Work> {
        let state = self.state();
        let idle = |state: &mut State| state.tasks.is_empty() && !state.over;
        let mut state = if undone.is_empty() {
            self.more.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner)
        } else {
            self.more.wait_timeout_while(state, RETRY, idle).unwrap_or_else(PoisonError::into_inner).0
        };
        if state.over {
            return None;
        }
        let mut tasks = std::mem::take(&mut state.tasks);
        let again = undone.iter().map(|address| {
            let rules = state.holders.get(address).and_then(|holder| holder.rules.as_ref());
            rules.map_or(MemberChange::Dismiss(*address), |rules| MemberChange::Admit(*address, Arc::clone(rules)))
        });
        tasks.push(Task { what: What::Change(again.collect()), answer: None });
        Some((state.table.clone(), tasks))
    }
}

/// Changes, and who waits for them.
type Order = (Vec<MemberChange>, Option<Answer>);

/// Does all tasks in their order, and returns the addresses for which something could not be done that nobody waits
/// for.
fn work_off(table: &dyn RuleTable, tasks: Vec<Task>) -> HashSet<IpAddr> {
    let (mut orders, mut undone): (Vec<Order>, _) = (Vec::new(), HashSet::new());
    for Task { what, answer } in tasks {
        match what {
            What::Change(changes) if changes.is_empty() => {}
            What::Change(changes) => orders.push((changes, answer)),
            What::Replace(members) => {
                undone.extend(change_together(table, std::mem::take(&mut orders)));
                tell(answer, table.replace(members));
            }
        }
    }
    undone.extend(change_together(table, orders));
    undone
}

/// Gives orders in one transaction, or, where that is refused, one after the other; returns as [`work_off`] does.
fn change_together(table: &dyn RuleTable, orders: Vec<Order>) -> Vec<IpAddr> {
    let all: Vec<_> = orders.iter().flat_map(|(changes, _)| changes.iter().cloned()).collect();
    if orders.len() > 1 && table.change(&all).is_ok() {
        orders.into_iter().for_each(|(_, answer)| tell(answer, Ok(())));
        return Vec::new();
    }
    let mut undone = Vec::new();
    for (changes, answer) in orders {
        let done = table.change(&changes);
        if let (Err(error), None) = (&done, &answer) {
            tracing::warn!(error = with_causes(error), "what a client may reach is not changed; it is tried again");
            undone.extend(changes.iter().map(MemberChange::address));
        }
        tell(answer, done);
    }
    undone
}

fn tell(answer: Option<Answer>, done: Result<(), HostError>) {
    if let Some(answer) = answer {
        // Whoever does not wait any more needs no answer.
        let _unheard = answer.send(done);
    }
}

fn both(addresses: Lease) -> impl Iterator<Item = IpAddr> {
    addresses.v4.map(IpAddr::V4).into_iter().chain(addresses.v6.map(IpAddr::V6))
}

#[cfg(test)]
mod tests;
