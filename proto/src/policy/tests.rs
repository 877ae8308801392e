//! The evaluator against a naive list that is written apart, and what a policy promises beyond that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::model::{MOST_DESTINATIONS, MOST_GROUPS, MOST_IN_A_RULE, MOST_NAMES, MOST_RULES};
use super::*;

mod naive;

use naive::{RawFlow, RawPerson, RawPolicy};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12_000))]

    #[test]
    fn verdict_is_that_of_a_naive_list(
        policy in naive::policy(), person in naive::person(), flows in prop::collection::vec(naive::flow(), 3),
    ) {
        let document = document(&policy);
        let class = document.class_of(&subject(&person, &source_groups(&person)));
        for flow in flows {
            let got = document.verdict_knowing(&class, &checked(&flow), |name, address| {
                flow.names.iter().any(|known| naive::NAMES[*known] == name) && address == checked(&flow).destination
            });
            let expected = naive::verdict(&policy, &person, &flow);
            prop_assert_eq!((got.action == Action::Allow, got.rule), expected, "{:?} {:?} {:?}", policy, person, flow);
        }
    }

    /// What a firewall is given says the same as the rules it is made of.
    #[test]
    fn compiled_class_says_what_its_rules_say(
        policy in naive::policy(), person in naive::person(), flows in prop::collection::vec(naive::flow(), 3),
    ) {
        let document = document(&policy);
        if document.rules().is_empty() {
            // About one in eight; everything is allowed then, and nothing compiled.
            return Ok(());
        }
        let class = document.class_of(&subject(&person, &source_groups(&person)));
        let compiled = document.compiled(&class);
        for flow in flows.iter().map(checked).filter(|flow| flow.port.is_some() || ![6, 17].contains(&flow.protocol)) {
            let matches = |rule: &&CompiledRule| {
                let there = match flow.destination {
                    IpAddr::V4(v4) => rule.v4.iter().any(|net| net.contains(&v4)),
                    IpAddr::V6(v6) => rule.v6.iter().any(|net| net.contains(&v6)),
                };
                there && (rule.ports.is_empty() || rule.ports.iter().any(|ports| ports.matches(&flow, false)))
            };
            let allowed = compiled.rules.iter().find(matches).is_some_and(|rule| rule.allow);
            prop_assert_eq!(document.verdict(&class, &flow).action == Action::Allow, allowed);
        }
    }

    #[test]
    fn texts_never_panic_and_what_is_shown_is_read_again(text in "\\PC{0,40}", word in "(tcp|udp|icmp)[ /][0-9a-f.:\\[\\]-]{0,20}") {
        for text in [&text, &word] {
            drop(text.parse::<Hours>());
            drop(text.parse::<Quota>());
            drop(text.parse::<Rate>());
            drop(text.parse::<Member>());
            if let Ok(service) = text.parse::<PortMatch>() {
                prop_assert_eq!(service.to_string().parse(), Ok(service));
            }
            if let Ok(attempt) = text.parse::<Attempt>() {
                prop_assert_eq!(attempt.to_string().parse(), Ok(attempt));
            }
        }
    }
}

fn document(policy: &RawPolicy) -> PolicyDocument {
    let groups = policy.groups.iter().enumerate().map(|(number, members)| {
        let members = members.iter().map(|member| member.parse().unwrap()).collect();
        Group { name: format!("g{number}"), members, is_offered: false, settings: Settings::default(), line: number }
    });
    let rules = policy.rules.iter().enumerate().map(|(line, rule)| {
        let nets: Vec<IpNet> =
            rule.nets.iter().map(|net| IpNet::new(address(net.v6, net.bits), net.len).unwrap().trunc()).collect();
        let names = rule.names.iter().map(|name| naive::NAMES[*name].to_owned()).collect();
        Rule {
            who: if rule.everybody {
                Who::Everybody
            } else {
                Who::Listed { groups: rule.groups.clone(), users: rule.users.clone() }
            },
            action: if rule.allow { Action::Allow } else { Action::Deny },
            to: if rule.everywhere { Destinations::everywhere() } else { Destinations::new(&nets, names) },
            ports: rule.ports.iter().map(|text| text.parse().unwrap()).collect(),
            line,
        }
    });
    PolicyDocument::new(groups.collect(), rules.collect(), Vec::new()).unwrap()
}

fn address(v6: bool, bits: u128) -> IpAddr {
    if v6 { Ipv6Addr::from(bits).into() } else { Ipv4Addr::from(u32::try_from(bits).unwrap()).into() }
}

fn checked(flow: &RawFlow) -> Flow {
    Flow { protocol: flow.protocol, destination: address(flow.v6, flow.bits), port: flow.port }
}

fn source_groups(person: &RawPerson) -> Vec<String> {
    person.source_groups.clone()
}

