//! The keys of the top level.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, value};
use crate::directories::{RuntimeDir, StateDir};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "public",
        kind: Kind::List,
        absent: Absent::Refused,
        example: r#"["vpn.example.org"]"#,
        meaning: "Names or addresses, with an optional :PORT (default 443), under which clients reach this gateway.\n\
         Invites carry the first four; the gateway's certificate carries all.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.public, given.items(value::public_address)),
    },
    Key {
        name: "listen",
        kind: Kind::List,
        absent: Absent::Default(r#"["[::]:443"]"#),
        example: r#"["192.0.2.1:443"]"#,
        meaning: "Local addresses, for UDP and TCP; 30 at most with esp. [::] takes IPv4 too.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.listen, given.items(value::socket_address)),
    },
    Key {
        name: "listen_tcp",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether the gateway listens on TCP there, too: for clients whose network passes no UDP, and for browsers.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.listen_tcp, given.boolean()),
    },
    Key {
        name: "routes",
        kind: Kind::List,
        absent: Absent::Default(r#"["0.0.0.0/0", "::/0"]"#),
        example: r#"["10.1.0.0/16"]"#,
        meaning: "Networks that clients send through the tunnel. 0.0.0.0/0 and ::/0 send everything.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.routes, given.list(value::prefix)),
    },
    Key {
        name: "client_to_client",
        kind: Kind::Boolean,
        absent: Absent::Default("false"),
        example: "true",
        meaning: "Whether devices may reach each other through the gateway.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.client_to_client, given.boolean()),
    },
    Key {
        name: "local_services",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["tcp/22", "udp/123"]"#,
        meaning: "Services on the gateway's own host that devices reach through the tunnel, as PROTOCOL/PORT, at all its\n\
         addresses. Without it they reach ping and DNS there, and nothing else.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.local_services, given.list(value::local_service)),
    },
    Key {
        name: "masquerade",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether clients' packets leave with the gateway's own address.\n\
         Without it the network behind the gateway must route the pools back to it.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.masquerade, given.boolean()),
    },
    Key {
        name: "lease_cooldown",
        kind: Kind::Duration { least: "0s", most: "24h" },
        absent: Absent::Default(r#""120s""#),
        example: r#""10m""#,
        meaning: "How long the address of a device that left is kept from other devices; at most {most}.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.lease_cooldown, given.duration()),
    },
    Key {
        name: "invite_lifetime",
        kind: Kind::Duration { least: "1s", most: "30d" },
        absent: Absent::Default(r#""24h""#),
        example: r#""15m""#,
        meaning: "How long an invite may be used; {least} to {most}.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.invite_lifetime, given.duration()),
    },
    Key {
        name: "certificate_lifetime",
        kind: Kind::Duration { least: "15s", most: "825d" },
        absent: Absent::Default(r#""30d""#),
        example: r#""90d""#,
        meaning: "How long a device certificate is valid; {least} to {most}. A session ends with it, unless it is renewed.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.certificate_lifetime, given.duration()),
    },
    Key {
        name: "certificate_renewal",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether a device may renew its certificate, which clients do by themselves after two thirds of its life. Where it\n\
         may not, its user needs a new invite, or joins again, when the certificate is over.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.certificate_renewal, given.boolean()),
    },
    Key {
        name: "policy",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/policy.toml""#,
        meaning: "File of groups and rules, which say who may reach what: docs/policy.md. Without it every device may reach\n\
         everything that `routes` lead to.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.policy, value::directory(given).map(Some)),
    },
    Key {
        name: "log",
        kind: Kind::Text,
        absent: Absent::Default(r#""info""#),
        example: r#""adit_server=debug,info""#,
        meaning: "What is logged: error, warn, info, debug, trace, or directives such as adit_server=debug,info. `run --log` stands\n\
         above it.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.log, value::log_filter(given)),
    },
    Key {
        name: "state_dir",
        kind: Kind::Text,
        absent: Absent::Default(r#""/var/lib/adit""#),
        example: r#""/srv/adit""#,
        meaning: "Directory of the keys and of the store of users and devices.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.state_dir, value::directory(given).map(StateDir::new)),
    },
    Key {
        name: "runtime_dir",
        kind: Kind::Text,
        absent: Absent::Default(r#""/run/adit""#),
        example: r#""/run/adit-2""#,
        meaning: "Directory of the admin socket.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.runtime_dir, value::directory(given).map(RuntimeDir::new)),
    },
];
