//! Forwarding between links, with what the kernel changes along with it.
//!
//! The switch of a family sets that of every link and of links to come; the one of IPv4 also turns
//! `all.accept_redirects` the other way (`inet_forward_change`, `addrconf_forward_change` in the kernel). Turning it
//! off again gives none of them their earlier values back, so each that would end up different is written to the
//! journal before the switch, to be undone after it.

use std::io;

use super::{Change, HostChanges, HostError};
use crate::firewall::{ForwardedBefore, GATEWAY_LINKS};
use crate::netlink::Family;
use crate::sysctl;

impl HostChanges {
    /// From which links the host forwarded packets of a family before this process made it forward, if it did.
    ///
    /// # Errors
    /// The kernel's refusal, also when it has no such family.
    pub fn forwarded_before(&self, family: Family) -> Result<ForwardedBefore, HostError> {
        let switch = switch(family);
        let switched_on = self.has_switched_forwarding_on(family);
        if !switched_on && sysctl::read(switch)? != "0" {
            return Ok(ForwardedBefore::FromAll);
        }
        let (mut open, mut closed, mut later_ones_are_open) = (Vec::new(), Vec::new(), false);
        for link in links(family)? {
            let forwards = self.forwarded_from(family, &link, switched_on)?;
            match (link.as_str(), forwards) {
                ("default", forwards) => later_ones_are_open = forwards,
                (_, true) => open.push(link),
                (_, false) => closed.push(link),
            }
        }
        Ok(if later_ones_are_open { ForwardedBefore::FromAllBut(closed) } else { ForwardedBefore::FromOnly(open) })
    }

    /// Whether this process made the host forward packets of a family.
    pub(crate) fn has_switched_forwarding_on(&self, family: Family) -> bool {
        self.recorded_setting(switch(family)).is_some()
    }

    /// Whether the link's own setting lets its packets be forwarded while the family's switch is off.
    fn forwarded_from(&self, family: Family, link: &str, switched_on: bool) -> Result<bool, HostError> {
        let key = match family {
            Family::V4 => setting(family, link, "forwarding"),
            // Since Linux 6.17; before, nothing is forwarded while the switch is off.
            Family::V6 => setting(family, link, "force_forwarding"),
        };
        match (family, self.recorded_setting(&key)) {
            (_, Some(previous)) => Ok(previous != "0"),
            // The switch would have changed it, and only what is 0 needs no record.
            (Family::V4, None) if switched_on => Ok(false),
            (_, None) => Ok(unless_link_is_gone(sysctl::read(&key))?.is_some_and(|value| value != "0")),
        }
    }

    /// What a setting was before this process first changed it.
    fn recorded_setting(&self, key: &str) -> Option<&str> {
        self.journal.live().iter().find_map(|entry| {
            let Change::Sysctl { key: changed, previous, .. } = &entry.change else { return None };
            (changed == key).then_some(previous.as_str())
        })
    }

