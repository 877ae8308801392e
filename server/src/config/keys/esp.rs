//! The table `[esp]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, value};

/// Packets after which keys are replaced: more would weaken them (RFC 9001 appendix B.1.1).
const MOST_REKEY_PACKETS: u64 = 1 << 28;

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "esp.enabled",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether clients that can use the `esp` carrier may. It is faster and shares the port; without it all packets travel by `quic`.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.esp.enabled, given.boolean()),
    },
    Key {
        name: "esp.suites",
        kind: Kind::List,
        absent: Absent::Default(r#"["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"]"#),
        example: r#"["aes-256-gcm", "chacha20-poly1305"]"#,
        meaning: "Cipher suites of `esp`, the preferred one first. A client that knows none of them stays on `quic`.",
        applies: Applies::NewSessions,
        read: |given, config| put(&mut config.esp.permitted.offer.suites, given.items(value::suite)),
    },
    Key {
        name: "esp.vouched",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether TCP and UDP checksums inside `esp` may be left to the tunnel's own authentication, which is stronger and saves time.",
        applies: Applies::NewSessions,
        read: |given, config| put(&mut config.esp.permitted.offer.vouched, given.boolean()),
    },
    Key {
        name: "esp.rekey_after",
        kind: Kind::Duration { least: "1s", most: "24h" },
        absent: Absent::Default(r#""1h""#),
        example: r#""15m""#,
        meaning: "How long the keys of an `esp` session are used; {least} to {most}.",
        applies: Applies::NewSessions,
        read: |given, config| put(&mut config.esp.permitted.policy.after, given.duration()),
    },
    Key {
        name: "esp.rekey_packets",
        kind: Kind::Integer { least: 1 << 10, most: MOST_REKEY_PACKETS },
        absent: Absent::Default("268435456"),
        example: "16777216",
        meaning: "Packets sent to a client after which the keys of its `esp` session are replaced; {least} to {most} (2^28).",
        applies: Applies::NewSessions,
        read: |given, config| put(&mut config.esp.permitted.policy.packets, given.integer()),
    },
];
