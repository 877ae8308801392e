//! HTTP/3 over a QUIC connection: runs the control streams and hands out request streams.
//!
//! All decisions are `adit_proto::http::h3`'s; this module reads, writes and closes as it says.

use adit_program::task::{self, Task};
use adit_proto::http::fault::Fault;
use adit_proto::http::field::Field;
use adit_proto::http::h3::connection::{Connection, UniAction};
use adit_proto::http::h3::error::{Code, Error};
use adit_proto::http::h3::message::{MessageDecoder, MessageEvent, encode_data, encode_headers};
use adit_proto::http::h3::settings::Settings;
use adit_proto::role::Role;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::watch;

use super::StreamError;

/// Bytes taken from a stream at a time.
const READ_SIZE: usize = 16 * 1024;

/// One HTTP/3 connection; dropping it closes the QUIC connection, too.
pub struct H3Connection {
    quic: quinn::Connection,
    role: Role,
    settings: watch::Receiver<Option<Settings>>,
    _driver: Task,
}

impl H3Connection {
    /// Opens our control stream and starts reading the peer's.
    pub fn start(quic: quinn::Connection, role: Role) -> Self {
        let (publish, settings) = watch::channel(None);
        let mut machine = Connection::new(role);
        machine.set_datagrams_supported(quic.max_datagram_size().is_some());
        let driver = task::spawn(drive(quic.clone(), machine, publish));
        Self { quic, role, settings, _driver: driver }
    }

    /// The QUIC connection underneath.
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// Waits for the peer's SETTINGS.
    pub async fn peer_settings(&self) -> Result<Settings, quinn::ConnectionError> {
        let mut settings = self.settings.clone();
        // The guard is no `Send`, so it must not live across the await of the other arm.
        let announced = settings.wait_for(Option::is_some).await.map(|settings| settings.expect("it was waited for"));
        match announced {
            Ok(settings) => Ok(settings),
            Err(_driver_ended) => Err(self.quic.closed().await),
        }
    }

    /// Opens a request stream (client).
    pub async fn open_request(&self) -> Result<RequestStream, quinn::ConnectionError> {
        let (send, recv) = self.quic.open_bi().await?;
        Ok(self.request_stream(send, recv))
    }

    /// Waits for the next request stream (server).
    pub async fn accept_request(&self) -> Result<RequestStream, quinn::ConnectionError> {
        let (send, recv) = self.quic.accept_bi().await?;
        Ok(self.request_stream(send, recv))
    }

    fn request_stream(&self, send: SendStream, recv: RecvStream) -> RequestStream {
        RequestStream {
            quic: self.quic.clone(),
            send,
            recv,
            decoder: MessageDecoder::new(self.role),
            unsent: BytesMut::new(),
        }
    }
}

impl Drop for H3Connection {
    fn drop(&mut self) {
        close(&self.quic, Code::NO_ERROR, "");
    }
}

/// Closes a QUIC connection with an HTTP/3 error code.
pub fn close(quic: &quinn::Connection, code: Code, reason: &str) {
    quic.close(var_int(code.value()), reason.as_bytes());
}

async fn drive(quic: quinn::Connection, mut machine: Connection, publish: watch::Sender<Option<Settings>>) {
    let _control = match open_control(&quic, &machine).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "control stream could not be opened"),
    };
    let mut reads = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = quic.accept_uni() => match accepted {
                Ok(stream) => reads.push(read_some(stream)),
                Err(_connection_closed) => return,
            },
            Some((mut stream, chunk)) = reads.next() => {
                let action = match handle_chunk(&mut machine, stream.id().into(), chunk) {
                    Ok(Some(action)) => action,
                    Ok(None) => continue,
                    Err(error) => return close(&quic, error.code(), error.reason()),
                };
                publish_settings(&machine, &publish);
                match action {
                    UniAction::Continue => reads.push(read_some(stream)),
                    UniAction::Discard => { let _already_gone = stream.stop(var_int(Code::STREAM_CREATION_ERROR.value())); }
                }
            }
        }
    }
}

async fn open_control(quic: &quinn::Connection, machine: &Connection) -> Result<SendStream, WriteError> {
    let mut stream = quic.open_uni().await?;
    stream.write_all(&machine.control_stream()).await?;
    Ok(stream)
}

type Chunk = Result<Option<Bytes>, ReadError>;

async fn read_some(mut stream: RecvStream) -> (RecvStream, Chunk) {
    let chunk = stream.read_chunk(READ_SIZE, true).await.map(|chunk| chunk.map(|chunk| chunk.bytes));
    (stream, chunk)
}

