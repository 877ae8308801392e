//! Groups that users log in to: by a flag, by the gateway's link, or because they are asked.

use std::fs;
use std::path::Path;

use adit_lab::programs::Client;
use adit_testing::eventually;

use super::{Ocserv, USAGE, add, add_at, up};
use crate::logins::{PASSWORD, gateway, run};
use crate::people::{REFUSED, give_policy, pin};
use crate::versions::{Version, with_each_version};

/// Alice's usual group reaches nothing of the internet, and one that she may choose does.
const POLICY: &str = "[groups.usual]\nmembers = [\"alice\"]\nroutes = [\"10.1.0.0/16\"]\n\
    [groups.full]\noffered = true\nmembers = [\"alice\"]\nroutes = [\"0.0.0.0/0\", \"::/0\"]\n\
    [groups.other]\noffered = true\nmembers = [\"bob\"]\n";

fn down(client: &Client) {
    run(client, &["down", "work"], "").success().unwrap();
}

#[test]
fn group_of_our_gateway_is_chosen_by_a_flag_by_the_link_or_by_who_is_asked() {
    let Some(mut tunnel) = gateway() else { return };
    tunnel.gateway.stop().unwrap();
    give_policy(&mut tunnel.gateway, POLICY);
    tunnel.gateway.start().unwrap();
    let fingerprint = pin(&tunnel.gateway);
    let add_with = |client: &Client, path: &str, more: &[&str]| {
        add_at(client, path, &[&["--pin", fingerprint.as_str()], more].concat())
    };

    let none = add_with(tunnel.client(), "", &["--group", "nosuch"]);
    assert_eq!(none.code, USAGE, "{none:?}");
    assert!(none.stderr.contains("no group `nosuch`") && none.stderr.contains("full"), "{none:?}");
    add_with(tunnel.client(), "", &["--group", "other"]).success().unwrap();
    let other = run(tunnel.client(), &["up", "work"], &format!("{PASSWORD}\n"));
    assert_eq!(other.code, REFUSED, "{other:?}");
    assert!(other.stderr.contains("may not choose this group"), "{other:?}");

    for (path, flags, asked, scope) in [
        ("", &["--group", "full"][..], "", "all traffic"),
        ("/full", &[], "", "all traffic"),
        ("", &[], "full\n", "all traffic"),
        ("", &[], "default\n", "some traffic"),
    ] {
        add_with(tunnel.client(), path, flags).success().unwrap();
        up(&mut tunnel.clients[0], &format!("{asked}{PASSWORD}\n"));
        let said = tunnel.client().process().unwrap().stdout();
        assert!(said.contains(scope), "{path} {flags:?} {asked:?}: {said}");
        down(tunnel.client());
        eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    }
}

/// Staff reach one network alone.
fn make_groups(folder: &Path) {
    fs::create_dir(folder.join("groups")).unwrap();
    fs::write(folder.join("groups/staff"), "route = 10.99.0.0/255.255.0.0\n").unwrap();
}

with_each_version!(group_of_ocserv_is_chosen_by_its_label_or_by_who_is_asked);

fn group_of_ocserv_is_chosen_by_its_label_or_by_who_is_asked(version: Version) {
    let groups = "select-group = staff[Staff people]\nselect-group = guests\nconfig-per-group = FOLDER/groups\n\
        banner = \"Be good.\"\n";
    let lines = [Ocserv::PASSWORDS, groups].concat();
    let Some(mut ocserv) = Ocserv::start_prepared(version, &lines, make_groups) else { return };
    let known_by = ["--authority", ocserv.certificate.as_str()];
    add(&ocserv.client, &[&known_by[..], &["--group", "Staff people"]].concat()).success().unwrap();
    up(&mut ocserv.client, &format!("{PASSWORD}\n"));
    let process = ocserv.client.process().unwrap();
    let (said, noted) = (process.stdout(), process.stderr());
    assert!(said.contains("some traffic"), "the session is one of staff: {said}");
    assert!(noted.contains("Be good."), "the banner is shown: {noted}");
    down(&ocserv.client);

    add(&ocserv.client, &known_by).success().unwrap();
    up(&mut ocserv.client, &format!("guests\n{PASSWORD}\n"));
    let said = ocserv.client.process().unwrap().stdout();
    assert!(said.contains("all traffic"), "the session is one of guests: {said}");
    down(&ocserv.client);
}
