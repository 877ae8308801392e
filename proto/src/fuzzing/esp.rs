//! Bodies for the ESP carrier.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{Step, some_instant, steps};
use crate::drop_reason::DropReason;
use crate::esp::capsule::{EspCapsule, Group, REKEY_REQUEST, SA_INIT};
use crate::esp::field::{Answer, Offer};
use crate::esp::keys::KeyChain;
use crate::esp::packet::{ICV_LEN, MIN_LEN, sealed_len};
use crate::esp::path::{KEEP_ALIVE, Path, PathState, Received};
use crate::esp::path_mtu::{PathMtu, PathMtuEvent, PathMtuTransmit};
use crate::esp::probe::{self, Kind, Probe};
use crate::esp::rekey::{Rekey, RekeyEvent};
use crate::esp::sa::{Acceptance, Inbound, IvRule};
use crate::esp::spi::Spi;
use crate::role::Role;
use crate::sealing::aead::{Aead, CipherRefused, Forged, NONCE_LEN, TAG_LEN};
use crate::sealing::replay::{Arrival, ReplayWindow, WIDTH};
use crate::sealing::suite::Suite;
use crate::varint;

/// A cipher that believes everything, so that what comes after authentication meets any bytes.
pub(super) struct Credulous;

impl Aead for Credulous {
    fn new(_suite: Suite, _key: &[u8]) -> Result<Self, CipherRefused> {
        Ok(Self)
    }

    fn seal(&self, _: [u8; NONCE_LEN], _: &[u8], _: &mut [u8]) -> Result<[u8; TAG_LEN], CipherRefused> {
        Ok([0; TAG_LEN])
    }

    fn open(&self, _: [u8; NONCE_LEN], _: &[u8], _: &mut [u8]) -> Result<(), Forged> {
        Ok(())
    }
}

fn spi() -> Option<Spi> {
    Spi::new(0, 1)
}

/// An SA that believes everything; `None` never.
fn inbound(accept: Acceptance) -> Option<Inbound<Credulous>> {
    let init = |receive: Spi| crate::esp::capsule::SaInit {
        epoch: 0,
        suite: Suite::Aes256Gcm,
        flags: 1,
        spi: receive,
        group: None,
        share: Bytes::new(),
    };
    let keys = KeyChain::new(&mut [1; 32]).advance(&init(spi()?), &init(Spi::new(0, 2)?), None).ok()?;
    Inbound::new(spi()?, keys.server_to_client, accept).ok()
}

/// What is opened lies within its datagram, and no sequence number is accepted twice. First byte: what is accepted;
/// then steps whose data are datagrams, with the SPI put right.
pub fn esp_open(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let iv = if options & 1 == 0 { IvRule::IsSequence } else { IvRule::Any };
    let Some((mut sa, spi)) = inbound(Acceptance { iv, vouched: options & 2 != 0 }).zip(spi()) else {
        unreachable!("the keys are good")
    };
    let mut accepted = BTreeSet::new();
    for step in steps(data) {
        let Step::Data(bytes) = step else { continue };
        let mut datagram = bytes.to_vec();
        if let Some(place) = datagram.first_chunk_mut() {
            *place = spi.get().to_be_bytes();
        }
        if let Ok(opened) = sa.open(&mut datagram) {
            assert!(datagram.len() >= MIN_LEN && opened.range().end <= datagram.len().saturating_sub(ICV_LEN));
            assert!(sealed_len(opened.len) <= datagram.len() && datagram.get(opened.range()).is_some());
            assert!(options & 2 != 0 || !opened.next_header.is_vouched());
            assert!(options & 1 != 0 || accepted.insert(datagram.get(8..16).map(<[u8]>::to_vec)));
            assert_eq!(sa.open(&mut datagram), Err(DropReason::Replayed));
        }
    }
}

/// The window agrees with a set of all numbers. First eight bytes: where it starts; then distances of two bytes, back
/// and forth.
pub fn esp_replay(data: &[u8]) {
    let Some((start, data)) = data.split_first_chunk() else { return };
    let mut window = ReplayWindow::default();
    let mut seen = BTreeSet::new();
    let mut sequence = u64::from_be_bytes(*start);
    for distance in data.as_chunks().0 {
        let newest: u64 = seen.last().copied().unwrap_or(0);
        let expected = if sequence == 0 {
            Err(DropReason::SequenceMismatch)
        } else if newest.saturating_sub(sequence) >= WIDTH {
            Err(DropReason::TooOld)
        } else if !seen.insert(sequence) {
            Err(DropReason::Replayed)
        } else if sequence > newest {
            Ok(Arrival::Newest)
        } else {
            Ok(Arrival::Late)
        };
        assert_eq!(window.check(sequence).err(), expected.err());
        assert_eq!(window.commit(sequence), expected);
        sequence = sequence.saturating_add_signed(i16::from_be_bytes(*distance).into());
    }
}

