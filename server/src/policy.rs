//! The policy file: groups, and who may reach what.
//!
//! What a policy means is [`adit_proto::policy`]'s to say. Here its file is read, with the line of everything in it;
//! compared with the gateway it is for; and asked by administrators.

pub mod explain;
pub mod file;
mod fit;
mod reader;
mod values;

pub use file::{PolicyError, PolicyFile};
