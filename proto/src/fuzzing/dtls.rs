//! Bodies for DTLS.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;

use super::esp::Credulous;
use super::{Step, some_instant, steps};
use crate::drop_reason::DropReason;
use crate::dtls::association::{Association, Event};
use crate::dtls::greeting::{Greeter, Greeting};
use crate::dtls::handshake::{Credential, Setup};
use crate::dtls::message::{ClientHello, Fragment, Kind, MAX_MESSAGE, ServerHello};
use crate::dtls::reassembly::{Fate, Reassembly};
use crate::dtls::record::{ContentType, Header};
use crate::dtls::sa::{EPOCH, Inbound, Outbound};
use crate::dtls::secret::{MasterSecret, Randoms};
use crate::dtls::suite::CipherSuite;

type End = Association<Credulous, Rc<Outbound<Credulous>>>;

/// What is opened lies within its datagram, and no number is accepted twice. First byte: the suite; then steps whose
/// data are records, with version and epoch put right.
pub fn dtls_open(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let suite = if options & 1 == 0 { CipherSuite::PskAes256Gcm } else { CipherSuite::PskChaCha20Poly1305 };
    let randoms = Randoms { client: [1; 32], server: [2; 32] };
    let keys = MasterSecret::new([3; 48]).keys(suite, &randoms);
    let Some(mut sa) = keys.and_then(|keys| Inbound::<Credulous>::new(keys.client_to_server).ok()) else {
        unreachable!("the keys are good")
    };
    let mut accepted = BTreeSet::new();
    for step in steps(data) {
        let Step::Data(bytes) = step else { continue };
        let mut record = bytes.to_vec();
        record.iter_mut().skip(1).zip([0xfe, 0xfd, 0, 1]).for_each(|(place, byte)| *place = byte);
        let header = Header::parse(&record);
        if let Ok(opened) = sa.open(&mut record) {
            let sequence = header.map(|header| header.sequence);
            assert!(accepted.insert(sequence.unwrap_or_else(|_| unreachable!("it was opened"))));
            assert!(record.get(opened.range.clone()).is_some());
            assert!(suite.sealed_len(opened.range.len()) <= record.len());
            assert_eq!(sa.open(&mut record), Err(DropReason::Replayed));
        }
    }
}

/// No answer is longer than what it answers. Steps whose data are datagrams.
pub fn dtls_greeting(data: &[u8]) {
    let mut now = some_instant();
    let greeter = Greeter::new([3; 32], now);
    let from = SocketAddr::from(([192, 0, 2, 1], 40_000));
    for step in steps(data) {
        match step {
            Step::Data(datagram) => match greeter.greet(datagram, from, now) {
                Ok(Greeting::Ask(answer)) => assert!(answer.len() <= datagram.len()),
                Ok(Greeting::Proven(introduction)) => assert!(introduction.session.len() <= 255),
                Err(_) => {}
            },
            Step::Wait(pause) => now = now.checked_add(pause.saturating_mul(100)).unwrap_or(now),
        }
    }
}

/// What is read of a message survives being written.
pub fn dtls_message(data: &[u8]) {
    if let Some(hello) = ServerHello::parse(data) {
        assert_eq!(ServerHello::parse(&hello.encode()), Some(hello));
    }
    if let Some(hello) = ClientHello::parse(data) {
        assert!(hello.suites().count() > 0 && hello.session().len() <= 255);
    }
    if let Some((fragment, rest)) = Fragment::split_first(data) {
        assert_eq!(fragment.encode(), data.strip_suffix(rest).unwrap_or_default());
        assert!(fragment.length <= MAX_MESSAGE);
    }
}

/// Messages come once, in order, and as their first bytes were. Steps whose data are: number, offset, and the part; all
/// bodies have 20 bytes.
pub fn dtls_reassembly(data: &[u8]) {
    const LEN: usize = 20;
    let mut reassembly = Reassembly::new(0);
    let mut expected = vec![[None; LEN]; 256];
    let mut next = 0_u16;
    for step in steps(data) {
        let Step::Data([number, offset, part @ ..]) = step else { continue };
        let (number, offset) = (u16::from(*number), usize::from(*offset).min(LEN));
        let part = part.get(..part.len().min(LEN.saturating_sub(offset))).unwrap_or_default();
        let fragment = Fragment { kind: Kind::ClientHello, length: LEN, number, offset, part };
        let fate = reassembly.handle_fragment(0, &fragment);
        assert_eq!(fate == Fate::Repeated, number < next);
        if let Some(body) = expected.get_mut(usize::from(number)).filter(|_| fate == Fate::Kept) {
            let places = body.iter_mut().skip(offset).zip(part);
            places.for_each(|(place, byte)| *place = place.or(Some(*byte)));
        }
        while let Some(message) = reassembly.poll_message() {
            let body = expected.get(usize::from(next)).map(|body| body.iter().copied().flatten().collect::<Vec<u8>>());
            assert_eq!((message.number, Some(message.body)), (next, body));
            next = next.saturating_add(1);
        }
    }
}

