//! Network namespaces, each known by the inode of the file that stands for it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The network namespace of the calling thread.
pub(crate) const OWN: &str = "/proc/thread-self/ns/net";
/// Where `ip netns` keeps network namespaces by name.
const NAMED: &str = "/run/netns";

/// The network namespace that a file stands for; `None` if it is missing, or we may not look.
pub(crate) fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.ino())
}

/// The name that `ip netns` gave to a network namespace.
pub(crate) fn name(namespace: u64) -> Option<String> {
    let mut named = fs::read_dir(NAMED).ok()?.flatten();
    let entry = named.find(|entry| inode(&entry.path()) == Some(namespace))?;
    Some(entry.file_name().to_string_lossy().into_owned())
}

/// The command that runs another one in a network namespace; `None` if, as far as can be seen from here, it is gone.
pub(crate) fn way_into(namespace: u64) -> Option<String> {
    if let Some(name) = name(namespace) {
        return Some(format!("ip netns exec {name}"));
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut files = processes.filter_map(|entry| {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process.then(|| entry.path().join("ns/net"))
    });
    let file = files.find(|file| inode(file) == Some(namespace))?;
    Some(format!("nsenter --net={}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use adit_testing::namespace::in_namespace;

    use super::*;

    #[test]
    fn a_namespace_is_entered_by_a_process_in_it_and_gone_without_one() {
        in_namespace(|| {
            let own = inode(Path::new(OWN)).unwrap();
            assert_eq!(way_into(own), None, "this thread alone is in it, and no process");
            let mut process = Command::new("sleep").arg("60").spawn().unwrap();
            let way = way_into(own);
            process.kill().unwrap();
            process.wait().unwrap();
            assert_eq!(way, Some(format!("nsenter --net=/proc/{}/ns/net", process.id())));
        });
    }
}
