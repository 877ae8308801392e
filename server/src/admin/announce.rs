//! The word to clients that the gateway is about to be restarted.

use std::time::Duration;

use adit_proto::restart;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminRefusal, bad_request};

/// When the gateway is back that is about to be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceRequest {
    /// Seconds from its stop until it is back; 1 to 3600.
    pub back_in_seconds: u64,
}

impl Admin {
    /// Has a stop within the next ten minutes told to clients as a restart; returns what was asked.
    pub(super) fn announce(&self, request: AnnounceRequest) -> Result<AnnounceRequest, AdminRefusal> {
        let longest = restart::LONGEST.as_secs();
        if !(1..=longest).contains(&request.back_in_seconds) {
            return Err(bad_request(format!("a time from 1 to {longest} seconds is needed")));
        }
        self.live()?.announce_restart(Duration::from_secs(request.back_in_seconds));
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::tests::{Recorder, admin, post};
    use super::*;

    #[test]
    fn restart_is_announced_to_a_running_gateway_within_bounds() {
        let (_directory, mut admin) = admin();
        let announce = |admin: &Admin, seconds: u64| post(admin, "/announce", json!({ "back_in_seconds": seconds }));
        assert_eq!(announce(&admin, 30), Err(409), "none runs");
        let gateway = Arc::new(Recorder::default());
        admin.live = Some(Arc::<Recorder>::clone(&gateway));
        for wrong in [0, 3601] {
            assert_eq!(announce(&admin, wrong), Err(400), "{wrong}");
        }
        assert_eq!(*gateway.announced.lock().unwrap(), None);
        assert_eq!(announce(&admin, 30), Ok(json!({ "back_in_seconds": 30 })));
        assert_eq!(*gateway.announced.lock().unwrap(), Some(Duration::from_secs(30)));
    }
}
