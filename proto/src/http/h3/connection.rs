//! What concerns a whole HTTP/3 connection: control streams, SETTINGS, and the peer's other unidirectional streams (RFC
//! 9114 sections 6.2 and 7.2).

use std::collections::BTreeMap;

use super::error::{Code, Error};
use super::frame;
use super::message::MAX_FIELD_SECTION_SIZE;
use super::qpack::{self, DecoderStream};
use super::settings::Settings;
use crate::role::Role;
use crate::varint;
use crate::varint::element::{Element, ElementReader, Head, Treatment};

/// Stream type of the control stream (RFC 9114 section 6.2.1).
const CONTROL_STREAM: u64 = 0x00;
/// Stream type of a server push (RFC 9114 section 6.2.2).
const PUSH_STREAM: u64 = 0x01;
/// Stream type of the QPACK encoder stream (RFC 9204 section 4.2).
const ENCODER_STREAM: u64 = 0x02;
/// Stream type of the QPACK decoder stream (RFC 9204 section 4.2).
const DECODER_STREAM: u64 = 0x03;

/// Longest payload taken on the control stream; our peers' SETTINGS have some dozens of bytes.
const MAX_CONTROL_FRAME_LEN: u64 = 4096;

/// Unidirectional streams that may be open at once; three are needed.
const MAX_OPEN_STREAMS: usize = 128;

/// What to do with a unidirectional stream after its data was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UniAction {
    /// Go on reading it.
    Continue,
    /// Its type is unknown: send STOP_SENDING and hand over nothing more of it (RFC 9114 section 6.2).
    Discard,
}

/// The connection-wide part of HTTP/3.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    datagrams_supported: bool,
    streams: BTreeMap<u64, UniStream>,
    critical: Critical,
    peer_settings: Option<Settings>,
    goaway: Option<u64>,
    max_push_id: Option<u64>,
}

/// Which of the peer's critical streams have been opened.
#[derive(Debug, Default)]
struct Critical {
    control: bool,
    encoder: bool,
    decoder: bool,
}

#[derive(Debug)]
enum UniStream {
    /// The bytes of its type so far.
    Untyped(Vec<u8>),
    Control(ElementReader),
    Encoder,
    Decoder(DecoderStream),
}

