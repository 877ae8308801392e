//! Certificates that the gateway gets itself, from an authority that speaks ACME (RFC 8555), and renews.
//!
//! The authority sees that a name is the gateway's by asking on TCP 443 ([`Challenges`](crate::listener::Challenges)).
//! What it gives is written to the state directory before anybody is shown it, and is shown as long as there is nothing
//! better: a failure takes no certificate away and stops no gateway.

pub mod schedule;
