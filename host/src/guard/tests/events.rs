//! How soon a setting is back: an event of the kernel brings the look that mends it, and no poll has to come. The pause
//! between two looks is all the time that passes then, and it is far below two seconds.

use adit_proto::dns::{DnsScope, DnsSettings};
use tokio::time::timeout;

use super::*;
use crate::{AnswerRules, KillSwitch};

/// Longer than any test waits: the poll does not come.
const NEVER: Duration = Duration::from_secs(3600);
/// How long there is nothing to hear once all that a mend itself did is heard.
const QUIET: Duration = Duration::from_millis(600);

/// Waits for an event alone, however long the poll takes.
async fn heard(changes: &mut HostChanges) {
    timeout(PATIENCE, changes.watch.changed(NEVER)).await.expect("an event is heard");
}

/// Looks until nothing is left to hear, so that the next event is the stranger's.
async fn settle(changes: &mut HostChanges) {
    changes.hold().await;
    while timeout(QUIET, changes.watch.changed(NEVER)).await.is_ok() {
        changes.hold().await;
    }
}

/// How often a guard has mended.
fn times(reports: &[GuardReport], guard: &str) -> u32 {
    reports.iter().find(|report| report.guard == guard).map_or(0, |report| report.times)
}

/// Has a stranger do something; expects the look after the first event to mend it.
pub(super) async fn is_mended_by_the_first_look(changes: &mut HostChanges, done: &str, guard: &str) {
    settle(changes).await;
    let before = times(&changes.hold().await, guard);
    do_all(done);
    heard(changes).await;
    let reports = changes.hold().await;
    let mended = reports.iter().any(|report| report.guard == guard && report.state == GuardState::Mended);
    assert!(mended && times(&reports, guard) == before + 1, "{done}: {reports:?}");
}

/// Does what a line of a shell says.
fn do_all(line: &str) {
    let status = std::process::Command::new("sh").args(["-ec", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

#[test]
fn what_is_taken_from_a_clients_host_is_back_after_one_event() {
    on_host(async |host: &mut Host| {
        let addresses = vec!["10.64.3.2".parse().unwrap()];
        let answers = AnswerRules { tun: "adit0".into(), addresses, inner_links: Vec::new(), mark: Mark::CLIENT };
        host.changes.load_answers(&answers).await.unwrap();
        let switch = KillSwitch {
            profile: "home".into(),
            user: 0,
            mark: Mark::CLIENT,
            tunnel: None,
            lan: Vec::new(),
            inner_links: Vec::new(),
        };
        host.changes.close_kill_switch(&switch).await.unwrap();
        for (done, guard) in [
            ("ip rule del pref 5300", "IPv4 rule 5300"),
            ("ip -6 rule del pref 5300", "IPv6 rule 5300"),
            ("ip route flush table 44311", "IPv4 routes of table 44311"),
            ("ip -6 route flush table 44311", "IPv6 routes of table 44311"),
            ("ip -4 address flush dev adit0", "addresses of adit0"),
            ("ip -6 address flush dev adit0 scope global", "addresses of adit0"),
            ("ip link set adit0 down", "link adit0"),
            ("ip link set adit0 mtu 9000", "link adit0"),
            ("ip link set adit0 name elsewhere", "link adit0"),
            ("echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter", "sysctl net.ipv4.conf.all.rp_filter"),
            ("nft flush ruleset", "kill switch"),
            ("nft delete table inet adit_client_home", "kill switch"),
            ("nft delete table arp adit_answers_adit0", "firewall table adit_answers"),
        ] {
            is_mended_by_the_first_look(&mut host.changes, done, guard).await;
        }
    });
}

#[test]
fn what_is_written_into_the_resolvers_file_is_gone_after_one_event() {
    on_host(async |host: &mut Host| {
        let file = host.changes.options.resolv_conf.clone();
        let servers = vec!["10.64.3.1".parse().unwrap()];
        let settings = DnsSettings { servers, search: Vec::new(), scope: DnsScope::All, exclusive: true };
        host.changes.set_dns("adit0", &settings).await.unwrap();
        let servers = || {
            fs::read_to_string(&file)
                .unwrap_or_default()
                .lines()
                .filter(|line| !line.starts_with('#'))
                .collect::<String>()
        };
        assert_eq!(servers(), "nameserver 10.64.3.1");
        let (path, beside) = (file.display(), file.with_extension("new"));
        for done in [
            format!("echo nameserver 192.0.2.66 >{path}"),
            format!("echo nameserver 192.0.2.67 >{}; mv {0} {path}", beside.display()),
            format!("rm {path}"),
        ] {
            is_mended_by_the_first_look(&mut host.changes, &done, "resolver file").await;
            assert_eq!(servers(), "nameserver 10.64.3.1", "{done}");
        }
    });
}
