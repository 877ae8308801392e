//! Requests, handles and tokens of logins.

use crate::login::flow::{LoginFlow, Way};
use crate::login::message::{LoginRequest, MAX_ANSWER, MAX_ANSWERS, MAX_FIELD_NAME, MAX_HANDLE};
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

/// A request that is taken keeps to every bound, and survives being written again.
pub fn login_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<LoginRequest>(data) else { return };
    assert!(request.handle.as_ref().is_none_or(|handle| handle.len() <= MAX_HANDLE));
    assert!(request.answers.len() <= MAX_ANSWERS);
    for (name, answer) in &request.answers {
        assert!(name.len() <= MAX_FIELD_NAME && answer.len() <= MAX_ANSWER);
    }
    let again = serde_json::to_vec(&request).ok().and_then(|json| serde_json::from_slice(&json).ok());
    assert!(again == Some(request));
}
