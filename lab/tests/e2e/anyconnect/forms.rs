//! What users are asked, and how clients answer that know it beforehand.

use super::{NO_LOGIN, log_in, reach_internet, run, start, up};
use crate::logins::PASSWORD;
use crate::people::join;

const CHOSEN: &str = "staple horse battery";
const BANNER: &str = "For staff only.";

#[test]
fn client_that_posts_no_xml_logs_in_as_well() {
    let Some(tunnel) = start() else { return };
    let plain = ["--no-xmlpost", "--user", "alice", "--passwd-on-stdin"];
    let wrong = run(&tunnel, &plain, "wrong horse battery\n");
    assert_eq!(wrong.code, NO_LOGIN, "{wrong:?}");
    assert!(wrong.stderr.contains("is not accepted"), "{wrong:?}");
    let (_stranger, session) = up(&tunnel, &plain, &format!("{PASSWORD}\n"));
    assert_eq!(session.addresses.len(), 2, "{session:?}");
    reach_internet(tunnel.client().host());
}

#[test]
fn user_who_comes_with_a_one_time_code_chooses_a_password() {
    let Some(tunnel) = start() else { return };
    let code = || {
        let reset = tunnel.gateway.admin_json(&["user", "reset", "alice", "--link"]).unwrap();
        reset["code"].as_str().unwrap().to_owned()
    };
    let plain = ["--no-xmlpost", "--user", "alice", "--passwd-on-stdin", "--authenticate"];
    let said = run(&tunnel, &plain, &format!("{}\n{PASSWORD}\n", code()));
    assert_eq!(said.code, 0, "also without XML: {said:?}");
    // The first is no password that anybody may have: another is asked for.
    let (_stranger, _session) = log_in(&tunnel, &format!("{}\nshort\n{CHOSEN}", code()));
    reach_internet(tunnel.client().host());
    let old = run(&tunnel, &["--user", "alice", "--passwd-on-stdin"], &format!("{PASSWORD}\n"));
    assert_eq!(old.code, NO_LOGIN, "{old:?}");
    let new = run(&tunnel, &["--user", "alice", "--passwd-on-stdin", "--authenticate"], &format!("{CHOSEN}\n"));
    assert_eq!(new.code, 0, "{new:?}");
}

#[test]
fn native_client_shows_the_banner_too() {
    let Some(mut tunnel) = start() else { return };
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("login.banner", BANNER);
    tunnel.gateway.start().unwrap();
    let joined = join(&tunnel, tunnel.client(), "alice", &[PASSWORD]);
    assert!(joined.stderr.contains(BANNER), "{joined:?}");
    joined.success().unwrap();
}
