//! The table `[limits]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::Config;

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "limits.sessions",
        kind: Kind::Integer { least: 1, most: 1_000_000 },
        absent: Absent::Default("10000"),
        example: "200",
        meaning: "Live sessions; {least} to {most}.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.limits.sessions, given.integer()),
    },
    Key {
        name: "limits.pending_sessions",
        kind: Kind::Integer { least: 1, most: 65_535 },
        absent: Absent::Default("1024"),
        example: "64",
        meaning: "Connections without a tunnel: on their way in, or for a renewal; {least} to {most}. One network may take a part of them.\n\
         Where they or its part are taken, the one that has been idle for longest gives way.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.limits.pending_sessions, given.integer()),
    },
    Key {
        name: "limits.connections_per_client",
        kind: Kind::Integer { least: 16, most: 1_000_000 },
        absent: Absent::Default("2000"),
        example: "500",
        meaning: "Tracked connections of one device through the gateway; {least} to {most}.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.limits.connections_per_client, given.integer()),
    },
    Key {
        name: "limits.devices_per_user",
        kind: Kind::Integer { least: 1, most: 65_535 },
        absent: Absent::Default("32"),
        example: "5",
        meaning: "Devices of one user that can connect; {least} to {most}. Whoever has as many gets no further one until one of them\n\
         is revoked. That of an openconnect client counts while its login lasts, or it has a session. Tokens count, too, and are\n\
         made beyond it all the same.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.limits.devices_per_user, given.integer()),
    },
];
