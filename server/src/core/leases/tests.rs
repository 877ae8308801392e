use std::sync::mpsc;
use std::thread;

use super::super::tests::{FakeAccounts, FakeFlows, POOL, apart, at_once, pool, result};
use super::*;

/// Leases for `limit` devices, and the accounts behind them.
fn leases(limit: usize) -> (Arc<Leases>, Arc<FakeAccounts>) {
    let (leases, accounts, _flows) = leases_with_flows(limit);
    (leases, accounts)
}

/// The same, and the flows of their addresses.
fn leases_with_flows(limit: usize) -> (Arc<Leases>, Arc<FakeAccounts>, Arc<FakeFlows>) {
    leases_beside(FakeFlows::default(), limit)
}

fn leases_beside(flows: FakeFlows, limit: usize) -> (Arc<Leases>, Arc<FakeAccounts>, Arc<FakeFlows>) {
    let (accounts, flows) = (Arc::<FakeAccounts>::default(), Arc::new(flows));
    let kept: Arc<dyn Accounts> = Arc::<FakeAccounts>::clone(&accounts);
    let tracked: Arc<dyn Flows> = Arc::<FakeFlows>::clone(&flows);
    (Arc::new(Leases::new(kept, tracked, pool(), limit)), accounts, flows)
}

/// One login: the addresses it got.
fn log_in(leases: &Arc<Leases>, device: &str) -> Result<Lease, OpenError> {
    let claim = leases.claim(device, Instant::now())?;
    claim.end_old_flows()?;
    claim.make_durable()?;
    let lease = claim.lease();
    claim.keep();
    Ok(lease)
}

/// The same on a thread of its own.
fn log_in_apart(leases: &Arc<Leases>, device: &'static str) -> mpsc::Receiver<Result<Lease, OpenError>> {
    let leases = Arc::clone(leases);
    apart(move || log_in(&leases, device))
}

#[test]
fn logins_at_once_do_not_overshoot_the_limit() {
    let (leases, accounts) = leases(3);
    accounts.hold_up();
    let (tell, told) = mpsc::sync_channel(8);
    for number in 0..8 {
        let (leases, tell) = (Arc::clone(&leases), tell.clone());
        thread::spawn(move || tell.send(log_in(&leases, &format!("dev-{number}"))));
    }
    // The three who have a place wait for the accounts; the others hear at once that there is none.
    for _ in 0..5 {
        assert!(matches!(result(&told), Err(OpenError::Full)));
    }
    accounts.wait_for(3);
    assert_eq!(leases.devices(), 3);
    accounts.go_on();
    for _ in 0..3 {
        assert!(result(&told).is_ok());
    }
    assert!(matches!(log_in(&leases, "dev-late"), Err(OpenError::Full)));
}

#[test]
fn device_that_comes_again_needs_no_further_place() {
    let (leases, _accounts) = leases(1);
    let lease = log_in(&leases, "dev-a").unwrap();
    assert_eq!(log_in(&leases, "dev-a").unwrap(), lease);
    assert!(matches!(log_in(&leases, "dev-b"), Err(OpenError::Full)));
}

#[test]
fn accounts_that_write_hold_up_no_end_and_no_other_login_s_place() {
    let (leases, accounts) = leases(POOL);
    log_in(&leases, "dev-a").unwrap();
    accounts.hold_up();
    let slow = log_in_apart(&leases, "dev-b");
    accounts.wait_for(1);
    let ending = Arc::clone(&leases);
    at_once(move || ending.release("dev-a", Instant::now()));
    let looking = Arc::clone(&leases);
    assert_eq!(at_once(move || looking.devices()), 1);
    let asking = Arc::clone(&leases);
    assert!(at_once(move || asking.claim("dev-c", Instant::now()).is_ok()));
    accounts.go_on();
    let lease = result(&slow).unwrap();
    assert_eq!(accounts.remembered("dev-b"), Some(lease), "durable before the login has ended");
}

