//! Whatever of Adit moves packets and streams: the TUN device, UDP sockets, the workers between them, carriers, QUIC
//! and TLS, and control sockets.
//!
//! This crate polls and moves bytes. Every `unsafe` block of the programs is here or in `host`.

pub mod carrier;
pub mod cipher;
pub mod control;
pub mod dns;
pub mod http;
pub mod memory;
pub mod network_watch;
pub mod packet_buffer;
pub mod quic;
pub mod resolve;
mod route_messages;
pub mod router_prefixes;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
pub mod tun;
pub mod udp;
pub mod worker;
