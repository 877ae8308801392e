//! Session tokens: what a login is worth, as the gateway gives it to the client and gets it back at each connection.
//!
//! ```text
//! version (1) | device: 0, or 1 and text | user: text | login: bytes (16) | generation (8)
//! logged in at (8) | ends at (8) | boot: bytes (16) | since boot (8) | methods: bytes
//! ```
//!
//! A text is its length in two bytes and its UTF-8. A client gets it sealed, and can neither read nor change it.
//!
//! A host's clock may be wrong when somebody logs in, and be set later. So a token says when it was given by two
//! clocks: by Unix time, and by the time since the boot, which nobody can set. As long as the host runs, the second
//! decides. After a restart of the host the first is left, and what the accounts know of how long the host has run
//! since: the token is over as soon as one of them says so.

use std::time::Duration;

use zeroize::Zeroizing;

use super::Method;
use super::encoding::{Reader, Writer};

/// The first byte of a token. A gateway takes no other version: whoever has one logs in again.
const VERSION: u8 = 3;

/// Tells a login from all others: it is random, and in all that came of the login. Clients never see it.
pub type LoginId = [u8; 16];

/// A boot of the gateway's host. One that the kernel does not tell from others is no boot's equal, not even its own:
/// nothing can be counted from it.
#[derive(Debug, Clone, Copy)]
pub struct Boot(Option<[u8; 16]>);

/// What the clocks of the gateway's host say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clocks {
    /// Unix time, in seconds. It may be set at any time.
    pub unix: u64,
    /// Seconds since the host's boot, those asleep included. They only grow.
    pub since_boot: u64,
    /// The boot in which the host is.
    pub boot: Boot,
}

impl Boot {
    /// A boot that cannot be told from others.
    pub const UNTOLD: Self = Self(None);

    /// The boot of this number, which is random and so not zero.
    pub fn of(number: [u8; 16]) -> Self {
        Self((number != [0; 16]).then_some(number))
    }

    /// Its number, if it can be told from others.
    pub fn number(self) -> Option<[u8; 16]> {
        self.0
    }
}

impl PartialEq for Boot {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_some() && self.0 == other.0
    }
}

/// When a login is over: at the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginEnd {
    /// So many seconds after the boot in which the host is.
    pub since_boot: u64,
    /// At this Unix time, where the host was started again since somebody logged in.
    pub unix: Option<u64>,
}

impl LoginEnd {
    /// How long it is until then; zero once it is over, and where nobody can tell.
    pub fn left(self, clocks: &Clocks) -> Duration {
        if clocks.boot.number().is_none() {
            return Duration::ZERO;
        }
        let by_clock = self.unix.map_or(u64::MAX, |end| end.saturating_sub(clocks.unix));
        Duration::from_secs(self.since_boot.saturating_sub(clocks.since_boot).min(by_clock))
    }
}

/// An authenticated cipher with a key of the gateway's own.
pub trait Sealing {
    /// Seals a text; `None` when there is no randomness for a nonce.
    fn seal(&self, text: &[u8]) -> Option<Vec<u8>>;

