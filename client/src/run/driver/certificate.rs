//! The driver's part that renews the device certificate.

use std::time::SystemTime;

use adit_program::causes::with_causes;
use adit_program::task;

use super::{Driver, Protocol, now};
use crate::profile::Identity;
use crate::run::renewal::{self, RenewalError};

impl<P: Protocol> Driver<P> {
    pub(super) fn check_renewal(&mut self) {
        let Some(plan) = renewal::plan_for(&self.config.profile, SystemTime::now()) else {
            self.next_renewal_check = None;
            return;
        };
        let wait = match plan {
            renewal::RenewalPlan::Wait(wait) => wait,
            renewal::RenewalPlan::Renew(wait) => {
                let (profile, mark) = (self.config.profile.clone(), self.config.mark);
                let addresses = profile.addresses.clone();
                self.renewal = Some(task::spawn(renewal::renew(profile, addresses, mark)));
                wait
            }
        };
        self.next_renewal_check = Some(now() + wait);
    }

    pub(super) fn handle_renewed(&mut self, result: Result<String, RenewalError>) {
        self.renewal = None;
        match (result, &mut self.config.profile.identity) {
            (Ok(certificate), Identity::Certificate { chain_pem, .. }) => {
                // Never at once: a new certificate that is due already must not be renewed in a loop.
                let wait = renewal::plan(&certificate, SystemTime::now()).wait().max(renewal::SHORTEST_RETRY);
                self.next_renewal_check = Some(now() + wait);
                *chain_pem = certificate;
                tracing::info!("the device certificate was renewed");
                self.save_profile();
            }
            (Ok(_), Identity::Token(_) | Identity::Login) => {}
            (Err(RenewalError::Refused(reason)), _) => {
                tracing::warn!(reason, "the gateway did not renew the device certificate; it will be asked again");
            }
            (Err(error), _) => {
                tracing::warn!("the device certificate was not renewed; it will be tried again");
                tracing::debug!(error = with_causes(&error), "the device certificate was not renewed");
            }
        }
    }
}
