//! The table `[login]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, login};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "login.sources",
        kind: Kind::List,
        absent: Absent::Default(r#"["local"]"#),
        example: r#"["ldap", "local"]"#,
        meaning: "Who knows the users that log in with a name and password or in a browser, first asked first: `local`, `radius`,\n\
         `ldap`, `oidc`. One that does not know a name passes it on to the next; one that knows it has the last word.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.login.sources, login::sources(given)),
    },
    Key {
        name: "login.session_lifetime",
        kind: Kind::Duration { least: "15s", most: "365d" },
        absent: Absent::Default(r#""12h""#),
        example: r#""7d""#,
        meaning: "How long a login lasts; {least} to {most}. Reconnecting, moving to another network and a restart of the gateway ask\n\
         nobody again before its end.",
        applies: Applies::NewSessions,
        read: |given, config| put(&mut config.login.session_lifetime, given.duration()),
    },
    Key {
        name: "login.recheck",
        kind: Kind::Duration { least: "5s", most: "7d" },
        absent: Absent::Default(r#""1h""#),
        example: r#""15m""#,
        meaning: "How often the source of a login is asked whether its user still may; {least} to {most}. A source that is away ends\n\
         no session.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.login.recheck, given.duration()),
    },
    Key {
        name: "login.second_factor",
        kind: Kind::Text,
        absent: Absent::Default(r#""device""#),
        example: r#""always""#,
        meaning: "When a user with a second factor is asked for it: `device` where the device's own certificate does not count as\n\
         one, `always`, or `never`.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.login.second_factor, login::second_factor(given)),
    },
    Key {
        name: "login.banner",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""For staff only. What you do here is logged.""#,
        meaning: "What users read who are asked for their name or password, in one line of at most 256 characters. Strangers read\n\
         it, too.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.login.banner, login::banner(given).map(Some)),
    },
];
