//! The table `[pool]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, value};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "pool.v4",
        kind: Kind::Network { least: 8, most: 29 },
        absent: Absent::Optional,
        example: r#""10.77.0.0/24""#,
        meaning: "IPv4 network from which devices get addresses; /{least} to /{most}. The gateway takes the first address.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.pool.v4, value::pool_v4(given).map(Some)),
    },
    Key {
        name: "pool.v6",
        kind: Kind::Network { least: 48, most: 120 },
        absent: Absent::Optional,
        example: r#""fd00:77::/64""#,
        meaning: "IPv6 network from which devices get addresses; /{least} to /{most}. The gateway takes the first address.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.pool.v6, value::pool_v6(given).map(Some)),
    },
];
