//! The protocol of OpenVPN, from both ends, as versions 2.6 and 2.7 speak it.
//!
//! One UDP port, or one TCP connection, carries two channels, told apart by the first byte of each packet. The control
//! channel is TLS over a small reliable transport of its own; the data channel carries sealed packets.
//!
//! | room | holds |
//! | --- | --- |
//! | [`wire`] | the first byte of every packet, and packets of the control channel |
//! | [`wrapping`], [`static_key`], [`client_key`] | what hides control packets from strangers: tls-auth, tls-crypt, tls-crypt-v2 |
//! | [`reliability`] | the transport below TLS: numbers, acknowledgements, repetition |
//! | [`greeting`] | the answer to strangers, of whom nothing is kept |
//! | [`key_method`], [`peer_info`], [`negotiation`] | the first message in TLS each way, and what both ends agree on |
//! | [`message`], [`login`] | what is said after that, questions and refusals of a login among it |
//! | [`push`], [`words`] | the settings of a session, and how options are written |
//! | [`data`] | the data channel: keys, sealing and opening, pings |
//! | [`profile`] | the profiles of stock clients |
//! | [`primitives`] | what is needed of a cryptographic library for wrapping |
//!
//! What stock programs send and take was found out with openvpn 2.6.14 and 2.7.8. The protocol has no standard;
//! `doc/doxygen` and `doc/tls-crypt-v2.txt` of OpenVPN describe parts of it.
//!
//! Nothing here runs TLS: what the reliable transport delivers goes to a TLS library, and what that has to say comes
//! back the same way. No program uses this yet: it is the pure half of a front-end that serves stock clients, and of a
//! client of stock servers.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

pub mod client_key;
pub mod data;
pub mod greeting;
pub mod key_method;
pub mod login;
pub mod message;
pub mod negotiation;
pub mod peer_info;
pub mod primitives;
pub mod profile;
pub mod push;
pub mod reliability;
pub mod static_key;
pub mod wire;
pub mod words;
pub mod wrapping;

#[cfg(test)]
pub(crate) mod test_primitives;
#[cfg(test)]
mod vectors;
