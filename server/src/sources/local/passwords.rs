//! Passwords of the gateway's own users: which may be set, and the form in which they are kept.
//!
//! They are kept as argon2id (RFC 9106) in PHC strings, and written anew after a good login once the cost of a hash has
//! changed. There are no rules of composition, only a least length and a list of what is tried first (NIST SP 800-63B
//! section 5.1.1.2).

use adit_program::random::{NoRandomness, random};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::BASE64_NOPAD;
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Fewest characters.
const MIN_CHARACTERS: usize = 8;
/// Most bytes, in normal form.
pub const MAX_BYTES: usize = 128;
/// Most bytes before that: three for each, as decomposed letters may have.
const MAX_TYPED: usize = 3 * MAX_BYTES;
/// Length of salts and hashes, in bytes.
const SALT: usize = 16;
const HASH: usize = 32;
/// Most memory that a stored hash may ask for, in KiB: somebody who could write the store must not take all of it.
const MAX_MEMORY_KIB: u32 = 256 * 1024;

/// What is tried first, one a line, in lower case; those shorter than [`MIN_CHARACTERS`] are refused anyway.
const COMMON: &str = include_str!("common_passwords.txt");

/// A password in the form that is hashed: Unicode's normal form C, so that it is the same from every keyboard.
pub struct Password(Zeroizing<String>);

/// Why a text cannot be somebody's password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short.
    #[error("a password has at least 8 characters")]
    TooShort,
    /// Too long.
    #[error("a password has at most 128 bytes")]
    TooLong,
    /// It holds a character that not every protocol can carry.
    #[error("a password holds no NUL character")]
    Nul,
    /// It is tried first by whoever guesses.
    #[error("this password is one of the first that are tried; choose another")]
    Common,
}

impl Password {
    /// A password that somebody chooses for a user.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub fn choose(text: &str, user: &str) -> Result<Self, PasswordError> {
        let password = Self::typed(text)?;
        if password.0.chars().count() < MIN_CHARACTERS {
            return Err(PasswordError::TooShort);
        }
        let lower = Zeroizing::new(password.0.to_lowercase());
        if lower.as_str() == user || COMMON.lines().any(|common| common == lower.as_str()) {
            return Err(PasswordError::Common);
        }
        Ok(password)
    }

    /// No password; it is compared where there is none to compare.
    #[must_use]
    pub fn none() -> Self {
        Self(Zeroizing::default())
    }

    /// What somebody typed as their password.
    ///
    /// # Errors
    /// [`PasswordError::TooLong`] and [`PasswordError::Nul`]: nobody can have such a one.
    pub fn typed(text: &str) -> Result<Self, PasswordError> {
        if text.len() > MAX_TYPED {
            return Err(PasswordError::TooLong);
        }
        if text.contains('\0') {
            return Err(PasswordError::Nul);
        }
        // Room for all at once, so that no half of it stays behind in memory: NFC makes no text more than three times
        // as long.
        let mut normal = Zeroizing::new(String::with_capacity(3 * text.len()));
        normal.extend(text.nfc());
        if normal.len() > MAX_BYTES {
            return Err(PasswordError::TooLong);
        }
        Ok(Self(normal))
    }
}

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// The least that OWASP's "Password Storage Cheat Sheet" advises: some 20 ms of one core.
    pub const USUAL: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
    /// For tests of what is around the hash.
    #[cfg(test)]
    pub const OF_TESTS: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    /// As [`Self::OF_TESTS`], with other memory.
    #[cfg(test)]
    pub const fn of_tests(memory_kib: u32) -> Self {
        Self { memory_kib, ..Self::OF_TESTS }
    }

    fn params(self) -> Option<Params> {
        let affordable = self.memory_kib <= MAX_MEMORY_KIB && self.passes <= 16 && self.lanes <= 16;
        affordable.then(|| Params::new(self.memory_kib, self.passes, self.lanes, Some(HASH)).ok()).flatten()
    }
}

/// Memory to hash in, which is kept: getting it anew from the system costs as much as a hash.
#[derive(Default)]
pub struct Memory(Vec<Block>);

/// Whether a password is the one that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It is not.
    Wrong,
    /// It is.
    Right,
    /// It is, and should be hashed anew: the cost has changed.
    RightButOld,
}

/// Hashes a password with a new salt, as a PHC string.
///
/// # Errors
/// The system has no randomness.
pub fn hash(password: &Password, cost: Cost, memory: &mut Memory) -> Result<String, NoRandomness> {
    let salt = random::<SALT>()?;
    let hash = derive(password, cost, &salt, memory).expect("our own costs are in range");
    let Cost { memory_kib, passes, lanes } = cost;
    let (salt, hash) = (BASE64_NOPAD.encode(&salt), BASE64_NOPAD.encode(hash.as_slice()));
    Ok(format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}"))
}

/// Compares a password with the kept one. Where none is kept, or what is kept is no hash, it takes as long as a wrong
/// password.
#[must_use]
pub fn compare(password: &Password, kept: Option<&str>, cost: Cost, memory: &mut Memory) -> Match {
    let kept = kept.and_then(Kept::parse);
    let (salt, of) = kept.as_ref().map_or(([0; SALT], cost), |kept| (kept.salt, kept.cost));
    let hash = derive(password, of, &salt, memory);
    match (kept, hash) {
        (Some(kept), Some(hash)) if bool::from(kept.hash.ct_eq(hash.as_slice())) => {
            if kept.cost == cost {
                Match::Right
            } else {
                Match::RightButOld
            }
        }
        _ => Match::Wrong,
    }
}

/// Whether a text is a hash that [`compare`] can use.
#[must_use]
pub fn is_hash(phc: &str) -> bool {
    Kept::parse(phc).is_some()
}

