//! Bodies of the fuzz targets: what must hold for any input to a parser.
//!
//! They live here so that a test on the stable toolchain replays the committed corpus (`tests/corpus.rs`); the targets
//! in `fuzz/` only call them. A body panics when something does not hold.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::capsule::packets::PacketReader;
use crate::capsule::{self, Capsule, CapsuleDecoder};
use crate::connect_ip::client::{Client, ClientConfig, ClientEvent};
use crate::connect_ip::request::{Incoming, Request};
use crate::connect_ip::server::{Assignment, Server, ServerEvent};
use crate::connect_ip::template::{FULL_TUNNEL_PATH, Target};
use crate::esp::capsule::Group;
use crate::esp::field::{Answer, NAME, Offer};
use crate::http::field::Field;
use crate::http::h3::connection::{Connection, UniAction};
use crate::http::h3::message::{MAX_FIELD_SECTION_SIZE, MessageDecoder, MessageEvent};
use crate::http::h3::settings::Settings;
use crate::http::h3::{huffman, qpack};
use crate::invite::Invite;
use crate::packet::icmp::{GatewayAddresses, packet_too_big};
use crate::packet::{IPV6_MIN_MTU, IpPacket};
use crate::path_check::version_question::decode_answer;
use crate::role::Role;
use crate::sealing::suite::Suite;
use crate::{datagram, varint};

mod anyconnect;
mod captive_portal;
mod dtls;
mod esp;
mod login;
mod nat64;
mod offload;
mod openvpn;
mod policy;
mod radius;

pub use anyconnect::{anyconnect_connect, anyconnect_form, anyconnect_frames, anyconnect_login, anyconnect_settings};
pub use captive_portal::captive_portal;
pub use dtls::{dtls_association, dtls_greeting, dtls_message, dtls_open, dtls_reassembly};
pub use esp::{esp_capsule, esp_field, esp_open, esp_path, esp_path_mtu, esp_probe, esp_rekey, esp_replay};
pub use login::{login_handle, login_request, login_token};
pub use nat64::pref64;
pub use offload::{offload_coalesce, offload_split};
pub use openvpn::{
    openvpn_data, openvpn_greeting, openvpn_key_method, openvpn_message, openvpn_packet, openvpn_profile, openvpn_push,
    openvpn_reliability,
};
pub use policy::policy_text;
pub use radius::radius_reply;

/// What gateways of the targets choose for the ESP carrier.
const ESP_ANSWER: Answer = Answer { suite: Suite::Aes256Gcm, group: Group::X25519, vouched: true };

/// What one target does with an input.
pub type Body = fn(&[u8]);

/// All bodies by the name of their target.
pub const BODIES: [(&str, Body); 51] = [
    ("varint", varint),
    ("version_answer", version_answer),
    ("h3_uni", h3_uni),
    ("h3_settings", h3_settings),
    ("h3_message", h3_message),
    ("qpack", qpack),
    ("huffman", huffman),
    ("capsule", capsule),
    ("datagram", datagram),
    ("connect_ip_request", connect_ip_request),
    ("connect_ip_template", connect_ip_template),
    ("connect_ip_client", connect_ip_client),
    ("connect_ip_server", connect_ip_server),
    ("packet", packet),
    ("icmp", icmp),
    ("offload_split", offload_split),
    ("offload_coalesce", offload_coalesce),
    ("esp_open", esp_open),
    ("esp_replay", esp_replay),
    ("esp_probe", esp_probe),
    ("esp_capsule", esp_capsule),
    ("esp_field", esp_field),
    ("esp_path", esp_path),
    ("esp_path_mtu", esp_path_mtu),
    ("esp_rekey", esp_rekey),
    ("invite", invite),
    ("radius_reply", radius_reply),
    ("login_handle", login_handle),
    ("login_token", login_token),
    ("anyconnect_login", anyconnect_login),
    ("anyconnect_connect", anyconnect_connect),
    ("anyconnect_frames", anyconnect_frames),
    ("anyconnect_form", anyconnect_form),
    ("anyconnect_settings", anyconnect_settings),
    ("login_request", login_request),
    ("policy_text", policy_text),
    ("dtls_open", dtls_open),
    ("dtls_greeting", dtls_greeting),
    ("dtls_message", dtls_message),
    ("dtls_reassembly", dtls_reassembly),
    ("dtls_association", dtls_association),
    ("captive_portal", captive_portal),
    ("openvpn_packet", openvpn_packet),
    ("openvpn_reliability", openvpn_reliability),
    ("openvpn_greeting", openvpn_greeting),
    ("openvpn_key_method", openvpn_key_method),
    ("openvpn_message", openvpn_message),
    ("openvpn_push", openvpn_push),
    ("openvpn_data", openvpn_data),
    ("openvpn_profile", openvpn_profile),
    ("pref64", pref64),
];

