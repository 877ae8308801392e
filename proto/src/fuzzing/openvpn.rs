//! Bodies of the targets for OpenVPN.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::esp::Credulous;
use super::{Step, some_instant, steps};
use crate::drop_reason::DropReason;
use crate::openvpn::client_key::split_wrapped;
use crate::openvpn::data::inbound::Inbound;
use crate::openvpn::data::keys::Exported;
use crate::openvpn::data::{Content, Preface};
use crate::openvpn::greeting::{Greeter, Greeting, Guard};
use crate::openvpn::negotiation::Format;
use crate::openvpn::peer_info::{Abilities, PeerInfo};
use crate::openvpn::primitives::{AES_KEY_LEN, COUNTER_LEN, Primitives, SHA1_LEN};
use crate::openvpn::push::read::Reader;
use crate::openvpn::push::write;
use crate::openvpn::reliability::{MAX_WAITING, RECEIVED_WINDOW, Reliability};
use crate::openvpn::static_key::{KEY_LEN, StaticKey};
use crate::openvpn::wire::{Acks, KeyId, Kind, MAX_ACKS, Message, PREFACE_LEN, Packet, SessionId, early};
use crate::openvpn::wrapping::{Keys, Stamp, tls_crypt};
use crate::openvpn::{key_method, login, message, profile, words};
use crate::role::Role;
use crate::sealing::aead::CipherRefused;
use crate::sealing::suite::Suite;

/// No cipher: bytes are turned over by the counter block.
struct Simple;

impl Primitives for Simple {
    fn aes_256_ctr(_: &[u8; AES_KEY_LEN], counter: [u8; COUNTER_LEN], data: &mut [u8]) -> Result<(), CipherRefused> {
        data.iter_mut().zip(counter.iter().cycle()).for_each(|(byte, pad)| *byte ^= pad);
        Ok(())
    }

    fn hmac_sha1(_: &[u8], _: &[&[u8]]) -> [u8; SHA1_LEN] {
        [0; SHA1_LEN]
    }
}

/// What is read of a packet is written as it was, and comes through its wrapping; no stranger's comes through.
pub fn openvpn_packet(data: &[u8]) {
    early::asks_for_key(data);
    if let Ok((packet, key)) = split_wrapped(data) {
        assert_eq!([packet, key].concat(), data);
    }
    let keys = |role| Keys::Crypt(tls_crypt::Keys::new(&StaticKey::new([3; KEY_LEN]), role));
    assert!(keys(Role::Server).open::<Simple>(data).is_err());
    let Some((preface, body)) = data.split_first_chunk::<PREFACE_LEN>() else { return };
    let Ok(packet) = Packet::parse(preface, body) else { return };
    assert_eq!([&packet.preface()[..], &packet.body()].concat(), data);
    let stamp = Stamp { time: 7, count: 1 };
    let sealed = keys(Role::Client).seal::<Simple>(stamp, &packet);
    let opened = sealed.and_then(|sealed| keys(Role::Server).open::<Simple>(&sealed));
    assert_eq!(opened, Ok((packet, Some(stamp))));
}

/// Messages come once and in order, and what waits stays within its bounds. Steps whose data are: what is done, a
/// number, and numbers that are acknowledged.
pub fn openvpn_reliability(data: &[u8]) {
    let mut now = some_instant();
    let mut end = Reliability::new(0);
    let (mut expected, mut sent) = (0_u32, 0_u32);
    for step in steps(data) {
        match step {
            Step::Wait(pause) => now = now.checked_add(pause.saturating_mul(50)).unwrap_or(now),
            Step::Data([0, ..]) => {
                sent = sent.saturating_add(u32::from(end.handle_send(Kind::Control, Vec::new()).is_ok()))
            }
            Step::Data([_, number, acks @ ..]) => {
                let acks = acks.iter().take(MAX_ACKS).map(|number| u32::from(*number)).collect();
                let message = Message { kind: Kind::Control, number: u32::from(*number), payload: Vec::new() };
                let is_far = message.number >= expected.saturating_add(RECEIVED_WINDOW);
                let session = SessionId([1; 8]);
                let packet =
                    Packet { key: KeyId::FIRST, session, acks: Acks::new(session, acks), message: Some(message) };
                assert_eq!(end.handle_packet(packet) == Err(DropReason::QueueFull), is_far);
            }
            Step::Data(_) => {}
        }
        while let Some(message) = end.poll_message() {
            assert_eq!(message.number, expected);
            expected = expected.saturating_add(1);
        }
        end.handle_timeout(now);
        let mut packets = 0;
        while let Some(out) = end.poll_transmit(now) {
            packets += 1;
            assert!(out.acks.len() <= MAX_ACKS && packets <= MAX_WAITING);
            assert!(out.message.is_none_or(|message| message.number < sent));
        }
        assert!(end.poll_timeout().is_none_or(|at| at > now), "what is due was sent");
    }
}

