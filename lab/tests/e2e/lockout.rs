//! Strangers who guess passwords, and the users whom they must not keep out.

use std::cell::Cell;

use adit_lab::programs::Client;
use adit_lab::{GATEWAY_V4, INTERNET_V4, OUTSIDE_V4, Output};
use serde_json::Value;

use crate::harness::{INTERNET, Options, Tunnel, reach};
use crate::people::{REFUSED, add_user, join, join_at, log_in};

const PASSWORD: &str = "correct horse battery";
/// How many wrong passwords an account takes from one strange address.
const TRIES: u32 = 5;

/// Somebody far away from all users of the gateway, who tries passwords.
struct Stranger<'a> {
    client: Client,
    tunnel: &'a Tunnel,
    guesses: Cell<u32>,
}

impl Stranger<'_> {
    fn tries(&self, user: &str, password: &str) -> Output {
        join_at(&OUTSIDE_V4.to_string(), self.tunnel, &self.client, user, &[password])
    }

    /// Tries a password that is wrong, and was not tried before; gives what was said.
    fn guesses(&self, user: &str) -> String {
        self.guesses.set(self.guesses.get() + 1);
        let wrong = self.tries(user, &format!("wrong horse {}", self.guesses.get()));
        assert_eq!(wrong.code, REFUSED, "{wrong:?}");
        wrong.stderr
    }

    /// Tries the right password, and is locked out.
    fn is_locked_out(&self) {
        let locked = self.tries("alice", PASSWORD);
        assert_eq!(locked.code, REFUSED, "{locked:?}");
        let said = &locked.stderr;
        assert!(said.contains("too many failed logins") && said.contains("try again in "), "{said}");
    }
}

fn bans(tunnel: &Tunnel) -> Vec<Value> {
    tunnel.gateway.admin_json(&["bans"]).unwrap()["bans"].as_array().unwrap().clone()
}

/// Runs a verb that forgets failed logins; says whether there were any.
fn forgive(tunnel: &Tunnel, verb: &[&str]) -> bool {
    tunnel.gateway.admin_json(verb).unwrap()["changed"].as_bool().unwrap()
}

#[test]
fn stranger_who_guesses_is_locked_out_and_the_user_gets_in_from_a_known_device_and_network() {
    let public = format!("{GATEWAY_V4},{OUTSIDE_V4}");
    let settings = [("public", public.as_str())];
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 2, settings: &settings }) else { return };
    add_user(&tunnel.gateway, "alice", PASSWORD);
    tunnel.gateway.start().unwrap();
    join(&tunnel, &tunnel.clients[0], "alice", &[PASSWORD]).success().unwrap();
    tunnel.clients[0].up().unwrap();
    let client = Client::new(&tunnel.internet, &adit_lab::binaries().unwrap());
    let stranger = Stranger { client, tunnel: &tunnel, guesses: Cell::new(0) };

    for _try in 0..TRIES {
        let said = stranger.guesses("alice");
        assert!(said.contains("is not accepted"), "{said}");
    }
    stranger.is_locked_out();
    assert_eq!(bans(&tunnel), Vec::<Value>::new(), "who cannot try one account may try others");
    let names = ["bob", "carol", "dave", "erin"].into_iter().cycle().take(40);
    let banned = names.map(|name| drop(stranger.guesses(name))).find_map(|()| bans(&tunnel).first().cloned());
    assert_eq!(banned.expect("the address is banned")["network"], INTERNET_V4.to_string());

    // By her device, and without one from a network that she came from before.
    log_in(&tunnel.clients[0], "alice", &[PASSWORD]).success().unwrap();
    join(&tunnel, &tunnel.clients[1], "alice", &[PASSWORD]).success().unwrap();
    reach(tunnel.clients[0].host(), INTERNET[0]);

    assert!(forgive(&tunnel, &["unban", &INTERNET_V4.to_string()]));
    assert!(bans(&tunnel).is_empty() && !forgive(&tunnel, &["unban", &INTERNET_V4.to_string()]));
    for _try in 0..TRIES {
        stranger.guesses("alice");
    }
    stranger.is_locked_out();
    assert!(forgive(&tunnel, &["unlock", "alice"]) && !forgive(&tunnel, &["unlock", "alice"]));
    let joined = stranger.tries("alice", PASSWORD).success().unwrap();
    assert!(joined.contains("as alice's device"), "{joined}");
}
