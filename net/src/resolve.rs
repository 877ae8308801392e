//! Asks the system's resolver for the addresses of a name, one address family at a time.
//!
//! The standard library asks for both at once and answers when both are known. Where a network drops the questions for
//! one family, that takes many seconds longer than the answer that counts.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Asks for the addresses of a name. Blocks for as long as the system's resolver takes, which can be half a minute.
///
/// # Errors
/// The resolver's refusal: there is no such name, it has no address of this family, or nobody answered.
#[expect(unsafe_code, reason = "a function of the C library that no crate of ours wraps")]
pub fn resolve(name: &str, family: AddressFamily) -> io::Result<Vec<IpAddr>> {
    let name = CString::new(name)?;
    let family = match family {
        AddressFamily::V4 => libc::AF_INET,
        AddressFamily::V6 => libc::AF_INET6,
    };
    let hints = libc::addrinfo {
        ai_flags: 0,
        ai_family: family,
        // One kind of socket, or each address comes once for each kind.
        ai_socktype: libc::SOCK_DGRAM,
        ai_protocol: 0,
        ai_addrlen: 0,
        ai_addr: ptr::null_mut(),
        ai_canonname: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
    let mut found = ptr::null_mut();
    // SAFETY: the name ends with a zero byte, the hints are filled in, and both live until the call returns; `found` is
    // only written.
    let refused = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut found) };
    if refused != 0 {
        return Err(io::Error::other(format!("the resolver refused with code {refused}")));
    }
    let found = Found(found);
    let mut addresses = Vec::new();
    let mut next = found.0;
    // SAFETY: the pointer is null or leads to an entry of the list, which `found` keeps until the end of this function.
    while let Some(entry) = unsafe { next.as_ref() } {
        addresses.extend(address(entry));
        next = entry.ai_next;
    }
    Ok(addresses)
}

/// The list that the resolver made; given back on drop.
struct Found(*mut libc::addrinfo);

impl Drop for Found {
    #[expect(unsafe_code, reason = "a function of the C library that no crate of ours wraps")]
    fn drop(&mut self) {
        // SAFETY: the list is from `getaddrinfo`, and nothing of it is used any more.
        unsafe { libc::freeaddrinfo(self.0) };
    }
}

#[expect(unsafe_code, reason = "socket addresses of the C library, of a length that its family says")]
fn address(entry: &libc::addrinfo) -> Option<IpAddr> {
    match entry.ai_family {
        libc::AF_INET => {
            // SAFETY: an entry of this family leads to a socket address of this family.
            let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_asked_for_by_itself() {
        assert_eq!(resolve("192.0.2.1", AddressFamily::V4).unwrap(), [Ipv4Addr::new(192, 0, 2, 1)]);
        assert!(resolve("192.0.2.1", AddressFamily::V6).is_err());
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(resolve("2001:db8::1", AddressFamily::V6).unwrap(), [address]);
        assert!(resolve("2001:db8::1", AddressFamily::V4).is_err());
        assert!(resolve("localhost", AddressFamily::V4).unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
        assert!(resolve("no\0name", AddressFamily::V4).is_err());
    }
}