/// No answer is much longer than what it answers, and nobody is proven who has not read one. Steps whose data are
/// datagrams.
pub fn openvpn_greeting(data: &[u8]) {
    let now = some_instant();
    let greeter = Greeter::new([3; 32], now);
    let from = SocketAddr::from(([192, 0, 2, 1], 40_000));
    let guard = Guard { shared: Some(Keys::Plain), own: None };
    for step in steps(data) {
        let Step::Data(datagram) = step else { continue };
        match greeter.greet::<Simple>(datagram, &guard, from, now, 7) {
            Ok(Greeting::Answer(answer)) => {
                assert!(answer.len() <= datagram.len().saturating_add(12));
                let answer = Keys::Plain.open::<Simple>(&answer);
                assert!(answer.is_ok_and(|(answer, _)| answer.acks.is_some()));
            }
            Ok(Greeting::Proven(_)) => panic!("nothing was answered to this address"),
            Err(_) => {}
        }
    }
}

/// What is read of a key method message survives being written, and so does what a client says of itself.
pub fn openvpn_key_method(data: &[u8]) {
    if let Ok(Some((message, rest))) = key_method::FromClient::take(data) {
        assert!(rest.len() < data.len());
        let encoded = message.encode(&[0; key_method::CLIENT_RANDOM_LEN]);
        let again = key_method::FromClient::take(&encoded);
        assert!(again.is_ok_and(|found| found.is_some_and(|(again, rest)| again == message && rest.is_empty())));
        let info = PeerInfo::parse(&message.peer_info);
        assert_eq!(PeerInfo::parse(&info.encode()), info);
    }
    if let Ok(Some((message, _))) = key_method::FromServer::take(data) {
        let encoded = message.encode(&[0; key_method::SERVER_RANDOM_LEN]);
        assert_eq!(key_method::FromServer::take(&encoded), Ok(Some((message, &[][..]))));
    }
}

/// What was read of a message is the same when it is written and read again.
pub fn openvpn_message(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((text, after))) = message::take(rest) {
        assert!(after.len() < rest.len());
        let said = message::FromServer::parse(text);
        assert_eq!(message::FromServer::parse(&said.encode()), said);
        let said = message::FromClient::parse(text);
        assert!(message::FromClient::parse(&said.encode()) == said);
        assert_eq!(login::Password::parse(text).encode().as_str(), text);
        rest = after;
    }
}

/// Settings that were read survive being written. Lines are what stands behind PUSH_REPLY in one message each.
pub fn openvpn_push(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(found) = words::split(&text) {
        let quoted: Vec<String> = found.iter().map(|word| words::quote(word)).collect();
        assert_eq!(words::split(&quoted.join(" ")), Ok(found));
    }
    let mut reader = Reader::default();
    for line in text.lines() {
        let Ok(Some(reply)) = reader.handle(line) else { continue };
        let settings = reply.settings;
        // A token may hold what separates words, and is written by who has made it.
        if settings.token.is_some() || settings.v4.is_some_and(|v4| v4.prefix_len() == 32) {
            continue;
        }
        let Ok(messages) = write::messages(&settings, Abilities::DNS_OPTION) else { continue };
        let options = messages.iter().filter_map(|message| message.strip_prefix("PUSH_REPLY,"));
        let again = options.filter_map(|options| reader.handle(options).ok().flatten()).last();
        let is_same = again.is_some_and(|again| {
            (again.settings.v4, &again.settings.routes, again.settings.suite)
                == (settings.v4, &settings.routes, settings.suite)
        });
        assert!(is_same, "settings are told as they are");
    }
}

/// What is opened lies within its datagram, and no number is accepted twice. First byte: the format; then steps whose
/// data are datagrams, with the first byte put right.
pub fn openvpn_data(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let exported = Exported::new([5; 256]);
    let (suite, key) = (Suite::Aes256Gcm, KeyId::FIRST);
    let format = if options & 1 == 0 { Format::V2 } else { Format::Epoch };
    let inbound = match format {
        Format::V2 => Inbound::<Credulous>::v2(exported.v2(suite, Role::Client), key),
        Format::Epoch => Inbound::epochs(exported.first_epoch(suite, Role::Client), key),
    };
    let Ok(mut inbound) = inbound else { unreachable!("the keys are good") };
    let mut accepted = BTreeSet::new();
    for step in steps(data) {
        let Step::Data(bytes) = step else { continue };
        let mut datagram = bytes.to_vec();
        datagram.iter_mut().take(1).for_each(|first| *first = 0x48);
        let number_len = if format == Format::V2 { 4 } else { 8 };
        let number: Vec<u8> = datagram.iter().skip(4).take(number_len).copied().collect();
        let epoch = inbound.epoch();
        assert!(Preface::parse(&datagram).is_ok_and(|preface| preface.key == key) || datagram.len() < 4);
        if let Ok(opened) = inbound.open(&mut datagram) {
            assert!(accepted.insert(number), "a number that is accepted twice");
            assert!(inbound.epoch() >= epoch);
            assert_eq!(format.sealed_len(opened.range.len()), datagram.len());
            Content::of(datagram.get(opened.range).unwrap_or_else(|| unreachable!("it lies within")));
        }
    }
}

/// A profile is taken, or something is said against it.
pub fn openvpn_profile(data: &[u8]) {
    match profile::parse(&String::from_utf8_lossy(data)) {
        Ok(parsed) => assert!(!parsed.profile.remotes.is_empty() && !parsed.profile.suites.is_empty()),
        Err(refused) => assert!(!refused.is_empty()),
    }
}
