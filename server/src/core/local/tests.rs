use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use adit_host::{HostError, MemberChange, PolicyClass};
use adit_net::carrier::counters::Traffic;
use adit_proto::packet::icmp::GatewayAddresses;
use adit_proto::policy::{CompiledClass, WhenFull};
use adit_testing::eventually;

use super::super::enforcement::RuleTable;
use super::super::grant::{OpenHours, SessionLimits, SessionsOfUser, Terms};
use super::super::personal::PersonalTerms;
use super::super::tests::{
    Certificate, FakeAccounts, FakeFlows, Nowhere, POOL, address, apart, at_once, device, pool, result, terms,
};
use super::*;
use crate::config::config_for_tests;
use crate::policy::PolicyFile;

/// A core with room for the whole pool, and the accounts behind it.
pub(super) fn core() -> (Arc<LocalCore>, Arc<FakeAccounts>) {
    let accounts = Arc::<FakeAccounts>::default();
    let kept: Arc<dyn Accounts> = Arc::<FakeAccounts>::clone(&accounts);
    let core = LocalCore::new(
        kept,
        Arc::<FakeFlows>::default(),
        pool(),
        terms("0.0.0.0/0"),
        POOL,
        Arc::<SessionTable>::default(),
    );
    (Arc::new(core), accounts)
}

pub(super) fn open(core: &LocalCore, of: &str) -> Result<(Arc<Session>, Arc<Nowhere>), OpenError> {
    let connection = Arc::<Nowhere>::default();
    let kept: Arc<dyn Connection> = Arc::<Nowhere>::clone(&connection);
    core.open_session(device(of), kept).map(|session| (session, connection))
}

#[test]
fn accounts_that_write_hold_up_no_end_no_order_and_no_packet() {
    let (core, accounts) = core();
    let (first, _) = open(&core, "dev-a").unwrap();
    let (second, _) = open(&core, "dev-b").unwrap();
    accounts.hold_up();
    let opening = Arc::clone(&core);
    let slow = apart(move || open(&opening, "dev-c").map(|(session, _)| session.lease));
    accounts.wait_for(1);
    let ending = Arc::clone(&core);
    at_once(move || ending.close(&first));
    let looking = Arc::clone(&core);
    let found = at_once(move || looking.sessions().lookup(second.addresses().next().unwrap()).map(|found| found.id));
    assert_eq!(found, Some(2));
    let ordering = Arc::clone(&core);
    assert!(at_once(move || ordering.order("dev-b", Order::End(Ending::Revoked))));
    assert!(core.sessions().is_empty(), "not even the one on its way, whose lease is not durable");
    accounts.go_on();
    let lease = result(&slow).unwrap();
    assert_eq!(accounts.remembered("dev-c"), Some(lease));
    assert_eq!(core.sessions().len(), 1);
}

#[test]
fn lease_that_could_not_be_written_opens_no_session() {
    let (core, accounts) = core();
    accounts.break_for("dev-a");
    for _ in 0..2 * POOL {
        assert!(matches!(open(&core, "dev-a"), Err(OpenError::Store(_))));
    }
    assert!(core.sessions().is_empty());
    for number in 0..POOL {
        open(&core, &format!("dev-{number}")).unwrap();
    }
}

#[test]
fn two_logins_of_one_device_at_once_leave_one_session_with_its_address() {
    let (core, accounts) = core();
    accounts.hold_up();
    let log_in = || {
        let core = Arc::clone(&core);
        apart(move || open(&core, "dev-a").unwrap())
    };
    let (one, two) = (log_in(), log_in());
    accounts.wait_for(2);
    accounts.go_on();
    let logins = [result(&one), result(&two)];
    let live = core.sessions().of_device("dev-a").unwrap();
    assert_eq!((core.sessions().len(), core.leases.devices()), (1, 1));
    for (session, connection) in &logins {
        let replaced = session.id != live.id;
        assert_eq!(connection.closed(), replaced.then_some(Ending::Replaced));
        assert_eq!(session.lease, live.lease);
        // As its front-end does in the end; the address stays with the one that lives.
        if replaced {
            core.close(session);
        }
    }
    assert_eq!(core.sessions().lookup(live.addresses().next().unwrap()).map(|found| found.id), Some(live.id));
    assert_eq!(core.leases.devices(), 1);
    core.close(&live);
    assert_eq!(core.leases.devices(), 0);
}