    /// Tells the firewalls of other gateways on this host that a link is a gateway's tunnel, too.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn join_gateway_links(&self, link: &str) -> Result<(), HostError> {
        self.netlink.set_group(link, GATEWAY_LINKS).await
    }

    /// Makes the host forward packets of a family between its links; does nothing if it does already.
    ///
    /// A link that configures itself by IPv6 router advertisements (`accept_ra` 1) goes on doing so (2): a forwarding
    /// host otherwise ignores them, and would lose its default route.
    ///
    /// # Errors
    /// The kernel's refusal, also when it has no such family.
    pub async fn enable_forwarding(&mut self, family: Family) -> Result<(), HostError> {
        let switch = switch(family);
        self.forwards_ipv4 |= family == Family::V4;
        if sysctl::read(switch)? != "0" {
            // Nothing to change; but from now on it is to stay so.
            self.set_sysctl(switch, "1").await?;
            self.watch_switch(family);
            return Ok(());
        }
        let links = links(family)?;
        for link in &links {
            self.record_side_effect(&setting(family, link, "forwarding"), "0")?;
        }
        match family {
            Family::V4 => self.record_side_effect(&setting(family, "all", "accept_redirects"), "1")?,
            Family::V6 => self.keep_advertisements(&links).await?,
        }
        self.set_sysctl(switch, "1").await?;
        self.watch_switch(family);
        Ok(())
    }

    /// Records a setting that the kernel will leave at `left` when the switch goes back, unless it is that already.
    fn record_side_effect(&mut self, key: &str, left: &str) -> Result<(), HostError> {
        let Some(previous) = unless_link_is_gone(sysctl::read(key))? else { return Ok(()) };
        if previous != left {
            let (key, set) = (key.to_owned(), left.to_owned());
            self.journal.record(Change::Sysctl { key, previous, set, side_effect: true })?;
        }
        Ok(())
    }

    async fn keep_advertisements(&mut self, links: &[String]) -> Result<(), HostError> {
        for link in links.iter().filter(|link| !matches!(link.as_str(), "default" | "lo")) {
            let key = setting(Family::V6, link, "accept_ra");
            if unless_link_is_gone(sysctl::read(&key))?.as_deref() == Some("1") {
                unless_link_is_gone(self.set_sysctl(&key, "2").await)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn switch(family: Family) -> &'static str {
    match family {
        Family::V4 => "net/ipv4/ip_forward",
        Family::V6 => "net/ipv6/conf/all/forwarding",
    }
}

/// The key of a link's setting, with slashes: a link's name may have dots.
fn setting(family: Family, link: &str, name: &str) -> String {
    format!("{}/{link}/{name}", directory(family))
}

pub(crate) fn directory(family: Family) -> &'static str {
    match family {
        Family::V4 => "net/ipv4/conf",
        Family::V6 => "net/ipv6/conf",
    }
}

/// The links with settings, and `default` for those to come.
fn links(family: Family) -> Result<Vec<String>, HostError> {
    let mut links = sysctl::names(directory(family))?;
    links.retain(|link| link != "all");
    Ok(links)
}

/// Links come and go; what went in between needs no setting.
fn unless_link_is_gone<T>(done: Result<T, HostError>) -> Result<Option<T>, HostError> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(HostError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use adit_net::tun::Tun;
    use adit_testing::namespace::in_namespace_async;

    use super::*;
    use crate::netlink::{LinkSettings, Netlink};
    use crate::{HostOptions, SystemBus};

    /// A link whose name has a dot, as VLANs do.
    const LINK: &str = "eth0.5";

    /// Every setting of every link, in both families.
    fn settings() -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for family in [Family::V4, Family::V6] {
            for link in sysctl::names(directory(family)).unwrap() {
                for name in sysctl::names(&format!("{}/{link}", directory(family))).unwrap() {
                    let path = format!("/proc/sys/{}", setting(family, &link, &name));
                    // Some can only be written, or are secrets without a value.
                    if let Ok(value) = fs::read(&path) {
                        found.insert(path, value);
                    }
                }
            }
        }
        found
    }

    async fn forwards_and_leaves_no_trace(unusual: &'static [(&'static str, &'static str)]) {
        let (_link, _other) = (Tun::create(LINK, 1, true).unwrap(), Tun::create("adit.0", 1, true).unwrap());
        Netlink::open()
            .unwrap()
            .set_link(LINK, LinkSettings { up: Some(true), ..LinkSettings::default() })
            .await
            .unwrap();
        for (key, value) in unusual {
            sysctl::write(key, value).unwrap();
        }
        let before = settings();
        let directory = tempfile::tempdir().unwrap();
        let options = HostOptions { bus: SystemBus::Absent, ..HostOptions::default() };
        let mut changes = HostChanges::open_with(&directory.path().join("journal"), options).await.unwrap();
        for family in [Family::V4, Family::V6] {
            changes.enable_forwarding(family).await.unwrap();
            assert_eq!(sysctl::read(switch(family)).unwrap(), "1");
            assert_eq!(sysctl::read(&setting(family, LINK, "forwarding")).unwrap(), "1");
        }
        changes.undo().await.unwrap();
        let changed: Vec<_> = before.iter().filter(|(key, value)| settings().get(*key) != Some(value)).collect();
        assert!(changed.is_empty(), "{changed:?}");
    }

    #[test]
    fn an_ordinary_host_is_as_before() {
        in_namespace_async(|| forwards_and_leaves_no_trace(&[]));
    }

    #[test]
    fn a_hardened_host_is_as_before() {
        in_namespace_async(|| {
            forwards_and_leaves_no_trace(&[
                ("net/ipv4/conf/all/accept_redirects", "0"),
                ("net/ipv4/conf/default/accept_redirects", "0"),
                ("net/ipv4/conf/eth0.5/forwarding", "1"),
                ("net/ipv4/conf/default/forwarding", "1"),
                ("net/ipv6/conf/eth0.5/forwarding", "1"),
                ("net/ipv6/conf/default/forwarding", "1"),
                ("net/ipv6/conf/adit.0/accept_ra", "0"),
                ("net/ipv6/conf/eth0.5/accept_ra", "2"),
            ])
        });
    }

    #[test]
    fn a_link_that_takes_advertisements_still_does() {
        in_namespace_async(|| async {
            let _link = Tun::create(LINK, 1, true).unwrap();
            let key = setting(Family::V6, LINK, "accept_ra");
            sysctl::write(&key, "1").unwrap();
            let directory = tempfile::tempdir().unwrap();
            let mut changes = HostChanges::open(&directory.path().join("journal")).await.unwrap();
            changes.enable_forwarding(Family::V6).await.unwrap();
            assert_eq!(sysctl::read(&key).unwrap(), "2");
            changes.undo().await.unwrap();
            assert_eq!(sysctl::read(&key).unwrap(), "1");
        });
    }

    #[test]
    fn a_host_that_forwards_is_left_alone() {
        in_namespace_async(|| async {
            let _link = Tun::create(LINK, 1, true).unwrap();
            for family in [Family::V4, Family::V6] {
                sysctl::write(switch(family), "1").unwrap();
            }
            sysctl::write("net/ipv4/conf/eth0.5/forwarding", "0").unwrap();
            let before = settings();
            let directory = tempfile::tempdir().unwrap();
            let mut changes = HostChanges::open(&directory.path().join("journal")).await.unwrap();
            for family in [Family::V4, Family::V6] {
                changes.enable_forwarding(family).await.unwrap();
            }
            assert_eq!(settings(), before);
            changes.undo().await.unwrap();
            assert_eq!(settings(), before);
        });
    }

    #[test]
    fn a_link_that_vanished_is_no_failure() {
        in_namespace_async(|| async {
            let directory = tempfile::tempdir().unwrap();
            let mut changes = HostChanges::open(&directory.path().join("journal")).await.unwrap();
            changes.record_side_effect(&setting(Family::V4, "gone", "forwarding"), "0").unwrap();
            changes.keep_advertisements(&["gone".into()]).await.unwrap();
        });
    }
}
