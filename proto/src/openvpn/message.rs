//! What is said in the control channel once the key method messages went both ways: words, each ending in a NUL.
//!
//! A message is a TLS record of its own when openvpn sends it, so what is written here should be given to TLS in one
//! piece.

use std::time::Duration;

use zeroize::Zeroizing;

use super::login::{Question, Refusal, from_base64};

/// Longest message that openvpn takes, in bytes, without its NUL. A longer one is lost there in silence.
pub const LONGEST_SENT: usize = 2044;

/// Longest message that is taken, in bytes, without its NUL.
pub const LONGEST_TAKEN: usize = 8 * 1024;

/// How long a pending login may last, unless its server says otherwise.
const PENDING: Duration = Duration::from_secs(60);

/// What comes is no message, and the session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too much came without an end.
    #[error("control message without an end")]
    TooLong,
    /// It is not UTF-8, or has control characters.
    #[error("control message with characters that no message has")]
    Characters,
}

/// Takes the message that `received` begins with, without its NUL; `None` if it is not whole yet. What follows it is
/// returned, too. Ends of lines at its end are passed over, as openvpn does.
///
/// # Errors
/// If it is none.
pub fn take(received: &[u8]) -> Result<Option<(&str, &[u8])>, Malformed> {
    let Some(end) = received.iter().position(|byte| *byte == 0) else {
        return if received.len() > LONGEST_TAKEN { Err(Malformed::TooLong) } else { Ok(None) };
    };
    if end > LONGEST_TAKEN {
        return Err(Malformed::TooLong);
    }
    let (text, rest) = received.split_at_checked(end).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| Malformed::Characters)?.trim_end_matches(['\r', '\n']);
    if text.chars().any(char::is_control) {
        return Err(Malformed::Characters);
    }
    Ok(Some((text, rest.get(1..).unwrap_or_default())))
}

/// The bytes of a message.
pub fn put(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer {
    /// Settings of the session, for [`super::push`].
    PushReply(String),
    /// Changes of the settings, for clients that said [`super::peer_info::Abilities::PUSH_UPDATE`].
    PushUpdate(String),
    /// The login has failed.
    AuthFailed(Refusal),
    /// The login goes on for that long.
    AuthPending(Duration),
    /// What is asked while the login goes on.
    Question(Question),
    /// Something for the user to read.
    Info(String),
    /// The client is to connect anew. The text, which may be empty, begins with flags in brackets.
    Restart(String),
    /// The client is to end. The text may be empty.
    Halt(String),
    /// The server ends.
    Exit,
    /// Something that is not known here, and passed over.
    Unknown(String),
}

impl FromServer {
    /// Reads it.
    pub fn parse(text: &str) -> Self {
        let (word, rest) = text.split_once(',').unwrap_or((text, ""));
        match word {
            "PUSH_REPLY" => Self::PushReply(rest.to_owned()),
            "PUSH_UPDATE" => Self::PushUpdate(rest.to_owned()),
            "AUTH_FAILED" => Self::AuthFailed(Refusal::parse(rest)),
            "AUTH_PENDING" => Self::AuthPending(pending(rest)),
            "INFO_PRE" => Self::Question(Question::parse(rest)),
            "INFO" => Self::Info(rest.to_owned()),
            "RESTART" => Self::Restart(rest.to_owned()),
            "HALT" => Self::Halt(rest.to_owned()),
            "EXIT" => Self::Exit,
            _ => Self::Unknown(text.to_owned()),
        }
    }

    /// The message without its NUL.
    pub fn encode(&self) -> String {
        let with = |word: &str, rest: &str| if rest.is_empty() { word.to_owned() } else { format!("{word},{rest}") };
        match self {
            Self::PushReply(options) => with("PUSH_REPLY", options),
            Self::PushUpdate(options) => with("PUSH_UPDATE", options),
            Self::AuthFailed(refusal) => format!("AUTH_FAILED{}", refusal.encode()),
            Self::AuthPending(time) => format!("AUTH_PENDING,timeout {}", time.as_secs()),
            Self::Question(question) => format!("INFO_PRE,{}", question.encode()),
            Self::Info(text) => format!("INFO,{text}"),
            Self::Restart(text) => with("RESTART", text),
            Self::Halt(text) => with("HALT", text),
            Self::Exit => "EXIT".to_owned(),
            Self::Unknown(text) => text.clone(),
        }
    }
}

fn pending(words: &str) -> Duration {
    let timeout = words.split(',').find_map(|word| word.trim().strip_prefix("timeout ")?.trim().parse().ok());
    timeout.map_or(PENDING, |seconds: u32| Duration::from_secs(seconds.into()))
}

/// What a client says. An answer is secret, so there is no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum FromClient {
    /// It wants its settings.
    PushRequest,
    /// The answer to a question while the login goes on.
    Answer(Zeroizing<String>),
    /// It leaves.
    Exit,
    /// Something that is not known here, and passed over.
    Unknown(String),
}

