//! The front-ends. Each speaks the protocol of one family of clients, and turns what they ask into sessions of the
//! core.

pub mod anyconnect;
pub mod connect_ip;

use std::time::Duration;

/// How long a client of a byte stream may leave unread what is no packet. A path that loses much keeps TCP waiting for
/// some seconds.
const UNREAD: Duration = Duration::from_secs(15);