fn subject<'a>(person: &'a RawPerson, source_groups: &'a [String]) -> Subject<'a> {
    Subject { user: &person.user, source: &person.source, source_groups }
}

fn rule(who: Who, action: Action, to: &[&str], line: usize) -> Rule {
    let nets: Vec<IpNet> = to.iter().map(|net| net.parse().unwrap()).collect();
    let to = if to.is_empty() { Destinations::everywhere() } else { Destinations::new(&nets, Vec::new()) };
    Rule { who, action, to, ports: Vec::new(), line }
}

fn group(name: &str, members: &[&str], settings: Settings) -> Group {
    Group {
        name: name.to_owned(),
        members: members.iter().map(|text| text.parse().unwrap()).collect(),
        is_offered: false,
        settings,
        line: 1,
    }
}

fn written<T>(value: T) -> Option<Written<T>> {
    Some(Written { value, literal: String::new(), line: 1 })
}

const NOBODY: Subject<'_> = Subject { user: "nobody", source: "local", source_groups: &[] };

fn flow(text: &str) -> Flow {
    let attempt: Attempt = text.parse().unwrap();
    let Place::Address(address) = attempt.to else { panic!("{text} has no address") };
    attempt.flow(address)
}

#[test]
fn policy_without_rules_allows_and_the_first_rule_makes_the_rest_denied() {
    let empty = PolicyDocument::default();
    let allowed = Decision { action: Action::Allow, rule: None };
    assert_eq!(empty.verdict(&empty.class_of(&NOBODY), &flow("tcp 10.1.2.3:443")), allowed);
    let one = rule(Who::Everybody, Action::Allow, &["10.1.0.0/16"], 1);
    let document = PolicyDocument::new(Vec::new(), vec![one], Vec::new()).unwrap();
    let class = document.class_of(&NOBODY);
    assert_eq!(document.verdict(&class, &flow("tcp 10.1.2.3:443")).rule, Some(0));
    assert_eq!(document.verdict(&class, &flow("tcp 10.2.2.3:443")), Decision { action: Action::Deny, rule: None });
    assert_eq!(document.verdict(&class, &flow("tcp [fd00::1]:443")).action, Action::Deny);
    assert_eq!([Action::Allow, Action::Deny].map(Action::word), ["allow", "deny"]);
}

#[test]
fn class_without_a_policy_is_given_everything() {
    let everything = CompiledClass::everything();
    let [rule] = &everything.rules[..] else { panic!("{everything:?}") };
    assert!(rule.allow && rule.ports.is_empty());
    assert_eq!((&rule.v4[..], &rule.v6[..]), (&["0.0.0.0/0".parse().unwrap()][..], &["::/0".parse().unwrap()][..]));
}