/// What counts as an answer to a question about versions holds the question's id twice, and a version.
pub fn version_answer(data: &[u8]) {
    let Some(id) = decode_answer(data) else { return };
    let ids = [&[0; 4][..], &[8], &id, &[8], &id].concat();
    let after_first = data.split_first().map(|(_, rest)| rest).unwrap_or_default();
    let versions = after_first.strip_prefix(ids.as_slice()).unwrap_or_default();
    assert!(!versions.is_empty() && versions.len().is_multiple_of(4), "an answer has its ids and versions");
}

/// A decoded integer is in range and its shortest encoding is not longer than what was read.
pub fn varint(data: &[u8]) {
    let Some((value, length)) = varint::decode(data) else { return };
    assert!(value <= varint::MAX && length <= data.len());
    let mut encoded = Vec::new();
    varint::encode(value, &mut encoded);
    assert!(encoded.len() == varint::encoded_len(value) && encoded.len() <= length);
    assert_eq!(varint::decode(&encoded), Some((value, encoded.len())));
}

/// A unidirectional stream means the same however it is cut. First byte: role and size of the pieces.
pub fn h3_uni(data: &[u8]) {
    let Some((role, size, stream)) = split_options(data) else { return };
    let run = |size: usize| {
        let mut connection = Connection::new(role);
        connection.set_datagrams_supported(true);
        let mut outcome = Ok(UniAction::Continue);
        for piece in stream.chunks(size) {
            outcome = connection.handle_uni(2, piece, false);
            if outcome != Ok(UniAction::Continue) {
                return (outcome, connection.peer_settings().copied(), connection.goaway());
            }
        }
        (outcome, connection.peer_settings().copied(), connection.goaway())
    };
    assert_eq!(run(size), run(stream.len().max(1)));
}

/// Settings survive being encoded.
pub fn h3_settings(data: &[u8]) {
    let Ok(settings) = Settings::decode(data) else { return };
    let mut encoded = Vec::new();
    settings.encode(&mut encoded);
    assert_eq!(Settings::decode(&encoded), Ok(settings));
}

/// A message means the same however its stream is cut. First byte: role and size of the pieces.
pub fn h3_message(data: &[u8]) {
    let Some((role, size, stream)) = split_options(data) else { return };
    let run = |size: usize| {
        let mut decoder = MessageDecoder::new(role);
        let outcome =
            stream.chunks(size).try_for_each(|piece| decoder.handle(piece)).and_then(|()| decoder.handle_fin());
        let (mut sections, mut content, mut ends) = (Vec::new(), Vec::new(), 0_u32);
        while let Some(event) = decoder.poll_event() {
            match event {
                MessageEvent::Headers(fields) => sections.push(fields),
                MessageEvent::Data(piece) => content.extend_from_slice(&piece),
                MessageEvent::End => ends = ends.saturating_add(1),
            }
        }
        assert!(sections.len() <= 1 && ends <= 1 && (ends == 1) == outcome.is_ok());
        (outcome, sections, content)
    };
    assert_eq!(run(size), run(stream.len().max(1)));
}

/// Decoded fields stay within the limit and survive being encoded.
pub fn qpack(data: &[u8]) {
    let Ok(fields) = qpack::decode(data, MAX_FIELD_SECTION_SIZE) else { return };
    let size: usize = fields.iter().map(|field| field.name.len().saturating_add(field.value.len())).sum();
    assert!(size <= MAX_FIELD_SECTION_SIZE);
    let mut encoded = Vec::new();
    qpack::encode(&fields, &mut encoded);
    assert_eq!(qpack::decode(&encoded, MAX_FIELD_SECTION_SIZE), Ok(fields));
}

/// A decoded string is at most 8/5 as long as its code, whose shortest symbol has 5 bits.
pub fn huffman(data: &[u8]) {
    if let Ok(text) = huffman::decode(data) {
        assert!(text.len().saturating_mul(5) <= data.len().saturating_mul(8));
    }
}

