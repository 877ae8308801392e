//! Asks the kernel to hand over superpackets: TCP and UDP of up to 64 KiB, with checksums left to us.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Checksums are left to us; needed for the others (`TUN_F_CSUM` of linux/if_tun.h).
const CSUM: libc::c_int = 0x01;
/// TCP superpackets, IPv4 and IPv6 (`TUN_F_TSO4`, `TUN_F_TSO6`).
const TSO: libc::c_int = 0x02 | 0x04;
/// UDP superpackets, both families, since Linux 6.2 (`TUN_F_USO4`, `TUN_F_USO6`).
const USO: libc::c_int = 0x20 | 0x40;

mod ioctl {
    nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);
}

/// Turns on what the kernel knows, or all off. Without any of it the device hands over single packets, which is slower
/// and nothing else.
pub(super) fn set(device: &impl AsFd, on: bool) -> io::Result<()> {
    if !on {
        return set_mask(device, 0);
    }
    for wanted in [CSUM | TSO | USO, CSUM | TSO] {
        match set_mask(device, wanted) {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(%error, wanted, "offloads not available"),
        }
    }
    Ok(())
}

fn set_mask(device: &impl AsFd, mask: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is an open TUN device, and TUNSETOFFLOAD takes its argument by value.
    #[expect(unsafe_code, reason = "an ioctl no crate wraps")]
    unsafe { ioctl::tun_set_offload(device.as_fd().as_raw_fd(), mask) }?;
    Ok(())
}
