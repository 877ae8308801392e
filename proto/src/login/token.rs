//! Session tokens: what a login is worth, as the gateway gives it to the client and gets it back at each connection.
//!
//! ```text
//! version (1) | device: 0, or 1 and text | user: text | generation (8)
//! logged in at (8) | ends at (8) | methods: bytes
//! ```
//!
//! A text is its length in two bytes and its UTF-8. A client gets it sealed, and can neither read nor change it.

use zeroize::Zeroizing;

use super::Method;
use super::encoding::{Reader, Writer};

/// The first byte of a token. A gateway takes no other version: whoever has one logs in again.
const VERSION: u8 = 1;

/// An authenticated cipher with a key of the gateway's own.
pub trait Sealing {
    /// Seals a text; `None` when there is no randomness for a nonce.
    fn seal(&self, text: &[u8]) -> Option<Vec<u8>>;

    /// The text; `None` when it was not sealed by this gateway, for this purpose.
    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

/// What a login is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionToken {
    /// The user name.
    pub user: String,
    /// The device that it is good for; `None` makes it a ticket, good to enrol one.
    pub device: Option<String>,
    /// The generation of the user when it was given: worth nothing once the accounts have another.
    pub generation: u64,
    /// How the user proved who they are, in order.
    pub methods: Vec<Method>,
    /// When that was, in seconds of Unix time.
    pub logged_in_at: u64,
    /// When it is over, in seconds of Unix time.
    pub ends_at: u64,
}

/// Why a token is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none of this gateway's.
    #[error("no token of this gateway")]
    Foreign,
    /// It is another device's.
    #[error("token of another device")]
    OtherDevice,
    /// Its time is over.
    #[error("login is over")]
    Over,
}

impl SessionToken {
    /// The token as clients get it; `None` when there is no randomness.
    pub fn seal(&self, cipher: &dyn Sealing) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        writer.byte(VERSION).byte(self.device.is_some().into());
        if let Some(device) = &self.device {
            writer.bytes(device.as_bytes());
        }
        writer.bytes(self.user.as_bytes()).number(self.generation).number(self.logged_in_at).number(self.ends_at);
        let methods: Vec<u8> = self.methods.iter().map(|method| number_of(*method)).collect();
        cipher.seal(&writer.bytes(&methods).finish())
    }

    /// Opens a token that a device came with, or a ticket that came without one.
    ///
    /// # Errors
    /// It is foreign, another device's, or over.
    pub fn open(sealed: &[u8], device: Option<&str>, now: u64, cipher: &dyn Sealing) -> Result<Self, TokenError> {
        let text = cipher.open(sealed).ok_or(TokenError::Foreign)?;
        let token = Self::decode(&text).ok_or(TokenError::Foreign)?;
        if token.device.as_deref() != device {
            return Err(TokenError::OtherDevice);
        }
        if now >= token.ends_at {
            return Err(TokenError::Over);
        }
        Ok(token)
    }

    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        let mut reader = Reader(text);
        if reader.byte()? != VERSION {
            return None;
        }
        let device = match reader.byte()? {
            0 => None,
            1 => Some(reader.text()?),
            _ => return None,
        };
        let user = reader.text()?;
        let (generation, logged_in_at, ends_at) = (reader.number()?, reader.number()?, reader.number()?);
        let methods = reader.bytes()?.iter().map(|number| method_of(*number)).collect::<Option<_>>()?;
        reader.end()?;
        Some(Self { user, device, generation, methods, logged_in_at, ends_at })
    }
}

