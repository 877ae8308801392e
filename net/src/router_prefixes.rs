//! Hears from the kernel under which prefixes routers say that the hosts of IPv4 are shown (NAT64, RFC 8781).
//!
//! The kernel passes on what it has no use for itself of the router advertisements it heeds (`accept_ra`). Whoever
//! listens hears nothing of earlier ones; routers repeat theirs. Every process may listen.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use adit_program::task::{self, Task};
use adit_proto::nat64::{AnnouncedPrefixes, Announcement};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::route_messages::{listen, messages, number};

/// The groups of messages about links, and about options of neighbour discovery (`RTNLGRP_ND_USEROPT`).
const GROUPS: u32 = libc::RTMGRP_LINK.unsigned_abs() | (1 << (libc::RTNLGRP_ND_USEROPT - 1));
/// As the kernel's messages name IPv6 (`AF_INET6`).
const IPV6: u8 = 10;
/// ICMPv6 type of a router advertisement (RFC 4861 section 4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Bytes before the options in the kernel's message (`nduseroptmsg`).
const OPTIONS: usize = 16;
/// Room for one message. Those about links may be longer; what counts of them stands at their beginning.
const BUFFER: usize = 8192;

/// The prefixes that routers announce where this host is; listening ends when it is dropped.
#[derive(Debug)]
pub struct RouterPrefixes {
    known: watch::Receiver<AnnouncedPrefixes>,
    _listening: Option<Task>,
}

impl RouterPrefixes {
    /// Listens from now on, in the network namespace of the calling thread. Must be called inside a tokio runtime.
    /// Where the system lets nobody listen, nothing is heard.
    #[must_use]
    pub fn listen() -> Self {
        let (tell, known) = watch::channel(AnnouncedPrefixes::default());
        let socket = listen(GROUPS).inspect_err(|error| tracing::debug!(%error, "routers are not heard"));
        let listening = socket.ok().map(|socket| {
            task::spawn(async move {
                if let Err(error) = follow(&socket, &tell).await {
                    tracing::debug!(%error, "routers are no longer heard");
                    tell.send_modify(|known| *known = AnnouncedPrefixes::default());
                }
            })
        });
        Self { known, _listening: listening }
    }

    /// What was heard, and what will be.
    #[must_use]
    pub fn known(&self) -> watch::Receiver<AnnouncedPrefixes> {
        self.known.clone()
    }
}

async fn follow(socket: &AsyncFd<OwnedFd>, tell: &watch::Sender<AnnouncedPrefixes>) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        let mut ready = socket.readable().await?;
        match recv(socket.get_ref().as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                let now = tokio::time::Instant::now().into_std();
                let read = buffer.get(..length).unwrap_or_default();
                tell.send_if_modified(|known| {
                    messages(read).fold(false, |changed, (kind, body)| heed(kind, body, known, now) || changed)
                });
            }
            // There was more than the socket holds, perhaps the end of a link.
            Err(Errno::ENOBUFS) => tell.send_modify(|known| *known = AnnouncedPrefixes::default()),
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes one message; says whether a prefix was announced, or may have been lost.
fn heed(kind: u16, body: &[u8], known: &mut AnnouncedPrefixes, now: Instant) -> bool {
    let Some(link) = number(body, 4) else { return false };
    if kind == libc::RTM_NEWNDUSEROPT {
        let announcements: Vec<_> = options(body).into_iter().flat_map(Announcement::among).collect();
        announcements.iter().for_each(|heard| known.handle_announcement(link, *heard, now));
        return !announcements.is_empty();
    }
    let is_up = || number(body, 8).is_some_and(|flags| flags & libc::IFF_RUNNING.unsigned_abs() != 0);
    let is_down = kind == libc::RTM_DELLINK || (kind == libc::RTM_NEWLINK && !is_up());
    if is_down {
        known.handle_link_down(link);
    }
    is_down
}

/// The options of a router advertisement that a message is about.
fn options(body: &[u8]) -> Option<&[u8]> {
    let is_advertisement = body.first() == Some(&IPV6) && body.get(8) == Some(&ROUTER_ADVERTISEMENT);
    let length = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
    body.get(OPTIONS..OPTIONS + usize::from(length)).filter(|_| is_advertisement)
}

#[cfg(test)]
mod tests {
    use adit_proto::nat64::{Nat64Prefix, PrefixLength};

    use super::*;

    /// An announcement of 64:ff9b::/96 for half an hour.
    const OPTION: [u8; 16] = [38, 2, 7, 8, 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];

    /// The kernel's message of an option that came by a link in a message of neighbour discovery.
    fn user_option(link: u32, icmp: u8) -> Vec<u8> {
        let head = [&[IPV6, 0][..], &16_u16.to_ne_bytes(), &link.to_ne_bytes(), &[icmp, 0, 0, 0, 0, 0, 0, 0]];
        // Behind the options there are attributes.
        [&head.concat()[..], &OPTION, &OPTION].concat()
    }

    fn link_message(link: u32, flags: i32) -> Vec<u8> {
        [&[0; 4][..], &link.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat()
    }

    #[test]
    fn announcement_is_heard_of_routers_alone_and_forgotten_with_its_link() {
        let (mut known, now) = (AnnouncedPrefixes::default(), Instant::now());
        let mut hear = |kind, body: &[u8]| (heed(kind, body, &mut known, now), known.prefixes(now).len());
        let option = user_option(7, ROUTER_ADVERTISEMENT);
        for end in 0..32 {
            assert_eq!(hear(libc::RTM_NEWNDUSEROPT, &option[..end]), (false, 0), "cut off after {end} bytes");
        }
        assert_eq!(hear(libc::RTM_NEWNDUSEROPT, &user_option(7, 136)), (false, 0), "a neighbour's word");
        assert_eq!(hear(libc::RTM_NEWNDUSEROPT, &option), (true, 1));
        assert_eq!(hear(libc::RTM_NEWLINK, &link_message(7, libc::IFF_UP | libc::IFF_RUNNING)), (false, 1));
        assert_eq!(hear(libc::RTM_NEWLINK, &link_message(8, libc::IFF_UP)), (true, 1), "another link");
        assert_eq!(hear(libc::RTM_NEWLINK, &link_message(7, libc::IFF_UP)), (true, 0), "its cable was drawn");
        assert_eq!(hear(libc::RTM_NEWNDUSEROPT, &option), (true, 1));
        assert_eq!(hear(libc::RTM_DELLINK, &link_message(7, 0)), (true, 0));
        hear(libc::RTM_NEWNDUSEROPT, &option);
        assert_eq!(known.prefixes(now), [Nat64Prefix::of("64:ff9b::".parse().unwrap(), PrefixLength::Bits96)]);
    }
}
