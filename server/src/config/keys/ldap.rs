//! The table `[ldap]`.

use adit_program::configuration::{Absent, Applies, Key, Kind, put};

use crate::config::{Config, SecretPlace, value};
use crate::sources::ldap::settings::{self, LdapUrl};

pub(super) const ROWS: &[Key<Config>] = &[
    Key {
        name: "ldap.urls",
        kind: Kind::List,
        absent: Absent::Default("[]"),
        example: r#"["ldaps://ldap.example.org", "ldap://192.0.2.9:3389"]"#,
        meaning: "Servers of a directory, first asked first: ldaps://HOST[:PORT], or ldap://HOST[:PORT] for StartTLS. Without TLS\n\
         nothing is said to them, and their certificate must be for HOST.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.urls, given.list(LdapUrl::parse)),
    },
    Key {
        name: "ldap.authority",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/ldap-ca.pem""#,
        meaning: "File with the certificates (PEM) of who may vouch for these servers. Without it those that the system trusts.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.authority, value::directory(given).map(Some)),
    },
    Key {
        name: "ldap.bind_dn",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""cn=reader,dc=example,dc=org""#,
        meaning: "As whom the gateway looks for users. Active Directory takes reader@example.org, too. Without it the gateway\n\
         looks anonymously.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.bind_dn, settings::some_text(given).map(Some)),
    },
    Key {
        name: "ldap.bind_password_file",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""/etc/adit/ldap.secret""#,
        meaning: "File with the password for ldap.bind_dn, mode 0600, or credential:NAME.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.bind_password, SecretPlace::parse(given).map(Some)),
    },
    Key {
        name: "ldap.base",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""ou=people,dc=example,dc=org""#,
        meaning: "The entry below which users are.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.base, settings::some_text(given).map(Some)),
    },
    Key {
        name: "ldap.user_filter",
        kind: Kind::Text,
        absent: Absent::Default(r#""(&(objectClass=person)(uid=$user))""#),
        example: r#""(&(objectClass=user)(sAMAccountName=$user))""#,
        meaning: "Which entry is that of a user; $user is the name. Exactly one must match. Whoever matches it no longer loses\n\
         the session, so a condition here says who may come in.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.user_filter, settings::user_filter(given)),
    },
    Key {
        name: "ldap.name_attribute",
        kind: Kind::Text,
        absent: Absent::Default(r#""uid""#),
        example: r#""sAMAccountName""#,
        meaning: "The attribute that names a user: whatever was typed, this is the name that policies know.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.name_attribute, settings::attribute(given)),
    },
    Key {
        name: "ldap.id_attribute",
        kind: Kind::Text,
        absent: Absent::Default(r#""entryUUID""#),
        example: r#""objectGUID""#,
        meaning: "The attribute that stays when a user is renamed or moved: by it the gateway knows a user again.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.id_attribute, settings::attribute(given)),
    },
    Key {
        name: "ldap.group_base",
        kind: Kind::Text,
        absent: Absent::Optional,
        example: r#""ou=groups,dc=example,dc=org""#,
        meaning: "The entry below which groups are. Without it users of the directory have no groups.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.group_base, settings::some_text(given).map(Some)),
    },
    Key {
        name: "ldap.group_filter",
        kind: Kind::Text,
        absent: Absent::Default(r#""(member=$dn)""#),
        example: r#""(memberUid=$user)""#,
        meaning: "Which entries are groups of a user; $dn is the user's entry, $user the name.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.group_filter, settings::group_filter(given)),
    },
    Key {
        name: "ldap.group_attribute",
        kind: Kind::Text,
        absent: Absent::Default(r#""cn""#),
        example: r#""displayName""#,
        meaning: "The attribute that names a group, as policies know it.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.group_attribute, settings::attribute(given)),
    },
    Key {
        name: "ldap.nested_groups",
        kind: Kind::Boolean,
        absent: Absent::Default("false"),
        example: "true",
        meaning: "Whether whoever is in a group of a group counts as in it, too. Active Directory alone knows how (rule\n\
         1.2.840.113556.1.4.1941); other directories then find no group at all. It takes the place of ldap.group_filter.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.nested_groups, given.boolean()),
    },
    Key {
        name: "ldap.timeout",
        kind: Kind::Duration { least: "1s", most: "20s" },
        absent: Absent::Default(r#""5s""#),
        example: r#""10s""#,
        meaning: "How long connecting to a server, and each question to it, may take; {least} to {most}.",
        applies: Applies::Live,
        read: |given, config| put(&mut config.ldap.timeout, given.duration()),
    },
];
