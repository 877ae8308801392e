//! Forwarding of IPv4 by single links: the kernel asks the link that a packet came in by. IPv6 has one switch for all.

use std::time::Instant;

use super::Found;
use crate::changes::HostChanges;
use crate::error::HostError;
use crate::journal::Change;
use crate::netlink::RouteTarget;
use crate::sysctl;

/// The switch of all links; the kernel sets each link's with it.
const ALL: &str = "net/ipv4/ip_forward";
/// Entries beside the switches of single links, and the link that nothing is forwarded from.
const NO_LINKS: [&str; 3] = ["all", "default", "lo"];
/// The routing table that answers of the internet are found by (`RT_TABLE_MAIN`).
const MAIN_TABLE: u32 = 254;

impl HostChanges {
    /// Puts back what this process switched on together with [`ALL`]. Where the host forwarded before, a link that does
    /// not is somebody's choice: it is named where answers to clients come in by it.
    pub(super) async fn hold_forwarding(&mut self, now: Instant) {
        if !self.forwards_ipv4 {
            return;
        }
        let Ok(links) = sysctl::names("net/ipv4/conf") else { return };
        let off: Vec<String> =
            links.into_iter().filter(|link| !NO_LINKS.contains(&link.as_str()) && is_off(link)).collect();
        if off.is_empty() {
            return;
        }
        let (ours, uplinks) = (self.switched_forwarding_on(), self.uplinks().await);
        for link in off {
            let (guard, key) = (format!("forwarding from {link}"), key(&link));
            if self.is_guarded_sysctl(&key) {
                continue;
            }
            if ours {
                if self.history.must_mend(&guard, Found::Wrong("was switched off".to_owned()), now) {
                    self.history.mended(&guard, sysctl::write(&key, "1"), now);
                }
            } else if uplinks.as_ref().is_ok_and(|uplinks| uplinks.is_empty() || uplinks.contains(&link)) {
                let what = "is switched off on this host, so answers that come in there do not reach clients \
                            (`sysctl -w` its `forwarding` below `net.ipv4.conf` to 1)";
                self.history.lost(&guard, what, now);
            }
        }
    }

    fn switched_forwarding_on(&self) -> bool {
        let is_switch =
            |change: &Change| matches!(change, Change::Sysctl { key, side_effect: false, .. } if key == ALL);
        self.journal.live().iter().any(|entry| is_switch(&entry.change))
    }

    /// Whether the guard of sysctls looks after it.
    fn is_guarded_sysctl(&self, wanted: &str) -> bool {
        let recorded =
            |change: &Change| matches!(change, Change::Sysctl { key, side_effect: false, .. } if key == wanted);
        self.found_right.contains_key(wanted) || self.journal.live().iter().any(|entry| recorded(&entry.change))
    }

    /// The links that the host's default routes of IPv4 lead through.
    async fn uplinks(&self) -> Result<Vec<String>, HostError> {
        let routes = self.netlink.routes(MAIN_TABLE).await?.into_iter();
        let default = routes.filter(|route| route.prefix.prefix_len() == 0 && route.prefix.addr().is_ipv4());
        let link = |target| if let RouteTarget::Link(name) = target { Some(name) } else { None };
        Ok(default.filter_map(|route| link(route.target)).collect())
    }
}

fn key(link: &str) -> String {
    format!("net/ipv4/conf/{link}/forwarding")
}

/// A link that has just gone is not off.
fn is_off(link: &str) -> bool {
    sysctl::read(&key(link)).is_ok_and(|value| value == "0")
}
