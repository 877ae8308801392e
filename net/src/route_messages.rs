//! Messages of route netlink that the kernel sends to whoever listens, on its own account (rtnetlink(7)).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes of a message's head: its length, kind, flags, number and sender (`nlmsghdr`).
const HEAD: usize = 16;
/// Messages begin at multiples of this (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;

/// Listens to these groups of messages, in the network namespace of the calling thread. Must be called inside a tokio
/// runtime.
pub(crate) fn listen(groups: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // SAFETY: the descriptor is owned, so it stays open, and the same, until the registration is dropped with it.
    #[expect(unsafe_code, reason = "the compiler cannot see that a descriptor stays the same")]
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
    Ok(socket)
}

/// The messages that one read brought: the kind of each, and what is behind its head. The last one may be cut off.
pub(crate) fn messages(read: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = read;
    std::iter::from_fn(move || {
        let length = usize::try_from(number(rest, 0)?).ok()?;
        let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
        let body = rest.get(HEAD..length.min(rest.len()))?;
        let next = length.checked_next_multiple_of(ALIGNMENT);
        rest = next.and_then(|next| rest.get(next..)).unwrap_or_default();
        Some((kind, body))
    })
}

/// A number of 32 bits in a message.
pub(crate) fn number(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_and_impossible_lengths_end_the_search() {
        let message = |length: u32, kind: u16, body: &[u8]| {
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
        };
        let read = [message(18, 16, &[1, 2, 0, 0]), message(20, 68, &[3, 4, 5, 6])].concat();
        let both = [(16, &[1, 2][..]), (68, &[3, 4, 5, 6])];
        assert_eq!(messages(&read).collect::<Vec<_>>(), both);
        assert_eq!(messages(&read[..38]).collect::<Vec<_>>(), [both[0], (68, &[3, 4][..])], "cut off");
        for length in [0, 15, u32::MAX] {
            assert!(messages(&message(length, 16, &[])).count() <= 1, "{length}");
        }
        assert_eq!(messages(&[20, 0, 0]).count(), 0);
    }
}
