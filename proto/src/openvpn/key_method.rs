//! The first message in TLS, each way: "key method 2". The server's answer ends the client's login, for good or not.
//!
//! ```text
//! zeros (4)  2 (1)  random (48 of the client's, then 64 of either)
//! options  user  password  peer info    each: length with the NUL (2)  bytes  NUL; an empty one may be the length 0
//! ```
//!
//! The random bytes made keys before 2.6; keys now come from the TLS exporter, and the bytes are there for form. The
//! options describe how an end is configured and are compared by nobody. Peer info is read by [`super::peer_info`].

use zeroize::Zeroizing;

/// Longest message that is taken, in bytes.
pub const MAX_LEN: usize = 16 * 1024;

/// Random bytes of a client's message.
pub const CLIENT_RANDOM_LEN: usize = 112;

/// Random bytes of a server's message.
pub const SERVER_RANDOM_LEN: usize = 64;

/// Most bytes of the options and of a name.
const MAX_TEXT: usize = 1024;
/// Most bytes of a password: it may be a token.
const MAX_PASSWORD: usize = 4096;
/// Most bytes of peer info.
const MAX_PEER_INFO: usize = 8 * 1024;

/// Zeros, and the number of the key method.
const FRONT: [u8; 5] = [0, 0, 0, 0, 2];

/// A message breaks its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed key method message")]
pub struct Malformed;

/// What a client says. It holds a password, so it has no `Debug`.
#[derive(PartialEq, Eq)]
pub struct FromClient {
    /// How it says that it is configured.
    pub options: String,
    /// The user; empty if the client logs in by its certificate alone.
    pub user: String,
    /// The password, or what takes its place ([`super::login::Password`]).
    pub password: Zeroizing<String>,
    /// What it is and can do.
    pub peer_info: String,
}

impl FromClient {
    /// The message. Texts that are too long to be read again are cut off, which no caller's bounds permit.
    pub fn encode(&self, random: &[u8; CLIENT_RANDOM_LEN]) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new([&FRONT[..], random].concat());
        for text in [&self.options, &self.user, &*self.password, &self.peer_info] {
            put_text(&mut out, text);
        }
        out
    }

    /// Takes the message that `received` begins with; `None` if it is not whole yet. What follows it is returned, too.
    ///
    /// # Errors
    /// If it cannot become one: more than [`MAX_LEN`] bytes need not be waited for.
    pub fn take(received: &[u8]) -> Result<Option<(Self, &[u8])>, Malformed> {
        take(received, CLIENT_RANDOM_LEN).map(|found| {
            found.map(|([options, user, password, peer_info], rest)| {
                let password = Zeroizing::new(password.to_owned());
                let [options, user, peer_info] = [options, user, peer_info].map(str::to_owned);
                (Self { options, user, password, peer_info }, rest)
            })
        })
    }
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromServer {
    /// How it says that it is configured.
    pub options: String,
}

impl FromServer {
    /// The message.
    pub fn encode(&self, random: &[u8; SERVER_RANDOM_LEN]) -> Vec<u8> {
        let mut out = [&FRONT[..], random].concat();
        for text in [self.options.as_str(), "", "", ""] {
            put_text(&mut out, text);
        }
        out
    }

    /// Takes the message that `received` begins with; `None` if it is not whole yet. What follows it is returned, too.
    ///
    /// # Errors
    /// If it cannot become one.
    pub fn take(received: &[u8]) -> Result<Option<(Self, &[u8])>, Malformed> {
        let found = take(received, SERVER_RANDOM_LEN)?;
        Ok(found.map(|([options, ..], rest)| (Self { options: options.to_owned() }, rest)))
    }
}

type Texts<'a> = ([&'a str; 4], &'a [u8]);

fn take(received: &[u8], random: usize) -> Result<Option<Texts<'_>>, Malformed> {
    let front = received.get(..FRONT.len().min(received.len())).unwrap_or_default();
    if !FRONT.starts_with(front) {
        return Err(Malformed);
    }
    let Some((_, mut rest)) = received.split_at_checked(FRONT.len().saturating_add(random)) else { return Ok(None) };
    let mut texts = [""; 4];
    for (text, longest) in texts.iter_mut().zip([MAX_TEXT, MAX_TEXT, MAX_PASSWORD, MAX_PEER_INFO]) {
        let Some((found, after)) = take_text(rest, longest)? else { return Ok(None) };
        (*text, rest) = (found, after);
    }
    Ok(Some((texts, rest)))
}

