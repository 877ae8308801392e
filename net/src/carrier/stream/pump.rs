//! Moves what waits in a stream carrier to its connection, and what comes by the connection to where it belongs.

use std::future::pending;
use std::io::{self, BufRead as _, IoSlice, Write};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use bytes::{Bytes, BytesMut};
use rustls::Connection;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep_until, timeout};

use super::socket::prepare;
use super::{Framing, StreamCarrier};
use crate::carrier::Carrier as _;

/// Bytes read from the socket at a time.
const READ: usize = 64 * 1024;
/// Packets that are sealed at a time: at the usual size as much as four records hold.
const PORTION: usize = 48;
/// Portions that are sent before it is looked what has come, and reads before something is sent.
const TURNS: usize = 4;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Owns the connection of a stream carrier. What is no packet goes to `others`; while that is full, nothing is read.
pub struct Pump<F: Framing, P> {
    carrier: Arc<StreamCarrier<F>>,
    /// Its place among the pumps of the carrier.
    number: u32,
    framing: F,
    socket: Arc<TcpStream>,
    tls: Connection,
    /// Takes packets, and empties the vector.
    deliver: P,
    others: mpsc::Sender<Bytes>,
    received: Vec<u8>,
    plain: BytesMut,
    packets: Vec<Bytes>,
    unread: Vec<u8>,
    portion: Vec<Bytes>,
    has_ended: bool,
    /// What TLS found wrong, which has ended it.
    fault: Option<io::Error>,
}

/// What became of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Nothing waits.
    All,
    /// More waits.
    Some,
    /// The socket is full.
    Blocked,
}

impl<F: Framing, P: FnMut(&mut Vec<Bytes>) + Send> Pump<F, P> {
    /// Takes over a connection whose handshake is done; `early` is what has been read of its stream. What waits in the
    /// carrier goes by this connection from now on: another one that it had only reads any more.
    ///
    /// # Errors
    /// If the system refuses what the socket needs.
    pub fn new(
        carrier: Arc<StreamCarrier<F>>,
        framing: F,
        (socket, tls): (TcpStream, impl Into<Connection>),
        early: &[u8],
        deliver: P,
        others: mpsc::Sender<Bytes>,
    ) -> io::Result<Self> {
        prepare(&socket)?;
        let socket = Arc::new(socket);
        let number = carrier.take_over(&socket);
        let mut tls = tls.into();
        // What is sealed at a time is bounded here.
        tls.set_buffer_limit(None);
        Ok(Self {
            carrier,
            number,
            framing,
            socket,
            tls,
            deliver,
            others,
            received: Vec::new(),
            plain: BytesMut::from(early),
            packets: Vec::new(),
            unread: Vec::new(),
            portion: Vec::with_capacity(PORTION),
            has_ended: false,
            fault: None,
        })
    }

    /// Runs until either end closes the connection.
    ///
    /// # Errors
    /// Why it could not go on.
    pub async fn run(mut self) -> io::Result<()> {
        let _over = Over { carrier: Arc::clone(&self.carrier), number: self.number };
        let outcome = self.move_all().await;
        if outcome.is_ok() || !self.has_ended {
            self.say_farewell().await;
        }
        outcome
    }