#[test]
fn flows_end_before_an_address_gets_another_holder_and_go_on_with_the_same() {
    let (leases, _accounts, flows) = leases_with_flows(POOL);
    let lease = log_in(&leases, "dev-0").unwrap();
    assert_eq!(flows.ended(), [lease], "nobody knows who had it before the gateway started");
    leases.release("dev-0", Instant::now());
    assert_eq!(log_in(&leases, "dev-0").unwrap(), lease);
    assert_eq!(flows.ended().len(), 1, "its own flows go on");
    leases.release("dev-0", Instant::now());
    for number in 1..POOL {
        log_in(&leases, &format!("dev-{number}")).unwrap();
    }
    assert_eq!(log_in(&leases, "dev-new").unwrap(), lease);
    assert_eq!(flows.ended().last(), Some(&lease));
    assert_eq!(flows.ended().len(), POOL + 1);
}

#[test]
fn addresses_that_nobody_had_are_given_without_looking_for_flows() {
    let first = log_in(&leases(1).0, "dev-0").unwrap();
    let of_first = first.v4.map(IpAddr::V4);
    let (leases, _accounts, flows) = leases_beside(FakeFlows::of(of_first), POOL);
    assert_eq!(log_in(&leases, "dev-0").unwrap(), first);
    assert_eq!(flows.ended(), [first], "there were flows of it when the gateway started");
    for number in 1..POOL {
        log_in(&leases, &format!("dev-{number}")).unwrap();
    }
    assert_eq!(flows.ended().len(), 1);
    leases.release("dev-1", Instant::now());
    let second_hand = log_in(&leases, "dev-new").unwrap();
    assert_eq!(flows.ended(), [first, second_hand]);
}

#[test]
fn address_whose_flows_go_on_is_given_to_nobody_until_they_end() {
    let (leases, accounts, flows) = leases_with_flows(POOL);
    flows.break_down();
    for _ in 0..2 {
        assert!(matches!(log_in(&leases, "dev-a"), Err(OpenError::OldFlows(_))));
    }
    assert_eq!((leases.devices(), accounts.remembered("dev-a")), (0, None));
    flows.mend();
    let lease = log_in(&leases, "dev-a").unwrap();
    assert_eq!(flows.ended(), [lease], "the device that failed before gets it no other way");
}

#[test]
fn second_login_at_once_does_not_overtake_the_end_of_old_flows() {
    let (leases, _accounts, flows) = leases_with_flows(POOL);
    let first = leases.claim("dev-a", Instant::now()).unwrap();
    let second = leases.claim("dev-a", Instant::now()).unwrap();
    second.end_old_flows().unwrap();
    assert_eq!(flows.ended(), [first.lease()]);
}

#[test]
fn address_that_could_not_be_written_is_free_again() {
    let (leases, accounts) = leases(POOL);
    accounts.break_for("dev-a");
    for _ in 0..2 * POOL {
        assert!(matches!(log_in(&leases, "dev-a"), Err(OpenError::Store(_))));
    }
    assert_eq!((leases.devices(), accounts.remembered("dev-a")), (0, None));
    for number in 0..POOL {
        log_in(&leases, &format!("dev-{number}")).unwrap();
    }
    accounts.mend();
    assert!(matches!(log_in(&leases, "dev-a"), Err(OpenError::Full)));
}

#[test]
fn failed_second_login_leaves_the_first_its_addresses() {
    let (leases, accounts) = leases(POOL);
    let lease = log_in(&leases, "dev-a").unwrap();
    accounts.break_for("dev-a");
    assert!(log_in(&leases, "dev-a").is_err());
    for number in 1..POOL {
        assert_ne!(log_in(&leases, &format!("dev-{number}")).unwrap(), lease);
    }
    assert_eq!(leases.devices(), POOL);
}

#[test]
fn two_logins_of_one_device_at_once_hold_one_lease_until_both_have_ended() {
    let (leases, accounts) = leases(POOL);
    accounts.hold_up();
    let (one, two) = (log_in_apart(&leases, "dev-a"), log_in_apart(&leases, "dev-a"));
    accounts.wait_for(2);
    accounts.go_on();
    let lease = result(&one).unwrap();
    assert_eq!(result(&two).unwrap(), lease);
    assert_eq!(leases.devices(), 1);
    leases.release("dev-a", Instant::now());
    for number in 1..POOL {
        assert_ne!(log_in(&leases, &format!("dev-{number}")).unwrap(), lease);
    }
    leases.release("dev-a", Instant::now());
    assert_eq!(log_in(&leases, "dev-new").unwrap(), lease, "nobody else is left to hold it");
}
