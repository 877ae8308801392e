//! The table `[anyconnect]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::Config;

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "anyconnect.enabled",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether clients of the AnyConnect family, such as openconnect, are served on TCP, and by DTLS where\n\
         UDP passes: users log in with the sources of `login.sources`.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.anyconnect.enabled, given.boolean()),
    },
    Key {
        name: "anyconnect.tls12",
        kind: Kind::Boolean,
        absent: Absent::Default("false"),
        example: "true",
        meaning: "Whether TLS 1.2 will do on TCP, for old clients, with suites that are still good (ECDHE with AES-GCM or\n\
         ChaCha20-Poly1305). Without it everybody needs TLS 1.3.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.anyconnect.tls12, given.boolean()),
    },
    Key {
        name: "anyconnect.rekey_after",
        kind: Kind::Duration { least: "1s", most: "30d" },
        absent: Absent::Default(r#""1d""#),
        example: r#""12h""#,
        meaning: "When clients of the AnyConnect family make a new connection, which has new keys, and a new association of DTLS;\n\
         {least} to {most}. They do so without a question, and keep their addresses.",
        applies: Applies::NewSessions,
        read: |given, config| put(&mut config.anyconnect.rekey_after, given.duration()),
    },
    Key {
        name: "anyconnect.dtls_port",
        kind: Kind::Integer { least: 1, most: 65_535 },
        absent: Absent::Optional,
        example: "4433",
        meaning: "UDP port of DTLS at each address of `listen`, where that is to be another than the one of TCP; {least} to\n\
         {most}. Clients are told it.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.anyconnect.dtls_port, given.integer().map(Some)),
    },
    Key {
        name: "anyconnect.cisco",
        kind: Kind::Boolean,
        absent: Absent::Default("false"),
        example: "true",
        meaning: "Whether Cisco's own clients get what they ask for on top: files that tell them that there is nothing\n\
         newer, and the fingerprint of the certificate. It has not been tried with them.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.anyconnect.cisco, given.boolean()),
    },
];
