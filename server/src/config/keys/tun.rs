//! The table `[tun]`.

use adit_net::tun::LARGEST_PACKET;
use adit_program::configuration::{Absent, Applies, Key, Kind, put};
use adit_proto::packet::IPV6_MIN_MTU;

use crate::config::{Config, value};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "tun.name",
        kind: Kind::Name { least: 1, most: 15 },
        absent: Absent::Default(r#""adit0""#),
        example: r#""vpn0""#,
        meaning: "Name of the TUN device, at most {most} characters.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.tun.name, value::device_name(given)),
    },
    Key {
        name: "tun.mtu",
        kind: Kind::Integer { least: IPV6_MIN_MTU as u64, most: LARGEST_PACKET as u64 },
        absent: Absent::Default("1420"),
        example: "8900",
        meaning: "Largest packet inside the tunnel, in bytes; {least} to {most}. What does not fit is answered with the size that does.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.tun.mtu, given.integer()),
    },
];
