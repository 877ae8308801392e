//! The table `[oidc]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, SecretPlace, oidc, value};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "oidc.issuer",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""https://login.example.org/realms/staff""#,
        meaning: "The OpenID Connect provider, exactly as it calls itself in `iss`. The gateway asks it when somebody logs in, not at\n\
         its start.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.issuer, oidc::issuer(given).map(Some)),
    },
    Key {
        name: "oidc.client_id",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""adit""#,
        meaning: "The name under which the gateway is registered with the provider.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.client_id, oidc::word(given).map(Some)),
    },
    Key {
        name: "oidc.client_secret_file",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/oidc.secret""#,
        meaning: "File with the gateway's secret at the provider, mode 0600, or credential:NAME. Without it the gateway is a public\n\
         client.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.client_secret, SecretPlace::parse(given).map(Some)),
    },
    Key {
        name: "oidc.scopes",
        kind: Kind::List,
        absent: Absent::Default(r#"["openid", "profile", "email", "offline_access"]"#),
        example: r#"["openid", "profile", "groups", "offline_access"]"#,
        meaning: "What the provider is asked for. `offline_access` brings the refresh token by which it is asked again whether a user\n\
         still may.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.scopes, given.items(oidc::word)),
    },
    Key {
        name: "oidc.parameters",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["prompt=consent"]"#,
        meaning: "Further parameters of a login in a browser, as NAME=VALUE, which some providers want.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.parameters, given.list(oidc::parameter)),
    },
    Key {
        name: "oidc.name_claim",
        kind: Kind::Text,
        absent: Absent::Default(r#""preferred_username""#),
        example: r#""email""#,
        meaning: "The claim that becomes a user's name at the first login; later changes of it change nothing. `email` counts only\n\
         where the provider has verified it.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.name_claim, oidc::word(given)),
    },
    Key {
        name: "oidc.groups_claim",
        kind: Kind::Text,
        absent: Absent::Default(r#""groups""#),
        example: r#""realm_access.roles""#,
        meaning: "The claim that lists a user's groups; where no claim has this name, each dot leads one object deeper.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.groups_claim, oidc::word(given)),
    },
    Key {
        name: "oidc.authority",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/company-ca.pem""#,
        meaning: "PEM file with the authorities that the provider's certificate is checked by, instead of the system's.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.authority, value::directory(given).map(Some)),
    },
    Key {
        name: "oidc.listen",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["[::]:443"]"#,
        meaning: "Local addresses, for TCP, where browsers come back to after a login; those of `listen` may be among them. With TLS,\n\
         but on other addresses of the loopback without, for a reverse proxy. An empty list leaves logins by a code that is\n\
         typed at the provider.",
        applies: Applies::Restart,
        read: |given, config| put(&mut config.oidc.listen, given.list(value::socket_address)),
    },
    Key {
        name: "oidc.redirect_host",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""login.example.org:8443""#,
        meaning: "Name under which browsers reach that, with an optional :PORT (default 443), if it is not the first of `public` on\n\
         port 443. https://NAME/login/callback is to be registered with the provider.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.oidc.redirect_host, value::public_address(given).map(Some)),
    },
];
