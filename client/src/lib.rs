//! The Adit client: profiles, enrolment, sessions, and what a session changes on its host.
//!
//! Without the features `cli` and `host` it is a library that changes nothing on its host: an embedder gives a
//! [`run::ClientSession`] its packets and, if it wants, [`host_plan::HostHooks`].

pub mod captive_portal;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
mod device_key;
mod gateway_addresses;
pub mod gateway_contact;
#[cfg(test)]
mod gateway_double;
pub mod host_plan;
pub mod join;
pub mod login;
pub mod network_memory;
mod obstacle;
mod own_question;
pub mod packet_path;
pub mod packet_source;
pub mod profile;
pub mod protocols;
mod public_roots;
pub mod run;
pub mod state;
mod ways;
