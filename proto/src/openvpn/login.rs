//! Questions and answers of a login, and what a login comes to.
//!
//! | way | question | answer |
//! | --- | --- | --- |
//! | static | in the profile: `static-challenge` | password `SCRV1:password:code`, both in Base64 |
//! | dynamic | `AUTH_FAILED,CRV1:flags:state:user in Base64:text` | a new connection with the password `CRV1::state::code` |
//! | pending | `AUTH_PENDING,timeout 30` and `INFO_PRE,CR_TEXT:flags:text` | `CR_RESPONSE,code in Base64` |
//! | browser | `AUTH_PENDING,timeout 30` and `INFO_PRE,WEB_AUTH:flags:URL` | none; the browser tells the server |
//!
//! Flags are letters with commas between them: `R` for a question that wants an answer, `E` for one that may be seen
//! while it is typed.

use std::time::Duration;

use data_encoding::BASE64;
use zeroize::Zeroizing;

const STATIC: &str = "SCRV1:";
const DYNAMIC: &str = "CRV1::";

/// What a client sends as its password. It is secret, so it has no `Debug`.
#[derive(PartialEq, Eq)]
pub enum Password {
    /// A password, or a token that was pushed.
    Plain(Zeroizing<String>),
    /// A password, and the answer to the question of the profile.
    Static {
        /// The password.
        password: Zeroizing<String>,
        /// The answer.
        code: Zeroizing<String>,
    },
    /// The answer to a [`Challenge`].
    Dynamic {
        /// What the challenge said.
        state: String,
        /// The answer.
        code: Zeroizing<String>,
    },
}

impl Password {
    /// Reads what stood in the place of the password. What only looks like an answer is a password.
    pub fn parse(text: &str) -> Self {
        let found = Self::parse_static(text).or_else(|| Self::parse_dynamic(text));
        found.unwrap_or_else(|| Self::Plain(Zeroizing::new(text.to_owned())))
    }

    fn parse_static(text: &str) -> Option<Self> {
        let (password, code) = text.strip_prefix(STATIC)?.split_once(':')?;
        Some(Self::Static { password: from_base64(password)?, code: from_base64(code)? })
    }

    fn parse_dynamic(text: &str) -> Option<Self> {
        let (state, code) = text.strip_prefix(DYNAMIC)?.split_once("::")?;
        Some(Self::Dynamic { state: state.to_owned(), code: Zeroizing::new(code.to_owned()) })
    }

    /// What stands in the place of the password.
    pub fn encode(&self) -> Zeroizing<String> {
        match self {
            Self::Plain(password) => password.clone(),
            Self::Static { password, code } => {
                let [password, code] = [password, code].map(|text| Zeroizing::new(BASE64.encode(text.as_bytes())));
                Zeroizing::new(format!("{STATIC}{}:{}", *password, *code))
            }
            Self::Dynamic { state, code } => Zeroizing::new(format!("{DYNAMIC}{state}::{}", **code)),
        }
    }
}

/// How an answer to a question is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags {
    /// Whether an answer is wanted.
    pub wants_answer: bool,
    /// Whether it may be seen while it is typed.
    pub echo: bool,
}

impl Flags {
    fn parse(text: &str) -> Self {
        let has = |flag| text.split(',').any(|found| found == flag);
        Self { wants_answer: has("R"), echo: has("E") }
    }

    fn encode(self) -> String {
        let flags: Vec<&str> = [(self.wants_answer, "R"), (self.echo, "E")]
            .into_iter()
            .filter_map(|(is_set, flag)| is_set.then_some(flag))
            .collect();
        flags.join(",")
    }
}

/// A question that ends a connection; the answer comes with the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// How the answer is typed.
    pub flags: Flags,
    /// By what the server knows the login; it has no colon.
    pub state: String,
    /// The user.
    pub user: String,
    /// The question.
    pub text: String,
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (flags, rest) = text.split_once(':')?;
        let (state, rest) = rest.split_once(':')?;
        let (user, text) = rest.split_once(':')?;
        let user = from_base64(user)?.as_str().to_owned();
        Some(Self { flags: Flags::parse(flags), state: state.to_owned(), user, text: text.to_owned() })
    }

    fn encode(&self) -> String {
        let Self { flags, state, user, text } = self;
        format!("CRV1:{}:{state}:{}:{text}", flags.encode(), BASE64.encode(user.as_bytes()))
    }
}

/// Where a client tries next after a refusal for the time being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advance {
    /// At the same address.
    No,
    /// At the next address of the same name.
    Address,
    /// At the next name.
    Remote,
}

impl Advance {
    const ALL: [Self; 3] = [Self::No, Self::Address, Self::Remote];

    const fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Address => "addr",
            Self::Remote => "remote",
        }
    }
}