#[test]
fn device_revoked_while_it_logs_in_leaves_nothing_behind() {
    let (core, accounts) = core();
    accounts.revoke("dev-a");
    assert!(matches!(open(&core, "dev-a"), Err(OpenError::Revoked)));
    assert_eq!((core.sessions().len(), core.leases.devices()), (0, 0));
    assert_eq!(core.ended_sessions().revoked, 1);
}

#[test]
fn login_that_breaks_at_the_session_it_replaces_keeps_no_place() {
    let (core, _accounts) = core();
    let (old, connection) = open(&core, "dev-a").unwrap();
    connection.break_down();
    let replacing = Arc::clone(&core);
    let broken = thread::spawn(move || open(&replacing, "dev-a").is_ok()).join();
    assert!(broken.is_err(), "the positive control: it did not get so far");
    core.close(&old);
    assert_eq!((core.sessions().len(), core.leases.devices()), (0, 0));
    open(&core, "dev-a").unwrap();
}

#[test]
fn ended_sessions_are_added_up_by_why_they_ended() {
    let (core, _accounts) = core();
    let (replaced, _) = open(&core, "dev-a").unwrap();
    replaced.carriers.counters().count_rx(3, 300);
    let (left, _) = open(&core, "dev-a").unwrap();
    left.carriers.counters().count_rx(2, 200);
    core.close(&left);
    core.close(&left);
    open(&core, "dev-b").unwrap();
    assert!(core.order("dev-b", Order::End(Ending::Revoked)));
    assert!(!core.order("dev-b", Order::End(Ending::Revoked)), "it has no session any more");
    let (stopped, _) = open(&core, "dev-c").unwrap();
    core.close_all(Ending::Shutdown);
    core.close(&stopped);
    let ended = core.ended_sessions();
    assert_eq!((ended.left, ended.replaced, ended.revoked, ended.shutdown), (1, 1, 1, 1));
    assert_eq!((ended.rx_packets, ended.rx_bytes), (5, 500));
}

