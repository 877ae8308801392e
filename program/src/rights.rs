//! What to tell somebody whose program lacks a right. Root is not told to become root.

use std::fs;

use nix::unistd::geteuid;

/// Where the kernel lists what the calling thread may do.
const STATUS: &str = "/proc/thread-self/status";

/// A capability (capabilities(7)) that an Adit program may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Ports below 1024.
    NetBindService,
    /// Links, addresses, routes and the firewall.
    NetAdmin,
}

/// How a right that is missing can come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Situation {
    root: bool,
    holds_it: bool,
}

impl Capability {
    /// The kernel's number of it (`linux/capability.h`).
    fn number(self) -> u32 {
        match self {
            Self::NetBindService => 10,
            Self::NetAdmin => 12,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::NetAdmin => "NET_ADMIN",
        }
    }

    /// The next step after the kernel refused what this capability permits.
    #[must_use]
    pub fn next_step(self) -> String {
        let status = fs::read_to_string(STATUS).unwrap_or_default();
        self.next_step_of(Situation { root: geteuid().is_root(), holds_it: self.is_effective(&status) })
    }

    fn next_step_of(self, situation: Situation) -> String {
        let name = self.name();
        if situation.holds_it {
            return format!(
                "the program has CAP_{name}, so seccomp, SELinux or AppArmor forbids it, or the network belongs to another \
                 user namespace: look at the kernel's log (`dmesg`) and at how the container was started"
            );
        }
        if situation.root {
            return format!("root lacks CAP_{name} here; in a container, add `--cap-add {name}`");
        }
        format!("run as root, or give the program CAP_{name}; in a container, add `--cap-add {name}`")
    }

    fn is_effective(self, status: &str) -> bool {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        bits.is_some_and(|bits| bits >> self.number() & 1 == 1)
    }
}

/// The next step after the system refused access to a file of `owner`, such as "root or the gateway's user".
#[must_use]
pub fn to_reach_files_of(owner: &str) -> String {
    if geteuid().is_root() {
        "root itself is refused here: look at the attributes (`lsattr`), the mount options, and in a container at its \
         capabilities and user namespace"
            .to_owned()
    } else {
        format!("run as {owner}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_kernels_list() {
        let status = "Name:\tadit\nCapPrm:\tffffffffffffffff\nCapEff:\t0000000000001000\nCapBnd:\t0000000000000000\n";
        assert!(Capability::NetAdmin.is_effective(status));
        assert!(!Capability::NetBindService.is_effective(status));
        assert!(!Capability::NetAdmin.is_effective("CapEff:\tnonsense"));
        assert!(!Capability::NetAdmin.is_effective(""));
    }

    #[test]
    fn root_is_not_told_to_become_root() {
        let said = |root, holds_it| Capability::NetAdmin.next_step_of(Situation { root, holds_it });
        assert!(said(false, false).starts_with("run as root, or give the program CAP_NET_ADMIN"));
        for holds_it in [true, false] {
            assert!(!said(true, holds_it).contains("run as root"));
            assert!(said(true, holds_it).contains("CAP_NET_ADMIN"));
        }
        assert!(said(true, true).contains("seccomp"));
    }
}
