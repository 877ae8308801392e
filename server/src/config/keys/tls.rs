//! The table `[tls]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, value};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "tls.certificate",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/tls/fullchain.pem""#,
        meaning: "File with a certificate for the names in `public` that others trust, and its chain, PEM. It is for who knows only\n\
         the gateway's name: devices that join by a login, and browsers. Devices that have joined go on trusting the\n\
         gateway's own authority. The file is looked at every ten seconds, and at each reload.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.tls.certificate, value::directory(given).map(Some)),
    },
    Key {
        name: "tls.key",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/tls/privkey.pem""#,
        meaning: "File with the private key of `tls.certificate`, PEM, closed to others.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.tls.key, value::directory(given).map(Some)),
    },
];