    async fn move_all(&mut self) -> io::Result<()> {
        // What came with the last handshake messages is in TLS already.
        self.decrypt()?;
        // When a connection that is being closed is over in any case.
        let mut end: Option<tokio::time::Instant> = None;
        loop {
            // A socket that is always ready must not keep the thread from other tasks.
            consume_budget().await;
            let sent = self.send();
            if self.has_ended {
                // The last words may have come together with the end, whatever becomes of what is sent then.
                if !self.unread.is_empty() {
                    let _in_time = timeout(FAREWELL, pass_on(&self.others, &mut self.unread)).await;
                }
                if let Some(fault) = self.fault.take() {
                    return Err(fault);
                }
                let is_whole = self.framing.may_end(&self.plain);
                return if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            let sent = sent?;
            let (is_closing, is_said) = self.carrier.closing_state();
            if is_closing && is_said && sent != Sent::Blocked {
                return Ok(());
            }
            if is_closing {
                end.get_or_insert_with(|| tokio::time::Instant::now() + FAREWELL);
            }
            let is_read = self.unread.is_empty();
            tokio::select! {
                biased;
                () = sleep_until(end.unwrap_or_else(tokio::time::Instant::now)), if is_closing => return Ok(()),
                () = self.carrier.closing.notified(), if !is_closing => {}
                is_wanted = pass_on(&self.others, &mut self.unread), if !is_read => if !is_wanted {
                    return Ok(());
                },
                ready = ready(&self.socket, is_read, sent) => if ready?.is_readable() && is_read {
                    self.receive()?;
                },
                () = self.carrier.outbox.filled(), if sent == Sent::All && self.is_sender() => {}
                () = tokio::task::yield_now(), if sent == Sent::Some => {}
            }
        }
    }

    fn is_sender(&self) -> bool {
        self.carrier.is_sender(self.number)
    }

    /// Sends some of what waits: first what the control side says.
    fn send(&mut self) -> io::Result<Sent> {
        if !self.is_sender() {
            return Ok(if self.write()? { Sent::All } else { Sent::Blocked });
        }
        for _turn in 0..TURNS {
            if !self.write()? {
                return Ok(Sent::Blocked);
            }
            if !self.seal()? {
                return Ok(Sent::All);
            }
        }
        Ok(if self.write()? { Sent::Some } else { Sent::Blocked })
    }

    /// Seals some of what waits. False if nothing does.
    fn seal(&mut self) -> io::Result<bool> {
        let (said, is_closing) = {
            let mut control = self.carrier.control();
            control.is_in_flight = !control.queued.is_empty();
            (mem::take(&mut control.queued), control.is_closing)
        };
        if said.is_empty() {
            self.carrier.written.notify_waiters();
        } else {
            self.tls.writer().write_all(&said)?;
        }
        if !is_closing {
            self.seal_packets()?;
        }
        Ok(self.tls.wants_write())
    }

    fn seal_packets(&mut self) -> io::Result<()> {
        let (outbox, counters) = (&self.carrier.outbox, self.carrier.counters());
        counters.count_drops(outbox.expire(Instant::now()), DropReason::QueueFull);
        outbox.take(&mut self.portion, PORTION);
        if self.portion.is_empty() {
            return Ok(());
        }
        let mut writer = self.tls.writer();
        if F::IS_ALONE {
            self.portion.iter().try_for_each(|frame| writer.write_all(frame))?;
        } else {
            let mut slices = [IoSlice::new(&[]); PORTION];
            slices.iter_mut().zip(&self.portion).for_each(|(slice, frame)| *slice = IoSlice::new(frame));
            // Without a limit all of it is taken.
            let _all = writer.write_vectored(slices.get(..self.portion.len()).unwrap_or_default())?;
        }
        let bytes: usize = self.portion.iter().map(|frame| F::packet_len(frame.len())).sum();
        counters.count_tx(self.portion.len() as u64, bytes as u64);
        self.portion.clear();
        Ok(())
    }

    /// Writes what is sealed. False if the socket takes no more now.
    fn write(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut NonBlocking(&self.socket)) {
                Ok(_some) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads some of what has come, and hands it over.
    fn receive(&mut self) -> io::Result<()> {
        for _turn in 0..TURNS {
            self.received.reserve(READ);
            match self.socket.try_read_buf(&mut self.received) {
                Ok(0) => self.has_ended = true,
                Ok(_some) => self.decrypt()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // An idle connection holds no memory for what came once.
                    self.received = Vec::new();
                    if self.plain.is_empty() {
                        self.plain = BytesMut::new();
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            if self.has_ended || !self.unread.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Decrypts what was received, and hands over what is whole.
    fn decrypt(&mut self) -> io::Result<()> {
        let mut received = self.received.as_slice();
        self.plain.reserve(READ);
        loop {
            match self.tls.process_new_packets() {
                Ok(state) => self.has_ended |= state.peer_has_closed(),
                Err(fault) => {
                    // The other end is told why, if it hears. What came before is handed over.
                    let _unheard = self.tls.write_tls(&mut NonBlocking(&self.socket));
                    (self.has_ended, self.fault) = (true, Some(io::Error::other(fault)));
                }
            }
            loop {
                let mut reader = self.tls.reader();
                let length = match reader.fill_buf() {
                    Ok(piece) => {
                        self.plain.extend_from_slice(piece);
                        piece.len()
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                if length == 0 {
                    break;
                }
                reader.consume(length);
            }
            if received.is_empty() || self.has_ended {
                break;
            }
            self.tls.read_tls(&mut received)?;
        }
        self.received.clear();
        let read = self.framing.read(&mut self.plain, &mut self.packets, &mut self.unread);
        if !self.packets.is_empty() {
            (self.deliver)(&mut self.packets);
            self.packets.clear();
        }
        read.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.reason()))
    }

    /// Says that nothing more comes, so that the other end can tell an end from an accident.
    async fn say_farewell(&mut self) {
        self.tls.send_close_notify();
        let farewell = async {
            while matches!(self.write(), Ok(false)) {
                if self.socket.writable().await.is_err() {
                    return;
                }
            }
        };
        let _in_time = timeout(FAREWELL, farewell).await;
    }
}

/// Hands over what is no packet, once there is room for it. False if nobody wants it. Cancel-safe.
async fn pass_on(others: &mpsc::Sender<Bytes>, unread: &mut Vec<u8>) -> bool {
    let Ok(permit) = others.reserve().await else { return false };
    permit.send(mem::take(unread).into());
    true
}

/// Waits for the socket.
async fn ready(socket: &TcpStream, may_read: bool, sent: Sent) -> io::Result<tokio::io::Ready> {
    match (may_read, sent == Sent::Blocked) {
        (true, true) => socket.ready(Interest::READABLE | Interest::WRITABLE).await,
        (true, false) => socket.ready(Interest::READABLE).await,
        (false, true) => socket.ready(Interest::WRITABLE).await,
        (false, false) => pending().await,
    }
}

/// Tells the carrier that nobody moves anything any more, if this was the pump that sends.
struct Over<F: Framing> {
    carrier: Arc<StreamCarrier<F>>,
    number: u32,
}

impl<F: Framing> Drop for Over<F> {
    fn drop(&mut self) {
        if self.carrier.is_sender(self.number) {
            self.carrier.control().is_over = true;
            self.carrier.written.notify_waiters();
        }
    }
}

/// A socket that says when it would have to wait.
struct NonBlocking<'a>(&'a TcpStream);

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