impl FromClient {
    /// Reads it.
    pub fn parse(text: &str) -> Self {
        let answer = || text.strip_prefix("CR_RESPONSE,").and_then(from_base64);
        match text {
            "PUSH_REQUEST" => Self::PushRequest,
            "EXIT" => Self::Exit,
            _ => answer().map_or_else(|| Self::Unknown(text.to_owned()), Self::Answer),
        }
    }

    /// The message without its NUL.
    pub fn encode(&self) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::PushRequest => "PUSH_REQUEST".to_owned(),
            Self::Answer(answer) => format!("CR_RESPONSE,{}", data_encoding::BASE64.encode(answer.as_bytes())),
            Self::Exit => "EXIT".to_owned(),
            Self::Unknown(text) => text.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::openvpn::login::tests::refusals;

    #[test]
    fn messages_end_in_a_nul() {
        let bytes = [put("PUSH_REQUEST"), put("EXIT\r\n"), b"EX".to_vec()].concat();
        let (first, rest) = take(&bytes).unwrap().unwrap();
        let (second, rest) = take(rest).unwrap().unwrap();
        assert_eq!((first, second, rest), ("PUSH_REQUEST", "EXIT", &b"EX"[..]));
        assert_eq!(take(rest), Ok(None));
        assert_eq!(take(b""), Ok(None));
    }

    #[test]
    fn what_is_no_message_ends_the_session() {
        assert_eq!(take(b"EX\nIT\0"), Err(Malformed::Characters));
        assert_eq!(take(b"EX\x1bIT\0"), Err(Malformed::Characters));
        assert_eq!(take(b"EX\xffIT\0"), Err(Malformed::Characters));
        let long = vec![b'a'; LONGEST_TAKEN + 1];
        assert_eq!(take(&long), Err(Malformed::TooLong));
        assert_eq!(take(&[&long[..], &[0]].concat()), Err(Malformed::TooLong));
        assert_eq!(take(&long[1..]), Ok(None), "its end may still come");
        assert!(take(&[&long[1..], &[0]].concat()).is_ok_and(|found| found.is_some()));
    }

    #[test]
    fn servers_words_are_known() {
        let cases = [
            ("AUTH_FAILED", FromServer::AuthFailed(Refusal::Final(String::new()))),
            ("AUTH_PENDING,timeout 30", FromServer::AuthPending(Duration::from_secs(30))),
            ("AUTH_PENDING", FromServer::AuthPending(PENDING)),
            ("AUTH_PENDING,timeout x", FromServer::AuthPending(PENDING)),
            ("PUSH_REPLY", FromServer::PushReply(String::new())),
            ("PUSH_UPDATE,route 10.0.0.0", FromServer::PushUpdate("route 10.0.0.0".to_owned())),
            ("RESTART,[N]back soon", FromServer::Restart("[N]back soon".to_owned())),
            ("HALT", FromServer::Halt(String::new())),
            ("INFO,hello", FromServer::Info("hello".to_owned())),
            ("INFO_PRE,text", FromServer::Question(Question::Other("text".to_owned()))),
            ("EXIT", FromServer::Exit),
            ("EXITING", FromServer::Unknown("EXITING".to_owned())),
        ];
        for (text, message) in cases {
            assert_eq!(FromServer::parse(text), message, "{text}");
        }
    }

    #[test]
    fn clients_words_are_known() {
        assert!(FromClient::parse("PUSH_REQUEST") == FromClient::PushRequest);
        assert!(FromClient::parse("EXIT") == FromClient::Exit);
        assert!(FromClient::parse("CR_RESPONSE,MTIz") == FromClient::Answer(Zeroizing::new("123".to_owned())));
        for strange in ["CR_RESPONSE,!", "CR_RESPONSE", "push_request", ""] {
            assert!(FromClient::parse(strange) == FromClient::Unknown(strange.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn messages_survive_being_written(refusal in refusals(), text in "[a-zA-Z0-9 ,.:-]{1,30}", seconds in any::<u32>()) {
            let messages = [
                FromServer::AuthFailed(refusal),
                FromServer::AuthPending(Duration::from_secs(seconds.into())),
                FromServer::Info(text.clone()),
                FromServer::Restart(text.clone()),
                FromServer::PushReply(text.clone()),
                FromServer::PushUpdate(text.clone()),
            ];
            for message in messages {
                prop_assert_eq!(FromServer::parse(&message.encode()), message);
            }
            let answer = FromClient::Answer(Zeroizing::new(text));
            prop_assert!(FromClient::parse(&answer.encode()) == answer);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(Some((text, rest))) = take(&bytes) {
                prop_assert!(text.len() + rest.len() < bytes.len());
                FromServer::parse(text);
                FromClient::parse(text);
            }
        }
    }
}
