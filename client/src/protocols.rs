//! The protocols a client speaks to gateways, a module each.

pub mod connect_ip;
