//! Which socket of a group gets a datagram.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use adit_proto::esp::spi::{self, Spi};
use libc::{
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_B, BPF_H, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET,
    BPF_SUB, sock_filter, sock_fprog,
};
use nix::sys::socket::{setsockopt, sockopt};

/// Where the loads of a program begin to count from the IP header (`SKF_NET_OFF` of linux/filter.h).
const IP_HEADER: u32 = 0_u32.wrapping_sub(0x10_0000);
/// The first byte of an IPv4 header without options.
const IPV4: u32 = 0x45;
/// Where the source port is, behind a header of IPv4 without options, and behind one of IPv6 alone.
const PORT_BEHIND_IPV4: u32 = IP_HEADER + 20;
const PORT_BEHIND_IPV6: u32 = IP_HEADER + 40;
/// The first bytes of records of DTLS 1.2 (RFC 7983), and behind the last.
const DTLS: (u32, u32) = (20, 24);
/// Where the epoch of a record is.
const EPOCH: u32 = 3;

/// Has the kernel give ESP datagrams to the socket of the worker they name, as long as that is below `workers`, and all
/// others to socket 0, the main one. Sockets of a group are numbered in the order they are bound in.
///
/// For a number beyond the group the kernel would choose by hash, so the program never returns one. A datagram without
/// a byte ends the program early, which means socket 0.
pub(super) fn steer(socket: &impl AsFd, workers: u8) -> io::Result<()> {
    let mut program = vec![load(BPF_B, 0)];
    program.extend(esp(workers));
    program.push(answer(0));
    attach(socket, program)
}

/// As [`steer`]; besides, of the records of DTLS those of epoch 0 go to the socket behind those of the workers, which
/// are at least one, and all others to that of [`dtls_worker`].
pub(super) fn steer_with_dtls(socket: &impl AsFd, workers: u8) -> io::Result<()> {
    let mut program = vec![load(BPF_B, 0)];
    program.extend(esp(workers));
    program.extend(records(workers, u32::from(workers) + 1));
    attach(socket, program)
}

/// In a group for DTLS alone: has the kernel give records behind epoch 0 to the socket of [`dtls_worker`], and all else
/// to socket 0. Without workers that gets all.
pub(super) fn steer_dtls(socket: &impl AsFd, workers: u8) -> io::Result<()> {
    if workers == 0 {
        return attach(socket, vec![answer(0)]);
    }
    let mut program = vec![load(BPF_B, 0)];
    program.extend(records(workers, 0));
    attach(socket, program)
}

/// Answers with socket `door` for records of epoch 0, with that of their worker for all others, and with socket 0 for
/// what is no record. The first byte has been loaded.
fn records(workers: u8, door: u32) -> [sock_filter; 14] {
    [
        jump(BPF_JGE, DTLS.1, (1, 0)),
        jump(BPF_JGE, DTLS.0, (1, 0)),
        answer(0),
        // Who is no stranger any more is where the workers can find it.
        load(BPF_H, EPOCH),
        jump(BPF_JEQ, 0, (0, 1)),
        answer(door),
        load(BPF_B, IP_HEADER),
        jump(BPF_JEQ, IPV4, (0, 2)),
        load(BPF_H, PORT_BEHIND_IPV4),
        jump(BPF_JA, 1, (0, 0)),
        load(BPF_H, PORT_BEHIND_IPV6),
        instruction(BPF_ALU | BPF_MOD | BPF_K, workers.into(), (0, 0)),
        instruction(BPF_ALU | BPF_ADD | BPF_K, 1, (0, 0)),
        instruction(BPF_RET | BPF_A, 0, (0, 0)),
    ]
}

/// The worker, of so many, that gets a peer's records of DTLS.
pub fn dtls_worker(peer: SocketAddr, workers: usize) -> usize {
    usize::from(peer.port()).checked_rem(workers).unwrap_or_default()
}

/// Answers with the worker's socket if the byte that was loaded is that of an ESP datagram for one.
fn esp(workers: u8) -> [sock_filter; 4] {
    let first = u32::from(first_byte(0));
    let end = first + u32::from(workers);
    [
        jump(BPF_JGE, end, (3, 0)),
        jump(BPF_JGE, first, (0, 2)),
        instruction(BPF_ALU | BPF_SUB | BPF_K, first - 1, (0, 0)),
        instruction(BPF_RET | BPF_A, 0, (0, 0)),
    ]
}

fn attach(socket: &impl AsFd, mut program: Vec<sock_filter>) -> io::Result<()> {
    let len = u16::try_from(program.len()).expect("a program has few instructions");
    let program = sock_fprog { len, filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, sockopt::AttachReusePortCbpf, &program)?)
}

fn load(size: u32, at: u32) -> sock_filter {
    instruction(BPF_LD | size | BPF_ABS, at, (0, 0))
}

fn answer(socket: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, socket, (0, 0))
}

/// A comparison with the byte or number that was loaded.
fn jump(condition: u32, k: u32, jumps: (u8, u8)) -> sock_filter {
    instruction(BPF_JMP | condition | BPF_K, k, jumps)
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
