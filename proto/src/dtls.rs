//! DTLS 1.2 (RFC 6347) as AnyConnect clients and gateways speak it: keys that both ends already share, no certificates.
//!
//! | room | holds |
//! | --- | --- |
//! | [`record`], [`suite`] | the layout of a record, and what a cipher suite means |
//! | [`secret`], [`sa`] | from a shared secret to the keys, and the state of one direction: sealing and opening, with [`crate::sealing`] |
//! | [`message`], [`reassembly`] | handshake messages, and how they are put together from fragments |
//! | [`greeting`] | cookies: who is no stranger any more, with nothing kept of those who are |
//! | [`handshake`], [`alert`] | what is said in which order, and what ends it |
//! | [`flight`] | what is sent again until it is answered |
//! | [`association`] | all of it for one end, with repetitions: what the shell drives |
//! | [`succession`] | the associations of a session, one after the other |
//!
//! Two ways lead to keys. With a pre-shared key (RFC 4279, 5487, 7905) the handshake is a whole one. With a session id
//! and a master secret that came over another channel it is an abbreviated one (RFC 5246 section 7.3), as Cisco's
//! clients want it. There are two epochs: 0 in the clear, 1 under the keys; renegotiation is refused.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

pub mod alert;
pub mod association;
pub mod flight;
pub mod greeting;
pub mod handshake;
pub mod message;
mod reader;
pub mod reassembly;
pub mod record;
pub mod sa;
pub mod secret;
pub mod succession;
pub mod suite;

#[cfg(test)]
mod vectors;
