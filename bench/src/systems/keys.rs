//! X25519 key pairs (RFC 7748) for other VPNs.

use adit_program::random::random;
use anyhow::{Context, Result, anyhow};
use aws_lc_rs::agreement::{PrivateKey, X25519};

#[derive(Clone)]
pub(super) struct KeyPair {
    pub(super) private: [u8; 32],
    /// The half to give away.
    pub(super) public: [u8; 32],
}

impl KeyPair {
    pub(super) fn generate() -> Result<Self> {
        Self::of(random()?)
    }

    fn of(private: [u8; 32]) -> Result<Self> {
        let key = PrivateKey::from_private_key(&X25519, &private).map_err(|_| anyhow!("the key is refused"))?;
        let public = key.compute_public_key().map_err(|_| anyhow!("the key has no public half"))?;
        let public = public.as_ref().try_into().context("an X25519 key has 32 bytes")?;
        Ok(Self { private, public })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_half_is_that_of_rfc_7748_section_5_2() {
        let mut nine = [0; 32];
        nine[0] = 9;
        let public = data_encoding::HEXLOWER.encode(&KeyPair::of(nine).unwrap().public);
        assert_eq!(public, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
        assert_ne!(KeyPair::generate().unwrap().public, KeyPair::generate().unwrap().public);
    }
}
