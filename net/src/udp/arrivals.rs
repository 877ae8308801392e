//! What comes by a socket that no worker has.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{DatagramSocket as _, EspSocket, Message};

/// Takes what comes by a socket, one message after the other.
pub struct Arrivals {
    socket: AsyncFd<Descriptor>,
}

struct Descriptor(EspSocket);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Arrivals {
    /// To be called within the runtime.
    ///
    /// # Errors
    /// If the socket cannot be waited for.
    pub fn new(socket: EspSocket) -> io::Result<Self> {
        // SAFETY: the descriptor is that of a socket which stays open, and the same, until the registration is dropped
        // together with it.
        #[expect(unsafe_code, reason = "the compiler cannot see that a descriptor stays the same")]
        let socket = unsafe { AsyncFd::register_with_interest(Descriptor(socket), Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// Waits for the next message and puts it into `buffer`. Cancel-safe.
    ///
    /// # Errors
    /// What the system says, also of what was sent before; the next message may come all the same.
    pub async fn next(&self, buffer: &mut [u8]) -> io::Result<Message> {
        self.socket.async_io(Interest::READABLE, |Descriptor(socket)| socket.receive(buffer)).await
    }
}
