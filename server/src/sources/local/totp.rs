//! Codes of an app that shows a new one every half minute (TOTP, RFC 6238).

use std::time::SystemTime;

use adit_program::random::{NoRandomness, random};
use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
use data_encoding::BASE32_NOPAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Length of a secret, in bytes (RFC 4226 section 4, requirement 6).
const SECRET: usize = 20;
/// Seconds that a code is shown. Many apps know no other, and no other digest and length of codes either.
const STEP: u64 = 30;
/// Digits of a code.
const DIGITS: u32 = 6;

/// The secret that gateway and app share.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random() -> Result<Self, NoRandomness> {
        let bytes = Zeroizing::new(random::<SECRET>()?);
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// A secret from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// A secret as people type it; `None` if it is none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(BASE32_NOPAD.decode(text.as_bytes()).ok()?);
        (bytes.len() == SECRET).then_some(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As people type it into an app.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE32_NOPAD.encode(&self.0))
    }

    /// The link that apps read from a QR code ("Key Uri Format" of Google Authenticator). User names need no escapes
    /// there but for `@`.
    #[must_use]
    pub fn link(&self, user: &str) -> Zeroizing<String> {
        let user = user.replace('@', "%40");
        Zeroizing::new(format!("otpauth://totp/Adit:{user}?secret={}&issuer=Adit", self.text().as_str()))
    }

    /// The step whose code this is: the present one, or the one before or after, for clocks differ and people type
    /// slowly. All three are compared whatever the outcome.
    #[must_use]
    pub fn step_of(&self, code: &str, now: SystemTime) -> Option<u64> {
        let present = step_at(now);
        let mut found = None;
        for step in [present.saturating_sub(1), present, present.saturating_add(1)] {
            if bool::from(self.code(step).as_bytes().ct_eq(code.as_bytes())) {
                found = Some(step);
            }
        }
        found
    }

    /// The code of a step (RFC 4226 section 5.3).
    fn code(&self, step: u64) -> String {
        let tag = sign(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0), &step.to_be_bytes());
        let tag = tag.as_ref();
        let offset = tag.last().map_or(0, |last| usize::from(last & 0xf));
        let part = tag.get(offset..).and_then(<[u8]>::first_chunk::<4>).expect("an HMAC-SHA1 has 20 bytes");
        let number = (u32::from_be_bytes(*part) & 0x7fff_ffff) % 10_u32.pow(DIGITS);
        format!("{number:06}")
    }
}

/// The number of a step at a time.
fn step_at(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / STEP)
}

/// The code that the app shows at a time, for tests.
#[cfg(test)]
pub(crate) fn shown(secret: &Secret, time: SystemTime) -> String {
    secret.code(step_at(time))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// The secret of RFC 6238 appendix B and RFC 4226 appendix D.
    fn of_the_rfc() -> Secret {
        Secret(Zeroizing::new(b"12345678901234567890".to_vec()))
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, SHA1: its codes have eight digits, of which ours are the last six.
        for (seconds, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(shown(&of_the_rfc(), at(seconds)), code[2..], "{seconds}");
        }
    }

    #[test]
    fn codes_are_those_of_rfc_4226() {
        let codes =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (step, code) in (0..).zip(codes) {
            assert_eq!(of_the_rfc().code(step), code, "{step}");
        }
    }

    #[test]
    fn code_is_good_one_step_early_and_one_late() {
        let secret = of_the_rfc();
        let code = shown(&secret, at(1_000_000_020));
        let step = step_at(at(1_000_000_020));
        for (seconds, found) in [
            (1_000_000_020, Some(step)),
            (1_000_000_020 - 30, Some(step)),
            (1_000_000_020 + 30, Some(step)),
            (1_000_000_020 - 60, None),
            (1_000_000_020 + 60, None),
        ] {
            assert_eq!(secret.step_of(&code, at(seconds)), found, "{seconds}");
        }
        for wrong in ["", "0", "000000", &code[1..], &format!("{code}0"), &format!("{code} ")] {
            assert_eq!(secret.step_of(wrong, at(1_000_000_020)), None, "{wrong:?}");
        }
    }

    #[test]
    fn link_names_issuer_user_and_secret() {
        let link = of_the_rfc().link("alice@example.org");
        let expected = "otpauth://totp/Adit:alice%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Adit";
        assert_eq!(link.as_str(), expected);
        assert_eq!(Secret::parse("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap().as_bytes(), of_the_rfc().as_bytes());
        for other in ["", "GEZDGNBVGY3TQOJQ", "gezdgnbvgy3tqojqgezdgnbvgy3tqojq", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJ1"] {
            assert!(Secret::parse(other).is_none(), "{other:?}");
        }
        assert_ne!(Secret::random().unwrap().as_bytes(), Secret::random().unwrap().as_bytes());
    }
}
