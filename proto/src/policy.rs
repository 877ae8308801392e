//! Which packets may pass, and what a person's groups say about that.
//!
//! Above everything stand two checks that no file can loosen: a session sends from its leased addresses only
//! ([`SourcePolicy`]), and clients are isolated from each other and from what no router forwards
//! ([`DestinationPolicy`]). Both read a parsed header only, and hold whatever the host's firewall says.
//!
//! Below them a [`PolicyDocument`] says who may reach what: groups, and rules of which the first that matches decides.
//! [`PolicyDocument::verdict`] is the reference for everybody who enforces it, and also runs the tests that stand in
//! the document and answers an administrator's questions. A gateway's kernel gets the same rules as a
//! [`CompiledClass`].

pub mod attempt;
pub mod compiled;
mod destination;
pub mod evaluate;
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
pub use compiled::{CompiledClass, CompiledRule};
pub use destination::DestinationPolicy;
pub use evaluate::{Class, Decision, FailedTest, Membership, Reason, Subject};
pub use flow::{Action, Flow};
pub use form::FormError;
pub use hours::Hours;
pub use limit::{Period, Quota, QuotaAction, Rate};
pub use model::{Destinations, Group, Member, PolicyDocument, PolicyTest, Rule, TooLarge, Who};
pub use ports::{PortMatch, Transport};
pub use settings::{Chosen, SecondFactor, Settings, SettingsOf, WhenFull, Written};
pub use source::SourcePolicy;

#[cfg(test)]
mod tests;
