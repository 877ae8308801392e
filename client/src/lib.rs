//! The Adit client: profiles, enrolment, the connection life cycle and the host configuration.

pub mod cli;
mod device_key;
mod gateway_addresses;
pub mod host_plan;
pub mod join;
mod obstacle;
pub mod packet_path;
pub mod packet_source;
pub mod profile;
pub mod protocols;
pub mod run;
pub mod state;
