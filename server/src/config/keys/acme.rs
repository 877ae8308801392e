//! The table `[acme]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, acme, value};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "acme.names",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["vpn.example.org"]"#,
        meaning: "Names for which the gateway gets a certificate that others trust, and renews it, by ACME (RFC 8555), instead of\n\
         from the files in `tls`. Each gets one of its own. The authority connects to TCP port 443 of the name.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.acme.names, acme::names(given)),
    },
    Key {
        name: "acme.accept_terms",
        kind: Kind::Boolean,
        absent: Absent::Default("false"),
        example: "true",
        meaning: "Whether you accept the terms of service of that authority, which its directory names. It issues nothing without.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.acme.accept_terms, given.boolean()),
    },
    Key {
        name: "acme.contact",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""admin@example.org""#,
        meaning: "Mail address that the authority may write to.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.acme.contact, acme::contact(given).map(Some)),
    },
    Key {
        name: "acme.directory",
        kind: Kind::Text,
        absent: Absent::Default(r#""https://acme-v02.api.letsencrypt.org/directory""#),
        example: r#""https://acme-staging-v02.api.letsencrypt.org/directory""#,
        meaning: "Directory of the authority. Let's Encrypt has another one for trials, whose certificates nobody trusts.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.acme.directory, acme::directory(given)),
    },
    Key {
        name: "acme.authority",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/company-acme-ca.pem""#,
        meaning: "PEM file with the authorities that the certificate of that server is checked by, instead of the system's.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.acme.authority, value::directory(given).map(Some)),
    },
];
