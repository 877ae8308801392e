//! What a load needs of this process before it starts: descriptors and memory.

use std::fs;

use adit_program::exit::{Exit, Failure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::options::{Carrier, Options};

/// Descriptors besides those of roaming clients: shared sockets, the lab, calls to the gateway.
const DESCRIPTORS: u64 = 512;
/// Descriptors of one roaming client: its socket, and the next one while it moves.
const DESCRIPTORS_ROAMING: u64 = 2;
/// Descriptors of a client that comes back: what it asks whether the gateway listens.
const DESCRIPTORS_RETURNING: u64 = 1;
/// Memory that gateway and generator need for each client, in bytes.
const MEMORY: u64 = 256 << 10;
/// Memory of a roaming client's own endpoint, of which most is a buffer for arriving datagrams, in bytes.
const MEMORY_ROAMING: u64 = 1 << 20;
/// Memory of both programs and of the lab without clients, in bytes.
const MEMORY_BASE: u64 = 256 << 20;

/// Raises the limit of descriptors as far as this load needs it, and looks whether there is memory for it.
///
/// # Errors
/// Which limit is too low, and how to get along.
pub(super) fn secure(options: &Options) -> Result<(), Failure> {
    let (roamers, clients) = (u64::from(options.roamers()), u64::from(options.clients));
    // Gateway and generator have one for each TCP connection, and the gateway has the limit that it inherits.
    let connections = if options.carrier == Carrier::Tls { clients } else { 0 };
    let returning = if options.restart.is_some() { DESCRIPTORS_RETURNING * clients } else { 0 };
    secure_descriptors(DESCRIPTORS + DESCRIPTORS_ROAMING * roamers + connections + returning)?;
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let needed = MEMORY_BASE + MEMORY * clients + MEMORY_ROAMING * roamers;
    match available(&meminfo) {
        Some(available) if available < needed => Err(short_of_memory(available, needed)),
        // Where the system does not tell, it may be enough.
        _ => Ok(()),
    }
}

/// Raises the limit of descriptors to as many as are needed, where it is lower.
///
/// # Errors
/// The hard limit is lower.
pub(crate) fn secure_descriptors(needed: u64) -> Result<(), Failure> {
    let failure = |reason: String| {
        let next = "give fewer --clients or a smaller --roam, or raise the limit: `ulimit -Hn` as root, LimitNOFILE= in a unit";
        Failure::new(Exit::Unsupported, "open files", reason, next)
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| failure(error.to_string()))?;
    if needed > hard {
        return Err(failure(format!("this load needs {needed}, and the hard limit is {hard}")));
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(|error| failure(error.to_string()))?;
    }
    Ok(())
}

/// Bytes that the system could still give, as `/proc/meminfo` has it.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn short_of_memory(available: u64, needed: u64) -> Failure {
    let [available, needed] = [available, needed].map(|bytes| bytes >> 20);
    let reason = format!("this load needs about {needed} MiB, and {available} MiB are available");
    Failure::new(Exit::Unsupported, "memory", reason, "give fewer --clients")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_descriptors_than_the_hard_limit_are_a_clear_failure() {
        let failure = secure_descriptors(u64::MAX).unwrap_err().to_string();
        assert!(failure.contains("open files") && failure.contains("hard limit"), "{failure}");
        assert_eq!(secure_descriptors(16), Ok(()));
    }

    #[test]
    fn available_memory_is_read_in_bytes() {
        assert_eq!(available("MemTotal:  10 kB\nMemAvailable:    7 kB\n"), Some(7 * 1024));
        assert_eq!(available("MemTotal:  10 kB\n"), None);
    }

    #[test]
    fn too_little_memory_says_how_much_is_needed() {
        let failure = short_of_memory(100 << 20, 3_000 << 20).to_string();
        assert!(failure.contains("3000 MiB") && failure.contains("100 MiB"), "{failure}");
    }
}
