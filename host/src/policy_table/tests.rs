use std::process::Command;

use adit_proto::policy::CompiledRule;
use adit_testing::namespace::in_namespace;
use adit_testing::skip;

use super::*;
use crate::nft::{FAMILY_INET, Key, Socket};

const TABLE: &str = "adit_policy_adit0";
/// Chains of a table without classes.
const ALWAYS: usize = 5;

fn record() -> TableRecord {
    TableRecord { tun: "adit0".into(), instance: "a".into() }
}

fn rule() -> CompiledRule {
    let networks = ["10.1.0.0/16", "10.3.0.0/16"];
    CompiledRule {
        allow: true,
        v4: networks.map(|net| net.parse().unwrap()).to_vec(),
        v6: vec!["fd00:1::/48".parse().unwrap()],
        names: vec!["wiki.example.org".into()],
        ports: vec!["tcp/443".parse().unwrap(), "icmp".parse().unwrap()],
        line: 1,
    }
}

fn class(number: u32) -> Arc<PolicyClass> {
    Arc::new(PolicyClass { number, rules: CompiledClass { rules: vec![rule()] } })
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4((0x0a40_0000 + number).into())
}

fn admit(number: u32, class: &Arc<PolicyClass>) -> MemberChange {
    MemberChange::Admit(address(number), Arc::clone(class))
}

fn members() -> usize {
    let socket = Socket::open().unwrap();
    let of_class =
        |class| socket.elements(FAMILY_INET, TABLE, &class::members(class, Key::V4)).unwrap_or_default().len();
    (0..100).map(of_class).sum()
}

fn chains() -> usize {
    Socket::open().unwrap().chains_of_table(FAMILY_INET, TABLE).unwrap().len()
}

#[test]
fn thousands_of_members_are_changed_at_once_and_put_back() {
    in_namespace(|| {
        let table = PolicyTable::load(&record()).unwrap();
        let (one, other) = (class(1), class(2));
        let all: Vec<_> = (0..10_000).map(|number| admit(number, &one)).collect();
        table.change(&all).unwrap();
        assert_eq!(members(), 10_000);
        let some: Vec<_> = (0..10_000)
            .map(|number| if number < 100 { MemberChange::Dismiss(address(number)) } else { admit(number, &other) })
            .collect();
        table.change(&some).unwrap();
        assert_eq!(members(), 9_900);
        table.put_back().unwrap();
        assert_eq!((members(), table.fault().unwrap()), (9_900, None));
        table.unload().unwrap();
        assert_eq!(chains(), 0);
    });
}

#[test]
fn of_several_changes_of_an_address_the_last_counts() {
    in_namespace(|| {
        let table = PolicyTable::load(&record()).unwrap();
        let one = class(1);
        table.change(&[admit(1, &one), MemberChange::Dismiss(address(1))]).unwrap();
        assert_eq!(members(), 0);
        table.change(&[MemberChange::Dismiss(address(1)), admit(1, &one), admit(1, &one)]).unwrap();
        table.change(&[admit(1, &one)]).unwrap();
        table.change(&[MemberChange::Dismiss(address(1)), admit(1, &class(2))]).unwrap();
        assert_eq!(members(), 1);
    });
}

#[test]
fn classes_that_nobody_is_in_are_forgotten_in_time() {
    in_namespace(|| {
        let table = PolicyTable::load(&record()).unwrap();
        let most = u32::try_from(MOST_IDLE).unwrap();
        for number in 0..most + 3 {
            table.change(&[admit(1, &class(number))]).unwrap();
        }
        assert_eq!(chains(), 2 * 2 + ALWAYS, "those of the last class and of the one before it");
        assert_eq!((members(), table.fault().unwrap()), (1, None));
    });
}

#[test]
fn change_mends_a_table_from_which_a_member_is_missing() {
    in_namespace(|| {
        let table = PolicyTable::load_with(&record(), &[Protection::None]).unwrap();
        let one = class(1);
        table.change(&[admit(1, &one), admit(2, &one)]).unwrap();
        match Command::new("nft")
            .args(["delete", "element", "inet", TABLE, "class1_v4_members", "{ 10.64.0.1 }"])
            .output()
        {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(_) => return skip("needs the program nft"),
        }
        table.change(&[MemberChange::Dismiss(address(1)), admit(3, &one)]).unwrap();
        assert_eq!((members(), table.fault().unwrap()), (2, None));
    });
}

#[test]
fn table_that_was_removed_is_not_brought_back_by_a_late_change() {
    in_namespace(|| {
        let table = PolicyTable::load(&record()).unwrap();
        table.change(&[admit(1, &class(1)), admit(2, &class(1))]).unwrap();
        assert_ne!(chains(), 0, "the positive control");
        table.unload().unwrap();
        table.change(&[MemberChange::Dismiss(address(1))]).unwrap();
        table.replace(HashMap::new()).unwrap();
        table.resolved("wiki.example.org", &[address(9)], Duration::from_secs(60)).unwrap();
        assert_eq!(chains(), 0);
    });
}

#[test]
fn refused_change_leaves_the_table_as_it_was() {
    in_namespace(|| {
        let table = PolicyTable::load_with(&record(), &[Protection::None]).unwrap();
        table.change(&[admit(1, &class(1))]).unwrap();
        // A table of this name that Adit did not make is not Adit's to change.
        let stranger = format!("delete table inet {TABLE}; add table inet {TABLE}");
        if Command::new("nft").arg(stranger).output().is_err() {
            return skip("needs the program nft");
        }
        assert!(table.change(&[admit(2, &class(2))]).is_err());
        assert!(table.replace(HashMap::new()).is_err());
        Command::new("nft").args(["delete", "table", "inet", TABLE]).output().unwrap();
        table.put_back().unwrap();
        assert_eq!((members(), chains()), (1, 2 + ALWAYS), "the first change alone");
    });
}

#[test]
fn table_is_one_that_nft_can_list() {
    in_namespace(|| {
        let table = PolicyTable::load(&record()).unwrap();
        table.change(&[admit(1, &class(1))]).unwrap();
        table.resolved("wiki.example.org", &[address(9)], Duration::from_secs(60)).unwrap();
        let Ok(listed) = Command::new("nft").args(["list", "table", "inet", TABLE]).output() else {
            return skip("needs the program nft");
        };
        assert!(listed.status.success(), "{listed:?}");
        let listed = String::from_utf8(listed.stdout).unwrap();
        for expected in ["10.1.0.0/16, 10.3.0.0/16", "10.64.0.1", "10.64.0.9 timeout 1m", "class 1: no rule"] {
            assert!(listed.contains(expected), "{expected} in {listed}");
        }
    });
}

#[test]
fn connections_that_the_kernel_refused_to_judge_are_judged_with_the_next_change() {
    let mut unjudged = Unjudged::default();
    unjudged.0.insert(address(1));
    let refused = unjudged.judge(|_| Err(HostError::NoSuchLink { name: "adit0".into() }));
    assert!(refused.is_err());
    unjudged.0.insert(address(2));
    let judged = |unjudged: &mut Unjudged| {
        let mut judged = Vec::<IpAddr>::new();
        let clear = |openers: &HashSet<IpAddr>| {
            judged.extend(openers.iter().copied());
            Ok(())
        };
        unjudged.judge(clear).unwrap();
        judged.sort();
        judged
    };
    assert_eq!(judged(&mut unjudged), [address(1), address(2)]);
    assert!(judged(&mut unjudged).is_empty(), "the control: once is enough");
}