/// Feeds one read into the machine; `None` when the stream has ended.
fn handle_chunk(machine: &mut Connection, stream: u64, chunk: Chunk) -> Result<Option<UniAction>, Error> {
    match chunk {
        Ok(Some(bytes)) => machine.handle_uni(stream, &bytes, false).map(Some),
        Ok(None) => machine.handle_uni(stream, &[], true).map(|_| None),
        Err(ReadError::Reset(_)) => machine.handle_uni_reset(stream).map(|()| None),
        Err(_connection_lost) => Ok(None),
    }
}

fn publish_settings(machine: &Connection, publish: &watch::Sender<Option<Settings>>) {
    if let Some(settings) = machine.peer_settings() {
        publish.send_if_modified(|published| {
            let news = published.is_none();
            if news {
                *published = Some(*settings);
            }
            news
        });
    }
}

/// One request and its response, or one tunnel.
pub struct RequestStream {
    quic: quinn::Connection,
    send: SendStream,
    recv: RecvStream,
    decoder: MessageDecoder,
    /// Frames that wait to be written.
    unsent: BytesMut,
}

impl RequestStream {
    /// The QUIC connection underneath.
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// The QUIC stream ID (RFC 9000 section 2.1).
    pub fn id(&self) -> u64 {
        self.send.id().into()
    }

    /// Waits for the next part of the peer's message; `None` after its end. Cancel-safe.
    pub async fn next_event(&mut self) -> Result<Option<MessageEvent>, StreamError> {
        loop {
            if let Some(event) = self.decoder.poll_event() {
                return Ok(match event {
                    MessageEvent::End => None,
                    event @ (MessageEvent::Headers(_) | MessageEvent::Data(_)) => Some(event),
                });
            }
            let handled = match self.recv.read_chunk(READ_SIZE, true).await {
                Ok(Some(chunk)) => self.decoder.handle(&chunk.bytes),
                Ok(None) => self.decoder.handle_fin(),
                Err(ReadError::Reset(code)) => return Err(StreamError::Reset(code.into())),
                Err(ReadError::ConnectionLost(error)) => return Err(error.into()),
                Err(_closed) => return Err(StreamError::Closed),
            };
            handled.map_err(|error| self.end_with(error))?;
        }
    }

    /// Says that the request was CONNECT: after a 2xx response only DATA may come (RFC 9114 section 4.4).
    pub fn expect_tunnel(&mut self) {
        self.decoder.expect_tunnel();
    }

    /// Sends a HEADERS frame.
    pub async fn send_headers(&mut self, fields: &[Field]) -> Result<(), StreamError> {
        self.unsent.extend_from_slice(&encode_headers(fields));
        self.flush().await
    }

    /// Sends a DATA frame.
    pub async fn send_data(&mut self, data: &[u8]) -> Result<(), StreamError> {
        self.queue_data(data);
        self.flush().await
    }

    /// Queues a DATA frame for [`Self::flush`]. Whoever queues sees to it that this is bounded.
    pub fn queue_data(&mut self, data: &[u8]) {
        self.unsent.extend_from_slice(&encode_data(data));
    }

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Writes what is queued. Cancel-safe: the next call goes on where this one was.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        while !self.unsent.is_empty() {
            let written = self.send.write(&self.unsent).await.map_err(|error| match error {
                WriteError::Stopped(code) => StreamError::Reset(code.into()),
                WriteError::ConnectionLost(error) => error.into(),
                WriteError::ClosedStream | WriteError::ZeroRttRejected => StreamError::Closed,
            })?;
            self.unsent.advance(written);
        }
        // An idle stream holds no memory for what it sent once.
        self.unsent = BytesMut::new();
        Ok(())
    }

    /// Ends our side of the message.
    pub fn finish(&mut self) {
        let _already_closed = self.send.finish();
    }

    /// Acts on a fault with the error that HTTP/3 has for it: abandons the stream, or closes the connection.
    pub fn fail(&mut self, fault: Fault) -> StreamError {
        self.end_with(fault.into())
    }

    fn end_with(&mut self, error: Error) -> StreamError {
        match error {
            Error::Connection { code, reason } => close(&self.quic, code, reason),
            Error::Stream { code, .. } => self.abort(code),
        }
        StreamError::Protocol(error)
    }

    /// Abandons a request that did not come whole in time.
    pub fn abandon_incomplete(&mut self) {
        self.abort(Code::REQUEST_INCOMPLETE);
    }

    /// Abandons both directions of the stream with a code.
    fn abort(&mut self, code: Code) {
        let _already_closed = self.send.reset(var_int(code.value()));
        let _already_ended = self.recv.stop(var_int(code.value()));
    }
}

fn var_int(value: u64) -> VarInt {
    VarInt::from_u64(value).expect("codes of HTTP/3 are small")
}
