use std::process::Command;

use adit_testing::namespace::in_namespace;
use adit_testing::{eventually, skip};

use super::super::tests::rules;
use super::*;
use crate::nft::{FAMILY_INET, Socket};

/// Runs nft(8) and tells whether it succeeded; `None`, loudly, where it is not installed.
fn nft(commands: &str) -> Option<bool> {
    match Command::new("nft").arg(commands).output() {
        Ok(output) => Some(output.status.success()),
        Err(_) => {
            skip("needs the program nft");
            None
        }
    }
}

fn record(instance: &str) -> TableRecord {
    TableRecord { tun: "adit0".into(), instance: instance.into() }
}

fn is_there() -> bool {
    Socket::open().unwrap().table(FAMILY_INET, "adit").unwrap().is_some()
}

fn unprotected() -> Table {
    Table::load_with(&record("a"), rules(), &[Protection::None]).unwrap()
}

#[test]
fn each_link_has_a_table_of_its_own() {
    assert_eq!(["adit0", "adit1", "vpn.5"].map(table_of), ["adit", "adit_adit1", "adit_vpn.5"]);
    assert!(["adit", "adit_vpn.5"].into_iter().all(is_of_a_gateway));
    assert!(!["addit", "aditude", "filter"].into_iter().any(is_of_a_gateway));
}

#[test]
fn protected_table_outlives_what_others_do_to_the_firewall() {
    in_namespace(|| {
        let table = Table::load(&record("a"), rules()).unwrap();
        if table.owned.as_loaded.table.owner.is_none() {
            return skip("needs Linux 5.12, whose tables have owners");
        }
        assert_eq!(nft("add table inet stranger"), Some(true));
        assert_eq!(nft("flush ruleset"), Some(true));
        assert!(
            Socket::open().unwrap().table(FAMILY_INET, "stranger").unwrap().is_none(),
            "others' tables are flushed"
        );
        for hostile in ["delete table inet adit", "flush table inet adit", "add chain inet adit more"] {
            assert_eq!(nft(hostile), Some(false), "{hostile}");
        }
        assert_eq!(table.fault().unwrap(), None);
        table.unload().unwrap();
        assert!(!is_there());
    });
}

#[test]
fn whatever_is_done_to_an_unprotected_table_is_seen_and_mended() {
    in_namespace(|| {
        let mut table = unprotected();
        assert_eq!(table.fault().unwrap(), None);
        for (hostile, fault) in [
            ("flush ruleset", "was removed"),
            ("delete table inet adit", "was removed"),
            ("flush chain inet adit input", "was changed"),
            ("insert rule inet adit input accept", "was changed"),
            ("add chain inet adit forward { policy drop; }", "was changed"),
            ("add table inet adit { flags dormant; }", "was changed"),
        ] {
            match nft(hostile) {
                None => return,
                Some(done) => assert!(done, "{hostile}"),
            }
            assert_eq!(table.fault().unwrap(), Some(fault), "{hostile}");
            table.put_back().unwrap();
            assert_eq!(table.fault().unwrap(), None, "{hostile}");
        }
    });
}

#[test]
fn table_that_a_saved_ruleset_brings_back_is_replaced() {
    in_namespace(|| {
        let mut table = unprotected();
        let Ok(saved) = Command::new("nft").args(["list", "ruleset"]).output() else {
            return skip("needs the program nft");
        };
        let reload = format!("flush ruleset; {}", String::from_utf8(saved.stdout).unwrap());
        assert_eq!(nft(&reload), Some(true));
        assert_eq!(table.fault().unwrap(), Some("was replaced"));
        table.put_back().unwrap();
        assert_eq!(table.fault().unwrap(), None);
    });
}

#[test]
fn table_of_a_living_gateway_is_neither_removed_nor_replaced() {
    in_namespace(|| {
        let living = Table::load(&record("a"), rules()).unwrap();
        if living.owned.as_loaded.table.owner.is_none() {
            return skip("needs Linux 5.12, whose tables have owners");
        }
        for other in [record("b"), record("a")] {
            remove(&other).unwrap();
            let refused = Table::load(&other, rules()).unwrap_err().to_string();
            assert!(refused.starts_with("the nftables table inet adit belongs to process "), "{refused}");
        }
        assert_eq!(living.fault().unwrap(), None);
    });
}

#[test]
fn table_of_a_dead_gateway_is_removed_by_its_own_journal_and_replaced_by_the_next_gateway() {
    in_namespace(|| {
        // A process that ends drops its sockets just so.
        drop(unprotected());
        assert!(is_there());
        remove(&record("b")).unwrap();
        assert!(is_there(), "another gateway's journal leaves it");
        remove_nameless().unwrap();
        assert!(is_there(), "and so does that of an earlier version");
        remove(&record("a")).unwrap();
        assert!(!is_there());

        drop(Table::load(&record("a"), rules()).unwrap());
        // A program that another test is just starting has the socket, too, until it is another program.
        let next = eventually("the dead gateway's table is free", || Table::load(&record("b"), rules()).ok());
        assert_eq!(next.fault().unwrap(), None);
        assert_eq!(next.owned.as_loaded.table.comment.as_deref(), Some("Adit gateway, instance b"));
    });
}

#[test]
fn table_that_adit_did_not_make_is_named_and_stays() {
    in_namespace(|| {
        let Some(true) = nft("add table inet adit { comment \"of somebody\"; }") else { return };
        let refused = Table::load(&record("a"), rules()).unwrap_err();
        assert_eq!(refused.to_string(), "the nftables table inet adit was not made by Adit");
        remove(&record("a")).unwrap();
        remove_nameless().unwrap();
        assert!(is_there());
    });
}
