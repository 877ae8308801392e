//! Sessions told of to a real FreeRADIUS.

use std::net::SocketAddr;

use adit_program::durable_file;
use adit_testing::eventually;
use adit_testing::free_radius::{FreeRadius, Replies, SECRET};
use tempfile::TempDir;

use super::*;
use crate::config::SecretPlace;
use crate::core::tests::session;

const HOUR: Duration = Duration::from_secs(3600);

/// A folder with a secret and what waits to be told.
struct Lab {
    folder: TempDir,
    settings: RadiusSettings,
}

impl Lab {
    fn new(servers: &[SocketAddr], interim: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        durable_file::create(&secret, SECRET.as_bytes(), 0o600).unwrap();
        let settings = RadiusSettings {
            secret: Some(SecretPlace::File(secret)),
            nas_identifier: "adit".to_owned(),
            accounting_servers: servers.to_vec(),
            accounting_interim: interim,
            ..RadiusSettings::default()
        };
        Self { folder, settings }
    }

    fn start(&self) -> Arc<Accounting> {
        Accounting::start(&self.settings, &self.folder.path().join("spool")).unwrap()
    }

    fn waiting(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("spool")).unwrap().count()
    }
}

fn told(server: &FreeRadius, what: &str) -> String {
    eventually(what, || Some(server.accounted()).filter(|text| text.contains(what)))
}

fn close(accounting: &Accounting, session: &Session) {
    accounting.closed(session, &session.carriers.counters().traffic());
}

#[test]
fn end_of_a_session_is_told_with_its_cause() {
    let causes = [None, Some(Ending::Idle), Some(Ending::LoginOver), Some(Ending::Disabled), Some(Ending::Shutdown)];
    assert_eq!(causes.map(cause), [USER_REQUEST, IDLE_TIMEOUT, SESSION_TIMEOUT, ADMIN_RESET, NAS_REBOOT]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn servers_are_told_of_a_session_with_all_its_bytes() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let silent = "127.0.0.1:9".parse().unwrap();
    let lab = Lab::new(&[silent, server.accounting()], HOUR);
    let accounting = lab.start();
    let session = session(7, "dev-a", 2);
    accounting.opened(&session);
    session.carriers.counters().count_rx(3, (1 << 32) + 5);
    session.carriers.counters().count_tx(4, (5 << 32) + 6);
    close(&accounting, &session);
    let text = told(&server, "Acct-Status-Type = Stop");
    let (begin, rest) = text.split_once("Acct-Status-Type = Start").unwrap();
    assert!(begin.contains("Acct-Status-Type = Accounting-On"), "{text}");
    let (start, stop) = rest.split_once("Acct-Status-Type = Stop").unwrap();
    for fact in ["User-Name = \"alice\"", "Framed-IP-Address = 10.77.0.2", "Calling-Station-Id = \"127.0.0.1\""] {
        assert!(start.contains(fact) && stop.contains(fact), "{fact}: {text}");
    }
    for sum in [
        "Acct-Input-Octets = 5\n",
        "Acct-Input-Gigawords = 1\n",
        "Acct-Input-Packets = 3\n",
        "Acct-Output-Octets = 6\n",
        "Acct-Output-Gigawords = 5\n",
        "Acct-Output-Packets = 4\n",
        "Acct-Terminate-Cause = User-Request\n",
    ] {
        assert!(stop.contains(sum), "{sum}: {text}");
    }
    eventually("nothing waits any longer", || (lab.waiting() == 0).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_no_server_noted_is_told_after_a_restart_of_the_gateway() {
    let Some(mut server) = FreeRadius::start(Replies::Authentic) else { return };
    server.stop();
    let lab = Lab::new(&[server.accounting()], HOUR);
    let before = lab.start();
    let session = session(7, "dev-a", 2);
    before.opened(&session);
    close(&before, &session);
    before.finish();
    drop(before);
    assert_eq!(lab.waiting(), 3, "the gateway began, and a session began and ended");
    server.begin();
    let after = lab.start();
    eventually("everything is told", || (lab.waiting() == 0).then_some(()));
    let text = server.accounted();
    let events: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("Acct-Status-Type = ")).collect();
    assert_eq!(events, ["Accounting-On", "Start", "Stop", "Accounting-On"]);
    drop(after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn session_that_goes_on_is_told_of_and_ends_with_the_gateway() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let lab = Lab::new(&[server.accounting()], Duration::from_millis(200));
    let accounting = lab.start();
    let session = session(7, "dev-a", 2);
    accounting.opened(&session);
    session.carriers.counters().count_rx(1, 77);
    let text = told(&server, "Acct-Status-Type = Interim-Update");
    assert!(text.split_once("Interim-Update").unwrap().1.contains("Acct-Input-Octets = 77"), "{text}");
    accounting.finish();
    assert!(told(&server, "Acct-Status-Type = Stop").contains("Acct-Terminate-Cause = NAS-Reboot"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn session_that_is_gone_without_a_word_ends_too() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let lab = Lab::new(&[server.accounting()], Duration::from_millis(200));
    let accounting = lab.start();
    accounting.opened(&session(7, "dev-a", 2));
    assert!(told(&server, "Acct-Status-Type = Stop").contains("Acct-Terminate-Cause = NAS-Error"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn other_secret_counts_at_once_while_the_gateway_runs() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let lab = Lab::new(&[server.accounting()], HOUR);
    let secret = lab.folder.path().join("secret");
    std::fs::write(&secret, "none-of-this-server-s").unwrap();
    let accounting = lab.start();
    assert_eq!((lab.waiting(), server.accounted().as_str()), (1, ""), "the server believes nothing of it");
    std::fs::write(&secret, SECRET).unwrap();
    accounting.follow(Accounting::client(&lab.settings).unwrap());
    told(&server, "Acct-Status-Type = Accounting-On");
    std::fs::remove_file(&secret).unwrap();
    assert!(Accounting::client(&lab.settings).is_err());
}
