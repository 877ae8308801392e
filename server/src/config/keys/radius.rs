//! The table `[radius]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, SecretPlace};
use crate::sources::radius::settings::{self, GroupAttribute};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "radius.servers",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["192.0.2.5", "192.0.2.6:1645"]"#,
        meaning: "RADIUS servers that decide about logins, as ADDRESS or ADDRESS:PORT (default 1812), first asked first. One that\n\
         is silent is passed over until it answers again.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.radius.servers, given.list(settings::server)),
    },
    Key {
        name: "radius.secret_file",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/radius.secret""#,
        meaning: "File with the secret that the gateway shares with these servers, mode 0600, or credential:NAME.\n\
         It is all that protects passwords and answers: at least 16 characters that nobody can guess.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.radius.secret, SecretPlace::parse(given).map(Some)),
    },
    Key {
        name: "radius.timeout",
        kind: Kind::Duration { least: "1s", most: "45s" },
        absent: Absent::Default(r#""14s""#),
        example: r#""45s""#,
        meaning: "How long one server is waited for; {least} to {most}. The request is sent again after 2, 4 and 8 seconds.\n\
         Servers that ask the user's telephone before they answer need longer.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.radius.timeout, given.duration()),
    },
    Key {
        name: "radius.groups",
        kind: Kind::Text,
        absent: Absent::Default(r#""class""#),
        example: r#""filter-id""#,
        meaning: "The attribute of an acceptance that names the user's groups: `class` or `filter-id`. Each names one group, or\n\
         several as `OU=one;two`.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.radius.groups, GroupAttribute::parse(given)),
    },
    Key {
        name: "radius.nas_identifier",
        kind: Kind::Name { least: 1, most: 64 },
        absent: Absent::Default(r#""adit""#),
        example: r#""vpn-1""#,
        meaning: "What the gateway calls itself to these servers, at most {most} characters.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.radius.nas_identifier, settings::nas_identifier(given)),
    },
    Key {
        name: "radius.require_message_authenticator",
        kind: Kind::Boolean,
        absent: Absent::Default("true"),
        example: "false",
        meaning: "Whether an answer without Message-Authenticator is refused. Without it anybody between gateway and server can\n\
         let himself in (CVE-2024-3596): mend the server instead.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.radius.require_message_authenticator, given.boolean()),
    },
    Key {
        name: "radius.accounting_servers",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["192.0.2.5"]"#,
        meaning: "RADIUS servers that are told of the beginning and end of every session, as ADDRESS or ADDRESS:PORT (default\n\
         1813), first told first. Without one nobody is told.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.radius.accounting_servers, given.list(settings::accounting_server)),
    },
    Key {
        name: "radius.accounting_interim",
        kind: Kind::Duration { least: "1m", most: "24h" },
        absent: Absent::Default(r#""10m""#),
        example: r#""30m""#,
        meaning: "How often these are told how much a session has moved that goes on; {least} to {most}.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.radius.accounting_interim, given.duration()),
    },
];