/// What stands behind `AUTH_FAILED`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Name, password or certificate are not good. The text, which may be empty, is for the user.
    Final(String),
    /// The login is not possible at the moment.
    Temporary {
        /// How long the client waits; `None` leaves it to the client.
        backoff: Option<Duration>,
        /// Where it tries next; `None` leaves it to the client.
        advance: Option<Advance>,
        /// Text for the user, which may be empty.
        reason: String,
    },
    /// One more question.
    Challenge(Challenge),
    /// The token that took the place of the password has expired. The text, which may be empty, is for the user.
    SessionExpired(String),
}

impl Refusal {
    /// Reads what stands behind `AUTH_FAILED,`. What is malformed is a text for the user.
    pub fn parse(text: &str) -> Self {
        if let Some(challenge) = text.strip_prefix("CRV1:").and_then(Challenge::parse) {
            return Self::Challenge(challenge);
        }
        if let Some(reason) = text.strip_prefix("SESSION").filter(|rest| rest.is_empty() || rest.starts_with(':')) {
            return Self::SessionExpired(reason.trim_start_matches(':').trim_start().to_owned());
        }
        text.strip_prefix("TEMP").and_then(Self::parse_temporary).unwrap_or_else(|| Self::Final(text.to_owned()))
    }

    fn parse_temporary(text: &str) -> Option<Self> {
        let (flags, rest) = match text.strip_prefix('[') {
            Some(text) => text.split_once(']')?,
            None => ("", text),
        };
        let reason = if rest.is_empty() { "" } else { rest.strip_prefix(':')? };
        let value = |key: &str| flags.split(',').find_map(|flag| flag.trim().strip_prefix(key)?.strip_prefix(' '));
        let backoff = value("backoff").and_then(|seconds| seconds.parse().ok().map(Duration::from_secs));
        let advance = value("advance").and_then(|word| Advance::ALL.into_iter().find(|known| known.word() == word));
        Some(Self::Temporary { backoff, advance, reason: reason.to_owned() })
    }

    /// What stands behind `AUTH_FAILED`, with its comma, if anything does.
    pub fn encode(&self) -> String {
        match self {
            Self::Final(reason) if reason.is_empty() => String::new(),
            Self::Final(reason) => format!(",{reason}"),
            Self::Temporary { backoff, advance, reason } => {
                let backoff = backoff.map(|backoff| format!("backoff {}", backoff.as_secs()));
                let advance = advance.map(|advance| format!("advance {}", advance.word()));
                let flags: Vec<String> = backoff.into_iter().chain(advance).collect();
                let flags = if flags.is_empty() { String::new() } else { format!("[{}]", flags.join(",")) };
                let colon = if reason.is_empty() { "" } else { ":" };
                format!(",TEMP{flags}{colon}{reason}")
            }
            Self::Challenge(challenge) => format!(",{}", challenge.encode()),
            Self::SessionExpired(reason) if reason.is_empty() => ",SESSION".to_owned(),
            Self::SessionExpired(reason) => format!(",SESSION:{reason}"),
        }
    }
}

/// A question while a login is pending: what stands behind `INFO_PRE,`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// One to answer with a text.
    Text {
        /// How the answer is typed.
        flags: Flags,
        /// The question.
        text: String,
    },
    /// An address to open in a browser, at which the login goes on. Flags, such as `hidden` and `external`, are as the
    /// server wrote them.
    Browser {
        /// Letters and words with commas between them.
        flags: String,
        /// The address.
        url: String,
    },
    /// A text that only informs.
    Other(String),
}

impl Question {
    /// Reads it.
    pub fn parse(text: &str) -> Self {
        let parts = |text: &str| text.split_once(':').map(|(flags, rest)| (flags.to_owned(), rest.to_owned()));
        if let Some((flags, text)) = text.strip_prefix("CR_TEXT:").and_then(parts) {
            return Self::Text { flags: Flags::parse(&flags), text };
        }
        if let Some((flags, url)) = text.strip_prefix("WEB_AUTH:").and_then(parts) {
            return Self::Browser { flags, url };
        }
        if let Some(url) = text.strip_prefix("OPEN_URL:") {
            return Self::Browser { flags: String::new(), url: url.to_owned() };
        }
        Self::Other(text.to_owned())
    }

    /// The text of it.
    pub fn encode(&self) -> String {
        match self {
            Self::Text { flags, text } => format!("CR_TEXT:{}:{text}", flags.encode()),
            Self::Browser { flags, url } => format!("WEB_AUTH:{flags}:{url}"),
            Self::Other(text) => text.clone(),
        }
    }
}

