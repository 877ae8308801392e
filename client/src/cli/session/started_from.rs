//! Where the session comes from in which somebody started this client.

use std::fs;
use std::net::IpAddr;

/// What sshd tells the programs of a session: the peer's address and port, and its own.
const SSH_CONNECTION: &str = "SSH_CONNECTION";
/// Most processes between this one and the session's shell that are looked at.
const MOST_PARENTS: usize = 16;

/// The address somebody's session comes from, if this client was started in one over the network. `sudo` keeps the
/// variable from us, but not from the shell it was called in.
pub(super) fn started_from() -> Option<IpAddr> {
    let own = std::env::var(SSH_CONNECTION).ok();
    own.as_deref().and_then(peer).or_else(|| {
        let mut process = std::process::id();
        for _ in 0..MOST_PARENTS {
            process = parent(process).filter(|parent| *parent > 1)?;
            if let Some(found) = variable_of(process).as_deref().and_then(peer) {
                return Some(found);
            }
        }
        None
    })
}

fn peer(connection: &str) -> Option<IpAddr> {
    // A link-local address has its link behind it.
    let address = connection.split_whitespace().next()?;
    address.split('%').next()?.parse().ok()
}

fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn variable_of(process: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
    let variable = |entry: &[u8]| {
        let entry = std::str::from_utf8(entry).ok()?;
        entry.strip_prefix(SSH_CONNECTION)?.strip_prefix('=').map(str::to_owned)
    };
    environment.split(|byte| *byte == 0).find_map(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_is_the_first_word() {
        assert_eq!(peer("192.0.2.17 50022 192.0.2.18 22"), Some("192.0.2.17".parse().unwrap()));
        assert_eq!(peer("fe80::1%eth0 50022 fe80::2%eth0 22"), Some("fe80::1".parse().unwrap()));
        assert_eq!((peer(""), peer("elsewhere 1 here 2")), (None, None));
    }

    #[test]
    fn variable_of_another_process_is_found_by_its_whole_name() {
        let mut shell = std::process::Command::new("sleep");
        shell.args(["20"]).env("NO_SSH_CONNECTION", "x").env(SSH_CONNECTION, "192.0.2.17 1 192.0.2.18 22");
        let mut child = shell.spawn().unwrap();
        let found = adit_testing::eventually("the child has its environment", || variable_of(child.id()));
        assert_eq!(found, "192.0.2.17 1 192.0.2.18 22");
        assert_eq!(parent(child.id()), Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