impl Connection {
    /// Makes the state of a new connection; `role` is ours.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            datagrams_supported: false,
            streams: BTreeMap::new(),
            critical: Critical::default(),
            peer_settings: None,
            goaway: None,
            max_push_id: None,
        }
    }

    /// Says whether the peer's transport parameters allow QUIC DATAGRAM frames (RFC 9221 section 3). Call it after the
    /// handshake and before the first [`handle_uni`](Self::handle_uni); otherwise it is taken as no.
    pub fn set_datagrams_supported(&mut self, supported: bool) {
        self.datagrams_supported = supported;
    }

    /// The first bytes of our control stream, which must stay open: its type and our SETTINGS.
    pub fn control_stream(&self) -> Vec<u8> {
        let settings = Settings {
            max_field_section_size: Some(MAX_FIELD_SECTION_SIZE as u64),
            connect_protocol: self.role == Role::Server,
            datagrams: true,
            ..Settings::default()
        };
        let mut payload = Vec::new();
        settings.encode(&mut payload);
        let mut out = Vec::new();
        varint::encode(CONTROL_STREAM, &mut out);
        frame::encode(frame::SETTINGS, &payload, &mut out);
        out
    }

    /// The peer's SETTINGS, once they came.
    pub fn peer_settings(&self) -> Option<&Settings> {
        self.peer_settings.as_ref()
    }

    /// The ID of the peer's newest GOAWAY (RFC 9114 section 5.2): from a server, the first request stream it does not
    /// take.
    pub(crate) fn goaway(&self) -> Option<u64> {
        self.goaway
    }

    /// Takes data, and perhaps the end, of a unidirectional stream the peer opened; `stream` is any number that names
    /// it.
    ///
    /// # Errors
    /// All close the connection: H3_STREAM_CREATION_ERROR for a second critical stream or a client's push (RFC 9114
    /// section 6.2), H3_CLOSED_CRITICAL_STREAM, H3_MISSING_SETTINGS, H3_SETTINGS_ERROR, H3_FRAME_UNEXPECTED,
    /// H3_FRAME_ERROR, H3_ID_ERROR (section 7.2), H3_EXCESSIVE_LOAD, and the stream errors of QPACK (RFC 9204 section
    /// 6).
    pub fn handle_uni(&mut self, stream: u64, mut data: &[u8], fin: bool) -> Result<UniAction, Error> {
        let mut state = match self.streams.remove(&stream) {
            Some(UniStream::Untyped(collected)) => match self.read_type(collected, &mut data)? {
                Typing::Done(state) => state,
                Typing::Unknown => return Ok(UniAction::Discard),
            },
            Some(state) => state,
            None if self.streams.len() >= MAX_OPEN_STREAMS => {
                return Err(Error::connection(Code::EXCESSIVE_LOAD, "too many unidirectional streams"));
            }
            None => match self.read_type(Vec::new(), &mut data)? {
                Typing::Done(state) => state,
                Typing::Unknown => return Ok(UniAction::Discard),
            },
        };
        self.handle_stream(&mut state, data)?;
        if !fin {
            self.streams.insert(stream, state);
            return Ok(UniAction::Continue);
        }
        state.close()
    }

    /// Takes a reset of a unidirectional stream the peer opened.
    ///
    /// # Errors
    /// Closes the connection with H3_CLOSED_CRITICAL_STREAM if it is the control stream or one of QPACK's.
    pub fn handle_uni_reset(&mut self, stream: u64) -> Result<(), Error> {
        match self.streams.remove(&stream) {
            Some(state) => state.close().map(|_| ()),
            None => Ok(()),
        }
    }

    fn read_type(&mut self, mut collected: Vec<u8>, data: &mut &[u8]) -> Result<Typing, Error> {
        while let Some((&byte, rest)) = data.split_first() {
            *data = rest;
            collected.push(byte);
            if let Some((kind, _)) = varint::decode(&collected) {
                return self.open(kind);
            }
        }
        Ok(Typing::Done(UniStream::Untyped(collected)))
    }

    /// > Only one control stream per peer is permitted; receipt of a second stream claiming to be a control stream MUST
    /// > be treated as a connection error of type H3_STREAM_CREATION_ERROR. (RFC 9114 section 6.2.1)
    fn open(&mut self, kind: u64) -> Result<Typing, Error> {
        let (opened, state) = match (kind, self.role) {
            (CONTROL_STREAM, _) => (&mut self.critical.control, UniStream::Control(ElementReader::default())),
            (ENCODER_STREAM, _) => (&mut self.critical.encoder, UniStream::Encoder),
            (DECODER_STREAM, _) => (&mut self.critical.decoder, UniStream::Decoder(DecoderStream::default())),
            (PUSH_STREAM, Role::Server) => {
                return Err(Error::connection(Code::STREAM_CREATION_ERROR, "push stream from a client"));
            }
            (PUSH_STREAM, Role::Client) => {
                return Err(Error::connection(Code::ID_ERROR, "push stream without permission"));
            }
            _unknown => return Ok(Typing::Unknown),
        };
        if std::mem::replace(opened, true) {
            return Err(Error::connection(
                Code::STREAM_CREATION_ERROR,
                "second stream of a kind that may be opened once",
            ));
        }
        Ok(Typing::Done(state))
    }

    fn handle_stream(&mut self, state: &mut UniStream, mut data: &[u8]) -> Result<(), Error> {
        match state {
            UniStream::Untyped(_) => Ok(()),
            UniStream::Encoder => qpack::check_encoder_stream(data),
            UniStream::Decoder(stream) => stream.handle(data),
            UniStream::Control(elements) => self.read_control(elements, &mut data),
        }
    }

    fn read_control(&mut self, elements: &mut ElementReader, data: &mut &[u8]) -> Result<(), Error> {
        while let Some(element) = elements.next(data, |head| self.admit(head))? {
            match element {
                Element::Whole(kind, payload) => self.handle_frame(kind, &payload)?,
                Element::Piece(_) => {}
            }
        }
        Ok(())
    }

    /// Decides about the next frame on the peer's control stream (RFC 9114 sections 6.2.1 and 7.2).
    fn admit(&self, head: Head) -> Result<Treatment, Error> {
        if self.peer_settings.is_none() && head.kind != frame::SETTINGS {
            return Err(Error::connection(Code::MISSING_SETTINGS, "control stream does not begin with SETTINGS"));
        }
        frame::refuse_reserved(head.kind)?;
        let unexpected = match head.kind {
            frame::SETTINGS => self.peer_settings.is_some(),
            frame::MAX_PUSH_ID => self.role == Role::Client,
            frame::DATA | frame::HEADERS | frame::PUSH_PROMISE => true,
            frame::GOAWAY | frame::CANCEL_PUSH => false,
            _unknown => return Ok(Treatment::Skip),
        };
        if unexpected {
            return Err(Error::connection(Code::FRAME_UNEXPECTED, "frame that does not belong on the control stream"));
        }
        if head.length > MAX_CONTROL_FRAME_LEN {
            return Err(Error::connection(Code::EXCESSIVE_LOAD, "frame on the control stream is too long"));
        }
        Ok(Treatment::Whole)
    }

    fn handle_frame(&mut self, kind: u64, payload: &[u8]) -> Result<(), Error> {
        match kind {
            frame::SETTINGS => self.handle_settings(Settings::decode(payload)?),
            frame::GOAWAY => self.handle_goaway(only_integer(payload)?),
            frame::MAX_PUSH_ID => self.handle_max_push_id(only_integer(payload)?),
            frame::CANCEL_PUSH => {
                only_integer(payload)?;
                Err(Error::connection(Code::ID_ERROR, "CANCEL_PUSH of a push that was never promised"))
            }
            _skipped => Ok(()),
        }
    }

    /// H3_DATAGRAM promises what only a peer with the QUIC transport parameter can keep (RFC 9297 section 2.1.1).
    fn handle_settings(&mut self, settings: Settings) -> Result<(), Error> {
        if settings.datagrams && !self.datagrams_supported {
            return Err(Error::connection(Code::SETTINGS_ERROR, "H3_DATAGRAM without QUIC datagrams"));
        }
        self.peer_settings = Some(settings);
        Ok(())
    }

    /// A server names a request stream (RFC 9114 section 7.2.6), and the ID never grows (section 5.2).
    fn handle_goaway(&mut self, id: u64) -> Result<(), Error> {
        if self.role == Role::Client && id & 3 != 0 {
            return Err(Error::connection(Code::ID_ERROR, "GOAWAY for a stream that is no request"));
        }
        if self.goaway.is_some_and(|earlier| id > earlier) {
            return Err(Error::connection(Code::ID_ERROR, "GOAWAY with a larger id than before"));
        }
        self.goaway = Some(id);
        Ok(())
    }

    /// The ID never shrinks (RFC 9114 section 7.2.7).
    fn handle_max_push_id(&mut self, id: u64) -> Result<(), Error> {
        if self.max_push_id.is_some_and(|earlier| id < earlier) {
            return Err(Error::connection(Code::ID_ERROR, "MAX_PUSH_ID with a smaller id than before"));
        }
        self.max_push_id = Some(id);
        Ok(())
    }
}

