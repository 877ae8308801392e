//! Whether this host carries IPv6.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

const SETTINGS: &str = "/proc/sys/net/ipv6/conf";
/// Entries of [`SETTINGS`] that are no links to other hosts.
const NO_LINKS: [&str; 3] = ["all", "default", "lo"];

/// Why a new link of this host could carry no IPv6, naming the setting; `None` where it can.
///
/// IPv6 that is off for new links only is no reason, if it can be switched on for one of them.
#[must_use]
pub fn why_no_ipv6() -> Option<String> {
    why_not_in(Path::new(SETTINGS))
}

fn why_not_in(settings: &Path) -> Option<String> {
    if !settings.exists() {
        return Some("the kernel runs without it (`ipv6.disable=1`, or a kernel built so)".to_owned());
    }
    let is_off = |link: &str| {
        let value = std::fs::read_to_string(settings.join(link).join("disable_ipv6"));
        value.is_ok_and(|value| value.trim() == "1")
    };
    if is_off("all") && links(settings).iter().all(|link| is_off(link)) {
        return Some("net.ipv6.conf.all.disable_ipv6 is 1".to_owned());
    }
    if is_off("default") && is_read_only(&settings.join("default/disable_ipv6")) {
        return Some("net.ipv6.conf.default.disable_ipv6 is 1, and cannot be changed from here".to_owned());
    }
    None
}

fn links(settings: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(settings).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !NO_LINKS.contains(&name.as_str())).collect()
}

/// Opening changes nothing, and asks for the same right as writing.
fn is_read_only(setting: &Path) -> bool {
    let opened = OpenOptions::new().write(true).open(setting);
    opened.is_err_and(|error| matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied))
}

#[cfg(test)]
mod tests {
    use adit_testing::namespace::{in_namespace, ip, make_settings_read_only};

    use super::*;
    use crate::sysctl;

    #[test]
    fn kernel_without_ipv6_is_told_by_its_missing_settings() {
        let folder = tempfile::tempdir().unwrap();
        let why = why_not_in(&folder.path().join("conf")).unwrap();
        assert!(why.contains("ipv6.disable=1"), "{why}");
    }

    #[test]
    fn ipv6_is_off_when_no_link_has_it() {
        in_namespace(|| {
            ip("link add d0 type veth peer name d1");
            assert_eq!(why_no_ipv6(), None);
            sysctl::write("net.ipv6.conf.all.disable_ipv6", "1").unwrap();
            assert_eq!(why_no_ipv6().as_deref(), Some("net.ipv6.conf.all.disable_ipv6 is 1"));
            sysctl::write("net.ipv6.conf.d0.disable_ipv6", "0").unwrap();
            assert_eq!(why_no_ipv6(), None, "one link has it");
        });
    }

    #[test]
    fn new_links_without_ipv6_can_be_given_it() {
        in_namespace(|| {
            sysctl::write("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
            assert_eq!(why_no_ipv6(), None);
        });
    }

    #[test]
    fn new_links_stay_without_ipv6_where_settings_are_read_only() {
        in_namespace(|| {
            make_settings_read_only();
            assert_eq!(why_no_ipv6(), None, "new links have it anyway");
        });
        in_namespace(|| {
            sysctl::write("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
            make_settings_read_only();
            let why = why_no_ipv6().unwrap();
            assert!(why.starts_with("net.ipv6.conf.default.disable_ipv6 is 1"), "{why}");
        });
    }
}