#[tokio::test]
async fn session_that_is_served_no_more_is_closed_and_new_terms_reach_who_serves_one() {
    let (core, _accounts) = core();
    let caller = Arc::new(Caller::new(Arc::<Nowhere>::default()));
    let identity = Arc::clone(&core).authenticate(Credential::Token("dev-a".to_owned()), caller).await.unwrap();
    let mut opened = Arc::clone(&core).open(identity, Arc::<Nowhere>::default()).await.ok().unwrap();
    assert_eq!(opened.session.grant().terms.routes, ["0.0.0.0/0".parse().unwrap()]);
    assert!(core.order("dev-a", Order::Terms(Arc::new(terms("10.0.0.0/8")))));
    let grant = opened.orders.next().await;
    assert_eq!(grant.terms.routes, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(grant.lease, opened.session.lease);
    let address = IpAddr::V4(address(2));
    assert!(core.sessions().lookup(address).is_some());
    drop(opened);
    assert!(core.sessions().lookup(address).is_none());
}

#[tokio::test]
async fn device_that_is_shut_out_loses_every_connection() {
    let (core, accounts) = core();
    let log_in = async |of: &str| {
        let connection = Arc::<Nowhere>::default();
        let caller = Arc::new(Caller::new(Arc::<Nowhere>::clone(&connection)));
        let login = Arc::clone(&core).authenticate(Credential::Token(of.to_owned()), Arc::clone(&caller)).await;
        (login, caller, connection)
    };
    let (with_session, without, other) = (log_in("dev-a").await, log_in("dev-a").await, log_in("dev-b").await);
    let kept: Arc<dyn Connection> = Arc::<Nowhere>::clone(&with_session.2);
    core.open_session(device("dev-a"), kept).unwrap();
    accounts.revoke("dev-a");
    assert!(core.shut_out("dev-a", Ending::Revoked));
    let ends = [&with_session, &without, &other].map(|(_, _, connection)| connection.closed());
    assert_eq!(ends, [Some(Ending::Revoked), Some(Ending::Revoked), None]);
    // The double lets its credential pass, as a check that was made before the revocation.
    let (late, _, _) = log_in("dev-a").await;
    assert!(matches!(late, Err(LoginError::Refused(AuthError::Revoked))), "{late:?}");
}

/// Notes which sessions begin and end.
#[derive(Default)]
struct Witness(Mutex<Vec<(&'static str, u64)>>);

impl Witness {
    fn saw(&self) -> Vec<(&'static str, u64)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl SessionObserver for Witness {
    fn opened(&self, session: &Arc<Session>) {
        self.0.lock().unwrap().push(("opened", session.id));
    }

    fn closed(&self, session: &Session, _traffic: &Traffic) {
        self.0.lock().unwrap().push(("closed", session.id));
    }
}

#[test]
fn observer_sees_each_session_begin_and_end_once() {
    let (core, accounts) = core();
    let witness = Arc::<Witness>::default();
    let observer: Arc<dyn SessionObserver> = Arc::<Witness>::clone(&witness);
    let core = Arc::into_inner(core).unwrap().observed_by(observer);
    let (first, _) = open(&core, "dev-a").unwrap();
    let (second, _) = open(&core, "dev-a").unwrap();
    assert_eq!(witness.saw(), [("opened", 1), ("opened", 2), ("closed", 1)]);
    core.close(&first);
    core.close(&second);
    core.close(&second);
    assert_eq!(witness.saw(), [("closed", 2)]);
    accounts.revoke("dev-b");
    assert!(open(&core, "dev-b").is_err());
    assert_eq!(witness.saw(), [("opened", 3), ("closed", 3)], "also of one that did not come into being");
}

/// Terms with these limits.
fn limited(limits: SessionLimits) -> PersonalTerms {
    Terms { limits, ..terms("0.0.0.0/0") }.into()
}

#[test]
fn new_terms_hold_for_sessions_that_live_and_for_those_to_come() {
    let (core, _accounts) = core();
    let (live, _) = open(&core, "dev-a").unwrap();
    core.replace_terms(terms("10.0.0.0/8").into()).unwrap();
    let (later, _) = open(&core, "dev-b").unwrap();
    for session in [live, later] {
        assert_eq!(session.grant().terms.routes, ["10.0.0.0/8".parse().unwrap()]);
    }
}

#[test]
fn session_has_the_terms_of_the_groups_that_the_source_says_now() {
    let (core, accounts) = core();
    let policy = "[groups.office]\nmembers = [\"ldap:staff\"]\nroutes = [\"10.1.0.0/16\"]\n";
    let policy = PolicyFile::parse(Path::new("policy.toml"), policy).unwrap();
    let config = config_for_tests(Path::new("/nowhere"));
    core.replace_terms(PersonalTerms::new(&config, GatewayAddresses::default(), Some(Arc::new(policy)))).unwrap();
    accounts.say("alice", "ldap", &["staff"]);
    let (session, _) = open(&core, "dev-a").unwrap();
    let is_office = || session.grant().terms.routes == ["10.1.0.0/16".parse().unwrap()];
    assert!(is_office());
    accounts.say("alice", "ldap", &[]);
    core.renew_terms_of("bob");
    assert!(is_office(), "nobody asked about alice");
    core.renew_terms_of("alice");
    assert!(!is_office());
    accounts.say("alice", "oidc", &["staff"]);
    core.renew_terms_of("alice");
    assert!(!is_office(), "a group of another source");
}

/// Time in which somebody who waits for nobody is through; on a machine too busy for that, a fault passes unseen.
const MEANWHILE: Duration = Duration::from_millis(200);

#[test]
fn renewal_that_began_before_a_reload_does_not_bring_the_former_terms_back() {
    let (core, accounts) = core();
    let config = config_for_tests(Path::new("/nowhere"));
    let routes_of_office = |route: &str| {
        let policy = format!("[groups.office]\nmembers = [\"alice\"]\nroutes = [\"{route}\"]\n");
        let policy = PolicyFile::parse(Path::new("policy.toml"), &policy).unwrap();
        PersonalTerms::new(&config, GatewayAddresses::default(), Some(Arc::new(policy)))
    };
    core.replace_terms(routes_of_office("10.1.0.0/16")).unwrap();
    let (session, _) = open(&core, "dev-a").unwrap();
    assert_eq!(session.grant().terms.routes, ["10.1.0.0/16".parse().unwrap()]);
    accounts.hold_up_reader();
    let renewing = Arc::clone(&core);
    let slow = apart(move || renewing.renew_terms_of("alice"));
    accounts.wait_for_reader();
    let (reloading, newer) = (Arc::clone(&core), routes_of_office("10.2.0.0/16"));
    let reload = apart(move || reloading.replace_terms(newer).unwrap());
    let was_through = reload.recv_timeout(MEANWHILE).is_ok();
    accounts.let_reader_go_on();
    result(&slow);
    if !was_through {
        result(&reload);
    }
    assert_eq!(session.grant().terms.routes, ["10.2.0.0/16".parse().unwrap()]);
}

#[test]
fn session_that_carries_nothing_ends_after_its_time_and_one_that_does_goes_on() {
    let (core, _accounts) = core();
    let minute = Duration::from_secs(60);
    core.replace_terms(limited(SessionLimits { idle_timeout: Some(minute), ..SessionLimits::unlimited(1400) }))
        .unwrap();
    let (idle, connection) = open(&core, "dev-a").unwrap();
    let (busy, _) = open(&core, "dev-b").unwrap();
    let begin = idle.since.max(busy.since);
    core.end_overdue(begin + minute / 2, SystemTime::now());
    assert_eq!(core.sessions().len(), 2);
    busy.carriers.counters().count_tx(1, 100);
    core.end_overdue(begin + minute - Duration::from_millis(1), SystemTime::now());
    assert_eq!(core.sessions().len(), 2);
    core.end_overdue(begin + minute, SystemTime::now());
    assert_eq!(core.sessions().all().iter().map(|session| session.id).collect::<Vec<_>>(), [busy.id]);
    assert_eq!(connection.closed(), Some(Ending::Idle));
    core.end_overdue(begin + 2 * minute - Duration::from_millis(1), SystemTime::now());
    assert!(core.sessions().is_empty(), "it carried one packet only");
    assert_eq!(core.ended_sessions().limited, 2);
}

#[test]
fn session_ends_with_its_hours_and_none_begins_outside_them() {
    let (core, _accounts) = core();
    let at = |text: &str| humantime::parse_rfc3339(text).unwrap();
    let hours = |text: &str| {
        let hours = Some(OpenHours::new(text.parse().unwrap()));
        limited(SessionLimits { hours, ..SessionLimits::unlimited(1400) })
    };
    let (session, connection) = open(&core, "dev-a").unwrap();
    core.replace_terms(hours("Mon 08:00-18:00 UTC")).unwrap();
    core.end_overdue(session.since, at("2026-01-05T17:59:59Z"));
    assert_eq!(core.sessions().len(), 1);
    core.end_overdue(session.since, at("2026-01-05T18:00:00Z"));
    assert_eq!((core.sessions().len(), connection.closed()), (0, Some(Ending::OutsideHours)));
    // A zone that there is not has no hours at all, whatever the time is.
    core.replace_terms(hours("Mon-Sun 00:00-24:00 Europe/Atlantis")).unwrap();
    assert!(matches!(open(&core, "dev-a"), Err(OpenError::OutsideHours)));
    assert_eq!(core.leases.devices(), 0);
    core.replace_terms(hours("Mon-Sun 00:00-24:00 UTC")).unwrap();
    assert!(open(&core, "dev-a").is_ok());
}

#[test]
fn session_ends_with_the_certificate_of_its_device_unless_that_was_renewed() {
    let (core, accounts) = core();
    let (begin, minute) = (SystemTime::now(), Duration::from_secs(60));
    accounts.certify(Certificate::Until(begin + 10 * minute));
    let (_, connection) = open(&core, "dev-a").unwrap();
    let look = |after: Duration| {
        let due = core.with_expired_certificates(begin + after);
        core.end_expired(&due, begin + after);
        core.sessions().len()
    };
    assert_eq!(look(10 * minute - Duration::from_secs(1)), 1);
    accounts.certify(Certificate::Until(begin + 20 * minute));
    assert_eq!(look(10 * minute), 1, "renewed");
    assert!(core.with_expired_certificates(begin + 11 * minute).is_empty(), "and asked about no more");
    accounts.certify(Certificate::Unreadable);
    assert_eq!(look(20 * minute), 1, "nobody can tell");
    accounts.certify(Certificate::Until(begin + 20 * minute));
    assert_eq!(look(20 * minute + Duration::from_secs(30)), 1, "asked again after a minute only");
    assert_eq!(look(21 * minute), 0);
    assert_eq!((connection.closed(), core.ended_sessions().certificate_over), (Some(Ending::CertificateOver), 1));
    accounts.certify(Certificate::None);
    open(&core, "dev-b").unwrap();
    assert_eq!(look(1000 * minute), 1, "a device with a bearer token");
}

#[test]
fn user_with_as_many_sessions_as_may_be_loses_the_oldest_or_gets_no_more() {
    let (core, _accounts) = core();
    let sessions = |when_full| {
        let sessions = Some(SessionsOfUser { most: 2, when_full });
        limited(SessionLimits { sessions, ..SessionLimits::unlimited(1400) })
    };
    core.replace_terms(sessions(WhenFull::Replace)).unwrap();
    let [first, _second, _third] = ["dev-a", "dev-b", "dev-c"].map(|device| open(&core, device).unwrap());
    assert_eq!(first.1.closed(), Some(Ending::Crowded));
    assert_eq!((core.sessions().len(), core.leases.devices()), (2, 2));
    core.replace_terms(sessions(WhenFull::Refuse)).unwrap();
    assert!(matches!(open(&core, "dev-d"), Err(OpenError::UserFull)));
    assert_eq!((core.sessions().len(), core.leases.devices()), (2, 2));
    assert!(open(&core, "dev-c").is_ok(), "the same device again");
}

/// A table of rules that a test can make refuse everything.
#[derive(Default)]
struct FakeRules {
    members: Mutex<HashMap<IpAddr, u32>>,
    broken: AtomicBool,
}

impl FakeRules {
    fn of(&self, session: &Session) -> Option<u32> {
        let address = session.addresses().next().unwrap();
        self.members.lock().unwrap().get(&address).copied()
    }

    fn refuse_if_broken(&self) -> Result<(), HostError> {
        let broken = self.broken.load(Ordering::Relaxed);
        if broken { Err(HostError::NoSuchLink { name: "adit0".into() }) } else { Ok(()) }
    }
}

impl RuleTable for FakeRules {
    fn change(&self, changes: &[MemberChange]) -> Result<(), HostError> {
        self.refuse_if_broken()?;
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
        self.refuse_if_broken()?;
        *self.members.lock().unwrap() = members.into_iter().map(|(address, rules)| (address, rules.number)).collect();
        Ok(())
    }
}

fn ruled(number: u32) -> Terms {
    let rules = Arc::new(PolicyClass { number, rules: CompiledClass::everything() });
    Terms { rules: Some(rules), ..terms("0.0.0.0/0") }
}

/// A core whose sessions have rules.
fn ruled_core() -> (LocalCore, Arc<FakeRules>) {
    let rules = Arc::<FakeRules>::default();
    let of_thread: Arc<dyn RuleTable> = Arc::<FakeRules>::clone(&rules);
    let accounts = Arc::<FakeAccounts>::default();
    let core = LocalCore::new(accounts, Arc::<FakeFlows>::default(), pool(), ruled(1), POOL, Arc::default());
    (core.enforcing(Enforcement::start(of_thread).unwrap()), rules)
}

#[test]
fn session_has_its_rules_before_anybody_hears_of_it_and_its_address_has_none_after_it() {
    let (core, rules) = ruled_core();
    let (first, _) = open(&core, "dev-a").unwrap();
    assert_eq!(rules.of(&first), Some(1));
    let (second, _) = open(&core, "dev-a").unwrap();
    core.close(&first);
    let (other, _) = open(&core, "dev-b").unwrap();
    assert_eq!((rules.of(&second), rules.of(&other)), (Some(1), Some(1)), "the replaced session takes nothing along");
    core.close(&second);
    eventually("its address has no rules", || rules.of(&second).is_none().then_some(()));
    assert_eq!(rules.of(&other), Some(1));
}

#[test]
fn session_whose_rules_cannot_be_enforced_is_not_opened() {
    let (core, rules) = ruled_core();
    rules.broken.store(true, Ordering::Relaxed);
    for _ in 0..2 * POOL {
        assert!(matches!(open(&core, "dev-a"), Err(OpenError::NotEnforced(_))));
    }
    assert!(core.sessions().is_empty() && core.leases.devices() == 0);
    rules.broken.store(false, Ordering::Relaxed);
    assert_eq!(rules.of(&open(&core, "dev-a").unwrap().0), Some(1));
}

#[test]
fn new_terms_bring_new_rules_to_all_sessions_or_to_none() {
    let (core, rules) = ruled_core();
    let sessions = ["dev-a", "dev-b"].map(|device| open(&core, device).unwrap().0);
    rules.broken.store(true, Ordering::Relaxed);
    assert!(core.replace_terms(ruled(2).into()).is_err());
    assert_eq!(sessions.each_ref().map(|session| session.grant().terms.rules.as_ref().unwrap().number), [1, 1]);
    rules.broken.store(false, Ordering::Relaxed);
    core.replace_terms(ruled(2).into()).unwrap();
    assert_eq!(sessions.each_ref().map(|session| rules.of(session)), [Some(2), Some(2)]);
    assert_eq!(rules.of(&open(&core, "dev-c").unwrap().0), Some(2));
}

#[test]
fn policy_comes_and_goes_while_sessions_go_on() {
    let (core, _accounts) = core();
    let rules = Arc::<FakeRules>::default();
    let table = || -> Arc<dyn RuleTable> { Arc::<FakeRules>::clone(&rules) };
    let (live, connection) = open(&core, "dev-a").unwrap();
    rules.broken.store(true, Ordering::Relaxed);
    assert!(core.bring_policy(ruled(1).into(), table()).is_err());
    assert_eq!(live.grant().terms.rules, None);
    open(&core, "dev-b").unwrap();
    rules.broken.store(false, Ordering::Relaxed);
    core.bring_policy(ruled(1).into(), table()).unwrap();
    let (later, _) = open(&core, "dev-c").unwrap();
    assert_eq!((rules.of(&live), rules.of(&later), rules.members.lock().unwrap().len()), (Some(1), Some(1), 3));
    core.replace_terms(ruled(2).into()).unwrap();
    assert_eq!(rules.of(&live), Some(2));
    core.release_policy(terms("0.0.0.0/0").into(), || Ok(())).unwrap();
    assert_eq!((live.grant().terms.rules.clone(), connection.closed()), (None, None));
    core.close(&later);
    open(&core, "dev-d").unwrap();
    assert_eq!(rules.members.lock().unwrap().len(), 3, "nothing is asked of it any more");
}

#[test]
fn session_that_begins_while_the_policy_goes_waits_for_its_end_and_is_not_refused() {
    let (core, rules) = ruled_core();
    let core = Arc::new(core);
    let (live, _) = open(&core, "dev-a").unwrap();
    let opening = || {
        let core = Arc::clone(&core);
        apart(move || open(&core, "dev-b").map(|(session, _)| session.grant().terms.rules.clone()))
    };
    let refusing = core.release_policy(terms("0.0.0.0/0").into(), || {
        assert_eq!(rules.of(&live), Some(1), "it is held to its rules until then");
        Err(HostError::NoSuchLink { name: "adit0".into() })
    });
    assert!(refusing.is_err());
    assert_eq!((rules.of(&live), result(&opening()).unwrap().map(|rules| rules.number)), (Some(1), Some(1)));

    let mut second = None;
    core.release_policy(terms("0.0.0.0/0").into(), || {
        // The table is gone: the kernel would refuse whatever is asked of it.
        rules.broken.store(true, Ordering::Relaxed);
        let opened = opening();
        assert!(opened.recv_timeout(Duration::from_millis(500)).is_err(), "it waits");
        second = Some(opened);
        Ok(())
    })
    .unwrap();
    assert_eq!(result(&second.unwrap()).unwrap(), None);
    assert_eq!(live.grant().terms.rules, None);
}

#[test]
fn device_that_changes_its_connection_leaves_what_is_under_way_to_its_new_session() {
    let (core, _) = core();
    let opened = [(); 3].map(|()| open(&core, "dev-a").unwrap());
    let [(first, left), (second, kept), (third, _)] = &opened;
    assert_eq!([first.lease, second.lease], [third.lease; 2]);
    assert_eq!(first.successor().map(|session| session.id), Some(second.id));
    assert_eq!(second.successor().map(|session| session.id), Some(third.id));
    assert!(third.successor().is_none() && first.carriers.is_closed() && second.carriers.is_closed());
    assert_eq!([left.closed(), kept.closed()], [Some(Ending::Replaced); 2]);
    // Who is somebody else gets nothing of it.
    let (other, _) = open(&core, "dev-b").unwrap();
    assert!(third.successor().is_none() && other.successor().is_none());
}
