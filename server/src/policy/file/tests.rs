use std::time::Duration;

use adit_proto::policy::{QuotaAction, Subject, WhenFull};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::config::config_for_tests;

const SAMPLE: &str = include_str!("../../../../deploy/policy.toml");

fn path() -> &'static Path {
    Path::new("policy.toml")
}

fn good(text: &str) -> PolicyFile {
    PolicyFile::parse(path(), text).unwrap_or_else(|error| panic!("{error}"))
}

/// What a text is complained of.
fn complaints(text: &str) -> Vec<String> {
    PolicyFile::parse(path(), text).unwrap_err().problems.iter().map(ToString::to_string).collect()
}

/// The one complaint of a text.
fn complaint(text: &str) -> String {
    let mut found = complaints(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn sample_passes_its_tests_and_fits_a_gateway() {
    let policy = good(SAMPLE);
    assert_eq!(policy.failed_tests(), []);
    assert_eq!(policy.misfits(&config_for_tests(Path::new("/nowhere"))), []);
    let names: Vec<_> = policy.document.groups().iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["admins", "contractors", "staff"], "in file order, whatever their letters");
    assert_eq!(policy.resolvers().collect::<Vec<_>>(), ["10.1.0.53".parse::<IpAddr>().unwrap()]);
    assert_eq!((policy.document.rules().len(), policy.document.tests().len()), (5, 3));
}

#[test]
fn settings_have_the_values_that_are_written_and_their_lines() {
    let policy = good(SAMPLE);
    let subject = Subject { user: "bob", source: "oidc", source_groups: &["contractors".to_owned()] };
    let groups: Vec<usize> = policy.document.groups_of(&subject).iter().map(|membership| membership.group).collect();
    let settings = policy.document.settings_of(&groups);
    assert_eq!(settings.routes.unwrap().written.value, ["10.1.4.0/24".parse().unwrap()]);
    assert_eq!(settings.idle_timeout.unwrap().written.value, Duration::from_secs(8 * 3600));
    assert_eq!(settings.sessions_full.unwrap().written.value, WhenFull::Replace);
    assert!(matches!(settings.quota_action.unwrap().written.value, QuotaAction::Slow(_)));
    let quota = settings.quota.unwrap();
    assert_eq!((quota.written.literal.as_str(), quota.group), ("\"100 GiB/month\"", 1));
    let line = SAMPLE.lines().nth(quota.written.line - 1).unwrap();
    assert_eq!(line, "quota = \"100 GiB/month\"");
}

#[test]
fn every_key_of_a_group_is_read() {
    let text = "[groups.g]\nmembers = [\"a\"]\nroutes = []\ndns = []\ndns_domains = []\nmtu = 1300\nrate_up = \"1 Mbit/s\"\n\
        rate_down = \"1 Mbit/s\"\nquota = \"1 GB/day\"\nquota_action = \"block\"\nsessions = 1\nsessions_full = \"refuse\"\n\
        idle_timeout = \"1m\"\nsession_lifetime = \"365d\"\nhours = \"Mon 00:00-24:00 UTC\"\nsecond_factor = \"never\"\n";
    let policy = good(text);
    let written = policy.document.settings_of(&[0]).written();
    let keys: Vec<_> = written.iter().map(|(key, ..)| *key).collect();
    assert_eq!(keys, adit_proto::policy::Settings::KEYS);
}

#[test]
fn groups_are_offered_that_say_so() {
    let policy = good("[groups.a]\noffered = true\n[groups.b]\noffered = false\n[groups.c]\n");
    let offered: Vec<bool> = policy.document.groups().iter().map(|group| group.is_offered).collect();
    assert_eq!(offered, [true, false, false]);
}

#[test]
fn unknown_key_is_named_with_its_line_and_the_one_that_was_meant() {
    assert_eq!(complaint("[group.staff]\n"), "policy.toml:1: group: unknown key; did you mean `groups`?");
    assert_eq!(
        complaint("[groups.staff]\nmembers = []\nroute = []\n"),
        "policy.toml:3: groups.staff.route: unknown key; did you mean `routes`?"
    );
    let found = complaint("\n[[rules]]\ngroups = [\"*\"]\naction = \"allow\"\nto = [\"*\"]\nport = [\"tcp\"]\n");
    assert_eq!(found, "policy.toml:6: rules.port: unknown key; did you mean `ports`?");
    let found = complaint("[[tests]]\nuser = \"alice\"\nallow = [\"icmp ::1\"]\ndenny = []\n");
    assert_eq!(found, "policy.toml:4: tests.denny: unknown key; did you mean `deny`?");
}

#[test]
fn misspelt_group_network_and_source_are_recognised() {
    let text = |rule: &str| {
        format!("[groups.staff]\nmembers = []\n[networks]\noffice = [\"10.1.0.0/16\"]\n[[rules]]\n{rule}\n")
    };
    let found = complaint(&text("groups = [\"stuff\"]\naction = \"allow\"\nto = [\"*\"]"));
    assert_eq!(found, "policy.toml:6: rules.groups: there is no group \"stuff\"; did you mean `staff`?");
    let found = complaint(&text("groups = [\"staff\"]\naction = \"allow\"\nto = [\"10.2.0.0/16\",\n \"ofice\"]"));
    assert_eq!(found, "policy.toml:9: rules.to: there is no network \"ofice\"; did you mean `office`?");
    let found = complaint("[[tests]]\ngroups = [\"staff\"]\nallow = [\"icmp ::1\"]\n");
    assert_eq!(found, "policy.toml:2: tests.groups: there is no group \"staff\"; begin one with [groups.NAME]");
    let found = complaint("[groups.staff]\nmembers = [\"alice\",\n \"ldpa:x\"]\n");
    assert_eq!(found, "policy.toml:3: groups.staff.members: \"ldpa\" is no source of logins; did you mean `ldap`?");
}

#[test]
fn rule_must_say_whom_where_and_what() {
    let rule = |fields: &str| complaints(&format!("[groups.g]\n\n[[rules]]\n{fields}\n"));
    assert_eq!(rule("").len(), 3);
    assert!(rule("")[0].starts_with("policy.toml:3: rules: "), "{:?}", rule(""));
    for (fields, part) in [
        ("action = \"allow\"\nto = [\"*\"]", "whom"),
        ("groups = [\"g\"]\nto = [\"*\"]", "no action"),
        ("groups = [\"g\"]\naction = \"permit\"\nto = [\"*\"]", "\"permit\" is no action"),
        ("groups = [\"g\"]\naction = \"allow\"", "where to"),
        ("groups = [\"g\"]\naction = \"allow\"\nto = []", "empty"),
        ("groups = []\naction = \"allow\"\nto = [\"*\"]", "empty"),
        ("groups = [\"g\"]\naction = \"allow\"\nto = [\"*\"]\nports = []", "empty"),
        ("groups = [\"*\"]\nusers = [\"a\"]\naction = \"allow\"\nto = [\"*\"]", "everybody"),
        ("groups = [\"g\", \"*\"]\naction = \"allow\"\nto = [\"*\"]", "name it alone"),
        ("groups = [\"g\"]\naction = \"allow\"\nto = [\"10.1.0.1/16\"]", "write \"10.1.0.0/16\""),
        ("groups = [\"g\"]\naction = \"allow\"\nto = [\"10.1.0\"]", "is no destination"),
        ("groups = [\"g\"]\naction = \"allow\"\nto = [\"office\"]", "no network"),
        ("groups = [\"g\"]\naction = \"deny\"\nto = [\"wiki.example.org\"]", "cannot be denied by name"),
        ("groups = [\"g\"]\naction = \"allow\"\nto = [\"*\"]\nports = [\"tcp/0\"]", "no valid port"),
        ("groups = \"g\"\naction = \"allow\"\nto = [\"*\"]", "not a list"),
        ("groups = [7]\naction = \"allow\"\nto = [\"*\"]", "a text is wanted here, not an integer"),
        ("groups = [\"g\"]\naction = \"allow\"\nto = [\"10.1.0.1:443\"]", "leave the port out"),
        ("groups = [\"g\"]\naction = \"allow\"\nto = [\"wiki.example.org:443\"]", "leave the port out"),
        ("groups = [\"g\"]\naction = \"allow\"\nto = [\"[fd00::1]:443\"]", "leave the port out"),
        ("users = [\"a b\"]\naction = \"allow\"\nto = [\"*\"]", "user name"),
    ] {
        let found = rule(fields);
        assert_eq!(found.len(), 1, "{fields}: {found:?}");
        assert!(found[0].contains(part), "{fields}: {found:?}");
    }
}

#[test]
fn values_of_groups_have_forms_and_bounds() {
    for (line, part) in [
        ("mtu = 1279", "1280 to 65535"),
        ("mtu = \"1300\"", "a number is wanted"),
        ("mtu = -1", "not in range"),
        ("sessions = 0", "1 to 10000"),
        ("sessions_full = \"drop\"", "\"replace\" or \"refuse\""),
        ("rate_down = \"200\"", "Mbit/s"),
        ("quota = \"100 GiB\"", "/month"),
        ("quota_action = \"stop\"", "block"),
        ("idle_timeout = \"30s\"", "1m to 30days"),
        ("idle_timeout = 30", "a text is wanted"),
        ("session_lifetime = \"soon\"", "length of time"),
        ("hours = \"Mon 07:00-20:00 Europe/Berln\"", "no time zone"),
        ("hours = \"07:00-20:00\"", "hours of a week"),
        ("second_factor = \"sometimes\"", "always"),
        ("offered = \"yes\"", "true or false"),
        ("dns = [\"resolver\"]", "is no address"),
        ("dns_domains = [\"-\"]", "is no domain"),
        ("routes = [\"10.1.0.1/16\"]", "10.1.0.0/16"),
        ("routes = \"10.1.0.0/16\"", "not a list"),
        ("members = [\"ldap:\"]", "group of a source"),
        ("members = [\"a b\"]", "user name"),
    ] {
        let found = complaint(&format!("[groups.g]\n{line}\n"));
        assert!(found.starts_with("policy.toml:2: groups.g.") && found.contains(part), "{line}: {found}");
    }
    assert!(complaint("[groups.\"a b\"]\n").contains("cannot be a name"));
    assert!(complaint("[networks]\nx = \"10.1.0.0/16\"\n").contains("not a list"));
    assert!(complaint("groups = 3\n").contains("is no table"));
    assert!(complaint("rules = 3\n").contains("[[rules]]"));
}

#[test]
fn name_with_a_dot_is_not_taken_for_its_last_part() {
    for (text, name) in [
        ("[groups.admins]\n[groups.\"guests.admins\"]\nmembers = [\"mallory\"]\n", "groups.guests.admins"),
        ("[networks]\n\"10.1.0.0/16\" = [\"10.1.0.0/16\"]\n", "networks.10.1.0.0/16"),
    ] {
        let found = complaint(text);
        let whole = name.split_once('.').unwrap().1;
        assert!(found.starts_with(&format!("policy.toml:2: {name}: \"{whole}\" cannot be a name")), "{found}");
    }
}

#[test]
fn names_of_users_have_one_form() {
    let policy =
        good("[groups.g]\nmembers = [\"Alice\"]\n[[rules]]\nusers = [\"BOB\"]\naction = \"allow\"\nto = [\"*\"]\n");
    let class = |user| policy.document.class_of(&Subject { user, source: "local", source_groups: &[] });
    assert_eq!(class("bob").rules().len(), 1);
    assert_eq!(policy.document.groups_of(&Subject { user: "alice", source: "local", source_groups: &[] }).len(), 1);
}

#[test]
fn syntax_error_names_its_line() {
    assert!(complaint("[groups.staff]\nmembers = [\n").starts_with("policy.toml:"));
    assert!(complaint("[groups.staff]\nmembers = nobody\n").starts_with("policy.toml:2: "));
    assert!(complaint("[groups.staff]\n[groups.staff]\n").starts_with("policy.toml:2: "));
}

#[test]
fn failed_test_names_what_decided() {
    let policy = good(
        "[groups.g]\nmembers = [\"alice\"]\n[[rules]]\ngroups = [\"g\"]\naction = \"allow\"\nto = [\"10.1.0.0/16\"]\n\
         [[tests]]\nuser = \"alice\"\nallow = [\"tcp 10.1.0.1:1\", \"tcp 10.2.0.1:1\"]\n\
         [[tests]]\ngroups = [\"g\"]\ndeny = [\"tcp 10.1.0.1:1\"]\n",
    );
    let failed: Vec<_> = policy.failed_tests().iter().map(ToString::to_string).collect();
    assert_eq!(
        failed,
        [
            "policy.toml:7: test of alice: tcp 10.2.0.1:1: is denied for no rule matches, and should be allowed; \
             mend the rules or the test",
            "policy.toml:10: test of group g: tcp 10.1.0.1:1: is allowed by the rule in line 3, and should be denied; \
             mend the rules or the test",
        ]
    );
}

#[test]
fn what_the_gateway_cannot_do_is_named() {
    let config = config_for_tests(Path::new("/nowhere"));
    let misfits = |line: &str| {
        let problems = good(&format!("[groups.g]\n{line}\n")).misfits(&config);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(misfits("mtu = 1420\ndns = [\"10.77.0.1\", \"10.1.0.53\"]\ndns_domains = []"), [""; 0]);
    for (line, part) in [
        ("mtu = 1421", "policy.toml:2: groups.g.mtu: 1421 is more"),
        ("dns = [\"169.254.169.253\"]", "out of the clients' reach"),
        ("dns = [\"10.77.0.9\"]", "do not reach each other"),
        ("dns_domains = [\"corp.example.org\"]", "no resolver"),
        ("dns = []\ndns_domains = [\"corp.example.org\"]", "policy.toml:3: groups.g.dns_domains: no resolver"),
    ] {
        let found = misfits(line);
        assert!(found.len() == 1 && found[0].contains(part), "{line}: {found:?}");
    }
}

#[test]
fn file_that_others_can_change_or_that_is_not_there_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let missing = PolicyFile::read(&path).unwrap_err();
    assert!(missing.problems[0].next.contains("remove the key"), "{missing}");
    std::fs::write(&path, SAMPLE).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(PolicyFile::read(&path).unwrap().document, good(SAMPLE).document);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(PolicyFile::read(&path).is_err());
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(PolicyFile::read(&path).unwrap_err().problems[0].reason.contains("not a policy file"));
}

#[test]
fn large_file_is_read_to_its_end_and_one_that_is_too_large_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let rule = "[[rules]]\ngroups = [\"*\"]\naction = \"allow\"\nto = [\"10.1.0.0/16\"]\n";
    std::fs::write(&path, rule.repeat(4_000)).unwrap();
    assert_eq!(PolicyFile::read(&path).unwrap().document.rules().len(), 4_000);
    let filled = format!("{rule}{}", "#\n".repeat(MAX_FILE / 2));
    std::fs::write(&path, filled).unwrap();
    assert!(PolicyFile::read(&path).unwrap_err().to_string().contains("within 4 MiB"));
}