fn take_text(bytes: &[u8], longest: usize) -> Result<Option<(&str, &[u8])>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > longest {
        return Err(Malformed);
    }
    let Some((text, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    let text = match text.split_last() {
        None => text,
        Some((0, text)) if !text.contains(&0) => text,
        Some(_) => return Err(Malformed),
    };
    Ok(Some((std::str::from_utf8(text).map_err(|_| Malformed)?, rest)))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes().get(..MAX_PEER_INFO.saturating_sub(1)).unwrap_or(text.as_bytes());
    let length = if text.is_empty() { 0 } else { text.len().saturating_add(1) };
    out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text);
    out.extend((length > 0).then_some(0));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client() -> FromClient {
        FromClient {
            options: "V4,dev-type tun".to_owned(),
            user: "ada".to_owned(),
            password: Zeroizing::new("secret".to_owned()),
            peer_info: "IV_VER=2.6.14\n".to_owned(),
        }
    }

    fn take_client(bytes: &[u8]) -> Result<Option<FromClient>, Malformed> {
        FromClient::take(bytes).map(|found| found.map(|(message, _)| message))
    }

    #[test]
    fn client_says_what_openvpn_says() {
        let message = client().encode(&[7; CLIENT_RANDOM_LEN]);
        let (front, texts) = message.split_at(5 + CLIENT_RANDOM_LEN);
        assert_eq!((&front[..5], &front[5..]), (&FRONT[..], &[7; CLIENT_RANDOM_LEN][..]));
        assert_eq!(texts, b"\0\x10V4,dev-type tun\0\0\x04ada\0\0\x07secret\0\0\x0fIV_VER=2.6.14\n\0");
    }

    #[test]
    fn server_says_its_options_and_three_empty_texts() {
        let message = FromServer { options: "V4".to_owned() }.encode(&[7; SERVER_RANDOM_LEN]);
        assert_eq!(message[5 + SERVER_RANDOM_LEN..], *b"\0\x03V4\0\0\0\0\0\0\0");
    }

    #[test]
    fn message_is_waited_for_until_it_is_whole() {
        let message = client().encode(&[7; CLIENT_RANDOM_LEN]);
        for len in 0..message.len() {
            assert!(take_client(&message[..len]).is_ok_and(|found| found.is_none()), "{len} bytes");
        }
        let more = [&message[..], b"PUSH_REQUEST\0"].concat();
        let (found, rest) = FromClient::take(&more).unwrap().unwrap();
        assert!(found == client() && rest == b"PUSH_REQUEST\0");
    }

    #[test]
    fn malformed_messages_are_refused() {
        let front = [&FRONT[..], &[7; CLIENT_RANDOM_LEN]].concat();
        let with = |texts: &[u8]| take_client(&[&front[..], texts].concat()).is_err();
        assert!(with(b"\0\x03abc"), "no NUL at the end");
        assert!(with(b"\0\x04a\0b\0"), "a NUL within");
        assert!(with(b"\0\x03\xff\xfe\0"), "no UTF-8");
        assert!(with(b"\x04\x01"), "longer than options may be");
        assert!(!with(b"\0\x01\0\0\0\0\0\0\0"), "an empty text may have its NUL");
        assert!(take_client(&[0, 0, 0, 0, 1]).is_err(), "key method 1");
        assert!(take_client(&[1]).is_err());
    }

    proptest! {
        #[test]
        fn messages_survive_being_written(options in "[^\0]{0,60}", user in "[^\0]{0,60}", password in "[^\0]{0,60}", peer_info in "[^\0]{0,60}") {
            let message = FromClient { options: options.clone(), user, password: Zeroizing::new(password), peer_info };
            prop_assert!(take_client(&message.encode(&[1; CLIENT_RANDOM_LEN])).unwrap().unwrap() == message);
            let message = FromServer { options };
            let encoded = message.encode(&[1; SERVER_RANDOM_LEN]);
            prop_assert_eq!(FromServer::take(&encoded), Ok(Some((message, &[][..]))));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&FRONT[..], &bytes].concat();
            prop_assert!(take_client(&bytes).is_ok_and(|found| found.is_none()) || bytes.len() > CLIENT_RANDOM_LEN);
            prop_assert!(FromServer::take(&bytes).is_ok_and(|found| found.is_none()) || bytes.len() > SERVER_RANDOM_LEN);
        }
    }
}
