//! Giving up root.

use std::io;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: sets of 64 bits, in two halves.
const VERSION: u32 = 0x2008_0522;
/// CAP_NET_BIND_SERVICE and CAP_NET_ADMIN, as bits of the lower half.
const NETWORK: u32 = 1 << 10 | 1 << 12;

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    process: i32,
}

/// `struct __user_cap_data_struct` of linux/capability.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes root another user for good, who may still change the network and listen on low ports, as far as root might.
/// To be called before the process has a second thread: the others would keep their capabilities.
///
/// # Errors
/// The kernel's refusal; the process must then go no further, for it may have become neither.
pub fn become_user(user: u32, group: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    prctl::set_keepcaps(false)?;
    let kept = capabilities()?[0].permitted & NETWORK;
    set_capabilities([Sets { effective: kept, permitted: kept, inheritable: 0 }, Sets::default()])
}

fn capabilities() -> io::Result<[Sets; 2]> {
    let header = Header { version: VERSION, process: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the header has the version whose data are two structures, which the kernel fills in, and both outlive the
    // call. Process 0 is the calling thread.
    #[expect(unsafe_code, reason = "a system call no crate of ours wraps")]
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    if done == 0 { Ok(sets) } else { Err(io::Error::last_os_error()) }
}

fn set_capabilities(sets: [Sets; 2]) -> io::Result<()> {
    let header = Header { version: VERSION, process: 0 };
    // SAFETY: the header has the version whose data are two structures, which the kernel reads, and both outlive the
    // call. Process 0 is the calling thread.
    #[expect(unsafe_code, reason = "a system call no crate of ours wraps")]
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
