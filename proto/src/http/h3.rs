//! The part of HTTP/3 (RFC 9114) that a CONNECT-IP gateway and client need, without I/O.
//!
//! Left out, as the RFC permits: server push, priorities, and the dynamic table of QPACK (RFC 9204), whose capacity
//! stays 0. [`connection`] reads the peer's unidirectional streams; [`message`] reads one request or response from its
//! own stream.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

pub mod connection;
pub mod error;
pub mod frame;
pub mod huffman;
pub mod message;
pub mod qpack;
pub mod section;
pub mod settings;
