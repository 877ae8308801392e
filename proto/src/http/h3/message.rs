//! One request or response as read from its stream (RFC 9114 section 4.1).
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Headers
//!     Headers --> Headers: informational response
//!     Headers --> Content: HEADERS
//!     Content --> Content: DATA
//!     Content --> Trailers: HEADERS (not in a tunnel)
//!     Content --> [*]: end of stream
//!     Trailers --> [*]: end of stream
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::field::{self, Field};
use super::error::{Code, Error};
use super::section::Section;
use super::{frame, qpack};
use crate::role::Role;
use crate::varint::element::{Element, ElementReader, Head, Treatment};

/// Largest field section taken, encoded and decoded (counted as in RFC 9114 section 4.2.2); announced in our SETTINGS.
pub const MAX_FIELD_SECTION_SIZE: usize = 16 * 1024;

/// What a message is made of, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageEvent {
    /// The header section of the request or of the final response, checked by [`Section::check`].
    Headers(Vec<Field>),
    /// A piece of the content; pieces do not show how the peer cut its frames.
    Data(Bytes),
    /// The peer's side of the stream ended where it may.
    End,
}

/// Reads one message: requests in a server, responses in a client.
///
/// Informational responses and trailers are checked and dropped. It holds at most one encoded field section and the
/// events of the last [`handle`](Self::handle) that were not polled yet.
#[derive(Debug)]
pub struct MessageDecoder {
    role: Role,
    tunnel: bool,
    elements: ElementReader,
    state: State,
    events: VecDeque<MessageEvent>,
    failed: Option<Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the header section.
    Headers,
    /// After it; `declared` is the `content-length` and `announced` the length of all DATA frames so far.
    Content { declared: Option<u64>, announced: u64 },
    /// After the trailer section.
    Trailers,
}

impl MessageDecoder {
    /// Makes a decoder at the start of a stream; `role` is ours, so a server's decoder reads a request.
    pub fn new(role: Role) -> Self {
        let (elements, events) = (ElementReader::default(), VecDeque::new());
        Self { role, tunnel: false, elements, state: State::Headers, events, failed: None }
    }

    /// Says that the request was CONNECT, so that after a 2xx response only DATA may come (RFC 9114 section 4.4).
    ///
    /// A server's decoder sees the request and needs no telling.
    pub fn expect_tunnel(&mut self) {
        self.tunnel = true;
    }

