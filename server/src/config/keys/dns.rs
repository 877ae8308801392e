//! The table `[dns]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, value};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "dns.servers",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["10.1.0.53"]"#,
        meaning: "Resolvers for clients. The gateway runs none itself; `init` takes those of its host.\n\
         One that runs on this host must answer the addresses of the pools.\n\
         With an empty list clients keep their own, which may be out of reach while everything goes through the tunnel.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.dns.servers, given.list(value::ip)),
    },
    Key {
        name: "dns.domains",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["corp.example.org"]"#,
        meaning: "Domains for which clients ask these resolvers; an empty list means every name.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.dns.domains, given.list(value::domain)),
    },
];
