//! Kernel settings below `/proc/sys/net`.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use super::error::HostError;

const ROOT: &str = "/proc/sys";

/// Reads a setting, such as `net.ipv4.ip_forward`, without the newline at its end.
///
/// As in sysctl(8), a key whose first separator is a slash keeps the dots in its parts:
/// `net/ipv4/conf/eth0.5/rp_filter`. Settings of a network namespace are those of the calling thread's.
pub(super) fn read(key: &str) -> Result<String, HostError> {
    let doing = |source| HostError::system(format!("read sysctl {key}"), source);
    let path = path(key).map_err(doing)?;
    let value = fs::read_to_string(path).map_err(doing)?;
    Ok(value.trim_end().to_owned())
}

/// Writes a setting.
pub(super) fn write(key: &str, value: &str) -> Result<(), HostError> {
    let doing = |source| HostError::system(format!("set sysctl {key} to {value}"), source);
    let path = path(key).map_err(doing)?;
    // Opened without "create": procfs would answer a misleading EACCES for a key that does not exist.
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(doing)?;
    file.write_all(value.as_bytes()).map_err(doing)
}

/// Names of the settings and groups in a group, such as the links in `net/ipv4/conf`.
pub(super) fn names(group: &str) -> Result<Vec<String>, HostError> {
    let doing = |source| HostError::system(format!("list sysctl {group}"), source);
    let entries = fs::read_dir(path(group).map_err(doing)?).map_err(doing)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<io::Result<_>>().map_err(doing)
}

/// The kernel's own default of `net.ipv4.ip_local_port_range`.
const PORTS_OF_PROGRAMS: (u16, u16) = (32_768, 60_999);

/// The lowest and the highest port that the kernel gives to programs that open connections.
pub(super) fn ports_of_programs() -> (u16, u16) {
    let range = read("net.ipv4.ip_local_port_range").ok().and_then(|text| {
        let mut ports = text.split_whitespace().map(str::parse);
        Some((ports.next()?.ok()?, ports.next()?.ok()?))
    });
    range.unwrap_or(PORTS_OF_PROGRAMS)
}

fn path(key: &str) -> io::Result<PathBuf> {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let slashed = match key.find(['.', '/']) {
        Some(first) if key.as_bytes().get(first) == Some(&b'.') => key.chars().map(swap).collect(),
        Some(_) | None => key.to_owned(),
    };
    let path = Path::new(&slashed);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && path.starts_with("net") {
        Ok(Path::new(ROOT).join(path))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a setting below net"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_testing::namespace::in_namespace;

    #[test]
    fn keys_become_paths_as_in_sysctl() {
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), Path::new("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(
            path("net.ipv4.conf.eth0/5.rp_filter").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/eth0.5/rp_filter")
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.5/rp_filter").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/eth0.5/rp_filter")
        );
    }

    #[test]
    fn keys_outside_net_are_refused() {
        for key in ["kernel.hostname", "net/../kernel/hostname", "/etc/passwd", "", "network.x"] {
            assert!(path(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_missing_setting_is_named() {
        let error = write("net.ipv4.no_such_setting", "1").unwrap_err();
        assert_eq!(error.to_string(), "set sysctl net.ipv4.no_such_setting to 1");
        let HostError::System { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_written_setting_is_read_again() {
        in_namespace(|| {
            assert_eq!(read("net.ipv4.ip_forward").unwrap(), "0");
            write("net.ipv4.ip_forward", "1").unwrap();
            assert_eq!(read("net.ipv4.ip_forward").unwrap(), "1");
        });
    }
}
