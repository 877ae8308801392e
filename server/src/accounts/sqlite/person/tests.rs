use super::super::tests::{Scratch, at, scratch};
use super::*;
use crate::accounts::{Accounts as _, AuthError, FirstPassword};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn person(source: &str, subject: &str, name: &str) -> Person {
    Person {
        source: source.to_owned(),
        subject: subject.to_owned(),
        name: name.to_owned(),
        groups: vec!["staff".to_owned()],
        methods: Vec::new(),
        session_lifetime: None,
        generation: None,
    }
}

#[test]
fn person_is_known_by_source_and_subject_whatever_the_name_becomes() {
    let Scratch { store, directory: _directory } = scratch();
    let known = store.record_person(&person("ldap", "u-1", "Alice"), at(0)).unwrap();
    assert_eq!((known.user.as_str(), known.source.as_str(), known.generation), ("alice", "ldap", 0));
    assert_eq!((known.groups, known.checked_at), (vec!["staff".to_owned()], Some(unix(at(0)))));
    let again = store.record_person(&person("ldap", "u-1", "alice.married"), at(1)).unwrap();
    assert_eq!(again.user, "alice");
    assert_eq!(store.users(at(1)).unwrap().len(), 1);
}

#[test]
fn nobody_gets_into_another_users_account_by_a_name() {
    let Scratch { store, directory: _directory } = scratch();
    store.invite(&user("alice"), std::time::Duration::from_secs(60), at(0)).unwrap();
    store.record_person(&person("ldap", "u-2", "bob"), at(0)).unwrap();
    let taken = |source: &str, subject: &str, name: &str| {
        store.record_person(&person(source, subject, name), at(1)).map(|known| known.user)
    };
    for (source, subject, name) in
        [("ldap", "u-1", "alice"), ("oidc", "u-2", "bob"), ("ldap", "u-3", "BOB"), ("local", "bob", "bob")]
    {
        let refused = taken(source, subject, name);
        assert!(matches!(refused, Err(PersonError::NameTaken { .. })), "{source} {subject} {name}");
    }
    assert!(matches!(taken("ldap", "u-4", "a b"), Err(PersonError::Name(_))));
    assert_eq!(taken("ldap", "u-2", "bob").unwrap(), "bob", "the positive control");
    assert_eq!(taken("local", "alice", "alice").unwrap(), "alice", "the gateway's own");

    store.link_person(&user("alice"), "ldap", "u-1").unwrap();
    assert_eq!(taken("ldap", "u-1", "whatever").unwrap(), "alice");
    assert!(matches!(taken("local", "alice", "alice"), Err(PersonError::NameTaken { .. })), "no longer");
    assert!(matches!(store.link_person(&user("bob"), "ldap", "u-1"), Err(UserError::Linked(_))));
    assert!(matches!(store.link_person(&user("carol"), "ldap", "u-9"), Err(UserError::NotFound(_))));
}

#[test]
fn login_that_began_before_a_reset_or_a_revocation_ends_in_nothing() {
    let Scratch { store, directory: _directory } = scratch();
    let alice = user("alice");
    store.add_user(&alice, &FirstPassword::Hash("hash".to_owned()), at(0)).unwrap();
    let proved = |generation| Person { generation: Some(generation), ..person("local", "alice", "alice") };
    let generation = store.record_person(&proved(0), at(1)).unwrap().generation;
    store.reset_user(&alice, &FirstPassword::Hash("other".to_owned()), at(2)).unwrap();
    assert!(matches!(store.record_person(&proved(generation), at(3)), Err(PersonError::Changed)));
    let generation = store.local_user("alice").unwrap().unwrap().generation;
    assert!(store.record_person(&proved(generation), at(4)).is_ok());
    store.revoke("alice", at(5)).unwrap();
    assert!(matches!(store.record_person(&proved(generation), at(6)), Err(PersonError::Changed)));
}

