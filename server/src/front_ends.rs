//! The front-ends. Each speaks the protocol of one family of clients, and turns what they ask into sessions of the
//! core.

pub mod anyconnect;
pub mod connect_ip;
mod peer;
mod stream;