/// A capsule has one encoding. First byte: which.
pub fn esp_capsule(data: &[u8]) {
    let Some((which, value)) = data.split_first() else { return };
    let kind = if which & 1 == 0 { SA_INIT } else { REKEY_REQUEST };
    let Ok(Some(capsule)) = EspCapsule::decode(kind, value) else { return };
    let mut encoded = Vec::new();
    capsule.encode(&mut encoded);
    let mut rest = &*encoded;
    assert_eq!((varint::take(&mut rest), varint::take(&mut rest)), (Some(kind), Some(value.len() as u64)));
    assert_eq!(rest, value);
}

/// What is read of a field survives being shown, and every choice from an offer is permitted by it.
pub fn esp_field(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(offer) = Offer::parse(&text) {
        assert_eq!(Offer::parse(&offer.to_string()), Some(offer.clone()));
        assert!(Offer::default().choose(&offer).is_some_and(|answer| offer.permits(&answer)));
    }
    if let Some(answer) = Answer::parse(&text) {
        assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
    }
}

/// Dummy packets read as probes survive being encoded.
pub fn esp_probe(data: &[u8]) {
    if let Some(probe) = Probe::decode(data) {
        assert_eq!(Probe::decode(&probe.encode()), Some(probe));
        assert!(data.len() >= probe::LEN && probe.answer().is_none_or(|answer| answer.nonce == probe.nonce));
    }
}

/// Only an answer moves a session, and nobody earns more than three times its bytes before. First byte: which end; then
/// steps of one byte: who (2 bits), what (3 bits), newest (1 bit); or a pause, as in `steps`.
pub fn esp_path(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let mut now = some_instant();
    let home = address(0);
    let mut path =
        if options & 1 == 0 { Path::client(home, KEEP_ALIVE, [1; 32], now) } else { Path::server([1; 32], now) };
    let mut balance = [0_i64; 4];
    let mut asked: [Option<Probe>; 4] = [None; 4];
    for &step in data {
        let before = (path.address(), path.candidate());
        let mut answered = None;
        let (who, who_index) = (address(step & 3), usize::from(step & 3));
        let received = |probe| Received { from: who, len: 36, newest: step & 0x20 != 0, probe };
        match (step & 0x80, step >> 2 & 7) {
            (0, 0..=2) => path.handle_received(&received(None), now),
            (0, 3) => {
                path.handle_received(&received(Some(Probe { kind: Kind::Request, nonce: [3; probe::NONCE_LEN] })), now);
            }
            (0, 4) => {
                answered = asked.get(who_index).copied().flatten().and_then(|request| request.answer());
                path.handle_received(&received(answered), now);
            }
            (0, 5) => path.handle_sent(now),
            (0, 6) => path.handle_doubt(now),
            (0, _) => path.handle_rebind(now),
            _ => now = now.checked_add(Duration::from_millis(u64::from(step & 0x7f).saturating_mul(20))).unwrap_or(now),
        }
        if step & 0x80 == 0 && step >> 2 & 7 <= 4 {
            credit(&mut balance, who_index, 3 * 36);
        }
        path.handle_timeout(now);
        assert!(path.poll_timeout().is_none_or(|at| at > now), "a timeout that was handled is gone");
        assert!(before.0 == path.address() || answered.is_some(), "only an answer moves a session");
        while let Some(sent) = path.poll_transmit() {
            let to = usize::from(sent.to.port()).min(3);
            if sent.probe.kind == Kind::Request {
                asked[to..].iter_mut().take(1).for_each(|last| *last = Some(sent.probe));
            }
            if ![before.0, path.address()].contains(&Some(sent.to)) {
                credit(&mut balance, to, -60);
                assert!(balance.get(to).is_some_and(|left| *left >= 0), "three times the bytes at most");
            }
        }
        while path.poll_event().is_some() {}
        assert!(path.state() != PathState::Up || path.address().is_some());
    }
}