    /// The text; `None` when it was not sealed by this gateway, for this purpose.
    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

/// What a login is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionToken {
    /// The user name.
    pub user: String,
    /// The device that it is good for; `None` makes it a ticket, good to enrol one.
    pub device: Option<String>,
    /// The login that it came of: worth nothing once the accounts know no such login.
    pub login: LoginId,
    /// The generation of the user when it was given: worth nothing once the accounts have another.
    pub generation: u64,
    /// How the user proved who they are, in order.
    pub methods: Vec<Method>,
    /// When that was, in seconds of Unix time, by the clock as it was then.
    pub logged_in_at: u64,
    /// When it is over, in seconds of Unix time, by the same clock.
    pub ends_at: u64,
    /// The boot of the gateway's host in which that was.
    pub boot: Boot,
    /// How many seconds that was after this boot.
    pub since_boot: u64,
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
        writer.bytes(self.user.as_bytes()).bytes(&self.login).number(self.generation);
        writer.number(self.logged_in_at).number(self.ends_at);
        writer.bytes(&self.boot.number().unwrap_or_default()).number(self.since_boot);
        let methods: Vec<u8> = self.methods.iter().map(|method| number_of(*method)).collect();
        cipher.seal(&writer.bytes(&methods).finish())
    }

    /// Reads a token whoever came with it, and though it may be over; `None` if it is foreign. What it says lets nobody
    /// in: it is for what ends a login, and for who has just made the token.
    pub fn unseal(sealed: &[u8], cipher: &dyn Sealing) -> Option<Self> {
        Self::decode(&cipher.open(sealed)?)
    }

    /// Opens a token that a device came with, or a ticket that came without one. One of an earlier boot may be over
    /// though the clock does not say so: [`Self::end`] tells.
    ///
    /// # Errors
    /// It is foreign, another device's, or over.
    pub fn open(
        sealed: &[u8],
        device: Option<&str>,
        clocks: &Clocks,
        cipher: &dyn Sealing,
    ) -> Result<Self, TokenError> {
        let token = Self::unseal(sealed, cipher).ok_or(TokenError::Foreign)?;
        if token.device.as_deref() != device {
            return Err(TokenError::OtherDevice);
        }
        if token.left(clocks).is_zero() {
            return Err(TokenError::Over);
        }
        Ok(token)
    }

    /// When it is over, where its login lasts for `left` by what is known of how long the host has run.
    pub fn end(&self, clocks: &Clocks, left: Duration) -> LoginEnd {
        let left = left.min(self.left(clocks));
        LoginEnd {
            since_boot: clocks.since_boot.saturating_add(left.as_secs()),
            unix: self.age(clocks).is_none().then_some(self.ends_at),
        }
    }

    /// How long ago somebody logged in; `None` if that was in another boot, since a clock may have been set.
    pub fn age(&self, clocks: &Clocks) -> Option<Duration> {
        let is_of_now = self.boot == clocks.boot;
        is_of_now.then(|| Duration::from_secs(clocks.since_boot.saturating_sub(self.since_boot)))
    }

    /// For how long it was given.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.ends_at.saturating_sub(self.logged_in_at))
    }

    /// How much is left of it as far as it tells itself: after a restart of the host, by the clock alone.
    fn left(&self, clocks: &Clocks) -> Duration {
        let by_clock = || Duration::from_secs(self.ends_at.saturating_sub(clocks.unix));
        self.age(clocks).map_or_else(by_clock, |age| self.lifetime().saturating_sub(age))
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
        let (user, login) = (reader.text()?, reader.bytes()?.try_into().ok()?);
        let (generation, logged_in_at, ends_at) = (reader.number()?, reader.number()?, reader.number()?);
        let (boot, since_boot) = (Boot::of(reader.bytes()?.try_into().ok()?), reader.number()?);
        let methods = reader.bytes()?.iter().map(|number| method_of(*number)).collect::<Option<_>>()?;
        reader.end()?;
        Some(Self { user, device, login, generation, methods, logged_in_at, ends_at, boot, since_boot })
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
            login: [4; 16],
            generation: 3,
            methods: vec![Method::Password, Method::Code],
            logged_in_at: 1000,
            ends_at: 2000,
            boot: BOOT,
            since_boot: 50,
        }
    }

    const BOOT: Boot = Boot(Some([7; 16]));
    const OTHER_BOOT: Boot = Boot(Some([8; 16]));
    const DAY: u64 = 24 * 60 * 60;

    /// A time by which the token above is neither over nor to come.
    const DURING: Clocks = Clocks { unix: 1500, since_boot: 550, boot: BOOT };

    #[test]
    fn token_is_good_for_its_device_until_its_end() {
        let sealed = token(Some("dev-1")).seal(&Plain(0)).unwrap();
        let at = |device, since_boot| {
            SessionToken::open(&sealed, device, &Clocks { since_boot, unix: 950 + since_boot, ..DURING }, &Plain(0))
        };
        assert_eq!(at(Some("dev-1"), 1049), Ok(token(Some("dev-1"))));
        assert_eq!(at(Some("dev-1"), 1050), Err(TokenError::Over));
        assert_eq!(at(Some("dev-2"), 1049), Err(TokenError::OtherDevice));
        assert_eq!(at(None, 1049), Err(TokenError::OtherDevice), "it is no ticket");
    }

    #[test]
    fn clock_that_is_set_neither_ends_nor_lengthens_a_login_of_this_boot() {
        let sealed = token(Some("dev-1")).seal(&Plain(0)).unwrap();
        for unix in [0, 1500, 1500 + 10 * DAY] {
            let open = |since_boot| {
                SessionToken::open(&sealed, Some("dev-1"), &Clocks { unix, since_boot, boot: BOOT }, &Plain(0))
            };
            let opened = open(1049).unwrap();
            let clocks = Clocks { unix, since_boot: 1049, boot: BOOT };
            let end = LoginEnd { since_boot: 1050, unix: None };
            assert_eq!(
                (opened.end(&clocks, Duration::MAX), opened.age(&clocks)),
                (end, Some(Duration::from_secs(999)))
            );
            assert_eq!(open(1050), Err(TokenError::Over), "{unix}");
        }
    }

    #[test]
    fn login_of_another_boot_goes_by_the_clock_and_by_what_the_accounts_know() {
        let sealed = token(Some("dev-1")).seal(&Plain(0)).unwrap();
        let open = |unix, since_boot| {
            SessionToken::open(&sealed, Some("dev-1"), &Clocks { unix, since_boot, boot: OTHER_BOOT }, &Plain(0))
        };
        assert_eq!(open(1999, 5000), Ok(token(Some("dev-1"))));
        assert_eq!(open(0, 5000), Ok(token(Some("dev-1"))), "the clock was set back: the accounts must tell");
        assert_eq!(open(2000, 60), Err(TokenError::Over));
        let other = Clocks { boot: OTHER_BOOT, ..DURING };
        let left =
            |seconds, clocks: &Clocks| token(None).end(clocks, Duration::from_secs(seconds)).left(clocks).as_secs();
        assert_eq!((left(1000, &other), left(100, &other)), (500, 100));
        // Whatever the clock says, now or later, it does not last longer.
        let behind = Clocks { unix: 0, ..other };
        assert_eq!((left(100, &behind), left(0, &behind)), (100, 0));
        let end = token(None).end(&behind, Duration::from_secs(100));
        assert_eq!(end.left(&Clocks { since_boot: other.since_boot + 99, ..behind }).as_secs(), 1);
        assert!(end.left(&Clocks { since_boot: other.since_boot + 100, ..behind }).is_zero());
        assert!(end.left(&Clocks { unix: 2000, ..other }).is_zero(), "the clock was set right");
    }

    #[test]
    fn age_is_known_within_a_boot_alone() {
        assert_eq!(token(None).age(&DURING), Some(Duration::from_secs(500)));
        for unix in [0, 1000, 1500, 10 * DAY] {
            assert_eq!(token(None).age(&Clocks { unix, boot: OTHER_BOOT, ..DURING }), None);
        }
    }

    #[test]
    fn boot_that_is_not_told_is_no_boot_s_equal() {
        for (one, other) in [(Boot::UNTOLD, Boot::UNTOLD), (Boot::of([0; 16]), Boot::UNTOLD), (BOOT, Boot::UNTOLD)] {
            assert_ne!(one, other);
        }
        assert!(BOOT == Boot::of([7; 16]) && BOOT != OTHER_BOOT, "the positive control");
        let given = SessionToken { boot: Boot::UNTOLD, ..token(None) };
        let opened = |boot, unix| {
            let clocks = Clocks { unix, boot, ..DURING };
            SessionToken::open(&given.seal(&Plain(0)).unwrap(), None, &clocks, &Plain(0))
                .map(|token| token.age(&clocks))
        };
        assert_eq!((opened(Boot::UNTOLD, 2000), opened(BOOT, 2000)), (Err(TokenError::Over), Err(TokenError::Over)));
        assert_eq!((opened(Boot::UNTOLD, 1999), opened(BOOT, 1999)), (Ok(None), Ok(None)));
        let untold = Clocks { boot: Boot::UNTOLD, ..DURING };
        let end = token(None).end(&DURING, Duration::MAX);
        assert_eq!((end.left(&DURING).as_secs(), end.left(&untold)), (500, Duration::ZERO));
    }

    #[test]
    fn ticket_is_no_token_of_a_device() {
        let sealed = token(None).seal(&Plain(0)).unwrap();
        assert_eq!(SessionToken::open(&sealed, None, &DURING, &Plain(0)), Ok(token(None)));
        let with_device = SessionToken::open(&sealed, Some("dev-1"), &DURING, &Plain(0));
        assert_eq!(with_device, Err(TokenError::OtherDevice));
    }

    #[test]
    fn what_another_key_sealed_is_foreign() {
        let sealed = token(None).seal(&Plain(1)).unwrap();
        assert_eq!(SessionToken::open(&sealed, None, &DURING, &Plain(0)), Err(TokenError::Foreign));
        assert_eq!(SessionToken::open(&[], None, &DURING, &Plain(0)), Err(TokenError::Foreign));
    }

    #[test]
    fn largest_token_fits_the_field_that_carries_it() {
        let (user, device) = ("a".repeat(64), Some("d".repeat(64)));
        let methods = [Method::ALL, Method::ALL].concat();
        let largest = SessionToken { user, device, methods, ..token(None) };
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
        for (place, value) in [(0, 1), (1, 2), (text.len() - 1, 6)] {
            let mut changed = text.to_vec();
            changed[place] = value;
            assert_eq!(SessionToken::decode(&changed), None, "{place}");
        }
    }

    proptest! {
        #[test]
        fn token_survives_its_encoding(
            user in ".{0,80}", device in proptest::option::of(".{0,30}"), login: LoginId, generation: u64,
            methods in proptest::collection::vec(0..6_usize, 0..9), logged_in_at: u64, ends_at in 1..u64::MAX,
            boot in (1..u128::MAX).prop_map(u128::to_be_bytes), since_boot: u64,
        ) {
            let methods = methods.into_iter().map(|place| Method::ALL[place]).collect();
            let device_of = device.clone();
            let clocks = Clocks { unix: ends_at - 1, since_boot: 0, boot: Boot::of(boot.map(|byte| !byte)) };
            let boot = Boot::of(boot);
            let token =
                SessionToken { user, device, login, generation, methods, logged_in_at, ends_at, boot, since_boot };
            let sealed = token.seal(&Plain(9)).unwrap();
            prop_assert_eq!(SessionToken::open(&sealed, device_of.as_deref(), &clocks, &Plain(9)), Ok(token));
        }

        #[test]
        fn no_text_disturbs_the_decoder(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(SessionToken::decode(&text));
        }
    }
}
