use std::sync::mpsc;
use std::thread;

use super::super::tests::{FakeAccounts, POOL, apart, at_once, pool, result};
use super::*;

/// Leases for `limit` devices, and the accounts behind them.
fn leases(limit: usize) -> (Arc<Leases>, Arc<FakeAccounts>) {
    let accounts = Arc::<FakeAccounts>::default();
    let kept: Arc<dyn Accounts> = Arc::<FakeAccounts>::clone(&accounts);
    (Arc::new(Leases::new(kept, pool(), limit)), accounts)
}

/// One login: the addresses it got.
fn log_in(leases: &Leases, device: &str) -> Result<Lease, OpenError> {
    let claim = leases.claim(device, Instant::now())?;
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
