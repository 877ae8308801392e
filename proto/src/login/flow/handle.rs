//! A flow that waits for its client, as bytes: to be sealed into a handle, which the client sends back.
//!
//! ```text
//! version (1) | state (1) | rounds (1) | deadline (8, ms) | name: text | of the state
//! 0 start     nothing more
//! 1 asked     source (1) | state: bytes | text: text | kind (1) | echo (1) | choices (1) | each choice: text
//! 2 linked    source (1) | state: bytes | not before (8, ms) | returns (1)
//! ```

use std::time::Duration;

use super::super::encoding::{Reader, Writer};
use super::super::{Kind, MAX_STATE, Question};
use super::{LoginFlow, State, Way};

/// The first byte of a handle.
const VERSION: u8 = 1;

impl LoginFlow {
    /// The flow as bytes, at most 6 KiB; `None` unless it waits for the client. A password is never in them.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        let number = match self.state {
            State::Start => 0,
            State::Asked { .. } => 1,
            State::Linked { .. } => 2,
            State::Busy(_) | State::Over => return None,
        };
        writer.byte(VERSION).byte(number).byte(self.rounds).number(millis(self.deadline)).bytes(self.name.as_bytes());
        match &self.state {
            State::Asked { source, question, state } => {
                writer.byte(u8::try_from(*source).ok()?).bytes(state);
                encode_question(&mut writer, question);
            }
            State::Linked { source, state, returns, not_before } => {
                writer
                    .byte(u8::try_from(*source).ok()?)
                    .bytes(state)
                    .number(millis(*not_before))
                    .byte((*returns).into());
            }
            State::Start | State::Busy(_) | State::Over => {}
        }
        Some(writer.finish())
    }

    /// The flow that bytes stand for, over the same chain; `None` where they stand for none.
    pub fn decode(bytes: &[u8], ways: Vec<Way>, away: Option<String>) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.byte()? != VERSION {
            return None;
        }
        let (number, rounds) = (reader.byte()?, reader.byte()?);
        let (deadline, name) = (Duration::from_millis(reader.number()?), reader.text()?);
        let state = match number {
            0 => State::Start,
            1 => {
                let (source, state) = (source(&mut reader, &ways)?, state(&mut reader)?);
                State::Asked { source, state, question: decode_question(&mut reader)? }
            }
            2 => {
                let (source, state) = (source(&mut reader, &ways)?, state(&mut reader)?);
                let not_before = Duration::from_millis(reader.number()?);
                State::Linked { source, state, returns: reader.byte()? != 0, not_before }
            }
            _ => return None,
        };
        reader.end()?;
        Some(Self { ways, state, deadline, rounds, name, away, command: None, step: None, failure: None })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The place of a source that the chain has.
fn source(reader: &mut Reader<'_>, ways: &[Way]) -> Option<usize> {
    let place = usize::from(reader.byte()?);
    (place < ways.len()).then_some(place)
}

fn state(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    reader.bytes().filter(|state| state.len() <= MAX_STATE).map(<[u8]>::to_vec)
}

fn encode_question(writer: &mut Writer, question: &Question) {
    let (kind, choices) = match &question.kind {
        Kind::User => (0, &[][..]),
        Kind::Password => (1, &[][..]),
        Kind::Code => (2, &[][..]),
        Kind::NewPassword => (3, &[][..]),
        Kind::Choice(choices) => (4, choices.as_slice()),
        Kind::Text => (5, &[][..]),
    };
    writer.bytes(question.text.as_bytes()).byte(kind).byte(question.echo.into());
    writer.byte(u8::try_from(choices.len()).unwrap_or(u8::MAX));
    for choice in choices {
        writer.bytes(choice.as_bytes());
    }
}

fn decode_question(reader: &mut Reader<'_>) -> Option<Question> {
    let (text, kind, echo) = (reader.text()?, reader.byte()?, reader.byte()? != 0);
    let choices = (0..reader.byte()?).map(|_| reader.text()).collect::<Option<Vec<_>>>()?;
    let kind = match kind {
        0 => Kind::User,
        1 => Kind::Password,
        2 => Kind::Code,
        3 => Kind::NewPassword,
        4 => Kind::Choice(choices),
        5 => Kind::Text,
        _ => return None,
    };
    Some(Question { text, kind, echo })
}