#[test]
fn disabled_user_is_let_in_by_nothing_until_enabled_again() {
    let Scratch { store, directory: _directory } = scratch();
    let (device, token) = store.token(&user("alice"), at(0)).unwrap();
    let bob = person("ldap", "u-2", "bob");
    store.record_person(&bob, at(0)).unwrap();
    assert!(store.may_connect(&device.id).unwrap() && store.authenticate_token(&token).is_ok(), "the control");

    assert!(store.set_disabled(&user("alice"), true, at(1)).unwrap());
    assert!(!store.set_disabled(&user("alice"), true, at(2)).unwrap(), "nothing is left to do");
    store.set_disabled(&user("bob"), true, at(1)).unwrap();
    assert!(matches!(store.authenticate_token(&token), Err(AuthError::Disabled)));
    assert!(!store.may_connect(&device.id).unwrap());
    assert!(matches!(store.record_person(&bob, at(2)), Err(PersonError::Disabled)));

    store.set_disabled(&user("alice"), false, at(3)).unwrap();
    store.set_disabled(&user("bob"), false, at(3)).unwrap();
    assert!(store.may_connect(&device.id).unwrap() && store.authenticate_token(&token).is_ok());
    assert!(store.record_person(&bob, at(4)).is_ok());
    assert_eq!(store.person("alice").unwrap().unwrap().generation, 1, "what was sealed before is void");
    assert!(matches!(store.set_disabled(&user("carol"), true, at(4)), Err(UserError::NotFound(_))));
}

#[test]
fn revoked_user_of_another_source_is_not_let_in_again_by_it() {
    let Scratch { store, directory: _directory } = scratch();
    let bob = person("ldap", "u-2", "bob");
    store.record_person(&bob, at(0)).unwrap();
    assert!(store.keep_refresh("ldap", "u-2", b"refresh").unwrap());
    store.revoke("bob", at(1)).unwrap();
    assert!(matches!(store.record_person(&bob, at(2)), Err(PersonError::Disabled)));
    assert!(!store.keep_refresh("ldap", "u-2", b"late").unwrap());
    assert!(store.refresh("ldap", "u-2").unwrap().is_none());
    assert_eq!(store.person("bob").unwrap().unwrap().generation, 1);
}

#[test]
fn answer_about_a_user_is_worth_nothing_after_a_later_login_or_a_change() {
    let Scratch { store, directory: _directory } = scratch();
    let alice = user("alice");
    let known = || store.person("alice").unwrap().unwrap();
    let first = store.record_person(&person("ldap", "u-1", "alice"), at(0)).unwrap();
    let changes: [&dyn Fn(); 4] = [
        &|| drop(store.record_person(&person("ldap", "u-1", "alice"), at(60)).unwrap()),
        &|| assert!(store.set_disabled(&alice, true, at(61)).unwrap()),
        &|| assert!(store.set_disabled(&alice, false, at(62)).unwrap()),
        &|| store.link_person(&alice, "oidc", "s").unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let asked = known();
        change();
        let changed = known();
        assert_ne!(changed, asked, "{number}");
        assert!(!store.record_check(&asked, &["admins".to_owned()], at(120)).unwrap(), "{number}");
        assert!(!store.end_logins_as_asked(&asked).unwrap(), "{number}");
        assert_eq!(known(), changed, "{number}");
    }
    assert!(!store.end_logins_as_asked(&first).unwrap());
    let generation = known().generation;
    assert!(store.end_logins_as_asked(&known()).unwrap(), "the positive control");
    assert_eq!(known().generation, generation + 1);
}

#[test]
fn what_a_source_says_when_asked_again_is_kept() {
    let Scratch { store, directory: _directory } = scratch();
    let asked = store.record_person(&person("oidc", "s", "alice"), at(0)).unwrap();
    assert!(store.record_check(&asked, &["admins".to_owned()], at(60)).unwrap());
    let known = store.person("alice").unwrap().unwrap();
    assert_eq!((known.groups, known.checked_at), (vec!["admins".to_owned()], Some(unix(at(60)))));
    let kept = || store.refresh("oidc", "s").unwrap();
    assert_eq!(kept(), None);
    for refresh in [b"first", b"other"] {
        assert!(store.keep_refresh("oidc", "s", refresh).unwrap());
        assert_eq!(kept().as_deref(), Some(refresh.as_slice()));
    }
    assert!(!store.keep_refresh("oidc", "stranger", b"first").unwrap());
    assert!(!store.keep_refresh("ldap", "s", b"first").unwrap(), "of another source");
    assert_eq!(store.refresh("ldap", "s").unwrap(), None);
}
