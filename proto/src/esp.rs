//! The `esp` carrier: ESP in UDP (RFC 4303 in tunnel mode, RFC 3948), keyed by the session's QUIC connection.
//!
//! | room | holds |
//! | --- | --- |
//! | [`packet`], [`spi`] | the layout of a datagram and of the index in front of it |
//! | [`sa`], [`lifetime`] | the state of one direction: sealing and opening, and when to rekey |
//! | [`keys`] | from the exporter to the keys of each epoch |
//! | [`field`], [`capsule`] | negotiation on the CONNECT-IP request, and set-up of SAs on its stream |
//! | [`rekey`] | who starts an epoch, when its SAs become active, when the old ones go |
//! | [`probe`], [`path`], [`path_mtu`] | whether, to which address, and in which size ESP passes |
//! | [`session`] | all of it for one end of a session, which is what the shell drives |
//!
//! Ciphers, counters and replay windows are those of [`crate::sealing`]. Sequence numbers are extended ones (RFC 4303
//! section 2.2.1) throughout, and the explicit IV repeats them, so that a nonce is unique per key by construction.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

pub mod capsule;
pub mod field;
pub mod keys;
pub mod lifetime;
pub mod marking;
pub mod packet;
pub mod path;
pub mod path_mtu;
pub mod probe;
pub mod rekey;
pub mod sa;
pub mod session;
pub mod spi;

#[cfg(test)]
mod vectors;
