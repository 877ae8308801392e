//! A connection over TLS whose handshake is done.

use std::io::{self, IoSlice, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection over TLS before it is asked for anything.
///
/// What came before TLS failed is read before that is told: some gateways answer a request and send an alert right
/// behind the answer, and both may come in one piece.
pub struct Shaken {
    stream: TlsStream<TcpStream>,
    /// Why nothing more comes, while something that came before is still to be read.
    fault: Option<io::Error>,
}

impl Shaken {
    /// The socket, and its TLS.
    #[must_use]
    pub fn into_inner(self) -> (TcpStream, ClientConnection) {
        self.stream.into_inner()
    }
}

impl From<TlsStream<TcpStream>> for Shaken {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, fault: None }
    }
}

impl AsyncRead for Shaken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let fault = match self.fault.take() {
            Some(fault) => fault,
            None => match ready!(Pin::new(&mut self.stream).poll_read(context, buffer)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(fault) => fault,
            },
        };
        let (_socket, tls) = self.stream.get_mut();
        match tls.reader().read(buffer.initialize_unfilled()) {
            Ok(length) if length > 0 => {
                buffer.advance(length);
                self.fault = Some(fault);
                Poll::Ready(Ok(()))
            }
            Ok(_) | Err(_) => Poll::Ready(Err(fault)),
        }
    }
}

impl AsyncWrite for Shaken {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
