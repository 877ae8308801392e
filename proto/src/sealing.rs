//! What the formats of sealed datagrams share: ESP ([`crate::esp`]), DTLS ([`crate::dtls`]) and OpenVPN's data
//! ([`crate::openvpn::data`]).
//!
//! | room | holds |
//! | --- | --- |
//! | [`aead`], [`suite`] | the trait through which the shell brings a cipher, and how much one key may protect |
//! | [`counter`], [`replay`] | numbers given out, and the window of those that came |
//! | [`direction`] | the state of one direction: [`direction::Sealer`] and [`direction::Opener`] |
//!
//! A format adds what is around the ciphertext: how a header tells the number, what the nonce is made of, and what is
//! authenticated besides.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

pub mod aead;
pub mod counter;
pub mod direction;
pub mod replay;
pub mod suite;

#[cfg(test)]
pub(crate) mod test_cipher;
