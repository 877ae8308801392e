//! What this source asked somebody, as it comes back with the answer. It is sealed: whoever could forge it would be
//! taken for somebody whose password is checked already.

use std::time::Duration;

use adit_program::random::NoRandomness;
use serde::{Deserialize, Serialize};

use crate::core::login::clocks;
use crate::identity::{Sealer, ServiceKey};

/// How long an answer may take; the login itself gives less.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// A question that awaits its answer.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Whose password, or one-time code, was right.
    pub(super) user: String,
    /// The user's generation then.
    pub(super) generation: u64,
    /// The hash of the one-time code that lets them choose a password; `None` where a code of the app was asked for.
    pub(super) link: Option<[u8; 32]>,
    /// When, in seconds since the boot: the clock may be set before the answer comes.
    at: u64,
}

/// Seals questions, and opens them again.
pub(super) struct Asking(Sealer);

impl Asked {
    pub(super) fn code(user: &str, generation: u64) -> Self {
        Self { user: user.to_owned(), generation, link: None, at: clocks::now().since_boot }
    }

    pub(super) fn new_password(user: &str, generation: u64, link: [u8; 32]) -> Self {
        Self { link: Some(link), ..Self::code(user, generation) }
    }
}

impl Asking {
    pub(super) fn new(key: &ServiceKey) -> Self {
        Self(key.sealer("questions of the local source"))
    }

    pub(super) fn seal(&self, asked: &Asked) -> Result<Vec<u8>, NoRandomness> {
        let text = serde_json::to_vec(asked).expect("names and numbers are JSON");
        self.0.seal(&text, b"")
    }

    /// `None` when it is none of ours, or too old.
    pub(super) fn open(&self, state: &[u8]) -> Option<Asked> {
        self.open_at(state, clocks::now().since_boot)
    }

    fn open_at(&self, state: &[u8], since_boot: u64) -> Option<Asked> {
        let asked: Asked = serde_json::from_slice(&self.0.open(state, b"")?).ok()?;
        let age = since_boot.checked_sub(asked.at)?;
        (age < PATIENCE.as_secs()).then_some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directories::StateDir;

    #[test]
    fn question_comes_back_whole_in_time_and_from_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let asking = Asking::new(&ServiceKey::load_or_create(&StateDir::new(directory.path())).unwrap());
        let mut asked = Asked::new_password("alice", 3, [7; 32]);
        let state = asking.seal(&asked).unwrap();
        assert!(state.len() <= adit_proto::login::MAX_STATE);
        let back = asking.open(&state).unwrap();
        assert_eq!((back.user.as_str(), back.generation, back.link), ("alice", 3, Some([7; 32])));
        assert!(asking.open(&serde_json::to_vec(&asked).unwrap()).is_none(), "it is not sealed");
        assert!(asking.open(&state[1..]).is_none() && asking.open(b"").is_none());
        asked.at = 1000;
        let state = asking.seal(&asked).unwrap();
        assert!(asking.open_at(&state, 1000 + PATIENCE.as_secs() - 1).is_some());
        assert!(asking.open_at(&state, 1000 + PATIENCE.as_secs()).is_none(), "too late");
        assert!(asking.open_at(&state, 999).is_none(), "of another boot");
    }
}
