//! Who opens a connection to this host beside the tunnel gets its answers beside it.

use adit_host::AnswerRules;
use adit_program::causes::with_causes;

use super::ManagedHost;
use crate::host_plan::{Claim, HostPlan};

impl ManagedHost {
    /// Keeps the answers to what others open out of the tunnel. A tunnel without this is better than none.
    pub(super) async fn let_answers_out(&mut self, plan: &HostPlan) {
        let inner_links = self.beside.inner_links();
        let rules =
            AnswerRules { tun: self.link.clone(), addresses: plan.inner_addresses(), inner_links, mark: self.mark };
        let was_unanswered = self.unanswered.take().is_some();
        if let Err(error) = self.changes.load_answers(&rules).await {
            let reason = with_causes(&error);
            let open = match self.beside.inner_links().is_empty() {
                true => "",
                false => ", and what is published of its containers is open to whoever runs the gateway",
            };
            self.unanswered = Some(format!("others reach no service of this host beside the tunnel{open}: {reason}"));
            if !was_unanswered {
                tracing::warn!("others reach no service of this host beside the tunnel; see `adit-client status`");
            }
        }
        self.warn_before_cutting(plan);
    }

    /// Says so before the session ends in which somebody typed `up`.
    fn warn_before_cutting(&mut self, plan: &HostPlan) {
        let Some(peer) = self.started_from else { return };
        if is_cut(plan, peer, self.unanswered.is_some()) {
            self.started_from = None;
            tracing::warn!(
                "the session in which this client was started is cut now: its answers do not get beside the tunnel; \
                 connect to this host in another way, or end the client on its console"
            );
        }
    }
}

/// Whether a plan keeps answers from a peer. Where a destination leads nowhere, the kernel makes no packet that could
/// be led elsewhere.
fn is_cut(plan: &HostPlan, peer: std::net::IpAddr, is_unanswered: bool) -> bool {
    let narrowest = plan.claims.iter().filter(|claim| claim.prefix().contains(&peer));
    match narrowest.max_by_key(|claim| (claim.prefix().prefix_len(), matches!(claim, Claim::Tunnel(_)))) {
        Some(Claim::Nowhere(_)) => true,
        Some(Claim::Tunnel(_)) => is_unanswered,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::range::RouteRange;
    use ipnet::IpNet;

    use super::*;
    use crate::protocols::NetworkSettings;

    #[test]
    fn session_is_cut_where_its_peer_is_claimed_and_nothing_leads_answers_out() {
        let plan = |routes: &[&str]| {
            let settings = NetworkSettings {
                addresses: vec!["10.64.3.2/32".parse().unwrap()],
                routes: routes.iter().map(|text| RouteRange::from(text.parse::<IpNet>().unwrap())).collect(),
                ..NetworkSettings::default()
            };
            HostPlan::new(&settings, true).unwrap()
        };
        let cut =
            |routes: &[&str], peer: &str, is_unanswered| is_cut(&plan(routes), peer.parse().unwrap(), is_unanswered);
        assert!(cut(&["0.0.0.0/0"], "192.0.2.17", true) && !cut(&["0.0.0.0/0"], "192.0.2.17", false));
        assert!(cut(&["0.0.0.0/0"], "2001:db8::17", false), "this tunnel carries no IPv6");
        assert!(!cut(&["10.0.0.0/8"], "192.0.2.17", true) && cut(&["10.0.0.0/8"], "10.1.1.1", true));
    }
}
