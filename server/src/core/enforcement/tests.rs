use std::sync::mpsc::Receiver;

use adit_proto::policy::CompiledClass;
use adit_testing::eventually;

use super::*;

/// More verdicts and transactions than any test leaves waiting.
const MOST_WAITING: usize = 64;

/// A table whose transactions wait until the test lets them go on, one by one.
struct Gate {
    entered: Mutex<SyncSender<Vec<MemberChange>>>,
    verdicts: Mutex<Receiver<bool>>,
    members: Mutex<HashMap<IpAddr, u32>>,
}

impl Gate {
    fn pass(&self, changes: &[MemberChange]) -> Result<(), HostError> {
        self.entered.lock().unwrap().send(changes.to_vec()).unwrap();
        match self.verdicts.lock().unwrap().recv() {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(HostError::ForeignTable { table: "adit".into(), reason: "says no".into() }),
        }
    }
}

impl RuleTable for Gate {
    fn change(&self, changes: &[MemberChange]) -> Result<(), HostError> {
        self.pass(changes)?;
        let mut members = self.members.lock().unwrap();
        for change in changes {
            match change {
                MemberChange::Admit(address, rules) => members.insert(*address, rules.number),
                MemberChange::Dismiss(address) => members.remove(address),
            };
        }
        Ok(())
    }

    fn replace(&self, members: HashMap<IpAddr, Arc<PolicyClass>>) -> Result<(), HostError> {
        self.pass(&[])?;
        *self.members.lock().unwrap() = members.into_iter().map(|(address, rules)| (address, rules.number)).collect();
        Ok(())
    }
}

struct World {
    enforcement: Arc<Enforcement>,
    table: Arc<Gate>,
    entered: Receiver<Vec<MemberChange>>,
    verdicts: SyncSender<bool>,
}

impl World {
    fn new() -> Self {
        let (entered_to, entered) = sync_channel(MOST_WAITING);
        let (verdicts, verdicts_from) = sync_channel(MOST_WAITING);
        let table = Arc::new(Gate {
            entered: Mutex::new(entered_to),
            verdicts: Mutex::new(verdicts_from),
            members: Mutex::default(),
        });
        let of_thread: Arc<dyn RuleTable> = Arc::<Gate>::clone(&table);
        let enforcement = Arc::new(Enforcement::start(of_thread).unwrap());
        Self { enforcement, table, entered, verdicts }
    }

    /// A world whose table refuses nothing for so many transactions.
    fn willing(transactions: usize) -> Self {
        let world = Self::new();
        (0..transactions).for_each(|_| world.verdicts.send(true).unwrap());
        world
    }

    fn member(&self, number: u8) -> Option<u32> {
        self.table.members.lock().unwrap().get(&IpAddr::from([10, 64, 0, number])).copied()
    }

    fn becomes(&self, number: u8, rules: Option<u32>) {
        eventually("the table is as the sessions are", || (self.member(number) == rules).then_some(()));
    }
}

fn lease(number: u8) -> Lease {
    Lease { v4: Some([10, 64, 0, number].into()), v6: None }
}

fn rules(number: u32) -> Arc<PolicyClass> {
    Arc::new(PolicyClass { number, rules: CompiledClass::default() })
}

#[test]
fn session_is_admitted_before_anybody_hears_of_it_and_dismissed_with_the_last_of_its_addresses() {
    let world = World::willing(9);
    world.enforcement.admit(lease(1), Some(&rules(7))).unwrap().keep();
    assert_eq!(world.member(1), Some(7));
    // The session that replaces it; the newest one's rules count.
    world.enforcement.admit(lease(1), Some(&rules(8))).unwrap().keep();
    world.enforcement.dismiss(lease(1));
    world.enforcement.admit(lease(2), Some(&rules(9))).unwrap().keep();
    assert_eq!((world.member(1), world.member(2)), (Some(8), Some(9)));
    world.enforcement.dismiss(lease(1));
    world.becomes(1, None);
    world.enforcement.dismiss(lease(1));
    assert_eq!(world.member(2), Some(9), "an address that nobody has is nobody else's");
}

#[test]
fn admission_that_leads_to_no_session_is_taken_back() {
    let world = World::willing(2);
    drop(world.enforcement.admit(lease(1), Some(&rules(7))).unwrap());
    world.becomes(1, None);
}

#[test]
fn what_waits_while_the_kernel_works_is_one_transaction() {
    let world = World::new();
    std::thread::scope(|scope| {
        let admit = |number| {
            let enforcement = Arc::clone(&world.enforcement);
            scope.spawn(move || enforcement.admit(lease(number), Some(&rules(1))).map(Admitted::keep))
        };
        let mut admissions = vec![admit(1)];
        assert_eq!(world.entered.recv().unwrap().len(), 1);
        admissions.extend((2..10).map(admit));
        eventually("all wait", || (world.enforcement.shared.state().tasks.len() == 8).then_some(()));
        world.verdicts.send(true).unwrap();
        assert_eq!(world.entered.recv().unwrap().len(), 8);
        world.verdicts.send(true).unwrap();
        assert!(admissions.into_iter().all(|admission| admission.join().unwrap().is_ok()));
    });
}

