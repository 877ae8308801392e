//! Body of the target for prefixes that routers announce.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::nat64::Announcement;

/// A prefix that is announced shows every host and gives it back, and lasts no longer than its field can say.
pub fn pref64(data: &[u8]) {
    let host = Ipv4Addr::new(192, 0, 2, 33);
    let mut found = 0_usize;
    for Announcement { prefix, lifetime } in Announcement::among(data) {
        assert_eq!(prefix.extract(prefix.embed(host)), Some(host));
        assert!(lifetime <= Duration::from_secs(65_528) && lifetime.as_secs().is_multiple_of(8));
        found += 1;
    }
    assert!(found <= data.len() / 16, "each has its bytes");
}
