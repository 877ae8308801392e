//! Handles and tokens of logins.

use crate::login::flow::{LoginFlow, Way};
use crate::login::token::SessionToken;

/// A handle that is taken stands for the same flow when it is written again.
pub fn login_handle(data: &[u8]) {
    let decode = |bytes: &[u8]| LoginFlow::decode(bytes, vec![Way::Password, Way::Browser], None);
    let Some(encoded) = decode(data).and_then(|flow| flow.encode()) else { return };
    assert_eq!(decode(&encoded).and_then(|flow| flow.encode()), Some(encoded));
}

/// No text disturbs the decoder of tokens.
pub fn login_token(data: &[u8]) {
    let Some(token) = SessionToken::decode(data) else { return };
    assert!(token.user.len() <= data.len());
}
