//! A connection whose caller hears nothing of HTTP from some moment on, so that a guest can answer itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

/// A connection, and whether what is written to it is left out.
pub(super) struct Quiet<S> {
    pub(super) stream: S,
    is_quiet: Arc<AtomicBool>,
}

/// Makes a connection quiet.
#[derive(Clone, Default)]
pub(super) struct Hush(Arc<AtomicBool>);

impl Hush {
    /// A connection that this makes quiet.
    pub(super) fn over<S>(&self, stream: S) -> Quiet<S> {
        Quiet { stream, is_quiet: Arc::clone(&self.0) }
    }

    /// From now on nothing that is written reaches the caller.
    pub(super) fn hush(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<S: Read + Unpin> Read for Quiet<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, room)
    }
}

impl<S: Write + Unpin> Write for Quiet<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let quiet = self.get_mut();
        if quiet.is_quiet.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut quiet.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_heard_of_what_is_written_to_a_quiet_connection() {
        let (near, mut far) = tokio::io::duplex(64);
        let hush = Hush::default();
        let mut quiet = pin!(hush.over(TokioIo::new(near)));
        let mut say =
            async |text: &[u8]| std::future::poll_fn(|context| quiet.as_mut().poll_write(context, text)).await.unwrap();
        assert_eq!(say(b"loud").await, 4);
        hush.hush();
        assert_eq!(say(b"quiet").await, 5);
        let mut heard = [0; 64];
        assert_eq!(far.read(&mut heard).await.unwrap(), 4);
        assert_eq!(&heard[..4], b"loud");
    }
}
