//! Logins with a real slapd.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use adit_program::durable_file;
use adit_proto::login::{Cause, Method, Person, Verdict};
use adit_testing::slapd::{READER, READER_PASSWORD, Slapd};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::Ldap;
use super::settings::{LdapSettings, LdapUrl};
use crate::config::SecretPlace;
use crate::sources::{Origin, Recheck, Source};

/// A source, and the folder with its secret.
struct Lab {
    source: Ldap,
    folder: TempDir,
}

fn url(begins_with_tls: bool, (host, port): (String, u16)) -> LdapUrl {
    LdapUrl { begins_with_tls, host, port }
}

fn settings(folder: &TempDir, server: &Slapd) -> LdapSettings {
    let secret = folder.path().join("secret");
    durable_file::create(&secret, READER_PASSWORD.as_bytes(), 0o600).unwrap();
    // The lab's own folder is closed to others, as the guard of files wants it.
    let authority = folder.path().join("ca.pem");
    std::fs::copy(server.authority(), &authority).unwrap();
    LdapSettings {
        urls: vec![url(true, server.ldaps())],
        authority: Some(authority),
        bind_dn: Some(READER.to_owned()),
        bind_password: Some(SecretPlace::File(secret)),
        base: Some("ou=people,dc=lab".to_owned()),
        user_filter: "(&(objectClass=inetOrgPerson)(uid=$user))".to_owned(),
        name_attribute: "uid".to_owned(),
        id_attribute: "entryUUID".to_owned(),
        group_base: Some("ou=groups,dc=lab".to_owned()),
        group_filter: "(member=$dn)".to_owned(),
        group_attribute: "cn".to_owned(),
        nested_groups: false,
        timeout: Duration::from_secs(10),
    }
}

fn lab_with(server: &Slapd, change: impl FnOnce(&mut LdapSettings)) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&folder, server);
    change(&mut settings);
    Lab { source: Ldap::new(&settings).unwrap(), folder }
}

fn lab(server: &Slapd) -> Lab {
    lab_with(server, |_| {})
}

impl Lab {
    async fn check(&self, name: &str, password: &str) -> Verdict {
        let origin = Origin { address: Ipv4Addr::new(192, 0, 2, 77).into(), device: None };
        self.source.check(name, &Zeroizing::new(password.to_owned()), &origin).await
    }
}

fn person(verdict: Verdict) -> Person {
    let Verdict::Accepted(person) = verdict else { panic!("not accepted: {verdict:?}") };
    person
}

fn reason(verdict: Verdict) -> String {
    let Verdict::Unavailable(reason) = verdict else { panic!("the source is there: {verdict:?}") };
    reason
}

fn account(server: &Slapd, control: u32) {
    let entry = "uid=alice,ou=people,dc=lab";
    server.modify(&format!(
        "dn: {entry}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: {control}\n"
    ));
}

const WRONG: Verdict = Verdict::Refused(Cause::WrongPassword);

#[tokio::test]
async fn right_password_gives_name_and_groups_whatever_way_the_name_is_written() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab(&server);
    let bob = person(lab.check("bob", "builder").await);
    assert_eq!((bob.source.as_str(), bob.name.as_str()), ("ldap", "bob"));
    assert_eq!(bob.groups, ["ops", "staff"]);
    assert_eq!(bob.methods, [Method::Password]);
    assert_eq!(bob.subject.len(), 36, "entryUUID: {}", bob.subject);
    for alias in ["BOB", "Bob", " bob "] {
        assert_eq!(person(lab.check(alias, "builder").await), bob, "{alias}");
    }
}

#[tokio::test]
async fn same_user_comes_by_start_tls() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab_with(&server, |settings| settings.urls = vec![url(false, server.ldap())]);
    assert_eq!(person(lab.check("alice", "wonderland").await).groups, ["staff"]);
}

#[tokio::test]
async fn wrong_password_is_refused_and_an_unknown_name_passed_on() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab(&server);
    assert_eq!(lab.check("alice", "Wonderland").await, WRONG);
    assert_eq!(lab.check("alice", "builder").await, WRONG);
    assert_eq!(lab.check("nobody", "wonderland").await, Verdict::Unknown);
}

#[tokio::test]
async fn empty_password_is_refused_although_the_server_would_say_yes() {
    let Some(server) = Slapd::start() else { return };
    assert!(server.lets_bind("uid=alice,ou=people,dc=lab", ""), "the server takes it for nobody, and says yes");
    assert_eq!(lab(&server).check("alice", "").await, WRONG);
}