fn derive(password: &Password, cost: Cost, salt: &[u8], memory: &mut Memory) -> Option<Zeroizing<[u8; HASH]>> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.params()?);
    let blocks = argon2.params().block_count();
    if memory.0.len() < blocks {
        memory.0.resize(blocks, Block::new());
    }
    let mut hash = Zeroizing::new([0; HASH]);
    let room = memory.0.get_mut(..blocks)?;
    argon2.hash_password_into_with_memory(password.0.as_bytes(), salt, hash.as_mut_slice(), room).ok()?;
    Some(hash)
}

/// A PHC string, taken apart.
struct Kept {
    cost: Cost,
    salt: [u8; SALT],
    hash: [u8; HASH],
}

impl Kept {
    fn parse(phc: &str) -> Option<Self> {
        let [salt, hash] = {
            let (rest, hash) = phc.rsplit_once('$')?;
            let (_, salt) = rest.rsplit_once('$')?;
            [salt, hash]
        };
        let costs = phc.strip_prefix("$argon2id$v=19$")?.split('$').next()?;
        let mut costs = costs.split(',');
        let mut cost = |key: &str| costs.next()?.strip_prefix(key)?.parse().ok();
        let cost = Cost { memory_kib: cost("m=")?, passes: cost("t=")?, lanes: cost("p=")? };
        cost.params()?;
        let decode = |text: &str| BASE64_NOPAD.decode(text.as_bytes()).ok();
        Some(Self { cost, salt: decode(salt)?.try_into().ok()?, hash: decode(hash)?.try_into().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Cost = Cost::of_tests(16);

    fn typed(text: &str) -> Password {
        Password::typed(text).unwrap()
    }

    #[test]
    fn kept_password_matches_itself_alone() {
        let mut memory = Memory::default();
        let kept = hash(&typed("correct horse"), Cost::OF_TESTS, &mut memory).unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=8,t=1,p=1$") && is_hash(&kept), "{kept}");
        let mut compared = |text, kept: Option<&str>| compare(&typed(text), kept, Cost::OF_TESTS, &mut memory);
        assert_eq!(compared("correct horse", Some(&kept)), Match::Right);
        for wrong in ["correct hors", "correct horse ", "Correct horse", ""] {
            assert_eq!(compared(wrong, Some(&kept)), Match::Wrong, "{wrong:?}");
        }
        for no_hash in [None, Some(""), Some("correct horse"), Some("$argon2id$v=19$m=8,t=1,p=1$$")] {
            assert_eq!(compared("correct horse", no_hash), Match::Wrong, "{no_hash:?}");
        }
    }

    #[test]
    fn hash_is_that_of_other_programs() {
        // `printf password | argon2 somesaltsomesalt -id -t 3 -m 6 -p 2 -l 32 -e`, of the reference implementation
        let theirs = "$argon2id$v=19$m=64,t=3,p=2$c29tZXNhbHRzb21lc2FsdA$1CPz4PuyeKkknCNTU5v52qlMt5LtwQsgM5BbeG7cH60";
        let mut memory = Memory::default();
        assert_eq!(compare(&typed("password"), Some(theirs), Cost::USUAL, &mut memory), Match::RightButOld);
        assert_eq!(compare(&typed("passwore"), Some(theirs), Cost::USUAL, &mut memory), Match::Wrong);
    }

    #[test]
    fn same_password_gets_another_salt_each_time() {
        let mut memory = Memory::default();
        let mut once = || hash(&typed("correct horse"), Cost::OF_TESTS, &mut memory).unwrap();
        assert_ne!(once(), once());
    }

    #[test]
    fn password_of_another_cost_is_right_and_old() {
        let mut memory = Memory::default();
        let kept = hash(&typed("correct horse"), OTHER, &mut memory).unwrap();
        let compared = |cost, memory: &mut Memory| compare(&typed("correct horse"), Some(&kept), cost, memory);
        assert_eq!(compared(Cost::OF_TESTS, &mut memory), Match::RightButOld);
        assert_eq!(compared(OTHER, &mut memory), Match::Right);
    }

    #[test]
    fn letters_are_the_same_from_every_keyboard() {
        let mut memory = Memory::default();
        let kept = hash(&typed("grüße aus köln"), Cost::OF_TESTS, &mut memory).unwrap();
        let decomposed = typed("gru\u{308}ße aus ko\u{308}ln");
        assert_eq!(compare(&decomposed, Some(&kept), Cost::OF_TESTS, &mut memory), Match::Right);
    }

    #[test]
    fn passwords_that_are_no_good_are_refused_with_the_reason() {
        let chosen = |text: &str| Password::choose(text, "alice.smith").map(|_| ());
        for good in ["correct horse", "12345678901234567890x", "ÄÖÜäöüßé", &"a".repeat(128), &"ä".repeat(64)] {
            assert_eq!(chosen(good), Ok(()), "{good:?}");
        }
        for (text, error) in [
            ("", PasswordError::TooShort),
            ("seven77", PasswordError::TooShort),
            ("äöüäöüä", PasswordError::TooShort),
            (&"a".repeat(129), PasswordError::TooLong),
            (&"ä".repeat(65), PasswordError::TooLong),
            (&"a".repeat(100_000), PasswordError::TooLong),
            ("correct\0horse", PasswordError::Nul),
            ("password", PasswordError::Common),
            ("PassWord", PasswordError::Common),
            ("123456789", PasswordError::Common),
            ("Alice.Smith", PasswordError::Common),
        ] {
            assert_eq!(chosen(text), Err(error), "{text:.20?}");
        }
    }

    #[test]
    fn stored_hash_cannot_ask_for_all_memory() {
        let huge =
            "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(!is_hash(huge));
        assert!(is_hash(&huge.replace("4194304", "65536")), "the positive control");
    }
}
