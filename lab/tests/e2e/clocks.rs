//! Certificates and logins that end, and clocks that are set wrong and right again while they last.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use adit_lab::{GATEWAY_V4, Process};
use adit_testing::{PATIENCE, eventually};

use crate::harness::{INTERNET, Options, Tunnel, reach};
use crate::logins::{code_of_app, set_up_app, step, with_fifo};
use crate::people::{REFUSED, add_user, join, log_in, pin};
use crate::wrong_clock::{DAY, WrongClock};

const PASSWORD: &str = "correct horse battery";
/// Longer than a gateway waits between two looks whether a login is over.
const LOOK: Duration = Duration::from_secs(12);

/// A gateway with such a clock, which runs and knows alice by her password.
fn gateway(clients: usize, settings: &[(&str, &str)], seconds: i64) -> Option<(Tunnel, WrongClock)> {
    let mut tunnel = Tunnel::prepare(Options { clients, settings })?;
    let clock = WrongClock::new(tunnel.gateway.host(), seconds)?;
    add_user(&tunnel.gateway, "alice", PASSWORD);
    tunnel.gateway.start_with(&clock.environment()).unwrap();
    Some((tunnel, clock))
}

fn state(tunnel: &Tunnel) -> String {
    tunnel.clients[0].status().unwrap().state
}

fn stands(tunnel: &Tunnel, wanted: &str) {
    eventually(&format!("the client is {wanted}"), || (state(tunnel) == wanted).then_some(()));
}

fn sessions(tunnel: &Tunnel) -> Vec<u64> {
    tunnel.gateway.sessions().unwrap().iter().map(|session| session.session).collect()
}

/// Waits until a gateway has noticed so many times that its clock was set.
fn notices(gateway: &Process, times: usize) {
    let noticed = || gateway.stderr().matches("the clock was set").count();
    eventually("the gateway notices its clock", || (noticed() >= times).then_some(()));
}

#[test]
fn login_at_a_gateway_whose_clock_is_days_behind_lasts_once_it_is_right() {
    let Some((mut tunnel, clock)) = gateway(1, &[], -10 * DAY) else { return };
    join(&tunnel, &tunnel.clients[0], "alice", &[PASSWORD]).success().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.clients[0].host(), INTERNET[0]);
    let before = sessions(&tunnel);
    let known = tunnel.gateway.process().unwrap().stderr().matches("the clock was set").count();
    clock.set(0);
    notices(tunnel.gateway.process().unwrap(), known + 1);
    thread::sleep(LOOK);
    assert_eq!(sessions(&tunnel), before, "the session goes on");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    // Neither the certificate nor the login is over.
    tunnel.clients[0].up().unwrap();
    reach(tunnel.clients[0].host(), INTERNET[0]);
}

#[test]
fn gateway_whose_clock_jumps_days_ahead_ends_no_session_and_lets_users_in_once_it_is_right() {
    let Some((mut tunnel, clock)) = gateway(2, &[], 0) else { return };
    join(&tunnel, &tunnel.clients[0], "alice", &[PASSWORD]).success().unwrap();
    tunnel.join(1);
    for client in &mut tunnel.clients {
        client.up().unwrap();
        reach(client.host(), INTERNET[0]);
    }
    let before = sessions(&tunnel);
    for (times, seconds) in [(1, 10 * DAY), (2, 0)] {
        clock.set(seconds);
        notices(tunnel.gateway.process().unwrap(), times);
        thread::sleep(LOOK);
        assert_eq!(sessions(&tunnel), before, "{seconds}");
        reach(tunnel.clients[0].host(), INTERNET[0]);
    }
    for client in &mut tunnel.clients {
        assert_eq!(client.stop().unwrap(), 0);
        client.up().unwrap();
        reach(client.host(), INTERNET[0]);
    }
}

#[test]
fn code_of_an_app_is_refused_by_a_clock_that_is_wrong_and_taken_once_it_is_right() {
    let Some((tunnel, clock)) = gateway(1, &[], 0) else { return };
    let app = set_up_app(&tunnel.gateway);
    clock.set(DAY);
    notices(tunnel.gateway.process().unwrap(), 1);
    let refused = join(&tunnel, tunnel.client(), "alice", &[PASSWORD, &code_of_app(&app.secret, step() + 1)]);
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    clock.set(0);
    notices(tunnel.gateway.process().unwrap(), 2);
    let code = code_of_app(&app.secret, step().max(app.confirmed + 1));
    join(&tunnel, tunnel.client(), "alice", &[PASSWORD, &code]).success().unwrap();
}