#[test]
fn refused_admission_fails_alone() {
    let world = World::new();
    std::thread::scope(|scope| {
        let admit = |number| {
            let enforcement = Arc::clone(&world.enforcement);
            scope.spawn(move || enforcement.admit(lease(number), Some(&rules(1))).map(Admitted::keep))
        };
        let first = admit(1);
        world.entered.recv().unwrap();
        let others = [admit(2), admit(3)];
        eventually("both wait", || (world.enforcement.shared.state().tasks.len() == 2).then_some(()));
        // The first one; both together; one by one; and what is dismissed since it failed.
        for verdict in [true, false, false, true, true] {
            world.verdicts.send(verdict).unwrap();
        }
        assert!(first.join().unwrap().is_ok());
        let failed = others.map(|admission| admission.join().unwrap().is_err());
        assert_eq!(failed.iter().filter(|failed| **failed).count(), 1);
        eventually("only those who were admitted are", || {
            (world.table.members.lock().unwrap().len() == 2).then_some(())
        });
    });
}

/// A world in which the dismissal of the only session was refused.
fn refused_dismissal() -> World {
    let world = World::willing(1);
    world.enforcement.admit(lease(1), Some(&rules(1))).unwrap().keep();
    assert_eq!(world.entered.recv().unwrap().len(), 1);
    world.verdicts.send(false).unwrap();
    world.enforcement.dismiss(lease(1));
    assert_eq!(world.entered.recv().unwrap(), [MemberChange::Dismiss([10, 64, 0, 1].into())]);
    world
}

#[test]
fn dismissal_that_the_kernel_refuses_is_tried_again() {
    let world = refused_dismissal();
    (0..2).for_each(|_| world.verdicts.send(true).unwrap());
    world.enforcement.admit(lease(2), Some(&rules(1))).unwrap().keep();
    world.becomes(1, None);
    assert_eq!(world.member(2), Some(1));
}

#[test]
fn address_that_has_a_holder_again_is_not_dismissed_late() {
    let world = refused_dismissal();
    (0..2).for_each(|_| world.verdicts.send(true).unwrap());
    world.enforcement.admit(lease(1), Some(&rules(3))).unwrap().keep();
    world.enforcement.admit(lease(2), Some(&rules(1))).unwrap().keep();
    assert_eq!((world.member(1), world.member(2)), (Some(3), Some(1)));
}

#[test]
fn new_policy_holds_for_sessions_that_live_and_keeps_no_other() {
    let world = World::willing(9);
    for number in 1..=3 {
        world.enforcement.admit(lease(number), Some(&rules(1))).unwrap().keep();
    }
    world.enforcement.dismiss(lease(3));
    let new = (1..=1).chain(4..=4).map(|number| (IpAddr::from([10, 64, 0, number]), rules(2))).collect();
    world.enforcement.replace(&new).unwrap();
    assert_eq!([1, 2, 3, 4].map(|number| world.member(number)), [Some(2), Some(1), None, None]);
    world.enforcement.reclass(lease(2), &rules(3));
    world.enforcement.reclass(lease(4), &rules(3));
    world.becomes(2, Some(3));
    assert_eq!(world.member(4), None, "who has no session is no member");
}

#[test]
fn table_that_comes_knows_who_is_there_and_one_that_goes_is_asked_for_nothing() {
    let World { table, entered, verdicts, .. } = World::new();
    let enforcement = Enforcement::default();
    enforcement.admit(lease(1), None).unwrap().keep();
    enforcement.admit(lease(2), None).unwrap().keep();
    enforcement.admit(lease(3), None).unwrap().keep();
    enforcement.dismiss(lease(3));
    let of = |numbers: &[u8], class| -> HashMap<_, _> {
        numbers.iter().map(|number| (IpAddr::from([10, 64, 0, *number]), rules(class))).collect()
    };
    let members = || {
        let mut members: Vec<_> = table.members.lock().unwrap().values().copied().collect();
        members.sort_unstable();
        members
    };
    let bring = || {
        let table: Arc<dyn RuleTable> = Arc::<Gate>::clone(&table);
        enforcement.bring(table, &of(&[1, 3], 7))
    };
    verdicts.send(false).unwrap();
    assert!(bring().is_err());
    enforcement.admit(lease(4), None).unwrap().keep();
    assert_eq!(entered.try_iter().count(), 1, "a table that was refused is asked for nothing more");
    (0..2).for_each(|_| verdicts.send(true).unwrap());
    bring().unwrap();
    assert_eq!(members(), [7], "whose rules nobody knows reaches nothing, and who has gone is no member");
    enforcement.admit(lease(5), Some(&rules(8))).unwrap().keep();
    assert_eq!(members(), [7, 8]);
    enforcement.release();
    enforcement.dismiss(lease(1));
    enforcement.admit(lease(6), None).unwrap().keep();
    enforcement.replace(&of(&[2], 9)).unwrap();
    assert_eq!((members(), entered.try_iter().count()), (vec![7, 8], 2));
    // The next one knows who is there by then.
    verdicts.send(true).unwrap();
    let again: Arc<dyn RuleTable> = Arc::<Gate>::clone(&table);
    enforcement.bring(again, &of(&[1, 2, 5, 6], 9)).unwrap();
    assert_eq!(members(), [9, 9, 9]);
}
