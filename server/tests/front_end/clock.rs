//! Devices that enrolled while the gateway's clock was wrong.

use std::time::{Duration, SystemTime};

use adit_testing::namespace::in_namespace_async;

use crate::copy;
use crate::world::{World, tunnel};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[test]
fn device_that_enrolled_under_a_wrong_clock_gets_in_once_the_clock_was_set() {
    in_namespace_async(async || {
        for wrong in [SystemTime::now() - 2 * YEAR, SystemTime::now() + 2 * YEAR] {
            let world = World::new().await;
            let certificate = world.enroll_at("alice", wrong);
            assert!(world.store.follow_clock(SystemTime::now()).unwrap().is_some());
            let http = world.connect(Some(certificate)).await;
            assert_eq!(tunnel(&http, None).await.unwrap().status, 200);
        }
    });
}

#[test]
fn certificate_that_is_over_is_refused_with_its_reason() {
    in_namespace_async(async || {
        let world = World::new().await;
        let certificate = world.enroll_at("alice", SystemTime::now() - 2 * YEAR);
        // As of a device that has been away: nothing tells that the clock was wrong.
        let http = world.connect(Some(copy(&certificate))).await;
        let answer = tunnel(&http, None).await.unwrap();
        let reason = Some("this device's certificate has expired");
        assert_eq!((answer.status, answer.reason.as_deref()), (403, reason));
        world.store.follow_clock(SystemTime::now()).unwrap();
        world.store.revoke("alice", SystemTime::now()).unwrap();
        let http = world.connect(Some(certificate)).await;
        assert_eq!(tunnel(&http, None).await.unwrap().reason.as_deref(), Some("this device was revoked"));
        assert!(world.sessions.is_empty());
    });
}
