//! Sessions of users whom a directory knows, while that changes and while it is away.

use std::sync::Arc;

use adit_lab::programs::{Client, ToldStatus};
use adit_testing::slapd::Slapd;
use adit_testing::{PATIENCE, eventually};

use crate::harness::{INTERNET, Options, Tunnel, answers, reach};
use crate::people::{REFUSED, add_user, give_directory, give_policy, join, log_in};

/// How often the directory is asked about users.
const RECHECK: (&str, &str) = ("login.recheck", "5s");

/// `ldapmodify` says so to disable somebody, and to let them in again (Active Directory's `userAccountControl`).
const DISABLED: &str = "514";
const ENABLED: &str = "512";

fn state(client: &Client) -> ToldStatus {
    client.status().unwrap()
}

fn stands(client: &Client, wanted: &str) {
    eventually(&format!("{} is {wanted}", client.host().name()), || (state(client).state == wanted).then_some(()));
}

/// The numbers of the live sessions.
fn sessions(tunnel: &Tunnel) -> Vec<u64> {
    let mut numbers: Vec<u64> = tunnel.gateway.sessions().unwrap().iter().map(|session| session.session).collect();
    numbers.sort_unstable();
    numbers
}

fn modify(tunnel: &Tunnel, directory: &Arc<Slapd>, ldif: String) {
    let directory = Arc::clone(directory);
    tunnel.gateway.host().run(move || directory.modify(&ldif));
}

fn set_account(tunnel: &Tunnel, directory: &Arc<Slapd>, control: &str) {
    let entry = "dn: uid=alice,ou=people,dc=lab\nchangetype: modify\nreplace: userAccountControl\n";
    modify(tunnel, directory, format!("{entry}userAccountControl: {control}\n"));
}

#[test]
fn user_whom_the_directory_disables_is_out_and_one_who_leaves_a_group_loses_what_it_allowed() {
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 2, settings: &[RECHECK] }) else { return };
    let Some(directory) = give_directory(&mut tunnel.gateway) else { return };
    let policy = "[groups.staff]\nmembers = [\"ldap:staff\"]\n\
                  [[rules]]\ngroups = [\"staff\"]\naction = \"allow\"\nto = [\"*\"]\n";
    give_policy(&mut tunnel.gateway, policy);
    tunnel.gateway.start().unwrap();
    for (number, (user, password)) in [("alice", "wonderland"), ("bob", "builder")].into_iter().enumerate() {
        join(&tunnel, &tunnel.clients[number], user, &[password]).success().unwrap();
        tunnel.clients[number].up().unwrap();
        reach(tunnel.clients[number].host(), INTERNET[0]);
    }
    let [alice, bob] = [&tunnel.clients[0], &tunnel.clients[1]];
    let both = sessions(&tunnel);
    let leave = "dn: cn=staff,ou=groups,dc=lab\nchangetype: modify\ndelete: member\nmember: uid=bob,ou=people,dc=lab\n";
    modify(&tunnel, &directory, leave.to_owned());
    eventually("what the group allowed is over", || (!answers(bob.host(), INTERNET[0])).then_some(()));
    assert_eq!(sessions(&tunnel), both, "his session goes on");
    reach(alice.host(), INTERNET[0]);

    set_account(&tunnel, &directory, DISABLED);
    stands(alice, "login needed");
    assert!(!answers(alice.host(), INTERNET[0]), "the host stays closed");
    stands(bob, "connected");
    assert_eq!(sessions(&tunnel), both[1..], "others go on");
    let refused = log_in(alice, "alice", &["wonderland"]);
    assert_eq!(refused.code, REFUSED, "{}", refused.stderr);

    set_account(&tunnel, &directory, ENABLED);
    assert_eq!(state(alice).state, "login needed", "what she had is void for ever");
    // Her password was refused while she was disabled, and the same one is not tried again for a while.
    tunnel.gateway.admin(&["unlock", "alice"]).unwrap().success().unwrap();
    log_in(alice, "alice", &["wonderland"]).success().unwrap();
    stands(alice, "connected");
    reach(alice.host(), INTERNET[0]);
}

#[test]
fn directory_that_is_away_ends_no_session_and_keeps_no_other_user_out() {
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 2, settings: &[RECHECK] }) else { return };
    let Some(directory) = give_directory(&mut tunnel.gateway) else { return };
    add_user(&tunnel.gateway, "carol", "correct horse battery");
    tunnel.gateway.start().unwrap();
    join(&tunnel, &tunnel.clients[0], "alice", &["wonderland"]).success().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.clients[0].host(), INTERNET[0]);
    let before = sessions(&tunnel);

    drop(directory);
    let gateway = tunnel.gateway.process().unwrap();
    gateway.wait_for_line("cannot say whether a user still may", PATIENCE).unwrap();
    stands(&tunnel.clients[0], "connected");
    assert_eq!(sessions(&tunnel), before);
    reach(tunnel.clients[0].host(), INTERNET[0]);
    // Who is known to the gateway itself comes in, and who is not hears what may be the cause.
    let stranger = join(&tunnel, &tunnel.clients[1], "bob", &["builder"]);
    assert!(stranger.code == REFUSED && stranger.stderr.contains("cannot be reached now"), "{stranger:?}");
    join(&tunnel, &tunnel.clients[1], "carol", &["correct horse battery"]).success().unwrap();
    tunnel.clients[1].up().unwrap();
    reach(tunnel.clients[1].host(), INTERNET[0]);
}
