//! Bodies of the targets for AnyConnect clients and gateways.

use std::time::Duration;

use bytes::BytesMut;
use zeroize::Zeroizing;

use super::some_instant;
use crate::anyconnect::channel::{Channel, ChannelEvent};
use crate::anyconnect::form::{Question, Told};
use crate::anyconnect::frame::{self, HEAD_LEN, MAX_PAYLOAD, NoFrame};
use crate::anyconnect::link::path_at;
use crate::anyconnect::login::{Dialect, Groups, Page, Posted, XmlFault};
use crate::anyconnect::tunnel::TunnelRequest;
use crate::anyconnect::tunnel::settings::TunnelSettings;
use crate::anyconnect::{MAX_COOKIE, cookie};
use crate::http::field::Field;
use crate::invite::Place;
use crate::login::Kind;
use crate::login::flow::{Asked, Form};
use crate::range::check_advertisement;

/// What a client posts is read or refused, and what is read of it is no longer than it was.
pub fn anyconnect_login(data: &[u8]) {
    for posted in [Posted::of_xml(data).ok(), Posted::of_form(data)].into_iter().flatten() {
        let Posted::Answer { handle, answers, .. } = posted else { continue };
        let read: usize = answers.values().map(|answer| answer.len()).sum();
        assert!(handle.map_or(0, |handle| handle.len()).saturating_add(read) <= data.len());
    }
    page(&String::from_utf8_lossy(data));
}

/// Whatever a source of users says, the page with it is a document that can be read.
fn page(text: &str) {
    let choice = Asked { name: "choice", label: "Choice", kind: Kind::Choice(vec![text.to_owned()]), echo: true };
    let form = Form { text: text.to_owned(), fields: vec![choice] };
    let page =
        Page { form: &form, handle: text, error: Some(text), groups: Groups::default() }.document(Dialect::Aggregate);
    let escaped_is_larger = 6_usize.saturating_mul(text.len()).saturating_mul(5).saturating_add(1024);
    assert!(page.len() <= escaped_is_larger && page.ends_with("</config-auth>\n"));
}

/// A CONNECT asks for a tunnel with packets that IPv6 can do with, whatever stands in its head. Each line of the input
/// is a field.
pub fn anyconnect_connect(data: &[u8]) {
    let fields = fields(data);
    let asked = TunnelRequest::of(&fields);
    assert!((1280..=1420).contains(&asked.mtu_within(1420)));
    assert!(asked.token.is_none_or(|token| !token.is_empty() && token.len() <= MAX_COOKIE && !token.contains(';')));
    let found = cookie::find(fields.iter().map(|field| field.value.as_str()), "webvpncontext");
    assert!(found.is_none_or(|value| value.len() <= data.len().saturating_mul(3)));
}

/// The fields that lines say.
fn fields(data: &[u8]) -> Vec<Field> {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.map(|(name, value)| Field::new(name.to_ascii_lowercase(), value)).collect()
}

/// The form of a gateway leads to that gateway, and what answers it is a document. Each line of the input is a cookie
/// as well, of which nothing comes into a head but what may stand there.
pub fn anyconnect_form(data: &[u8]) {
    let mut cookies = cookie::Kept::default();
    String::from_utf8_lossy(data).lines().for_each(|line| cookies.take(line));
    assert!(cookies.field().is_none_or(|field| field.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
    let Ok(Told::Form(form)) = Told::of_document(data) else { return };
    let gateway = Place { host: "gw.test".to_owned(), port: 443 };
    let path = path_at(&form.action, &gateway, "/");
    assert!(path.is_err() || path.is_ok_and(|path| path.starts_with('/') && !path.starts_with("//")));
    let answer = |question: Question<'_>| (question.name.to_owned(), Zeroizing::new("<&>".to_owned()));
    let reply = form.reply("v9", &form.questions().chain(form.groups()).map(answer).collect());
    let heard = Posted::of_xml(reply.as_bytes());
    assert!(matches!(heard, Ok(Posted::Answer { .. }) | Err(XmlFault::TooLarge)), "what was hidden may be large");
}

/// The answer to a CONNECT gives a tunnel as IPv6 needs it, with routes that are in order, or none. Each line of the
/// input is a field.
pub fn anyconnect_settings(data: &[u8]) {
    let Ok(settings) = TunnelSettings::of(&fields(data)) else { return };
    assert!((1280..=MAX_PAYLOAD).contains(&settings.mtu) && !settings.addresses().is_empty());
    assert!(check_advertisement(&settings.routes).is_ok());
}

/// A stream of frames means the same however it is cut, and nothing in it is invented. First byte: size of the pieces.
pub fn anyconnect_frames(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let run = |size: usize| {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(size) {
            buffer.extend_from_slice(piece);
            loop {
                match frame::take(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(NoFrame) => return (frames, true),
                }
            }
            assert!(buffer.len() < HEAD_LEN.saturating_add(MAX_PAYLOAD.into()), "what waits is bounded");
        }
        (frames, false)
    };
    let (frames, broken) = run(usize::from(*size).max(1));
    assert_eq!(run(stream.len().max(1)), (frames.clone(), broken));
    let encoded: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_vec()).collect();
    assert!(encoded.len() <= stream.len());
    answers(stream, frames.len());
}

/// A channel answers no more than it was asked, and is silent to whoever is silent.
fn answers(stream: &[u8], frames: usize) {
    let mut channel = Channel::new(Duration::from_secs(30), some_instant());
    channel.buffer().extend_from_slice(stream);
    let mut events = 0_usize;
    while let Ok(Some(event)) = channel.poll_event() {
        assert_ne!(event, ChannelEvent::Silent);
        events = events.saturating_add(1);
    }
    let told = std::iter::from_fn(|| channel.poll_transmit()).count();
    assert!(events.saturating_add(told) <= frames);
}
