//! Which socket of a group gets a datagram.

use std::io;

use adit_proto::esp::spi::{self, Spi};
use libc::{BPF_ABS, BPF_B, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_SUB, sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

/// Has the kernel give ESP datagrams to the socket of the worker they name, as long as that is below `workers`, and all
/// others to socket 0, the main one. Sockets of a group are numbered in the order they are bound in.
///
/// For a number beyond the group the kernel would choose by hash, so the program never returns one. A datagram without
/// a byte ends the program early, which means socket 0.
pub(super) fn steer(socket: &Socket, workers: u8) -> io::Result<()> {
    let first = u32::from(first_byte(0));
    let end = first + u32::from(workers);
    let mut program = [
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, (0, 0)),
        instruction(BPF_JMP | BPF_JGE | BPF_K, end, (3, 0)),
        instruction(BPF_JMP | BPF_JGE | BPF_K, first, (0, 2)),
        instruction(libc::BPF_ALU | BPF_SUB | BPF_K, first - 1, (0, 0)),
        instruction(BPF_RET | libc::BPF_A, 0, (0, 0)),
        instruction(BPF_RET | BPF_K, 0, (0, 0)),
    ];
    let len = u16::try_from(program.len()).expect("six instructions");
    let program = sock_fprog { len, filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, sockopt::AttachReusePortCbpf, &program)?)
}

/// The first byte of datagrams for a worker: those of all workers follow one another.
fn first_byte(worker: u8) -> u8 {
    debug_assert!(worker < spi::WORKERS, "an index names 64 workers");
    Spi::new(worker, 0).map_or(u8::MAX, |spi| spi.get().to_be_bytes()[0])
}

/// Makes an instruction; `jumps` says how many instructions to skip if the comparison holds, and how many if it does
/// not.
fn instruction(code: u32, k: u32, jumps: (u8, u8)) -> sock_filter {
    let code = u16::try_from(code).expect("codes have 16 bits");
    sock_filter { code, jt: jumps.0, jf: jumps.1, k }
}
