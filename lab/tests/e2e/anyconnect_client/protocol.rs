//! Which protocol a gateway is spoken to of which only the link is known.

use std::fs;

use adit_lab::programs::Client;
use adit_lab::{GATEWAY_V4, Output};
use adit_testing::eventually;

use super::{Ocserv, USAGE};
use crate::harness::{INTERNET, filter, reach};
use crate::logins::{PASSWORD, gateway, run};
use crate::people::{REFUSED, pin};

/// Adds a gateway without saying what it speaks, unless these arguments do.
fn add(client: &Client, arguments: &[&str], input: &str) -> Output {
    let url = format!("https://{GATEWAY_V4}");
    run(client, &[&["add", &url, "--user", "alice", "--name", "work", "--replace"], arguments].concat(), input)
}

/// Whether the profile is that of a device that was enrolled.
fn is_native(client: &Client) -> bool {
    let profile = fs::read_to_string(client.folder().join("clients/work.toml")).unwrap();
    let is_native = profile.contains("certificate = ");
    assert_eq!(profile.contains("protocol = \"anyconnect\""), !is_native, "{profile}");
    is_native
}

#[test]
fn adit_gateway_enrols_the_device_of_who_adds_it_unless_the_other_protocol_is_asked_for() {
    let Some(mut tunnel) = gateway() else { return };
    let fingerprint = pin(&tunnel.gateway);
    let known_by = ["--pin", fingerprint.as_str()];
    for flags in [&["--protocol", "anyconnect"][..], &["--group", "default"]] {
        add(tunnel.client(), &[&known_by[..], flags].concat(), "").success().unwrap();
        assert!(!is_native(tunnel.client()), "{flags:?}");
    }
    let both = add(tunnel.client(), &[&known_by[..], &["--protocol", "native", "--group", "default"]].concat(), "");
    assert_eq!(both.code, USAGE, "{both:?}");
    let wrong = add(tunnel.client(), &known_by, "wrong horse battery\n");
    assert_eq!(wrong.code, REFUSED, "{wrong:?}");
    assert!(!is_native(tunnel.client()), "the profile of before is kept");

    let said = add(tunnel.client(), &known_by, &format!("{PASSWORD}\n")).success().unwrap();
    assert!(said.contains("as alice's device") && is_native(tunnel.client()), "{said}");
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    eventually("packets travel by esp", || {
        (tunnel.client().status().unwrap().carrier.as_deref() == Some("esp")).then_some(())
    });
}

#[test]
fn adit_gateway_that_does_not_answer_on_udp_is_spoken_to_by_the_other_protocol() {
    let Some(tunnel) = gateway() else { return };
    let fingerprint = pin(&tunnel.gateway);
    filter(tunnel.gateway.host(), "no_udp", &[("input priority 0", "meta l4proto udp drop")]);
    let said = add(tunnel.client(), &["--pin", &fingerprint], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("does not answer on UDP") && !is_native(tunnel.client()), "{said:?}");
}

#[test]
fn ocserv_is_asked_and_is_none_of_ours() {
    let Some(ocserv) = Ocserv::start() else { return };
    add(&ocserv.client, &["--authority", &ocserv.certificate], "").success().unwrap();
    assert!(!is_native(&ocserv.client));
}