/// Capsules mean the same however their stream is cut, and survive being encoded. First byte: whether those of ESP are
/// expected, and size of the pieces.
pub fn capsule(data: &[u8]) {
    let Some((role, size, stream)) = split_options(data) else { return };
    let run = |stream: &[u8], size: usize| {
        let mut decoder = CapsuleDecoder::new();
        if role == Role::Server {
            decoder.expect_esp();
        }
        let outcome =
            stream.chunks(size).try_for_each(|piece| decoder.handle(piece)).and_then(|()| decoder.handle_fin());
        (std::iter::from_fn(|| decoder.poll_event()).collect::<Vec<Capsule>>(), outcome)
    };
    let (capsules, outcome) = run(stream, stream.len().max(1));
    assert_eq!(run(stream, size), (capsules.clone(), outcome));
    packets_in_capsules(stream, size, outcome.is_ok().then_some(&capsules));
    let mut encoded = Vec::new();
    capsules.iter().for_each(|capsule| capsule::encode(capsule, &mut encoded));
    assert_eq!(run(&encoded, size), (capsules, Ok(())));
}

/// A reader of packets finds those that are in `capsules`, if the stream holds nothing but these.
fn packets_in_capsules(stream: &[u8], size: usize, capsules: Option<&Vec<Capsule>>) {
    let (mut reader, mut held) = (PacketReader::default(), BytesMut::new());
    let (mut packets, mut others) = (Vec::new(), Vec::new());
    let read = stream.chunks(size).try_for_each(|piece| {
        held.extend_from_slice(piece);
        reader.read(&mut held, &mut packets, &mut others)
    });
    let Some(capsules) = capsules.filter(|_| read.is_ok()) else { return };
    assert!(reader.is_between_capsules(&held));
    let datagrams = capsules.iter().filter_map(|capsule| {
        let Capsule::Datagram(payload) = capsule else { return None };
        datagram::split_context(payload.clone())
    });
    let expected = datagrams.filter(|(context, _)| *context == datagram::PACKET_CONTEXT).map(|(_, packet)| packet);
    assert!(expected.eq(packets));
}

/// A datagram's packet is the end of its payload.
pub fn datagram(data: &[u8]) {
    let Ok(decoded) = datagram::decode(Bytes::copy_from_slice(data)) else { return };
    assert!(decoded.stream_id <= varint::MAX && decoded.stream_id & 3 == 0 && data.ends_with(&decoded.payload));
    let prefix = datagram::Prefix::new(decoded.stream_id);
    let again = [prefix.as_bytes(), &decoded.payload].concat();
    assert_eq!(datagram::decode(again.into()).map(|again| again.payload), Ok(decoded.payload));
}

/// Reading a request never panics; its target survives being expanded. One field per line, name and value apart by a
/// space.
pub fn connect_ip_request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let fields: Vec<Field> =
        text.lines().filter_map(|line| line.split_once(' ')).map(|(name, value)| Field::new(name, value)).collect();
    if let Ok(Incoming::ConnectIp(request)) = Request::parse(&fields) {
        assert!(!request.authority.is_empty());
        assert_eq!(Target::parse(&request.target.path()), Ok(request.target));
    }
}

/// A target survives being expanded.
pub fn connect_ip_template(data: &[u8]) {
    let path = String::from_utf8_lossy(data);
    if let Ok(target) = Target::parse(&path) {
        assert_eq!(Target::parse(&target.path()), Ok(target));
    }
}

/// Whatever a gateway answers, the client sends only valid capsules and stops after an error. First byte: what both
/// sides named; then steps as in `steps`.
pub fn connect_ip_client(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let config = ClientConfig {
        authority: "vpn.example".to_owned(),
        path: FULL_TUNNEL_PATH.to_owned(),
        bearer: None,
        wants_dns: options & 1 != 0,
        login: None,
        esp: (options & 8 != 0).then(Offer::default),
    };
    let mut client = Client::new(config);
    let mut now = some_instant();
    let status = if options & 4 != 0 { "403" } else { "200" };
    let mut response = vec![Field::new(":status", status)];
    response.extend((options & 2 != 0).then(|| Field::new("adit-caps", "dns")));
    response.extend((options & 16 != 0).then(|| Field::new(NAME, ESP_ANSWER.to_string())));
    let mut failed = client.handle_response(&response, now).is_err();
    let mut sent = Vec::new();
    for step in steps(data) {
        match step {
            Step::Data(piece) => {
                let outcome = client.handle_data(piece);
                assert!(!failed || outcome.is_err(), "an error is final");
                failed = outcome.is_err();
            }
            Step::Wait(pause) => {
                now = now.checked_add(pause).unwrap_or(now);
                client.handle_timeout(now);
            }
        }
        while let Some(event) = client.poll_event() {
            if let ClientEvent::Esp(capsule) = event {
                assert_eq!(client.esp(), Some(ESP_ANSWER), "only then it may come");
                client.send_esp(capsule);
            }
        }
        sent.extend(std::iter::from_fn(|| client.poll_transmit()).flatten());
        assert!(client.poll_timeout().is_none_or(|at| at > now), "a timeout that was handled is gone");
    }
    assert_valid_capsules(&sent, client.esp().is_some());
    let _outcome = client.handle_end();
}