    /// Takes the next bytes of the stream. Events before the fault can still be polled after an error.
    ///
    /// # Errors
    /// On the connection: H3_FRAME_UNEXPECTED for frames that do not belong here (RFC 9114 sections 4.1, 4.4 and 7.2),
    /// H3_ID_ERROR for a push nobody permitted (section 7.2.5), QPACK_DECOMPRESSION_FAILED. On the stream:
    /// H3_MESSAGE_ERROR for a malformed message (section 4.1.2), H3_EXCESSIVE_LOAD for too large a field section.
    /// Further calls return the same error.
    pub fn handle(&mut self, mut data: &[u8]) -> Result<(), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.read(&mut data).inspect_err(|error| self.failed = Some(*error))
    }

    /// Takes the end of the stream.
    ///
    /// # Errors
    /// H3_FRAME_ERROR on the connection inside a frame (RFC 9114 section 7.1); on the stream H3_REQUEST_INCOMPLETE
    /// before the request's header section (section 4.1), and H3_MESSAGE_ERROR before the response's or if the content
    /// is shorter than `content-length` says (section 4.1.2).
    pub fn handle_fin(&mut self) -> Result<(), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.check_end().inspect_err(|error| self.failed = Some(*error))?;
        self.events.push_back(MessageEvent::End);
        Ok(())
    }

    /// The next part of the message.
    pub fn poll_event(&mut self) -> Option<MessageEvent> {
        self.events.pop_front()
    }

    fn read(&mut self, data: &mut &[u8]) -> Result<(), Error> {
        loop {
            let (role, tunnel, state) = (self.role, self.tunnel, &mut self.state);
            match self.elements.next(data, |head| state.admit(head, role, tunnel))? {
                Some(Element::Whole(_, section)) => self.handle_section(&section)?,
                Some(Element::Piece(piece)) => self.events.push_back(MessageEvent::Data(Bytes::copy_from_slice(piece))),
                None => return Ok(()),
            }
        }
    }

    fn handle_section(&mut self, section: &[u8]) -> Result<(), Error> {
        let fields = qpack::decode(section, MAX_FIELD_SECTION_SIZE)?;
        match (self.state, self.role) {
            (State::Headers, Role::Server) => self.handle_request(fields),
            (State::Headers, Role::Client) => self.handle_response(fields),
            (State::Content { declared, announced }, _) => {
                Section::Trailers.check(&fields)?;
                check_length(declared, announced)?;
                self.state = State::Trailers;
                Ok(())
            }
            (State::Trailers, _) => Err(UNEXPECTED),
        }
    }

    fn handle_request(&mut self, fields: Vec<Field>) -> Result<(), Error> {
        Section::Request.check(&fields)?;
        self.tunnel = field::value(&fields, ":method") == Some("CONNECT");
        self.begin_content(fields)
    }

    /// There is no 101 (Switching Protocols) in HTTP/3 (RFC 9114 section 4.5).
    fn handle_response(&mut self, fields: Vec<Field>) -> Result<(), Error> {
        Section::Response.check(&fields)?;
        match field::status(&fields)? {
            101 => Err(Error::malformed("response 101")),
            100..=199 => Ok(()),
            200..=299 => self.begin_content(fields),
            _ => {
                self.tunnel = false;
                self.begin_content(fields)
            }
        }
    }

    fn begin_content(&mut self, fields: Vec<Field>) -> Result<(), Error> {
        let declared = field::content_length(&fields)?;
        let has_content = !self.tunnel && field::value(&fields, ":status") != Some("304");
        self.state = State::Content { declared: declared.filter(|_| has_content), announced: 0 };
        self.events.push_back(MessageEvent::Headers(fields));
        Ok(())
    }

    fn check_end(&self) -> Result<(), Error> {
        if !self.elements.is_between_elements() {
            return Err(Error::connection(Code::FRAME_ERROR, "stream ends inside a frame"));
        }
        match (self.state, self.role) {
            (State::Headers, Role::Server) => {
                Err(Error::stream(Code::REQUEST_INCOMPLETE, "stream ends before the request"))
            }
            (State::Headers, Role::Client) => Err(Error::malformed("stream ends before the response")),
            (State::Content { declared, announced }, _) => check_length(declared, announced),
            (State::Trailers, _) => Ok(()),
        }
    }
}

const UNEXPECTED: Error = Error::connection(Code::FRAME_UNEXPECTED, "frame that does not belong here");
const WRONG_LENGTH: Error = Error::malformed("content is not as long as content-length says");

impl State {
    /// Decides about the next frame.
    fn admit(&mut self, head: Head, role: Role, tunnel: bool) -> Result<Treatment, Error> {
        frame::refuse_reserved(head.kind)?;
        match head.kind {
            frame::DATA => self.admit_data(head.length),
            frame::HEADERS => self.admit_headers(head.length, tunnel),
            frame::PUSH_PROMISE if role == Role::Client => {
                Err(Error::connection(Code::ID_ERROR, "server push without permission"))
            }
            frame::PUSH_PROMISE | frame::CANCEL_PUSH | frame::SETTINGS | frame::GOAWAY | frame::MAX_PUSH_ID => {
                Err(UNEXPECTED)
            }
            _unknown => Ok(Treatment::Skip),
        }
    }

    fn admit_data(&mut self, length: u64) -> Result<Treatment, Error> {
        match self {
            Self::Headers | Self::Trailers => Err(UNEXPECTED),
            Self::Content { declared, announced } => {
                *announced = announced.saturating_add(length);
                if declared.is_some_and(|declared| *announced > declared) {
                    return Err(WRONG_LENGTH);
                }
                Ok(Treatment::Pieces)
            }
        }
    }

    /// > Once the CONNECT method has completed, only DATA frames are permitted to be sent on the stream. (RFC 9114
    /// > section 4.4)
    fn admit_headers(&self, length: u64, tunnel: bool) -> Result<Treatment, Error> {
        match self {
            Self::Headers => {}
            Self::Content { .. } if !tunnel => {}
            Self::Content { .. } | Self::Trailers => return Err(UNEXPECTED),
        }
        if length > MAX_FIELD_SECTION_SIZE as u64 {
            return Err(Error::stream(Code::EXCESSIVE_LOAD, "field section is too large"));
        }
        Ok(Treatment::Whole)
    }
}