/// Whatever comes, an association is established once at most, gives nothing away before and after, and does not send
/// without end.
///
/// First byte: which end (1), which mode (2), whether the handshake was completed before (4). Then steps whose first
/// byte says what the rest is: a datagram, what a record in the clear holds, or what a sealed one holds.
pub fn dtls_association(data: &[u8]) {
    let Some((&options, data)) = data.split_first() else { return };
    let mut now = some_instant();
    let Some((mut client, mut server)) = ends(options & 2 != 0) else { return };
    if options & 4 != 0 {
        exchange(&mut client, &mut server);
    }
    let mut end = if options & 1 == 0 { client } else { server };
    let mut established = u32::from(options & 4 != 0);
    let mut sequence = 1000_u64;
    let mut closed = false;
    for step in steps(data) {
        match step {
            Step::Data([what, rest @ ..]) => {
                sequence = sequence.saturating_add(1);
                end.handle_datagram(&mut wrapped(*what, rest, sequence), now).ok();
            }
            Step::Data([]) => {}
            Step::Wait(pause) => now = now.checked_add(pause.saturating_mul(10)).unwrap_or(now),
        }
        end.handle_timeout(now);
        assert!(end.poll_timeout().is_none_or(|at| at > now), "a timeout that was handled is gone");
        assert!(std::iter::from_fn(|| end.poll_transmit()).count() <= 200);
        while let Some(event) = end.poll_event() {
            assert!(!closed, "nothing follows the end");
            match event {
                Event::Established => established = established.saturating_add(1),
                Event::Data(_) => assert_eq!(established, 1),
                Event::Closed(_) => closed = true,
            }
        }
        assert!(established <= 1);
        assert_eq!(end.outbound().is_some(), established == 1 && !closed);
    }
}

/// A datagram, or the record that holds `body`; the cipher believes in any tag.
fn wrapped(what: u8, body: &[u8], sequence: u64) -> Vec<u8> {
    let (content, is_sealed) = (ContentType::from_code(20 | what & 3), what & 8 != 0);
    let Some(content) = content.filter(|_| what & 4 != 0) else { return body.to_vec() };
    let body = if is_sealed { [&[0; 8][..], body, &[0; 16]].concat() } else { body.to_vec() };
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let epoch = if is_sealed { EPOCH } else { 0 };
    let header = Header { content, version: crate::dtls::record::DTLS_1_2, epoch, sequence, length };
    [&header.encode()[..], &body].concat()
}

/// A client and the server that it was introduced to; `None` never.
fn ends(is_resumed: bool) -> Option<(End, End)> {
    let now = some_instant();
    let setup = |random| Setup {
        credential: if is_resumed {
            Credential::Resumed { master: MasterSecret::new([7; 48]), suite: CipherSuite::RsaAes256Gcm }
        } else {
            Credential::PreSharedKey { key: vec![6; 32].into(), suites: vec![CipherSuite::PskAes256Gcm] }
        },
        session_id: vec![5; 32],
        random,
        largest_datagram: 1200,
    };
    let (greeter, from) = (Greeter::new([3; 32], now), SocketAddr::from(([192, 0, 2, 1], 40_000)));
    let mut client = End::client(setup([1; 32]), now);
    let Ok(Greeting::Ask(mut question)) = greeter.greet(&client.poll_transmit()?, from, now) else { return None };
    client.handle_datagram(&mut question, now).ok()?;
    let mut hello = client.poll_transmit()?;
    let Ok(Greeting::Proven(introduction)) = greeter.greet(&hello, from, now) else { return None };
    let mut server = End::server(setup([2; 32]), &introduction, now);
    server.handle_datagram(&mut hello, now).ok()?;
    Some((client, server))
}

/// Lets the two talk until they are established.
fn exchange(client: &mut End, server: &mut End) {
    let now = some_instant();
    for _ in 0..4 {
        while let Some(mut datagram) = server.poll_transmit() {
            assert_eq!(client.handle_datagram(&mut datagram, now), Ok(()));
        }
        while let Some(mut datagram) = client.poll_transmit() {
            assert_eq!(server.handle_datagram(&mut datagram, now), Ok(()));
        }
    }
    assert_eq!([client, server].map(End::poll_event), [Some(Event::Established), Some(Event::Established)]);
}