pub(super) fn from_base64(text: &str) -> Option<Zeroizing<String>> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "[a-zA-Z0-9 ,.?:]{0,20}";
    const WORD: &str = "[a-zA-Z0-9_-]{0,12}";

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn passwords_look_as_openvpn_writes_them() {
        let fixed = Password::Static { password: secret("pw"), code: secret("123456") };
        assert_eq!(fixed.encode().as_str(), "SCRV1:cHc=:MTIzNDU2");
        let dynamic = Password::Dynamic { state: "s1".to_owned(), code: secret("42") };
        assert_eq!(dynamic.encode().as_str(), "CRV1::s1::42");
        for password in [fixed, dynamic] {
            assert!(Password::parse(&password.encode()) == password);
        }
        for plain in ["", "SCRV1:", "SCRV1:!:MQ==", "CRV1::state", "CRV1:x", "scrv1:cHc=:MQ=="] {
            assert!(Password::parse(plain) == Password::Plain(secret(plain)), "{plain}");
        }
    }

    #[test]
    fn challenge_is_that_of_the_manual() {
        let text = "CRV1:R,E:Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l:Y3Ix:Please enter token PIN";
        let challenge = Challenge {
            flags: Flags { wants_answer: true, echo: true },
            state: "Om01u7Fh4LrGBS7uh0SWmzwabUiGiW6l".to_owned(),
            user: "cr1".to_owned(),
            text: "Please enter token PIN".to_owned(),
        };
        assert_eq!(Refusal::parse(text), Refusal::Challenge(challenge.clone()));
        assert_eq!(Refusal::Challenge(challenge).encode(), format!(",{text}"));
    }

    #[test]
    fn refusals_for_the_time_being_say_when_and_where_to_try_again() {
        let temporary = |backoff: Option<u64>, advance, reason: &str| Refusal::Temporary {
            backoff: backoff.map(Duration::from_secs),
            advance,
            reason: reason.to_owned(),
        };
        let cases = [
            ("TEMP", temporary(None, None, "")),
            ("TEMP:later", temporary(None, None, "later")),
            ("TEMP[backoff 2,advance no]:text", temporary(Some(2), Some(Advance::No), "text")),
            ("TEMP[advance addr]", temporary(None, Some(Advance::Address), "")),
            ("TEMP[backoff x,advance where,other 3]:text", temporary(None, None, "text")),
            ("TEMP[backoff 2:text", Refusal::Final("TEMP[backoff 2:text".to_owned())),
            ("TEMPORARY", Refusal::Final("TEMPORARY".to_owned())),
            ("CRV1:R:state", Refusal::Final("CRV1:R:state".to_owned())),
            ("SESSIONS are full", Refusal::Final("SESSIONS are full".to_owned())),
            ("SESSION: Token expired", Refusal::SessionExpired("Token expired".to_owned())),
        ];
        for (text, refusal) in cases {
            assert_eq!(Refusal::parse(text), refusal, "{text}");
        }
    }

    #[test]
    fn questions_of_pending_logins_are_told_apart() {
        let cases = ["CR_TEXT:R,E:Code please", "WEB_AUTH::https://vpn.example/login", "WEB_AUTH:external:https://a/"];
        for text in cases {
            assert_eq!(Question::parse(text).encode(), text);
            assert!(!matches!(Question::parse(text), Question::Other(_)));
        }
        let url = "https://vpn.example/".to_owned();
        let browser = Question::Browser { flags: String::new(), url };
        assert_eq!(Question::parse("OPEN_URL:https://vpn.example/"), browser);
        assert_eq!(Question::parse("CR_TEXT"), Question::Other("CR_TEXT".to_owned()));
    }

    pub(in crate::openvpn) fn refusals() -> impl Strategy<Value = Refusal> {
        let flags = (any::<bool>(), any::<bool>()).prop_map(|(wants_answer, echo)| Flags { wants_answer, echo });
        let challenge = (flags, WORD, "[a-zäß ]{0,9}", TEXT)
            .prop_map(|(flags, state, user, text)| Refusal::Challenge(Challenge { flags, state, user, text }));
        let advance = proptest::option::of(proptest::sample::select(Advance::ALL.to_vec()));
        let temporary = (proptest::option::of(any::<u32>()), advance, TEXT).prop_map(|(backoff, advance, reason)| {
            let backoff = backoff.map(|seconds| Duration::from_secs(seconds.into()));
            Refusal::Temporary { backoff, advance, reason }
        });
        let plain = "[a-z ]{0,20}".prop_map(Refusal::Final);
        let expired = "([a-z][a-z ]{0,20})?".prop_map(Refusal::SessionExpired);
        prop_oneof![challenge, temporary, plain, expired]
    }

    proptest! {
        #[test]
        fn refusals_survive_being_written(refusal in refusals()) {
            let text = refusal.encode();
            prop_assert_eq!(Refusal::parse(text.strip_prefix(',').unwrap_or_default()), refusal);
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,60}", kind in proptest::sample::select(vec!["", "CRV1:", "SCRV1:", "CRV1::", "TEMP[", "WEB_AUTH:", "CR_TEXT:"])) {
            let text = format!("{kind}{text}");
            Refusal::parse(&text);
            Question::parse(&text);
            prop_assert!(Password::parse(&text).encode().as_str() == text);
        }
    }
}
