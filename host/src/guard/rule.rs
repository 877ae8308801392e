//! Policy rules.

use std::time::Instant;

use super::Found;
use crate::changes::HostChanges;
use crate::netlink::{Family, Rule};

impl HostChanges {
    pub(super) async fn hold_rules(&mut self, now: Instant) {
        let rules = self.rules();
        for family in [Family::V4, Family::V6] {
            let wanted: Vec<Rule> = rules.iter().filter(|rule| rule.family == family).copied().collect();
            if wanted.is_empty() {
                continue;
            }
            let listed = self.netlink.rules(family).await;
            for rule in wanted {
                let guard = format!("{family} rule {}", rule.priority);
                let found = match &listed {
                    Ok(listed) if listed.contains(&rule) => Found::Right,
                    Ok(_) => Found::Wrong("was removed".to_owned()),
                    Err(error) => Found::unknown(error),
                };
                if self.history.must_mend(&guard, found, now) {
                    let done = self.netlink.add_rule(&rule).await;
                    self.history.mended(&guard, done, now);
                }
            }
        }
    }
}
