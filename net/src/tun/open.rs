//! Opens the queues of a TUN device, which the `tun` crate cannot: it knows neither several queues nor offloads.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TUN, IFF_TUN_EXCL, IFF_VNET_HDR, IFNAMSIZ};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::offload;

const PATH: &str = "/dev/net/tun";

mod ioctl {
    // It reads the request and writes the name of the device back, so it is given what it may write to.
    nix::ioctl_readwrite_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(tun_get_iff, libc::TUNGETIFF, libc::ifreq);
}

/// Opens `queues` queues of a new device. Later ones join the device the first one made.
pub(super) fn open(name: &str, queues: usize, offload: bool) -> io::Result<Vec<tun::Device>> {
    if queues == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let shared = if queues > 1 { IFF_MULTI_QUEUE } else { 0 };
    let open_queue = |number: usize| {
        // Somebody else's device of this name is not ours to join.
        let exclusive = if number == 0 { IFF_TUN_EXCL } else { 0 };
        let descriptor = attach(name, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | shared | exclusive)?;
        offload::set(&descriptor, offload)?;
        own(name, descriptor)
    };
    (0..queues).map(open_queue).collect()
}

/// Takes over a queue that somebody else has opened; returns the name of its device as well.
pub(super) fn adopt(descriptor: OwnedFd) -> io::Result<(String, tun::Device)> {
    let mut request = request("any", 0)?;
    // SAFETY: the descriptor is open, and the kernel writes one `ifreq`, which outlives the call.
    #[expect(unsafe_code, reason = "an ioctl no crate wraps")]
    unsafe { ioctl::tun_get_iff(descriptor.as_raw_fd(), &raw mut request) }?;
    // SAFETY: TUNGETIFF fills in the flags, and any bits are valid flags.
    #[expect(unsafe_code, reason = "a union of the C library")]
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    let wanted = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    if flags & wanted != wanted {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a tun device with virtio-net headers alone"));
    }
    let name: Vec<u8> =
        request.ifr_name.iter().map(|byte| byte.cast_unsigned()).take_while(|&byte| byte != 0).collect();
    let name = String::from_utf8(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let status = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL)?);
    fcntl(&descriptor, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
    let device = own(&name, descriptor)?;
    Ok((name, device))
}

/// Opens the clone device and makes it a queue of the device called `name`.
fn attach(name: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
    let mut request = request(name, flags)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(PATH)?;
    // SAFETY: the descriptor is open, and the kernel reads and writes one `ifreq`, which is ours to write and outlives
    // the call.
    #[expect(unsafe_code, reason = "an ioctl no crate wraps")]
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), &raw mut request) }?;
    Ok(file.into())
}

fn request(name: &str, flags: libc::c_int) -> io::Result<libc::ifreq> {
    let fits = !name.is_empty() && name.len() < IFNAMSIZ && !name.contains(['\0', '%']);
    if !fits {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name of a link"));
    }
    let unused = libc::__c_anonymous_ifru_map { mem_start: 0, mem_end: 0, base_addr: 0, irq: 0, dma: 0, port: 0 };
    let mut request =
        libc::ifreq { ifr_name: [0; IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_map: unused } };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // The flags are the low 16 bits, of which the highest is the sign here.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    Ok(request)
}

/// Hands the descriptor to the `tun` crate, which owns it from now on.
fn own(name: &str, descriptor: OwnedFd) -> io::Result<tun::Device> {
    let mut configuration = tun::Configuration::default();
    // Addresses, MTU and state belong to `host`, which can undo them.
    configuration.tun_name(name).raw_fd(descriptor.into_raw_fd());
    tun::create(&configuration).map_err(into_io_error)
}

fn into_io_error(error: tun::Error) -> io::Error {
    if let tun::Error::Io(error) = error { error } else { io::Error::new(io::ErrorKind::InvalidInput, error) }
}