#[test]
fn login_that_is_under_way_goes_on_when_the_clock_is_set() {
    let Some((tunnel, clock)) = gateway(1, &[], 0) else { return };
    let app = set_up_app(&tunnel.gateway);
    clock.set(-10 * DAY);
    notices(tunnel.gateway.process().unwrap(), 1);
    let (client, pin) = (tunnel.client(), pin(&tunnel.gateway));
    let place = GATEWAY_V4.to_string();
    let join = client.command(&["join", &place, "--pin", &pin, "--user", "alice", "--no-browser"]);
    let (joining, mut typed) = with_fifo(client.host(), &join);
    writeln!(typed, "{PASSWORD}").unwrap();
    joining.wait_for_line("recovery codes", PATIENCE).unwrap();
    clock.set(0);
    notices(tunnel.gateway.process().unwrap(), 2);
    writeln!(typed, "{}", code_of_app(&app.secret, step().max(app.confirmed + 1))).unwrap();
    let joined = joining.output(PATIENCE).unwrap().success().unwrap();
    assert!(joined.contains("as alice's device"), "{joined}");
}

#[test]
fn client_whose_clock_is_days_ahead_stays_connected_and_warns_only_until_it_is_right() {
    let Some((mut tunnel, _clock)) = gateway(1, &[], 0) else { return };
    let Some(clock) = WrongClock::new(tunnel.clients[0].host(), 10 * DAY) else { return };
    join(&tunnel, &tunnel.clients[0], "alice", &[PASSWORD]).success().unwrap();
    tunnel.clients[0].up_with(&[], &clock.environment()).unwrap();
    reach(tunnel.clients[0].host(), INTERNET[0]);
    let before = sessions(&tunnel);
    let warns = || {
        let warnings = tunnel.clients[0].status().unwrap().warnings;
        warnings.iter().any(|warning| warning.contains("is over by this host's clock"))
    };
    eventually("the client warns", || warns().then_some(()));
    clock.set(0);
    eventually("the client warns no longer", || (!warns()).then_some(()));
    assert_eq!((state(&tunnel), sessions(&tunnel)), ("connected".to_owned(), before));
}

#[test]
fn session_ends_with_its_login_and_a_new_login_begins_another() {
    let Some((mut tunnel, _clock)) = gateway(1, &[("login.session_lifetime", "15s")], 0) else { return };
    join(&tunnel, &tunnel.clients[0], "alice", &[PASSWORD]).success().unwrap();
    tunnel.clients[0].up().unwrap();
    stands(&tunnel, "connected");
    stands(&tunnel, "login needed");
    assert_eq!(sessions(&tunnel), Vec::<u64>::new());
    log_in(&tunnel.clients[0], "alice", &[PASSWORD]).success().unwrap();
    stands(&tunnel, "connected");
}

#[test]
fn session_ends_with_a_certificate_that_is_not_renewed_and_comes_back_if_the_clock_was_wrong() {
    let settings = [("certificate_lifetime", "20m"), ("certificate_renewal", "false")];
    let Some((mut tunnel, clock)) = gateway(1, &settings, 0) else { return };
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    reach(tunnel.clients[0].host(), INTERNET[0]);
    // A certificate is dated back, so that one of minutes is due at once.
    let process = tunnel.clients[0].process().unwrap();
    process.wait_for_line("this gateway renews no certificates", PATIENCE).unwrap();
    // Less than what is taken for a clock that was set: that much time seems to have passed.
    clock.set(50 * 60);
    stands(&tunnel, "blocked");
    let reason = tunnel.clients[0].status().unwrap().reason.unwrap_or_default();
    assert!(reason.contains("this device's certificate has expired"), "{reason}");
    assert_eq!(sessions(&tunnel), Vec::<u64>::new());
    clock.set(0);
    // It tries again every half minute.
    let back = (0..4).any(|_| {
        thread::sleep(Duration::from_secs(10));
        state(&tunnel) == "connected"
    });
    assert!(back, "the client comes back by itself");
    reach(tunnel.clients[0].host(), INTERNET[0]);
}

#[test]
fn session_does_not_notice_that_the_certificate_of_its_device_is_renewed() {
    let Some((mut tunnel, _clock)) = gateway(1, &[("certificate_lifetime", "15s")], 0) else { return };
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    reach(tunnel.clients[0].host(), INTERNET[0]);
    let before = sessions(&tunnel);
    // Each certificate of the beginning is over by then.
    thread::sleep(Duration::from_secs(20));
    assert_eq!((state(&tunnel), sessions(&tunnel)), ("connected".to_owned(), before));
    reach(tunnel.clients[0].host(), INTERNET[0]);
}
