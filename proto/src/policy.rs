//! Which packets may pass: the source check against the lease, and the destinations clients may reach.
//!
//! Both checks read a parsed header only, and hold whatever the host's firewall says.

mod destination;
mod scope;
mod source;

pub use destination::DestinationPolicy;
pub use source::SourcePolicy;