#[tokio::test]
async fn signs_of_filters_in_a_name_stand_for_themselves() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab(&server);
    for name in ["*", "ali*", "alice)(uid=*", ")(", "alice))(|(uid=*", "al\\69ce", "$dn", "$user", "$", "ali\0ce"] {
        assert_eq!(lab.check(name, "wonderland").await, Verdict::Unknown, "{name:?}");
    }
    // A user is found by such signs who has them in the name; the gateway has no such names.
    let verdict = lab.check("we(i)rd*one", "weird").await;
    assert!(matches!(&verdict, Verdict::Refused(Cause::NotPermitted(why)) if why.contains("user name")), "{verdict:?}");
    assert_eq!(lab.check("we(i)rd*one", "wired").await, WRONG);
}

#[tokio::test]
async fn entry_with_signs_in_its_own_name_binds_and_has_its_groups() {
    let Some(server) = Slapd::start() else { return };
    assert_eq!(person(lab(&server).check("carl", "caution").await).groups, ["ops"]);
}

#[tokio::test]
async fn name_of_two_entries_is_refused() {
    let Some(server) = Slapd::start() else { return };
    let verdict = lab(&server).check("twin", "double").await;
    assert!(matches!(&verdict, Verdict::Refused(Cause::NotPermitted(why)) if why.contains("several")), "{verdict:?}");
}

#[tokio::test]
async fn all_of_300_groups_are_found() {
    let Some(server) = Slapd::start() else { return };
    let expected: Vec<String> = (0..300).map(|number| format!("group-{number:03}")).collect();
    assert_eq!(person(lab(&server).check("many", "legion").await).groups, expected);
}

#[tokio::test]
async fn groups_come_by_other_filters_and_not_without_a_base() {
    let Some(server) = Slapd::start() else { return };
    let by_name = |settings: &mut LdapSettings| {
        settings.group_filter = "(&(objectClass=groupOfNames)(|(cn=$user)(member=$dn)))".to_owned();
    };
    assert_eq!(person(lab_with(&server, by_name).check("bob", "builder").await).groups, ["ops", "staff"]);
    let without = lab_with(&server, |settings| settings.group_base = None);
    assert!(person(without.check("bob", "builder").await).groups.is_empty());
}

#[tokio::test]
async fn disabled_account_is_refused_at_login_and_ends_at_the_next_look() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab(&server);
    account(&server, 512);
    let alice = person(lab.check("alice", "wonderland").await);
    assert_eq!(lab.source.recheck(&alice).await, Recheck::Allowed(vec!["staff".to_owned()]));
    account(&server, 514);
    assert_eq!(lab.source.recheck(&alice).await, Recheck::Ended(Cause::Disabled));
    assert_eq!(lab.check("alice", "wonderland").await, Verdict::Refused(Cause::Disabled));
    assert_eq!(lab.check("alice", "wrong").await, WRONG);
}

#[tokio::test]
async fn expired_account_is_refused_at_login_and_ends_at_the_next_look() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab(&server);
    let alice = person(lab.check("alice", "wonderland").await);
    let past = "133000000000000000";
    server.modify(&format!(
        "dn: uid=alice,ou=people,dc=lab\nchangetype: modify\nreplace: accountExpires\naccountExpires: {past}\n"
    ));
    let expired = Cause::NotPermitted("the account has expired".to_owned());
    assert_eq!(lab.check("alice", "wonderland").await, Verdict::Refused(expired.clone()));
    assert_eq!(lab.source.recheck(&alice).await, Recheck::Ended(expired));
}

#[tokio::test]
async fn next_look_sees_new_groups_and_a_user_that_is_gone() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab(&server);
    let alice = person(lab.check("alice", "wonderland").await);
    let member = "member: uid=alice,ou=people,dc=lab";
    server.modify(&format!("dn: cn=ops,ou=groups,dc=lab\nchangetype: modify\nadd: member\n{member}\n"));
    let groups = vec!["ops".to_owned(), "staff".to_owned()];
    assert_eq!(lab.source.recheck(&alice).await, Recheck::Allowed(groups));
    server.modify("dn: uid=alice,ou=people,dc=lab\nchangetype: delete\n");
    assert!(matches!(lab.source.recheck(&alice).await, Recheck::Ended(_)));
    assert_eq!(lab.check("alice", "wonderland").await, Verdict::Unknown);
}

#[tokio::test]
async fn another_user_of_the_same_name_is_not_the_one_who_logged_in() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab(&server);
    let alice = person(lab.check("alice", "wonderland").await);
    server.modify("dn: uid=alice,ou=people,dc=lab\nchangetype: delete\n");
    server.modify(
        "dn: uid=alice,ou=people,dc=lab\nchangetype: add\nobjectClass: inetOrgPerson\ncn: x\nsn: x\nuid: alice\n\
         userPassword: new\n",
    );
    assert!(matches!(lab.source.recheck(&alice).await, Recheck::Ended(_)));
    assert_ne!(person(lab.check("alice", "new").await).subject, alice.subject);
}

