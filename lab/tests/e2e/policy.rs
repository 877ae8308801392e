//! Groups of a policy, as users and administrators meet them.

use adit_lab::INTERNET_V4;
use adit_testing::{PATIENCE, eventually};
use serde_json::Value;

use crate::harness::{INTERNET, Options, Tunnel, answers, nft, reach};
use crate::people::{REFUSED, give_policy};

/// A lab whose gateway has this policy; nothing runs.
fn with_policy(clients: usize, text: &str) -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options { clients, settings: &[] })?;
    give_policy(&mut tunnel.gateway, text);
    Some(tunnel)
}

fn routes(tunnel: &Tunnel, client: usize) -> Vec<Value> {
    let text = tunnel.clients[client].run(&["status", "--json"]).unwrap().success().unwrap();
    let status: Value = serde_json::from_str(&text).unwrap();
    status["routes"].as_array().unwrap().clone()
}

#[test]
fn groups_decide_who_is_told_which_routes_and_explain_says_so() {
    let policy = format!("[groups.office]\nmembers = [\"user1\"]\nroutes = [\"{INTERNET_V4}\"]\n");
    let Some(mut tunnel) = with_policy(2, &policy) else { return };
    tunnel.run();
    reach(tunnel.clients[0].host(), INTERNET[0]);
    reach(tunnel.clients[1].host(), INTERNET[0]);
    assert!(routes(&tunnel, 0).contains(&format!("{INTERNET_V4}/32").into()), "{:?}", routes(&tunnel, 0));
    assert!(!routes(&tunnel, 0).contains(&"0.0.0.0/0".into()) && routes(&tunnel, 1).contains(&"0.0.0.0/0".into()));
    let explain = |user: &str, destination: &str| {
        let told = tunnel.gateway.admin_json(&["explain", user, "tcp", destination]).unwrap();
        (told["verdicts"][0]["action"].clone(), told["groups"].as_array().unwrap().len())
    };
    assert_eq!(explain("user1", &format!("{INTERNET_V4}:443")), ("allow".into(), 1));
    assert_eq!(explain("user1", "192.0.2.200:443"), ("deny".into(), 1), "no route leads there");
    assert_eq!(explain("user2", "192.0.2.200:443"), ("allow".into(), 0));
}

#[test]
fn user_with_as_many_sessions_as_may_be_is_refused_another_and_told_why() {
    let policy = "[groups.one]\nmembers = [\"user1\"]\nsessions = 1\nsessions_full = \"refuse\"\n";
    let Some(mut tunnel) = with_policy(2, policy) else { return };
    tunnel.gateway.start().unwrap();
    for client in &tunnel.clients {
        let link = tunnel.gateway.invite("user1", &[]).unwrap();
        client.join(&link).unwrap().success().unwrap();
    }
    tunnel.clients[0].up().unwrap();
    let second = tunnel.clients[1].host().output(tunnel.clients[1].command(&["up"]), PATIENCE).unwrap();
    assert_eq!(second.code, REFUSED, "{}", second.stderr);
    assert!(second.stderr.contains("as many sessions as may be"), "{}", second.stderr);
    reach(tunnel.clients[0].host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    tunnel.clients[1].up().unwrap();
}

#[test]
fn kernel_holds_each_user_to_the_rules_over_an_end_and_a_flush() {
    let policy = "[[rules]]\nusers = [\"user1\"]\naction = \"allow\"\nto = [\"198.51.100.0/24\"]\nports = [\"icmp\"]\n";
    let Some(mut tunnel) = with_policy(2, policy) else { return };
    tunnel.run();
    let [first, second] = [0, 1].map(|client| tunnel.clients[client].host());
    reach(first, INTERNET[0]);
    assert!(!answers(first, INTERNET[1]), "no rule is about IPv6");
    assert!(!answers(second, INTERNET[0]), "no rule is about this user");
    let gateway = tunnel.gateway.host();
    nft(gateway, "flush ruleset");
    assert!(!answers(second, INTERNET[0]));
    reach(first, INTERNET[0]);
    // Who comes back is allowed what was allowed, and an address without a session is in no class.
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    let members = || nft(gateway, "list table inet adit_policy_adit0").matches("elements = {").count();
    eventually("only one user's addresses are members", || (members() == 2).then_some(()));
    tunnel.clients[0].up().unwrap();
    reach(tunnel.clients[0].host(), INTERNET[0]);
    assert!(!answers(tunnel.clients[0].host(), INTERNET[1]));
}

#[test]
fn gateway_without_a_policy_has_no_table_for_one() {
    let Some(tunnel) = Tunnel::start(Options { clients: 1, settings: &[] }) else { return };
    reach(tunnel.clients[0].host(), INTERNET[0]);
    assert!(!nft(tunnel.gateway.host(), "list tables").contains("adit_policy"));
}
