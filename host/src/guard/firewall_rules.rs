//! What the gateway's firewall is made from is partly the host around it: other firewalls come and go, and so does
//! forwarding.

use adit_program::causes::with_causes;

use crate::changes::HostChanges;
use crate::changes::forwarding::switch;
use crate::firewall::{ForwardedBefore, GatewayRules};
use crate::netlink::Family;
use crate::sysctl;

impl HostChanges {
    /// Loads the firewall with other rules where the host has changed in what they are made from.
    pub(super) fn follow_host(&mut self) {
        let loaded = self.has_table();
        let Some(rules) = self.table.as_ref().filter(|_| loaded).map(|table| table.rules().clone()) else { return };
        let wanted = GatewayRules {
            tracked_ports: self.ports_to_track(&rules),
            forwarded_before_v4: self.forwarding_to_leave(Family::V4, &rules.forwarded_before_v4),
            forwarded_before_v6: self.forwarding_to_leave(Family::V6, &rules.forwarded_before_v6),
            ..rules.clone()
        };
        if wanted == rules {
            return;
        }
        tracing::info!("the firewall is loaded with other rules, as the host has changed");
        if let Some(table) = &mut self.table
            && let Err(error) = table.replace(wanted)
        {
            tracing::warn!(error = with_causes(&error), "the firewall's rules cannot be replaced");
        }
    }

    /// Where other firewalls cannot be read, nothing changes.
    fn ports_to_track(&mut self, rules: &GatewayRules) -> Vec<u16> {
        match self.tracking.wanted(&rules.listen_ports) {
            Ok(wanted) => wanted.iter().map(|wanted| wanted.port).collect(),
            Err(error) => {
                tracing::debug!(%error, "other firewalls cannot be read");
                rules.tracked_ports.clone()
            }
        }
    }

    /// A host that forwarded by itself, stopped, and was made to forward again by a guard, is no router any more; one
    /// that somebody else made a router is one.
    fn forwarding_to_leave(&self, family: Family, loaded: &ForwardedBefore) -> ForwardedBefore {
        let switched_on = self.has_switched_forwarding_on(family);
        let is_router = !switched_on && sysctl::read(switch(family)).is_ok_and(|value| value != "0");
        if is_router {
            ForwardedBefore::FromAll
        } else if switched_on && *loaded == ForwardedBefore::FromAll {
            self.forwarded_before(family).unwrap_or_else(|_| ForwardedBefore::FromOnly(Vec::new()))
        } else {
            loaded.clone()
        }
    }
}
