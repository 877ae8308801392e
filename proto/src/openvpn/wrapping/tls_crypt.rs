//! tls-crypt: packets are encrypted, with a key that all clients of a server have, or one of the client's own.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use super::{STAMP_LEN, Stamp};
use crate::drop_reason::DropReason;
use crate::openvpn::primitives::{AES_KEY_LEN, Primitives};
use crate::openvpn::static_key::{Slot, StaticKey};
use crate::openvpn::wire::PREFACE_LEN;
use crate::role::Role;
use crate::sealing::aead::CipherRefused;

/// Bytes of a tag.
pub(in crate::openvpn) const TAG_LEN: usize = 32;

/// Bytes that this adds to a packet.
pub(super) const OVERHEAD: usize = STAMP_LEN + TAG_LEN;

/// What seals and opens in one direction.
#[derive(ZeroizeOnDrop)]
pub(in crate::openvpn) struct SealingKey {
    cipher: [u8; AES_KEY_LEN],
    mac: [u8; TAG_LEN],
}

impl SealingKey {
    pub(in crate::openvpn) const fn new(cipher: [u8; AES_KEY_LEN], mac: [u8; TAG_LEN]) -> Self {
        Self { cipher, mac }
    }

    fn of(key: &StaticKey, slot: Slot) -> Self {
        Self::new(*key.cipher(slot), *key.mac(slot))
    }

    /// Encrypts `body` in place and returns the tag over it and what stands before it.
    pub(in crate::openvpn) fn seal<P: Primitives>(
        &self,
        associated: &[&[u8]],
        body: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CipherRefused> {
        let tag = self.tag(associated, body);
        self.apply::<P>(&tag, body)?;
        Ok(tag)
    }

    /// Decrypts `body` in place. What it holds after an error must not be used.
    pub(in crate::openvpn) fn open<P: Primitives>(
        &self,
        associated: &[&[u8]],
        body: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), DropReason> {
        self.apply::<P>(tag, body).map_err(|CipherRefused| DropReason::AuthenticationFailed)?;
        let is_right = bool::from(self.tag(associated, body).ct_eq(tag));
        if is_right { Ok(()) } else { Err(DropReason::AuthenticationFailed) }
    }

    fn tag(&self, associated: &[&[u8]], body: &[u8]) -> [u8; TAG_LEN] {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.mac).expect("HMAC takes keys of any length");
        associated.iter().for_each(|part| mac.update(part));
        mac.update(body);
        mac.finalize().into_bytes().into()
    }

    fn apply<P: Primitives>(&self, tag: &[u8; TAG_LEN], body: &mut [u8]) -> Result<(), CipherRefused> {
        let (counter, _) = tag.split_first_chunk().expect("a tag is longer than a block");
        P::aes_256_ctr(&self.cipher, *counter, body)
    }
}

/// The keys of both directions.
pub struct Keys {
    send: SealingKey,
    receive: SealingKey,
}

impl Keys {
    /// Takes them from a shared key; `role` is this end's. The server sends with the first half.
    pub fn new(key: &StaticKey, role: Role) -> Self {
        let (send, receive) = match role {
            Role::Server => (Slot::Zero, Slot::One),
            Role::Client => (Slot::One, Slot::Zero),
        };
        Self { send: SealingKey::of(key, send), receive: SealingKey::of(key, receive) }
    }

    pub(super) fn seal<P: Primitives>(
        &self,
        stamp: Stamp,
        preface: [u8; PREFACE_LEN],
        mut body: Vec<u8>,
    ) -> Result<Vec<u8>, DropReason> {
        let stamp = stamp.encode();
        let tag =
            self.send.seal::<P>(&[&preface, &stamp], &mut body).map_err(|CipherRefused| DropReason::SealFailed)?;
        Ok([&preface[..], &stamp, &tag, &body].concat())
    }

    pub(super) fn open<P: Primitives>(
        &self,
        preface: &[u8; PREFACE_LEN],
        rest: &[u8],
    ) -> Result<(Stamp, Vec<u8>), DropReason> {
        let (stamp, rest) = rest.split_first_chunk::<STAMP_LEN>().ok_or(DropReason::Truncated)?;
        let (tag, sealed) = rest.split_first_chunk::<TAG_LEN>().ok_or(DropReason::Truncated)?;
        let mut body = sealed.to_vec();
        self.receive.open::<P>(&[preface, stamp], &mut body, tag)?;
        Ok((Stamp::parse(*stamp), body))
    }
}
