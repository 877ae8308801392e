//! Every key of a profile.

use adit_net::tun::LARGEST_PACKET;
use adit_program::configuration::{Absent, Applies, Key, Keys, Kind, put};
use adit_proto::packet::IPV6_MIN_MTU;

use super::draft::Draft;
use super::value;

/// All keys: what `join` writes, then how packets travel. A client reads its profile when it starts.
pub(super) static KEYS: Keys<Draft> = Keys {
    listed: "`docs/configuration.md` lists every key",
    tables: &[&[
        Key {
            name: "host",
            kind: Kind::Text,
            absent: Absent::Refused,
            example: r#""vpn.example.org""#,
            meaning: "Host name or address of the gateway, which its certificate must bear.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.host, value::plain(given)),
        },
        Key {
            name: "port",
            kind: Kind::Integer { least: 1, most: 65_535 },
            absent: Absent::Default("443"),
            example: "8443",
            meaning: "Port of the gateway: of UDP, or of TCP where `protocol` is `anyconnect`.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.port, value::plain(given)),
        },
        Key {
            name: "others",
            kind: Kind::List,
            absent: Absent::Default("[]"),
            example: r#"["vpn2.example.org:443"]"#,
            meaning: "Further names and addresses of the same gateway, with their ports, as the invite said. They are tried beside `host`, and the certificate must bear `host` there, too.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.others, value::places(given)),
        },
        Key {
            name: "protocol",
            kind: Kind::Text,
            absent: Absent::Default(r#""connect-ip""#),
            example: r#""anyconnect""#,
            meaning: "Which protocol the gateway speaks: `connect-ip`, as Adit's gateways do, or `anyconnect`.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.protocol, value::plain(given)),
        },
        Key {
            name: "user",
            kind: Kind::Text,
            absent: Absent::Default(r#""""#),
            example: r#""alice""#,
            meaning: "The user the device belongs to, as the invite said; or who logs in, who is asked for otherwise.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.user, value::plain(given)),
        },
        Key {
            name: "device",
            kind: Kind::Text,
            absent: Absent::Default(r#""""#),
            example: r#""d1""#,
            meaning: "The device's id at the gateway.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.device, value::plain(given)),
        },
        Key {
            name: "addresses",
            kind: Kind::List,
            absent: Absent::Default("[]"),
            example: r#"["192.0.2.1:443"]"#,
            meaning: "Addresses of the gateway with their ports, the one last reached first. The client keeps them up to date.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.addresses, value::plain(given)),
        },
        Key {
            name: "kill_switch",
            kind: Kind::Boolean,
            absent: Absent::Optional,
            example: "false",
            meaning: "Whether this host is closed for what belongs in a full tunnel, whatever state the client is in. Left out, it is for every full tunnel; `true` closes it before it is known that the tunnel is full; `false` leaves the routes alone to hold it.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.kill_switch, value::plain(given).map(Some)),
        },
        Key {
            name: "lan",
            kind: Kind::Text,
            absent: Absent::Default(r#""block""#),
            example: r#""allow""#,
            meaning: "Whether a full tunnel leaves the local networks of this host usable (`allow`) or takes their traffic, too (`block`).",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.lan, value::plain(given)),
        },
        Key {
            name: "captive_probe",
            kind: Kind::Text,
            absent: Absent::Default(r#""usual""#),
            example: r#""http://test.example.org/empty""#,
            meaning: "Whom the client asks for a page in clear while its gateway does not answer, to recognise a captive portal: its gateway's host and addresses that nobody has (`usual`), nobody (`off`), or a page of your own, which answers with status 204.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.captive_probe, value::captive_probe(given)),
        },
        Key {
            name: "full_tunnel",
            kind: Kind::Boolean,
            absent: Absent::Default("false"),
            example: "true",
            meaning: "Whether all traffic went into the tunnel when it was last connected. The client keeps it up to date, and closes this host from its start if it did.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.full_tunnel, value::plain(given)),
        },
        Key {
            name: "authority",
            kind: Kind::Text,
            absent: Absent::Optional,
            example: r#""PEM""#,
            meaning: "Certificate of the gateway's authority, PEM. An AnyConnect gateway may do without: then `pin` vouches for it, or whom this host trusts.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.authority, value::plain(given)),
        },
        Key {
            name: "pin",
            kind: Kind::Text,
            absent: Absent::Optional,
            example: r#""sha256:abababababababababababababababababababababababababababababababab""#,
            meaning: "Fingerprint of an AnyConnect gateway's authority, or of its own certificate: the SHA-256 of the SPKI.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.pin, value::pin(given).map(Some)),
        },
        Key {
            name: "certificate",
            kind: Kind::Text,
            absent: Absent::Optional,
            example: r#""PEM""#,
            meaning: "Certificate of the device, or of the user at an AnyConnect gateway, PEM; with `key`.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.certificate, value::plain(given).map(Some)),
        },
        Key {
            name: "key",
            kind: Kind::Text,
            absent: Absent::Optional,
            example: r#""PEM""#,
            meaning: "Private key of that certificate, PEM; with `certificate`.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.key, value::secret(given).map(Some)),
        },
        Key {
            name: "token",
            kind: Kind::Text,
            absent: Absent::Optional,
            example: r#""secret""#,
            meaning: "Bearer token of `adit-server token`, instead of `certificate` and `key`.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.token, value::secret(given).map(Some)),
        },
        Key {
            name: "mark",
            kind: Kind::Text,
            absent: Absent::Default(r#""0x16/0x10fe""#),
            example: r#""0x200/0x200""#,
            meaning: "Firewall mark of the client's own datagrams, and the bits of it that count. Another one is needed only where a firewall or routing rule of this host means something else by these bits.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.mark, value::mark(given)),
        },
        Key {
            name: "login.path",
            kind: Kind::Text,
            absent: Absent::Default(r#""/""#),
            example: r#""/staff""#,
            meaning: "Path of an AnyConnect gateway's link, at which the login begins. Some gateways have one for each group.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.login.path, value::path(given)),
        },
        Key {
            name: "login.group",
            kind: Kind::Text,
            absent: Absent::Default(r#""""#),
            example: r#""staff""#,
            meaning: "Group at an AnyConnect gateway, as its list calls it. Left out, whoever logs in is asked where there is a list.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.login.group, value::plain(given)),
        },
        Key {
            name: "login.credential_command",
            kind: Kind::Text,
            absent: Absent::Default(r#""""#),
            example: r#""secret-tool lookup vpn work""#,
            meaning: "Command of a shell that prints the password at an AnyConnect gateway, on its first line. It runs as the client's user, with nothing to read, for at most a minute.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.login.credential_command, value::plain(given)),
        },
        Key {
            name: "login.browser",
            kind: Kind::Boolean,
            absent: Absent::Default("false"),
            example: "true",
            meaning: "Whether an AnyConnect gateway may have its user log in in a browser, which has to run on this host.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.login.browser, value::plain(given)),
        },
        Key {
            name: "esp.enabled",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether the client offers the carrier `esp`, or `dtls` at an AnyConnect gateway. Without it all packets travel by `quic`, or `tls`.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.esp.enabled, value::plain(given)),
        },
        Key {
            name: "esp.suites",
            kind: Kind::List,
            absent: Absent::Default(r#"["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"]"#),
            example: r#"["chacha20-poly1305"]"#,
            meaning: "Cipher suites offered; the gateway chooses.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.esp.offered.offer.suites, value::suites(given)),
        },
        Key {
            name: "esp.vouched",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether packets are accepted whose inner checksum is left to the tunnel's authentication.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.esp.offered.offer.vouched, value::plain(given)),
        },
        Key {
            name: "esp.rekey_after",
            kind: Kind::Duration { least: "1s", most: "24h" },
            absent: Absent::Default(r#""1h""#),
            example: r#""15m""#,
            meaning: "Age at which this device's keys are replaced; also after 2^28 packets.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.esp.offered.policy.after, value::duration(given)),
        },
        Key {
            name: "esp.mtu",
            kind: Kind::Integer { least: IPV6_MIN_MTU as u64, most: LARGEST_PACKET as u64 },
            absent: Absent::Default("1420"),
            example: "8900",
            meaning: "Largest packet in bytes, as far as the path takes it. More than the gateway's `tun.mtu` is of little use.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.esp.mtu, value::number(given)),
        },
        Key {
            name: "workers.yields",
            kind: Kind::Integer { least: 0, most: 1000 },
            absent: Absent::Default("0"),
            example: "20",
            meaning: "How often the packet thread gives way after superpackets before it sleeps.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.workers.settings.yields, value::number(given)),
        },
        Key {
            name: "workers.tun_offload",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether the kernel hands over packets of a flow together.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.workers.tun_offload, value::plain(given)),
        },
        Key {
            name: "workers.udp_offload",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether the kernel segments and joins the datagrams of ESP.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.workers.udp_offload, value::plain(given)),
        },
        Key {
            name: "workers.gso_max_segs",
            // The kernel's own bound (`GSO_MAX_SEGS`).
            kind: Kind::Integer { least: 1, most: 65_535 },
            absent: Absent::Default("44"),
            example: "20",
            meaning: "Most packets of a flow that the kernel hands over together: 44 of 1420 bytes fill one UDP send.",
            applies: Applies::Restart,
            read: |given, draft| put(&mut draft.workers.gso_max_segs, value::number(given)),
        },
    ]],
};

#[cfg(test)]
mod tests {
    use adit_program::configuration::with_part;

    use super::*;

    #[test]
    fn misspelt_key_is_recognised_in_its_table() {
        for (name, meant) in
            [("autority", "authority"), ("tokn", "token"), ("worker", "workers"), ("esp.suite", "suites")]
        {
            assert_eq!(KEYS.closest_in_table(name), Some(meant), "{name}");
        }
        assert_eq!(KEYS.closest_in_table("workers.suites"), None, "there is none in this table");
    }

    /// With `ADIT_WRITE_DOCS` set the table is written instead.
    #[test]
    fn table_in_the_documentation_is_made_of_the_rows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap();
        let right = with_part(&page, "profile", &KEYS.reference()).unwrap();
        if std::env::var_os("ADIT_WRITE_DOCS").is_some() {
            std::fs::write(path, &right).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap();
        assert!(found == right, "run `ADIT_WRITE_DOCS=1 cargo test -p adit-client table_in_the_documentation`");
    }
}