/// The number by which tokens name a method: its place in [`Method::ALL`].
fn number_of(method: Method) -> u8 {
    Method::ALL.iter().position(|other| *other == method).and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

fn method_of(number: u8) -> Option<Method> {
    Method::ALL.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// No cipher: it puts a checksum behind the text.
    struct Plain(u8);

    impl Sealing for Plain {
        fn seal(&self, text: &[u8]) -> Option<Vec<u8>> {
            Some([text, &[text.iter().fold(self.0, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))]].concat())
        }

        fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
            let (_, text) = sealed.split_last()?;
            (self.seal(text)? == sealed).then(|| text.to_vec().into())
        }
    }

    fn token(device: Option<&str>) -> SessionToken {
        SessionToken {
            user: "alice".to_owned(),
            device: device.map(str::to_owned),
            generation: 3,
            methods: vec![Method::Password, Method::Code],
            logged_in_at: 1000,
            ends_at: 2000,
        }
    }

    #[test]
    fn token_is_good_for_its_device_until_its_end() {
        let sealed = token(Some("dev-1")).seal(&Plain(0)).unwrap();
        let open = |device, now| SessionToken::open(&sealed, device, now, &Plain(0));
        assert_eq!(open(Some("dev-1"), 1999), Ok(token(Some("dev-1"))));
        assert_eq!(open(Some("dev-1"), 0), Ok(token(Some("dev-1"))), "the clock was set back");
        assert_eq!(open(Some("dev-1"), 2000), Err(TokenError::Over));
        assert_eq!(open(Some("dev-2"), 1999), Err(TokenError::OtherDevice));
        assert_eq!(open(None, 1999), Err(TokenError::OtherDevice), "it is no ticket");
    }

    #[test]
    fn ticket_is_no_token_of_a_device() {
        let sealed = token(None).seal(&Plain(0)).unwrap();
        assert_eq!(SessionToken::open(&sealed, None, 1000, &Plain(0)), Ok(token(None)));
        let with_device = SessionToken::open(&sealed, Some("dev-1"), 1000, &Plain(0));
        assert_eq!(with_device, Err(TokenError::OtherDevice));
    }

    #[test]
    fn what_another_key_sealed_is_foreign() {
        let sealed = token(None).seal(&Plain(1)).unwrap();
        assert_eq!(SessionToken::open(&sealed, None, 1000, &Plain(0)), Err(TokenError::Foreign));
        assert_eq!(SessionToken::open(&[], None, 1000, &Plain(0)), Err(TokenError::Foreign));
    }

    #[test]
    fn largest_token_fits_the_field_that_carries_it() {
        let (user, device) = ("a".repeat(64), Some("d".repeat(64)));
        let methods = [Method::ALL, Method::ALL].concat();
        let largest = SessionToken { user, device, generation: u64::MAX, methods, logged_in_at: u64::MAX, ends_at: 0 };
        // With a nonce and a tag, and in base 64.
        let sealed = (largest.seal(&Plain(0)).unwrap().len() + 28) * 4 / 3;
        assert!(sealed < crate::login::message::MAX_TOKEN, "{sealed}");
    }

    #[test]
    fn every_part_of_the_layout_is_needed() {
        let sealed = token(Some("dev-1")).seal(&Plain(0)).unwrap();
        let text = &sealed[..sealed.len() - 1];
        assert!(SessionToken::decode(text).is_some(), "the positive control");
        for length in 0..text.len() {
            assert_eq!(SessionToken::decode(&text[..length]), None, "{length}");
        }
        assert_eq!(SessionToken::decode(&[text, &[0]].concat()), None);
        for (place, value) in [(0, 2), (1, 2), (text.len() - 1, 6)] {
            let mut changed = text.to_vec();
            changed[place] = value;
            assert_eq!(SessionToken::decode(&changed), None, "{place}");
        }
    }

    proptest! {
        #[test]
        fn token_survives_its_encoding(
            user in ".{0,80}", device in proptest::option::of(".{0,30}"), generation: u64,
            methods in proptest::collection::vec(0..6_usize, 0..9), logged_in_at: u64, ends_at in 1..u64::MAX,
        ) {
            let methods = methods.into_iter().map(|place| Method::ALL[place]).collect();
            let token = SessionToken { user, device: device.clone(), generation, methods, logged_in_at, ends_at };
            let sealed = token.seal(&Plain(9)).unwrap();
            prop_assert_eq!(SessionToken::open(&sealed, device.as_deref(), ends_at - 1, &Plain(9)), Ok(token));
        }

        #[test]
        fn no_text_disturbs_the_decoder(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(SessionToken::decode(&text));
        }
    }
}
