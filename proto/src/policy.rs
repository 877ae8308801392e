//! Which packets may pass: the source check against the lease, and the destinations clients may reach.
//!
//! Both checks read a parsed header only, and hold whatever the host's firewall says.

pub mod attempt;
mod destination;
pub mod flow;
pub mod form;
pub mod hours;
pub mod limit;
pub mod model;
pub mod ports;
mod scope;
pub mod settings;
mod source;

pub use attempt::{Attempt, Place};
pub use destination::DestinationPolicy;
pub use flow::{Action, Flow};
pub use form::FormError;
pub use hours::Hours;
pub use limit::{Period, Quota, QuotaAction, Rate};
pub use model::{Destinations, Group, Member, PolicyDocument, PolicyTest, Rule, TooLarge, Who};
pub use ports::{PortMatch, Transport};
pub use settings::{Chosen, SecondFactor, Settings, SettingsOf, WhenFull, Written};
pub use source::SourcePolicy;
