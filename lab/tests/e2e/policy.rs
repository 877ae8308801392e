//! Groups of a policy, as users and administrators meet them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use adit_lab::INTERNET_V4;
use adit_testing::PATIENCE;
use serde_json::Value;

use crate::harness::{INTERNET, Options, Tunnel, reach};

/// What a client ends with when the gateway refuses it.
const REFUSED: i32 = 3;

/// A lab whose gateway has this policy; nothing runs.
fn with_policy(clients: usize, text: &str) -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options { clients, settings: &[] })?;
    let path = tunnel.gateway.folder().join("policy.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    tunnel.gateway.set("policy", path.to_str().unwrap());
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
