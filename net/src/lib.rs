//! Whatever of Adit holds a file descriptor: the TUN device, QUIC and TLS, host addresses, routes, DNS and nftables.
//!
//! This crate polls and moves bytes; it holds no protocol constant and takes no protocol decision. Every `unsafe` block of
//! the project is here.

pub mod carrier;
pub mod control;
pub mod http;
pub mod memory;
pub mod packet_buffer;
pub mod quic;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
pub mod tun;
pub mod udp;
pub mod worker;