/// What the first bytes of a stream said.
enum Typing {
    /// Its type, or not all of it yet.
    Done(UniStream),
    /// A type we do not know.
    Unknown,
}

impl UniStream {
    /// Ends the stream; one without a complete type may end (RFC 9114 section 6.2), a critical one may not (section
    /// 6.2.1).
    fn close(self) -> Result<UniAction, Error> {
        match self {
            Self::Untyped(_) => Ok(UniAction::Continue),
            Self::Control(_) | Self::Encoder | Self::Decoder(_) => {
                Err(Error::connection(Code::CLOSED_CRITICAL_STREAM, "critical stream was closed"))
            }
        }
    }
}

/// The payload of a frame that holds one integer and nothing else (RFC 9114 section 7.1).
fn only_integer(payload: &[u8]) -> Result<u64, Error> {
    match varint::decode(payload) {
        Some((value, length)) if length == payload.len() => Ok(value),
        Some(_) | None => Err(Error::connection(Code::FRAME_ERROR, "frame payload is not one integer")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection(role: Role) -> Connection {
        let mut connection = Connection::new(role);
        connection.set_datagrams_supported(true);
        connection
    }

    /// The opening of a control stream with empty SETTINGS, then `frames`.
    fn control(frames: &[(u64, &[u8])]) -> Vec<u8> {
        let mut out = vec![0];
        frame::encode(frame::SETTINGS, &[], &mut out);
        frames.iter().for_each(|(kind, payload)| frame::encode(*kind, payload, &mut out));
        out
    }

    fn code(outcome: Result<UniAction, Error>) -> Code {
        let error = outcome.unwrap_err();
        assert!(error.ends_connection());
        error.code()
    }

    fn control_code(role: Role, frames: &[(u64, &[u8])]) -> Code {
        code(connection(role).handle_uni(3, &control(frames), false))
    }

    #[test]
    fn both_ends_understand_each_other() {
        let (mut client, mut server) = (connection(Role::Client), connection(Role::Server));
        assert_eq!(client.handle_uni(3, &server.control_stream(), false), Ok(UniAction::Continue));
        assert_eq!(server.handle_uni(2, &client.control_stream(), false), Ok(UniAction::Continue));
        let of_server = client.peer_settings().unwrap();
        assert!(of_server.connect_protocol && of_server.datagrams);
        assert_eq!(of_server.max_field_section_size, Some(16_384));
        let of_client = server.peer_settings().unwrap();
        assert!(!of_client.connect_protocol && of_client.datagrams);
    }

    #[test]
    fn control_stream_bytes_are_as_worked_out_by_hand() {
        let expected = [0x00, 0x04, 9, 0x06, 0x80, 0, 0x40, 0, 0x08, 1, 0x33, 1];
        assert_eq!(Connection::new(Role::Server).control_stream(), expected);
    }

    #[test]
    fn greased_streams_are_discarded_and_frames_skipped() {
        let mut connection = connection(Role::Server);
        assert_eq!(connection.handle_uni(2, &[0x40, 0x21, 1, 2, 3], false), Ok(UniAction::Discard));
        assert_eq!(connection.handle_uni(6, &[0x54], false), Ok(UniAction::Continue));
        assert_eq!(connection.handle_uni(6, &[0x54], true), Ok(UniAction::Discard));
        let frames = control(&[(0x21, b"grease"), (0x1f * 99 + 0x21, b""), (frame::GOAWAY, &[4])]);
        assert_eq!(connection.handle_uni(10, &frames, false), Ok(UniAction::Continue));
        assert_eq!(connection.goaway(), Some(4));
    }

    #[test]
    fn stream_may_end_before_its_type_is_known() {
        let mut connection = connection(Role::Server);
        assert_eq!(connection.handle_uni(2, &[], true), Ok(UniAction::Continue));
        assert_eq!(connection.handle_uni(6, &[0x40], true), Ok(UniAction::Continue));
        assert_eq!(connection.handle_uni(10, &[0x40], false), Ok(UniAction::Continue));
        assert_eq!(connection.handle_uni_reset(10), Ok(()));
        assert_eq!(connection.handle_uni_reset(999), Ok(()));
    }

    #[test]
    fn second_critical_stream_is_a_stream_creation_error() {
        for kind in [0x00, 0x02, 0x03] {
            let mut connection = connection(Role::Server);
            assert_eq!(connection.handle_uni(2, &[kind], false), Ok(UniAction::Continue));
            assert_eq!(code(connection.handle_uni(6, &[kind], false)), Code::STREAM_CREATION_ERROR);
        }
    }

    #[test]
    fn closed_critical_stream_is_an_error() {
        for kind in [0x00, 0x02, 0x03] {
            let mut ended = connection(Role::Client);
            assert_eq!(ended.handle_uni(3, &[kind], false), Ok(UniAction::Continue));
            assert_eq!(code(ended.handle_uni(3, &[], true)), Code::CLOSED_CRITICAL_STREAM);
            assert_eq!(code(connection(Role::Client).handle_uni(3, &[kind], true)), Code::CLOSED_CRITICAL_STREAM);
            let mut reset = connection(Role::Client);
            assert_eq!(reset.handle_uni(3, &[kind], false), Ok(UniAction::Continue));
            assert_eq!(reset.handle_uni_reset(3).unwrap_err().code(), Code::CLOSED_CRITICAL_STREAM);
        }
    }

    #[test]
    fn push_streams_are_refused() {
        assert_eq!(code(connection(Role::Server).handle_uni(2, &[1], false)), Code::STREAM_CREATION_ERROR);
        assert_eq!(code(connection(Role::Client).handle_uni(3, &[1, 0], false)), Code::ID_ERROR);
    }

    #[test]
    fn control_stream_must_begin_with_settings() {
        for first in [&[0x00, 0x07, 1, 0][..], &[0x00, 0x21, 0], &[0x00, 0x00, 0], &[0x00, 0x02, 0]] {
            assert_eq!(code(connection(Role::Client).handle_uni(3, first, false)), Code::MISSING_SETTINGS);
        }
    }

    #[test]
    fn frames_that_do_not_belong_on_the_control_stream_are_unexpected() {
        for kind in [frame::SETTINGS, frame::DATA, frame::HEADERS, frame::PUSH_PROMISE, 0x02, 0x06, 0x08, 0x09] {
            assert_eq!(control_code(Role::Server, &[(kind, &[])]), Code::FRAME_UNEXPECTED);
            assert_eq!(control_code(Role::Client, &[(kind, &[])]), Code::FRAME_UNEXPECTED);
        }
        assert_eq!(control_code(Role::Client, &[(frame::MAX_PUSH_ID, &[1])]), Code::FRAME_UNEXPECTED);
    }

    #[test]
    fn settings_errors_close_the_connection() {
        let settings = |payload: &[u8]| {
            let mut out = vec![0];
            frame::encode(frame::SETTINGS, payload, &mut out);
            code(connection(Role::Client).handle_uni(3, &out, false))
        };
        assert_eq!(settings(&[0x02, 0]), Code::SETTINGS_ERROR);
        assert_eq!(settings(&[0x33, 2]), Code::SETTINGS_ERROR);
        assert_eq!(settings(&[0x08, 1, 0x08, 1]), Code::SETTINGS_ERROR);
        assert_eq!(settings(&[0x08]), Code::FRAME_ERROR);
    }

    #[test]
    fn h3_datagram_without_quic_datagrams_is_a_settings_error() {
        let opening = Connection::new(Role::Server).control_stream();
        assert_eq!(code(Connection::new(Role::Client).handle_uni(3, &opening, false)), Code::SETTINGS_ERROR);
        let without = control(&[]);
        assert_eq!(Connection::new(Role::Client).handle_uni(3, &without, false), Ok(UniAction::Continue));
    }

    #[test]
    fn payload_that_is_not_one_integer_is_a_frame_error() {
        for kind in [frame::GOAWAY, frame::MAX_PUSH_ID, frame::CANCEL_PUSH] {
            for payload in [&[][..], &[0x40], &[0, 0]] {
                assert_eq!(control_code(Role::Server, &[(kind, payload)]), Code::FRAME_ERROR);
            }
        }
    }

    #[test]
    fn wrong_ids_are_id_errors() {
        assert_eq!(control_code(Role::Client, &[(frame::GOAWAY, &[1])]), Code::ID_ERROR);
        assert_eq!(control_code(Role::Client, &[(frame::GOAWAY, &[4]), (frame::GOAWAY, &[8])]), Code::ID_ERROR);
        assert_eq!(
            control_code(Role::Server, &[(frame::MAX_PUSH_ID, &[2]), (frame::MAX_PUSH_ID, &[1])]),
            Code::ID_ERROR
        );
        assert_eq!(control_code(Role::Server, &[(frame::CANCEL_PUSH, &[0])]), Code::ID_ERROR);
        assert_eq!(control_code(Role::Client, &[(frame::CANCEL_PUSH, &[0])]), Code::ID_ERROR);
        let falling = control(&[(frame::GOAWAY, &[8]), (frame::GOAWAY, &[4]), (frame::GOAWAY, &[4])]);
        assert_eq!(connection(Role::Client).handle_uni(3, &falling, false), Ok(UniAction::Continue));
    }

    #[test]
    fn qpack_streams_are_checked() {
        let mut connection = connection(Role::Server);
        assert_eq!(connection.handle_uni(2, &[0x02, 0x20], false), Ok(UniAction::Continue));
        assert_eq!(connection.handle_uni(6, &[0x03, 0x44], false), Ok(UniAction::Continue));
        assert_eq!(code(connection.handle_uni(2, &[0xc0], false)), Code::QPACK_ENCODER_STREAM_ERROR);
        assert_eq!(code(connection.handle_uni(6, &[0x80], false)), Code::QPACK_DECODER_STREAM_ERROR);
    }

    #[test]
    fn what_is_too_much_is_excessive_load() {
        let mut long = control(&[]);
        varint::encode(frame::GOAWAY, &mut long);
        varint::encode(MAX_CONTROL_FRAME_LEN + 1, &mut long);
        assert_eq!(code(connection(Role::Server).handle_uni(2, &long, false)), Code::EXCESSIVE_LOAD);

        let mut crowded = connection(Role::Server);
        for stream in 0..MAX_OPEN_STREAMS as u64 {
            assert_eq!(crowded.handle_uni(stream, &[0x40], false), Ok(UniAction::Continue));
        }
        assert_eq!(code(crowded.handle_uni(u64::MAX, &[0x40], false)), Code::EXCESSIVE_LOAD);
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(payload in proptest::collection::vec(any::<u8>(), 0..48), kind in 0_u8..5, with_settings: bool, size in 1_usize..8) {
            let mut stream = if with_settings { control(&[]) } else { vec![kind] };
            stream.extend(payload);
            let mut whole = connection(Role::Server);
            let outcome = whole.handle_uni(2, &stream, false);
            let mut cut = connection(Role::Server);
            let mut cut_outcome = Ok(UniAction::Continue);
            for piece in stream.chunks(size) {
                cut_outcome = cut.handle_uni(2, piece, false);
                if cut_outcome != Ok(UniAction::Continue) {
                    break;
                }
            }
            prop_assert_eq!(cut_outcome, outcome);
            prop_assert_eq!((cut.peer_settings(), cut.goaway()), (whole.peer_settings(), whole.goaway()));
        }
    }
}