fn check_length(declared: Option<u64>, announced: u64) -> Result<(), Error> {
    if declared.is_some_and(|declared| declared != announced) { Err(WRONG_LENGTH) } else { Ok(()) }
}

/// Encodes a HEADERS frame (RFC 9114 section 7.2.2).
pub fn encode_headers(fields: &[Field]) -> Vec<u8> {
    let mut section = Vec::new();
    qpack::encode(fields, &mut section);
    let mut out = Vec::new();
    frame::encode(frame::HEADERS, &section, &mut out);
    out
}

/// Encodes a DATA frame (RFC 9114 section 7.2.1).
pub fn encode_data(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(frame::DATA, data, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Vec<Field> {
        let mut fields = vec![
            Field::new(":method", "POST"),
            Field::new(":scheme", "https"),
            Field::new(":authority", "a"),
            Field::new(":path", "/"),
        ];
        fields.extend(pairs.iter().map(|(name, value)| Field::new(*name, *value)));
        fields
    }

    fn connect() -> Vec<u8> {
        encode_headers(&[Field::new(":method", "CONNECT"), Field::new(":authority", "a:1")])
    }

    fn status(status: &str) -> Vec<u8> {
        encode_headers(&[Field::new(":status", status)])
    }

    fn raw(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(kind, payload, &mut out);
        out
    }

    /// All events and the outcome of a whole stream.
    fn read(role: Role, stream: &[u8]) -> (Vec<MessageEvent>, Result<(), Error>) {
        let mut decoder = MessageDecoder::new(role);
        let outcome = decoder.handle(stream).and_then(|()| decoder.handle_fin());
        (std::iter::from_fn(|| decoder.poll_event()).collect(), outcome)
    }

    fn connection_code(role: Role, frames: &[Vec<u8>]) -> Code {
        let error = read(role, &frames.concat()).1.unwrap_err();
        assert!(error.ends_connection(), "{error:?}");
        error.code()
    }

    fn stream_code(role: Role, frames: &[Vec<u8>]) -> Code {
        let error = read(role, &frames.concat()).1.unwrap_err();
        assert!(!error.ends_connection(), "{error:?}");
        error.code()
    }

    #[test]
    fn request_with_content_is_read() {
        let headers = request(&[("content-length", "5")]);
        let grease = raw(0x1f * 7 + 0x21, b"ignore me");
        let frames = [
            grease.clone(),
            encode_headers(&headers),
            grease.clone(),
            encode_data(b"he"),
            encode_data(b""),
            encode_data(b"llo"),
            grease,
        ];
        let (events, outcome) = read(Role::Server, &frames.concat());
        assert_eq!(outcome, Ok(()));
        let expected = [
            MessageEvent::Headers(headers),
            MessageEvent::Data(Bytes::from_static(b"he")),
            MessageEvent::Data(Bytes::from_static(b"llo")),
            MessageEvent::End,
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn informational_responses_and_trailers_are_dropped() {
        let trailers = encode_headers(&[Field::new("checksum", "1")]);
        let frames = [status("100"), status("103"), status("200"), encode_data(b"x"), trailers];
        let (events, outcome) = read(Role::Client, &frames.concat());
        assert_eq!(outcome, Ok(()));
        assert_eq!(events.len(), 3);
        assert_eq!(events.first(), Some(&MessageEvent::Headers(vec![Field::new(":status", "200")])));
    }

    #[test]
    fn data_before_headers_is_unexpected() {
        assert_eq!(connection_code(Role::Server, &[encode_data(b"x")]), Code::FRAME_UNEXPECTED);
        assert_eq!(connection_code(Role::Client, &[status("103"), encode_data(b"x")]), Code::FRAME_UNEXPECTED);
    }

    #[test]
    fn frames_after_trailers_are_unexpected() {
        let message = [encode_headers(&request(&[])), encode_data(b"x"), encode_headers(&[Field::new("a", "b")])];
        for frame in [encode_data(b"x"), encode_headers(&[Field::new("a", "b")])] {
            let frames = [message.concat(), frame];
            assert_eq!(connection_code(Role::Server, &frames), Code::FRAME_UNEXPECTED);
        }
    }

    #[test]
    fn frames_of_the_control_stream_are_unexpected() {
        for kind in [frame::SETTINGS, frame::GOAWAY, frame::CANCEL_PUSH, frame::MAX_PUSH_ID] {
            for role in [Role::Server, Role::Client] {
                assert_eq!(connection_code(role, &[raw(kind, &[0])]), Code::FRAME_UNEXPECTED);
            }
        }
    }

    #[test]
    fn http2_frames_are_unexpected() {
        for kind in [0x02, 0x06, 0x08, 0x09] {
            let frames = [encode_headers(&request(&[])), raw(kind, &[])];
            assert_eq!(connection_code(Role::Server, &frames), Code::FRAME_UNEXPECTED);
        }
    }

    #[test]
    fn push_promise_is_never_permitted() {
        assert_eq!(connection_code(Role::Client, &[raw(frame::PUSH_PROMISE, &[0])]), Code::ID_ERROR);
        assert_eq!(connection_code(Role::Server, &[raw(frame::PUSH_PROMISE, &[0])]), Code::FRAME_UNEXPECTED);
    }

    #[test]
    fn only_data_may_follow_in_a_tunnel() {
        let trailers = encode_headers(&[Field::new("a", "b")]);
        assert_eq!(connection_code(Role::Server, &[connect(), trailers.clone()]), Code::FRAME_UNEXPECTED);
        let (events, outcome) = read(Role::Server, &[connect(), raw(0x21, b"grease"), encode_data(b"x")].concat());
        assert_eq!((events.len(), outcome), (3, Ok(())));

        let mut client = MessageDecoder::new(Role::Client);
        client.expect_tunnel();
        client.handle(&status("200")).unwrap();
        assert_eq!(client.handle(&trailers).unwrap_err().code(), Code::FRAME_UNEXPECTED);
        let mut refused = MessageDecoder::new(Role::Client);
        refused.expect_tunnel();
        assert_eq!(refused.handle(&[status("403"), trailers].concat()), Ok(()));
    }

    #[test]
    fn end_inside_a_frame_is_a_frame_error() {
        let whole = [encode_headers(&request(&[])), encode_data(b"hello")].concat();
        let between = [0, whole.len() - 7, whole.len()];
        for end in (1..whole.len()).filter(|end| !between.contains(end)) {
            let error = read(Role::Server, whole.get(..end).unwrap()).1.unwrap_err();
            assert_eq!((error.code(), error.ends_connection()), (Code::FRAME_ERROR, true), "cut at {end}");
        }
    }

    #[test]
    fn end_before_the_headers_is_incomplete() {
        assert_eq!(stream_code(Role::Server, &[]), Code::REQUEST_INCOMPLETE);
        assert_eq!(stream_code(Role::Server, &[raw(0x21, b"x")]), Code::REQUEST_INCOMPLETE);
        assert_eq!(stream_code(Role::Client, &[status("103")]), Code::MESSAGE_ERROR);
    }

    #[test]
    fn content_of_another_length_than_declared_is_malformed() {
        let declared = encode_headers(&request(&[("content-length", "3")]));
        for content in [&b""[..], b"ab", b"abcd"] {
            assert_eq!(stream_code(Role::Server, &[declared.clone(), encode_data(content)]), Code::MESSAGE_ERROR);
        }
        let trailers = encode_headers(&[Field::new("a", "b")]);
        assert_eq!(stream_code(Role::Server, &[declared, encode_data(b"ab"), trailers]), Code::MESSAGE_ERROR);
        assert_eq!(
            stream_code(Role::Server, &[encode_headers(&request(&[("content-length", "x")]))]),
            Code::MESSAGE_ERROR
        );
        let not_modified = encode_headers(&[Field::new(":status", "304"), Field::new("content-length", "9")]);
        assert_eq!(read(Role::Client, &not_modified).1, Ok(()));
    }

    #[test]
    fn malformed_sections_end_the_stream() {
        assert_eq!(stream_code(Role::Server, &[encode_headers(&request(&[("Upper", "1")]))]), Code::MESSAGE_ERROR);
        assert_eq!(
            stream_code(Role::Server, &[encode_headers(&request(&[("connection", "close")]))]),
            Code::MESSAGE_ERROR
        );
        assert_eq!(stream_code(Role::Client, &[encode_headers(&[])]), Code::MESSAGE_ERROR);
        assert_eq!(stream_code(Role::Client, &[status("101")]), Code::MESSAGE_ERROR);
        assert_eq!(stream_code(Role::Client, &[status("2OO")]), Code::MESSAGE_ERROR);
        let pseudo_trailer = encode_headers(&[Field::new(":status", "200")]);
        assert_eq!(stream_code(Role::Client, &[status("200"), pseudo_trailer]), Code::MESSAGE_ERROR);
    }

    #[test]
    fn undecodable_section_closes_the_connection() {
        assert_eq!(
            connection_code(Role::Server, &[raw(frame::HEADERS, &[1, 0, 0xc1])]),
            Code::QPACK_DECOMPRESSION_FAILED
        );
        assert_eq!(connection_code(Role::Server, &[raw(frame::HEADERS, &[])]), Code::QPACK_DECOMPRESSION_FAILED);
    }

    #[test]
    fn too_large_section_ends_the_stream_before_it_is_read() {
        let mut head = Vec::new();
        crate::varint::encode(frame::HEADERS, &mut head);
        crate::varint::encode(MAX_FIELD_SECTION_SIZE as u64 + 1, &mut head);
        let error = MessageDecoder::new(Role::Server).handle(&head).unwrap_err();
        assert_eq!((error.code(), error.ends_connection()), (Code::EXCESSIVE_LOAD, false));
        let mut bomb = vec![0, 0];
        bomb.resize(MAX_FIELD_SECTION_SIZE, 0xc1);
        assert_eq!(stream_code(Role::Server, &[raw(frame::HEADERS, &bomb)]), Code::EXCESSIVE_LOAD);
    }

    #[test]
    fn error_is_repeated() {
        let mut decoder = MessageDecoder::new(Role::Server);
        let error = decoder.handle(&encode_data(b"x")).unwrap_err();
        assert_eq!(decoder.handle(&encode_headers(&request(&[]))), Err(error));
        assert_eq!(decoder.handle_fin(), Err(error));
        assert_eq!(decoder.poll_event(), None);
    }

    /// Joins neighbouring pieces of content.
    fn joined(events: Vec<MessageEvent>) -> Vec<MessageEvent> {
        let mut joined: Vec<MessageEvent> = Vec::new();
        for event in events {
            match (joined.last_mut(), event) {
                (Some(MessageEvent::Data(so_far)), MessageEvent::Data(piece)) => {
                    *so_far = [&so_far[..], &piece].concat().into()
                }
                (_, event) => joined.push(event),
            }
        }
        joined
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => Just(encode_headers(&request(&[("content-length", "6")]))),
            2 => Just(encode_headers(&request(&[]))),
            1 => Just(connect()),
            4 => Just(encode_data(b"abc")),
            1 => Just(encode_headers(&[Field::new("a", "b")])),
            2 => Just(status("200")),
            1 => Just(status("103")),
            2 => (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..8)).prop_map(|(kind, payload)| raw(kind.into(), &payload)),
            1 => proptest::collection::vec(any::<u8>(), 0..8),
        ]
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(frames in proptest::collection::vec(any_frame(), 0..6), cuts in proptest::collection::vec(0_usize..64, 0..6), is_server: bool) {
            let role = if is_server { Role::Server } else { Role::Client };
            let stream = frames.concat();
            let (events, outcome) = read(role, &stream);
            let mut decoder = MessageDecoder::new(role);
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let cut_outcome = pieces.into_iter().try_for_each(|piece| decoder.handle(piece)).and_then(|()| decoder.handle_fin());
            prop_assert_eq!(cut_outcome, outcome);
            prop_assert_eq!(joined(std::iter::from_fn(|| decoder.poll_event()).collect()), joined(events));
        }

        #[test]
        fn arbitrary_bytes_never_panic(stream in proptest::collection::vec(any::<u8>(), 0..256), is_server: bool) {
            let _outcome = read(if is_server { Role::Server } else { Role::Client }, &stream);
        }
    }
}