/// The line that a problem names.
fn line_of(problem: &Problem) -> usize {
    let digits = problem.what.strip_prefix("policy.toml:").unwrap_or_else(|| panic!("{problem}"));
    digits.split(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{problem}"))
}

proptest! {
    /// However a policy is damaged, it is read, or each complaint names a line of it and what to do.
    #[test]
    fn damaged_policy_is_read_or_complained_of_by_line(
        damages in proptest::collection::vec((any::<Index>(), 0..20_usize, "[\\[\\]\"=.,#\n*0-9a-z:/ -]{0,4}|\\PC{0,3}"), 1..5),
    ) {
        let mut text: Vec<char> = SAMPLE.chars().collect();
        for (place, removed, inserted) in damages {
            let place = place.index(text.len());
            text.splice(place..(place + removed).min(text.len()), inserted.chars());
        }
        let text: String = text.into_iter().collect();
        match PolicyFile::parse(path(), &text) {
            Ok(policy) => {
                let misfits = policy.misfits(&config_for_tests(Path::new("/nowhere")));
                for problem in policy.failed_tests().iter().chain(&misfits) {
                    prop_assert!(line_of(problem) <= text.lines().count());
                }
            }
            Err(error) => {
                prop_assert!(!error.problems.is_empty());
                for problem in &error.problems {
                    prop_assert!((1..=text.lines().count() + 1).contains(&line_of(problem)), "{problem}");
                    prop_assert!(!problem.reason.is_empty() && !problem.next.is_empty(), "{problem}");
                }
            }
        }
    }
}
