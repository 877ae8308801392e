//! The table `[workers]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};
use adit_proto::esp::spi::WORKERS;

use crate::config::Config;

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "workers.count",
        kind: Kind::Integer { least: 0, most: WORKERS as u64 },
        absent: Absent::Default("0"),
        example: "4",
        meaning: "Threads that move packets, each with its own queue of the TUN device; at most {most}. 0 makes one per core, at most 16.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.workers.count, given.integer()),
    },
    Key {
        name: "workers.yields",
        kind: Kind::Integer { least: 0, most: 1000 },
        absent: Absent::Default("0"),
        example: "20",
        meaning: "How often a worker that has just moved superpackets lets others run before it sleeps; {least} to {most}.\n\
         Some machines move more with 20; measure it, since others lose rate and latency by it.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.workers.settings.yields, given.integer()),
    },
    Key {
        name: "workers.tun_offload",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether the kernel hands over packets of one flow together and leaves their checksums to the gateway.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.workers.tun_offload, given.boolean()),
    },
    Key {
        name: "workers.udp_offload",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether the kernel cuts and joins the datagrams of `esp`; it is given up by itself where a network device cannot.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.workers.udp_offload, given.boolean()),
    },
    Key {
        name: "workers.quic_threads",
        kind: Kind::Integer { least: 0, most: WORKERS as u64 },
        absent: Absent::Default("0"),
        example: "4",
        meaning: "Threads that serve connections: handshakes, sessions, and packets that go by `quic`; at most {most}. 0 makes half as many\n\
         as there are cores, at most 16.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.workers.quic_threads, given.integer()),
    },
];