#[tokio::test]
async fn directory_that_is_away_ends_nothing_and_the_next_server_is_asked() {
    let (Some(server), Some(other)) = (Slapd::start(), Slapd::start()) else { return };
    let place = other.ldaps();
    let mut text = String::new();
    let lab = lab_with(&server, |settings| {
        settings.urls.insert(0, url(true, place.clone()));
        // Both have authorities of their own.
        let authority = settings.authority.clone().unwrap();
        text = std::fs::read_to_string(&authority).unwrap() + &std::fs::read_to_string(other.authority()).unwrap();
        std::fs::write(authority, &text).unwrap();
    });
    let alone = lab_with(&other, |_| {});
    let alice = person(alone.check("alice", "wonderland").await);
    drop(other);
    let away = reason(alone.check("alice", "wonderland").await);
    assert!(away.contains(&format!("ldaps://{}:{}", place.0, place.1)) && away.contains("cannot be reached"), "{away}");
    assert!(matches!(alone.source.recheck(&alice).await, Recheck::Unknown(_)));
    person(lab.check("alice", "wonderland").await);
}

#[tokio::test]
async fn server_with_a_certificate_of_somebody_else_is_told_nothing() {
    let (Some(server), Some(other)) = (Slapd::start(), Slapd::start()) else { return };
    for begins_with_tls in [true, false] {
        let lab = lab_with(&server, |settings| {
            let place = if begins_with_tls { other.ldaps() } else { other.ldap() };
            settings.urls = vec![url(begins_with_tls, place)];
        });
        let reason = reason(lab.check("alice", "wonderland").await);
        assert!(reason.contains("not trusted") && reason.contains("ldap.authority"), "{reason}");
    }
    let Some(impostor) = Slapd::start_as_impostor() else { return };
    let reason = reason(lab(&impostor).check("alice", "wonderland").await);
    assert!(reason.contains("not trusted") && reason.contains("ldap.urls"), "{reason}");
}

#[tokio::test]
async fn wrong_password_of_the_gateway_itself_is_named() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab_with(&server, |settings| settings.bind_dn = Some("cn=nobody,dc=lab".to_owned()));
    let reason = reason(lab.check("alice", "wonderland").await);
    assert!(reason.contains("ldap.bind_password_file"), "{reason}");
    let status = lab.source.status().await;
    assert!(status[0].problem.as_ref().unwrap().contains("ldap.bind_dn"), "{status:?}");
}

#[tokio::test]
async fn status_names_a_base_that_is_not_there() {
    let Some(server) = Slapd::start() else { return };
    let status = lab(&server).source.status().await;
    assert_eq!(status[0].problem, None);
    let lab = lab_with(&server, |settings| settings.base = Some("ou=peeple,dc=lab".to_owned()));
    let status = lab.source.status().await;
    assert!(status[0].problem.as_ref().unwrap().contains("ou=peeple,dc=lab"), "{status:?}");
    assert!(reason(lab.check("alice", "wonderland").await).contains("ou=peeple,dc=lab"));
}

#[tokio::test]
async fn server_that_says_nothing_is_given_up_in_time() {
    let Some(server) = Slapd::start() else { return };
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = ("127.0.0.1".to_owned(), mute.local_addr().unwrap().port());
    let lab = lab_with(&server, |settings| {
        settings.urls.insert(0, url(true, place));
        settings.timeout = Duration::from_secs(3);
    });
    person(lab.check("alice", "wonderland").await);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_their_key() {
    let Some(server) = Slapd::start() else { return };
    let lab = lab(&server);
    let good = settings_again(&lab.folder, &server);
    assert!(Ldap::new(&good).is_ok());
    let what = |settings: &LdapSettings| Ldap::new(settings).err().map(|problem| problem.what).unwrap_or_default();
    assert_eq!(what(&LdapSettings { urls: Vec::new(), ..good.clone() }), "ldap.urls");
    assert_eq!(what(&LdapSettings { base: None, ..good.clone() }), "ldap.base");
    assert_eq!(what(&LdapSettings { bind_dn: None, ..good.clone() }), "ldap.bind_dn");
    assert_eq!(what(&LdapSettings { bind_password: None, ..good.clone() }), "ldap.bind_password_file");
    assert_eq!(what(&LdapSettings { user_filter: "(uid=$user".to_owned(), ..good.clone() }), "ldap.user_filter");
    let missing = Some(PathBuf::from("/nowhere/ca.pem"));
    assert_eq!(what(&LdapSettings { authority: missing, ..good.clone() }), "ldap.authority");
    let empty = lab.folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    assert_eq!(what(&LdapSettings { authority: Some(empty), ..good }), "ldap.authority");
}

/// Settings whose files are those of a lab that is there already.
fn settings_again(folder: &TempDir, server: &Slapd) -> LdapSettings {
    let again = TempDir::new_in(folder.path()).unwrap();
    let settings = settings(&again, server);
    let _kept_as_long_as_the_folder_around_it = again.keep();
    settings
}