#[test]
fn people_with_the_same_rules_are_of_one_class() {
    let groups = vec![group("staff", &["alice", "bob"], Settings::default()), group("empty", &[], Settings::default())];
    let of_group = |number| Who::Listed { groups: vec![number], users: Vec::new() };
    let rules = vec![
        rule(of_group(0), Action::Allow, &["10.1.0.0/16"], 1),
        rule(of_group(1), Action::Allow, &["10.2.0.0/16"], 2),
        rule(Who::Listed { groups: Vec::new(), users: vec!["carol".to_owned()] }, Action::Deny, &[], 3),
        rule(Who::Everybody, Action::Allow, &["10.3.0.0/16"], 4),
    ];
    let document = PolicyDocument::new(groups, rules, Vec::new()).unwrap();
    let class = |user| document.class_of(&Subject { user, ..NOBODY });
    assert_eq!(class("alice"), class("bob"));
    assert_eq!(class("alice").rules().collect::<Vec<_>>(), [0, 3]);
    assert_eq!(class("carol").rules().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(class("nobody").rules().collect::<Vec<_>>(), [3]);
}

#[test]
fn group_of_a_source_counts_for_who_came_by_that_source_only() {
    let groups = vec![group("staff", &["ldap:cn=staff", "alice"], Settings::default())];
    let document = PolicyDocument::new(groups, Vec::new(), Vec::new()).unwrap();
    let said = ["cn=staff".to_owned()];
    let reasons = |user, source, source_groups| {
        let subject = Subject { user, source, source_groups };
        document.groups_of(&subject).into_iter().map(|membership| membership.reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons("bob", "ldap", &said[..]), [Reason::SourceGroup("cn=staff")]);
    assert_eq!(reasons("bob", "oidc", &said[..]), []);
    assert_eq!(reasons("bob", "ldap", &[]), []);
    assert_eq!(reasons("alice", "oidc", &[]), [Reason::Name]);
    assert_eq!(reasons("ldap:cn=staff", "local", &[]), []);
    assert!(["", ":staff", "ldap:"].iter().all(|text| text.parse::<Member>().is_err()));
}

#[test]
fn flow_without_a_known_port_is_denied_wherever_it_might_be() {
    let some_ports = |action, line| Rule {
        ports: vec!["tcp/443".parse().unwrap()],
        ..rule(Who::Everybody, action, &["10.0.0.0/8"], line)
    };
    let verdict = |rules: Vec<Rule>| {
        let document = PolicyDocument::new(Vec::new(), rules, Vec::new()).unwrap();
        let class = document.class_of(&NOBODY);
        document.verdict(&class, &Flow { port: None, ..flow("tcp 10.1.2.3:443") })
    };
    assert_eq!(verdict(vec![some_ports(Action::Allow, 1)]), Decision { action: Action::Deny, rule: None });
    let rest = || rule(Who::Everybody, Action::Allow, &[], 2);
    assert_eq!(verdict(vec![some_ports(Action::Deny, 1), rest()]), Decision { action: Action::Deny, rule: Some(0) });
    assert_eq!(verdict(vec![some_ports(Action::Allow, 1), rest()]).rule, Some(1));
}

#[test]
fn packet_gives_the_flow_it_begins_and_a_later_fragment_no_port() {
    use crate::packet::IpPacket;
    use crate::packet::tests::{ipv4, ipv6};
    let (source, to) = (Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 1, 2, 3));
    let mut packet = ipv4(source, to, 6, &[], &[0x9c, 0x40, 1, 187, 0, 0, 0, 0]);
    let of = |packet: &[u8]| Flow::of(&IpPacket::parse(packet).unwrap(), packet);
    assert_eq!(of(&packet), flow("tcp 10.1.2.3:443"));
    packet[6] = 0;
    packet[7] = 1;
    assert_eq!(of(&packet).port, None);
    assert_eq!(of(&ipv4(source, to, 17, &[], &[1, 2, 0])).port, None, "cut short");
    assert_eq!(of(&ipv4(source, to, 1, &[], &[8, 0, 0, 80])), flow("icmp 10.1.2.3"));
    let (source, to) = ("fd00:77::2".parse().unwrap(), "fd00::53".parse().unwrap());
    assert_eq!(of(&ipv6(source, to, 17, &[0, 1, 0, 53])), flow("udp [fd00::53]:53"));
}

#[test]
fn setting_is_that_of_the_first_group_that_has_it() {
    let first = Settings { mtu: written(1300), ..Settings::default() };
    let second = Settings { mtu: written(1400), dns_domains: written(vec![]), ..Settings::default() };
    let groups = vec![group("a", &[], first), group("b", &[], second)];
    let document = PolicyDocument::new(groups, Vec::new(), Vec::new()).unwrap();
    let both = document.settings_of(&[1, 0]);
    assert_eq!(both.mtu.map(|chosen| (chosen.written.value, chosen.group)), Some((1300, 0)));
    assert_eq!(both.dns_domains.map(|chosen| chosen.group), Some(1));
    assert_eq!(both.written().iter().map(|(key, ..)| *key).collect::<Vec<_>>(), ["dns_domains", "mtu"]);
    assert_eq!(document.settings_of(&[1]).mtu.map(|chosen| chosen.written.value), Some(1400));
    assert_eq!(document.settings_of(&[]).written(), []);
    let chosen = document.settings_with(Some(1), &[0, 1]);
    assert_eq!(chosen.mtu.map(|chosen| (chosen.written.value, chosen.group)), Some((1400, 1)), "the chosen one first");
    let of_others = document.settings_with(Some(1), &[0]);
    assert_eq!(of_others.mtu.map(|chosen| chosen.group), Some(0), "but none that they are not in");
}

#[test]
fn tests_name_what_they_got() {
    let groups = vec![group("staff", &["alice"], Settings::default())];
    let rules = vec![rule(Who::Listed { groups: vec![0], users: Vec::new() }, Action::Allow, &["10.1.0.0/16"], 1)];
    let attempts = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Attempt>>();
    let test = |user: Option<&str>, groups: &[usize], allow: &[&str], deny: &[&str]| PolicyTest {
        user: user.map(str::to_owned),
        groups: groups.to_vec(),
        allow: attempts(allow),
        deny: attempts(deny),
        line: 9,
    };
    let (in_office, outside) = ("tcp 10.1.2.3:443", "tcp 10.2.2.3:443");
    let tests = vec![
        test(Some("alice"), &[], &[in_office], &[outside, "tcp wiki.example.org:443"]),
        test(None, &[0], &[in_office], &[outside]),
        test(Some("bob"), &[], &[], &[in_office]),
        test(Some("bob"), &[], &[in_office], &[]),
        test(Some("alice"), &[], &[], &[in_office]),
    ];
    let document = PolicyDocument::new(groups, rules, tests).unwrap();
    let failed = document.failed_tests();
    let got: Vec<_> =
        failed.iter().map(|failed| (failed.test.user.as_deref(), failed.expected, failed.got.rule)).collect();
    assert_eq!(got, [(Some("bob"), Action::Allow, None), (Some("alice"), Action::Deny, Some(0))]);
}

#[test]
fn name_is_allowed_by_its_own_rule_and_by_rules_for_everywhere() {
    let wiki = Destinations::new(&[], vec!["wiki.example.org".to_owned()]);
    let rules = vec![
        rule(Who::Everybody, Action::Deny, &["10.0.0.0/8"], 1),
        Rule { to: wiki, ..rule(Who::Everybody, Action::Allow, &[], 2) },
    ];
    let document = PolicyDocument::new(Vec::new(), rules.clone(), Vec::new()).unwrap();
    let verdict = |document: &PolicyDocument, text: &str| {
        document.verdict_on(&document.class_of(&NOBODY), &text.parse().unwrap()).rule
    };
    assert_eq!(verdict(&document, "tcp wiki.example.org:443"), Some(1));
    assert_eq!(verdict(&document, "icmp wiki.example.org"), Some(1));
    assert_eq!(verdict(&document, "tcp other.example.org:443"), None);
    assert!(!Destinations::new(&["0.0.0.0/0".parse().unwrap()], Vec::new()).are_everywhere(), "of one family alone");
    let everywhere = rule(Who::Everybody, Action::Deny, &[], 0);
    let closed = PolicyDocument::new(Vec::new(), [vec![everywhere], rules].concat(), Vec::new()).unwrap();
    assert_eq!(verdict(&closed, "tcp wiki.example.org:443"), Some(0));
    let class = document.class_of(&NOBODY);
    let known = |has: bool| {
        document.verdict_knowing(&class, &flow("tcp 192.0.2.7:443"), |name, _| has && name == "wiki.example.org").rule
    };
    assert_eq!((known(true), known(false)), (Some(1), None));
}

#[test]
fn policy_beyond_a_bound_names_the_line_that_is_too_much() {
    let groups = |count| (0..count).map(|line| Group { line, ..group("g", &[], Settings::default()) }).collect();
    let rules = |count| (0..count).map(|line| rule(Who::Everybody, Action::Allow, &[], line)).collect::<Vec<_>>();
    assert!(PolicyDocument::new(groups(MOST_GROUPS), Vec::new(), Vec::new()).is_ok());
    let refused = PolicyDocument::new(groups(MOST_GROUPS + 1), Vec::new(), Vec::new()).unwrap_err();
    assert_eq!(refused, TooLarge { what: "groups", most: MOST_GROUPS, line: MOST_GROUPS });
    assert!(PolicyDocument::new(Vec::new(), rules(MOST_RULES), Vec::new()).is_ok());
    let refused = PolicyDocument::new(Vec::new(), rules(MOST_RULES + 1), Vec::new()).unwrap_err();
    assert_eq!(refused.to_string(), "more than 4096 rules");
    let names = |count| {
        vec![Rule {
            to: Destinations::new(&[], (0..count).map(|number| format!("n{number}.example.org")).collect()),
            ..rule(Who::Everybody, Action::Allow, &[], 7)
        }]
    };
    assert!(PolicyDocument::new(Vec::new(), names(MOST_NAMES), Vec::new()).is_ok());
    assert_eq!(PolicyDocument::new(Vec::new(), names(MOST_NAMES + 1), Vec::new()).unwrap_err().line, 7);
    let refused = |count| PolicyDocument::new(Vec::new(), names(count), Vec::new()).unwrap_err().what;
    assert_eq!(refused(MOST_DESTINATIONS), "names in rules");
    assert_eq!(refused(MOST_DESTINATIONS + 1), "destinations in rules");
    let users = |count| {
        let users = (0..count).map(|number| format!("user-{number}")).collect();
        vec![rule(Who::Listed { groups: Vec::new(), users }, Action::Allow, &[], 8)]
    };
    assert!(PolicyDocument::new(Vec::new(), users(MOST_IN_A_RULE), Vec::new()).is_ok());
    assert_eq!(PolicyDocument::new(Vec::new(), users(MOST_IN_A_RULE + 1), Vec::new()).unwrap_err().line, 8);
}

#[test]
#[should_panic(expected = "a group is named that is not there")]
fn group_that_is_not_there_is_named_by_no_rule() {
    let who = Who::Listed { groups: vec![1], users: Vec::new() };
    let groups = vec![group("staff", &[], Settings::default())];
    drop(PolicyDocument::new(groups, vec![rule(who, Action::Allow, &[], 1)], Vec::new()));
}
