//! What must be so once the network is well again.

use std::time::Duration;

use adit_proto::role::Role;

use crate::moments::Moments;
use crate::network::{WIDE, gateway};
use crate::promises::{Broken, Kept, broken};
use crate::scenario::Kind;

use super::World;

/// How long the network has been good when packets must flow, at least, and the pause before a narrow path is tried
/// again.
const CALM: Duration = Duration::from_secs(22);
const CALM_AFTER_NARROW: Duration = Duration::from_secs(65);
/// What the round trips take that follow a client to another address.
const MOVED_WITHIN: Duration = Duration::from_millis(1300);
/// How long a client that sends takes to be back at a gateway that was restarted.
const RETURNED_WITHIN: Duration = Duration::from_millis(2500);

impl World {
    /// Whether ESP passes in both directions over a network that loses nothing.
    pub(crate) fn is_well(&self) -> bool {
        let network = &self.network;
        let is_good =
            network.passes_udp() && !network.is_lossy && network.largest == [WIDE; 2] && network.steals == [0; 2];
        let sessions = self.tunnels.each_ref().map(|tunnel| tunnel.as_ref().map(|tunnel| tunnel.generation()));
        is_good && self.settings.kind == Kind::Esp && sessions[0] == sessions[1] && self.check_ways().is_ok()
    }

    /// Packets have followed a client that went elsewhere and heard of it.
    pub(crate) fn expect_moved(&mut self) -> Kept {
        self.run(MOVED_WITHIN)?;
        match self.check_ways() {
            Ok(()) => Ok(()),
            Err(broken) => Err(Broken { promise: "packets follow a client that hears of its new address", ..broken }),
        }
    }

    /// A client that sends has found out that its gateway was restarted, and is back.
    pub(crate) fn expect_returned(&mut self) -> Kept {
        self.busy(RETURNED_WITHIN, Duration::from_millis(100), &[Role::Client], false)?;
        let sessions = self.tunnels.each_ref().map(|tunnel| tunnel.as_ref().map(|tunnel| tunnel.generation()));
        if sessions[0].is_none() || sessions[0] != sessions[1] {
            return broken("a client that sends is back soon after its gateway was restarted", &sessions);
        }
        Ok(())
    }

    /// Everything is well again: after the time that the machines need, packets flow in both directions.
    pub(crate) fn come_to_rest(&mut self) -> Kept {
        self.network.heal();
        self.tell_interface();
        self.begin_watching_anew();
        let patience = self.tunnels.iter().flatten().map(|tunnel| tunnel.patience().calm).max();
        self.settle_for(patience.unwrap_or_default().max(CALM))?;
        if self.tunnels.iter().flatten().any(|tunnel| tunnel.is_narrow()) {
            self.settle_for(CALM_AFTER_NARROW)?;
        }
        self.check_ways()?;
        self.check_keys()?;
        let both = [Role::Client, Role::Server];
        let mut sent = Vec::new();
        for (count, role) in both.into_iter().cycle().take(12).enumerate() {
            sent.extend(self.send_packet(role, count > 5)?);
            self.run(Duration::from_millis(5))?;
        }
        self.run(Duration::from_secs(1))?;
        let fates: Vec<_> = sent.iter().map(|packet| self.ledger.fate(*packet)).collect();
        if fates != [(true, true); 12] {
            return broken("on a network that is well again every packet arrives, in a datagram", &fates);
        }
        for role in both {
            self.close(role)?;
        }
        Ok(())
    }

    fn settle_for(&mut self, time: Duration) -> Kept {
        self.busy(time, Duration::from_millis(500), &[Role::Client, Role::Server], false)
    }

    fn check_ways(&self) -> Kept {
        let client = self.network.nat.as_ref().map_or(Some(self.network.client), |nat| nat.public());
        let wanted = [Some(gateway()), client];
        let ways = self.tunnels.each_ref().map(|tunnel| tunnel.as_ref().and_then(|tunnel| tunnel.way()));
        if ways.map(|way| way.map(|way| way.to)) != wanted {
            return broken("on a network that is well again packets go in datagrams, both ways", &(wanted, ways));
        }
        Ok(())
    }

    fn check_keys(&self) -> Kept {
        let life = self.settings.shortest_life() + Duration::from_secs(3);
        let ages = self.tunnels.iter().flatten().filter_map(|tunnel| tunnel.keys_since()).map(|since| self.now - since);
        match ages.max().filter(|age| *age > life) {
            Some(age) => broken("keys are replaced when their life is over", &(age, life)),
            None => Ok(()),
        }
    }
}
