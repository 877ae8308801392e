//! What is kept between a question of a server and its answer.

use std::net::SocketAddr;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// Most questions in one login.
pub(super) const MOST_ROUNDS: u8 = 16;

/// A question that a server asked: to which, about whom, and what it wants back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Challenge {
    /// The server that asked; no other knows what its state means.
    pub(super) server: SocketAddr,
    /// The name as it was typed.
    pub(super) name: String,
    /// State of the server, base64; a server may do without.
    state: Option<String>,
    /// Questions so far, this one included.
    pub(super) round: u8,
}

impl Challenge {
    pub(super) fn new(server: SocketAddr, name: &str, state: Option<&[u8]>, round: u8) -> Self {
        Self { server, name: name.to_owned(), state: state.map(|state| BASE64.encode(state)), round }
    }

    /// State of the server, as it came.
    pub(super) fn state(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.state.as_ref()?.as_bytes()).ok()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can be written as JSON")
    }

    /// Reads what [`Challenge::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::login::MAX_STATE;
    use adit_proto::radius::attribute::MAX_VALUE;

    use super::*;

    #[test]
    fn longest_challenge_survives_and_fits_where_it_is_kept() {
        let server = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap();
        let challenge = Challenge::new(server, &"ü".repeat(MAX_VALUE / 2), Some(&[0xff; MAX_VALUE]), MOST_ROUNDS);
        let encoded = challenge.encode();
        assert!(encoded.len() <= MAX_STATE, "{}", encoded.len());
        assert_eq!(Challenge::decode(&encoded), Some(challenge.clone()));
        assert_eq!(challenge.state(), Some(vec![0xff; MAX_VALUE]));
        assert_eq!(Challenge::new(server, "bob", None, 1).state(), None);
        assert_eq!(Challenge::decode(&encoded[1..]), None);
    }
}