/// Only sizes whose probe was answered are used, and each change is reported. First two bytes: how far the ceiling is
/// above the base; then steps of one byte: what (3 bits), how much (4 bits); or a pause of 100 ms for each one from
/// 0x80 on, the last ones being long.
pub fn esp_path_mtu(data: &[u8]) {
    const BASE: u16 = 1316;
    const SMALL: u16 = 60;
    let Some((above, data)) = data.split_first_chunk() else { return };
    let ceiling = BASE.saturating_add(u16::from_be_bytes(*above));
    let mut now = some_instant();
    let mut mtu = PathMtu::new(BASE, ceiling, [1; 32]);
    let mut asked: Option<PathMtuTransmit> = None;
    let (mut passed, mut reported) = (BTreeSet::from([BASE]), BASE);
    for &step in data {
        let (before, amount) = (mtu.current(), u16::from(step >> 3 & 15));
        let tried = asked.map_or(BASE, |asked| asked.size);
        match (step & 0x80, step & 7) {
            (0, 0) => mtu.handle_up(now),
            (0, 1) => mtu.handle_down(),
            (0, 2) => mtu.handle_sent(now),
            (0, 3) => mtu.handle_doubt(now),
            (0, 4) => mtu.handle_too_big(tried.saturating_sub(amount), now),
            (0, 5) => mtu.handle_too_big(before.saturating_sub(amount), now),
            (0, 6) => {
                if let Some(answer) = asked.and_then(|asked| asked.probe.answer()) {
                    passed.insert(tried);
                    mtu.handle_probe(&answer, now);
                }
            }
            (0, _) => {
                let foreign = Probe { kind: Kind::Answer, nonce: [3; probe::NONCE_LEN] };
                assert!(!mtu.handle_probe(&foreign, now));
            }
            _ => {
                let pause = u64::from(step & 0x7f);
                let pause = if pause < 0x70 { pause.saturating_mul(100) } else { pause.saturating_mul(10_000) };
                now = now.checked_add(Duration::from_millis(pause)).unwrap_or(now);
            }
        }
        mtu.handle_timeout(now);
        assert!(mtu.poll_timeout().is_none_or(|at| at > now), "a timeout that was handled is gone");
        while let Some(sent) = mtu.poll_transmit() {
            // An unpadded one shows nothing of sizes.
            let is_small = sent.size == SMALL;
            assert!(is_small || sent.size >= BASE && sent.size <= ceiling);
            asked = if is_small { asked } else { Some(sent) };
        }
        assert!(passed.contains(&mtu.current()), "only what was answered is used");
        while let Some(event) = mtu.poll_event() {
            match event {
                PathMtuEvent::Current(size) => reported = size,
                PathMtuEvent::TooNarrow => reported = BASE,
            }
        }
        assert_eq!(mtu.current(), reported);
    }
}

fn address(port: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], u16::from(port)))
}

fn credit(balance: &mut [i64; 4], who: usize, bytes: i64) {
    if let Some(left) = balance.get_mut(who) {
        *left = left.saturating_add(bytes);
    }
}

/// Whatever capsules come, SAs are retired once each, their number is bounded, and each activation is of an installed
/// epoch. First byte: which end; then steps whose data are: what (1 byte), and a capsule's value for the first two.
pub fn esp_rekey(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let negotiated = Answer { suite: Suite::Aes256Gcm, group: Group::X25519, vouched: false };
    let role = if options & 1 == 0 { Role::Client } else { Role::Server };
    let mut rekey = Rekey::new(role, &negotiated);
    let mut now = some_instant();
    let (mut live, mut drawn) = (BTreeSet::new(), 0_u32);
    for step in steps(data) {
        match step {
            Step::Data([what, value @ ..]) => match what & 7 {
                0 | 1 => {
                    let kind = if what & 1 == 0 { SA_INIT } else { REKEY_REQUEST };
                    if let Ok(Some(capsule)) = EspCapsule::decode(kind, value)
                        && rekey.handle_capsule(capsule, now).is_err()
                    {
                        rekey.handle_closed();
                    }
                }
                2 => rekey.handle_rekey_wanted(),
                3 => rekey.handle_authenticated(value.first().copied().unwrap_or(0).into(), now),
                4 => rekey.handle_closed(),
                _ => rekey.handle_installed(now),
            },
            Step::Data([]) => {}
            Step::Wait(pause) => now = now.checked_add(pause.saturating_mul(20)).unwrap_or(now),
        }
        rekey.handle_timeout(now);
        while let Some(event) = rekey.poll_event() {
            match event {
                RekeyEvent::Prepare { group, .. } => {
                    drawn = drawn.saturating_add(1);
                    let share = Bytes::from(vec![1; group.map_or(0, Group::client_share_len)]);
                    rekey.handle_prepared(Spi::new(9, drawn).unwrap_or_else(|| unreachable!("worker 9 exists")), share);
                }
                RekeyEvent::Install { client, server } => {
                    assert_eq!((client.epoch, client.suite, client.group), (server.epoch, server.suite, server.group));
                    rekey.handle_installed(now);
                    assert!(live.insert(client.epoch), "an epoch is installed once");
                }
                RekeyEvent::ProbeOutbound { epoch } | RekeyEvent::ActivateOutbound { epoch } => {
                    assert!(live.contains(&epoch), "it is installed");
                }
                RekeyEvent::RetireInbound { epoch } => assert!(live.remove(&epoch), "it was installed"),
                RekeyEvent::RetireOutbound => assert_eq!(rekey.active_epoch(), None),
            }
        }
        while rekey.poll_transmit().is_some() {}
        assert!(live.len() <= 16 && rekey.poll_timeout().is_none_or(|at| at > now));
    }
}