/// Whatever a client sends, the gateway sends only valid capsules. Steps as in `steps`.
pub fn connect_ip_server(data: &[u8]) {
    let request = [
        Field::new(":method", "CONNECT"),
        Field::new(":protocol", "connect-ip"),
        Field::new(":scheme", "https"),
        Field::new(":authority", "vpn.example"),
        Field::new(":path", FULL_TUNNEL_PATH),
        Field::new(NAME, Offer::default().to_string()),
    ];
    let Ok(Incoming::ConnectIp(request)) = Request::parse(&request) else { unreachable!("the request is valid") };
    let addresses: Vec<_> = ["10.64.0.2/32", "fd00::2/128"].iter().flat_map(|prefix| prefix.parse()).collect();
    let mut server = Server::new(&request, Assignment { addresses, ..Assignment::default() }, Some(ESP_ANSWER));
    let mut sent = Vec::new();
    for step in steps(data) {
        match step {
            Step::Data(piece) if server.handle_data(piece).is_err() => break,
            Step::Data(_) => {}
            Step::Wait(_) => server.update(Assignment::default()),
        }
        while let Some(event) = server.poll_event() {
            if let ServerEvent::Esp(capsule) = event {
                server.send_esp(capsule);
            }
        }
        sent.extend(std::iter::from_fn(|| server.poll_transmit()).flatten());
    }
    let _outcome = server.handle_end();
    assert_valid_capsules(&sent, true);
}

/// A parsed packet is as long as it says.
pub fn packet(data: &[u8]) {
    if let Ok(parsed) = IpPacket::parse(data) {
        assert_eq!(parsed.source.is_ipv4(), parsed.destination.is_ipv4());
        assert!(parsed.len == data.len() && parsed.upper_layer <= parsed.len && parsed.ttl != 0);
    }
}

/// An answer to a packet that is too big is itself a packet, to its source, and short enough for any path. First two
/// bytes: MTU.
pub fn icmp(data: &[u8]) {
    let Some((mtu, original)) = data.split_first_chunk() else { return };
    let from = GatewayAddresses { v4: Some([10, 64, 0, 1].into()), v6: Some([0xfd00, 0, 0, 0, 0, 0, 0, 1].into()) };
    let mut answer = Vec::new();
    if !packet_too_big(original, u16::from_be_bytes(*mtu), from, &mut answer) {
        return;
    }
    assert!(answer.len() <= usize::from(IPV6_MIN_MTU), "longest answer (RFC 4443 section 2.4)");
    let (Ok(original), Ok(answer)) = (IpPacket::parse(original), IpPacket::parse(&answer)) else {
        unreachable!("only valid packets are answered, by valid packets")
    };
    assert_eq!(original.source, answer.destination);
}

/// An invite survives being shown.
pub fn invite(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(invite) = text.parse::<Invite>() {
        assert_eq!(invite.to_string().parse(), Ok(invite));
    }
}

/// Our role, a size for the pieces (1 to 128), and the rest.
fn split_options(data: &[u8]) -> Option<(Role, usize, &[u8])> {
    let (&options, stream) = data.split_first()?;
    let role = if options & 0x80 == 0 { Role::Client } else { Role::Server };
    Some((role, usize::from(options & 0x7f).saturating_add(1), stream))
}

/// What happens to a state machine.
enum Step<'a> {
    Data(&'a [u8]),
    Wait(Duration),
}

/// Steps, each with a leading byte: below 0x80 that many bytes of data, from there on a pause of 10 ms for each one
/// above.
fn steps(mut data: &[u8]) -> impl Iterator<Item = Step<'_>> {
    std::iter::from_fn(move || {
        let (&lead, rest) = data.split_first()?;
        if lead & 0x80 != 0 {
            data = rest;
            return Some(Step::Wait(Duration::from_millis(10).saturating_mul(u32::from(lead & 0x7f))));
        }
        let (piece, rest) = rest.split_at(usize::from(lead).min(rest.len()));
        data = rest;
        Some(Step::Data(piece))
    })
}

fn assert_valid_capsules(sent: &[u8], esp: bool) {
    let mut decoder = CapsuleDecoder::new();
    if esp {
        decoder.expect_esp();
    }
    assert_eq!(decoder.handle(sent).and_then(|()| decoder.handle_fin()), Ok(()));
}

#[expect(clippy::disallowed_methods, reason = "a start is needed, and only differences from it matter")]
fn some_instant() -> Instant {
    Instant::now()
}
