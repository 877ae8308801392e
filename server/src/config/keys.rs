//! Every key of the configuration.

use adit_net::tun::LARGEST_PACKET;
use adit_program::configuration::{Absent, Applies, Key, Keys, Kind, put};
use adit_proto::esp::spi::WORKERS;
use adit_proto::packet::IPV6_MIN_MTU;

use crate::directories::{RuntimeDir, StateDir};

use super::{Config, value};

/// Packets after which keys are replaced: more would weaken them (RFC 9001 appendix B.1.1).
const MOST_REKEY_PACKETS: u64 = 1 << 28;

/// Heading of the commented file.
const HEADING: &str =
    "Configuration of an Adit gateway. It is read at start: check a change with `adit-server check`, then restart.";

/// A complete, commented configuration file in which `values` (TOML literals) are set.
#[must_use]
pub fn sample(values: &[(&str, String)]) -> String {
    KEYS.sample(HEADING, values)
}

/// All keys, top level first, then table by table.
pub static KEYS: Keys<Config> = Keys {
    listed: "the commented file that `adit-server init` writes lists every key",
    rows: &[
        Key {
            name: "public",
            kind: Kind::List,
            absent: Absent::Refused,
            example: r#"["vpn.example.org"]"#,
            meaning: "Names or addresses, with an optional :PORT (default 443), under which clients reach this gateway.\n\
         Invites carry the first four; the gateway's certificate carries all.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.public, given.items(value::public_address)),
        },
        Key {
            name: "listen",
            kind: Kind::List,
            absent: Absent::Default(r#"["[::]:443"]"#),
            example: r#"["192.0.2.1:443"]"#,
            meaning: "Local addresses, for UDP; 30 at most with esp. [::] takes IPv4 too.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.listen, given.items(value::socket_address)),
        },
        Key {
            name: "routes",
            kind: Kind::List,
            absent: Absent::Default(r#"["0.0.0.0/0", "::/0"]"#),
            example: r#"["10.1.0.0/16"]"#,
            meaning: "Networks that clients send through the tunnel. 0.0.0.0/0 and ::/0 send everything.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.routes, given.list(value::prefix)),
        },
        Key {
            name: "client_to_client",
            kind: Kind::Boolean,
            absent: Absent::Default("false"),
            example: "true",
            meaning: "Whether devices may reach each other through the gateway.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.client_to_client, given.boolean()),
        },
        Key {
            name: "local_services",
            kind: Kind::List,
            absent: Absent::Default("[]"),
            example: r#"["tcp/22", "udp/123"]"#,
            meaning: "Services on the gateway's own host that devices reach through the tunnel, as PROTOCOL/PORT, at all its\n\
         addresses. Without it they reach ping and DNS there, and nothing else.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.local_services, given.list(value::local_service)),
        },
        Key {
            name: "masquerade",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether clients' packets leave with the gateway's own address.\n\
         Without it the network behind the gateway must route the pools back to it.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.masquerade, given.boolean()),
        },
        Key {
            name: "lease_cooldown",
            kind: Kind::Duration { least: "0s", most: "24h" },
            absent: Absent::Default(r#""120s""#),
            example: r#""10m""#,
            meaning: "How long the address of a device that left is kept from other devices; at most {most}.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.lease_cooldown, given.duration()),
        },
        Key {
            name: "invite_lifetime",
            kind: Kind::Duration { least: "1s", most: "30d" },
            absent: Absent::Default(r#""24h""#),
            example: r#""15m""#,
            meaning: "How long an invite may be used; {least} to {most}.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.invite_lifetime, given.duration()),
        },
        Key {
            name: "certificate_lifetime",
            kind: Kind::Duration { least: "1m", most: "825d" },
            absent: Absent::Default(r#""30d""#),
            example: r#""90d""#,
            meaning: "How long a device certificate is valid; {least} to {most}. Clients renew by themselves after two thirds of it.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.certificate_lifetime, given.duration()),
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
        Key {
            name: "tun.name",
            kind: Kind::Name { least: 1, most: 15 },
            absent: Absent::Default(r#""adit0""#),
            example: r#""vpn0""#,
            meaning: "Name of the TUN device, at most {most} characters.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.tun.name, value::device_name(given)),
        },
        Key {
            name: "tun.mtu",
            kind: Kind::Integer { least: IPV6_MIN_MTU as u64, most: LARGEST_PACKET as u64 },
            absent: Absent::Default("1420"),
            example: "8900",
            meaning: "Largest packet inside the tunnel, in bytes; {least} to {most}. What does not fit is answered with the size that does.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.tun.mtu, given.integer()),
        },
        Key {
            name: "pool.v4",
            kind: Kind::Network { least: 8, most: 29 },
            absent: Absent::Optional,
            example: r#""10.77.0.0/24""#,
            meaning: "IPv4 network from which devices get addresses; /{least} to /{most}. The gateway takes the first address.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.pool.v4, value::pool_v4(given).map(Some)),
        },
        Key {
            name: "pool.v6",
            kind: Kind::Network { least: 48, most: 120 },
            absent: Absent::Optional,
            example: r#""fd00:77::/64""#,
            meaning: "IPv6 network from which devices get addresses; /{least} to /{most}. The gateway takes the first address.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.pool.v6, value::pool_v6(given).map(Some)),
        },
        Key {
            name: "dns.servers",
            kind: Kind::List,
            absent: Absent::Default("[]"),
            example: r#"["10.1.0.53"]"#,
            meaning: "Resolvers for clients. The gateway runs none itself; `init` takes those of its host.\n\
         One that runs on this host must answer the addresses of the pools.\n\
         With an empty list clients keep their own, which may be out of reach while everything goes through the tunnel.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.dns.servers, given.list(value::ip)),
        },
        Key {
            name: "dns.domains",
            kind: Kind::List,
            absent: Absent::Default("[]"),
            example: r#"["corp.example.org"]"#,
            meaning: "Domains for which clients ask these resolvers; an empty list means every name.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.dns.domains, given.list(value::domain)),
        },
        Key {
            name: "limits.sessions",
            kind: Kind::Integer { least: 1, most: 1_000_000 },
            absent: Absent::Default("10000"),
            example: "200",
            meaning: "Live sessions; {least} to {most}.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.limits.sessions, given.integer()),
        },
        Key {
            name: "limits.pending_sessions",
            kind: Kind::Integer { least: 1, most: 65_535 },
            absent: Absent::Default("1024"),
            example: "64",
            meaning: "Connections without a tunnel: on their way in, or for a renewal; {least} to {most}. One network may take a part of them.\n\
         Where they or its part are taken, the one that has been idle for longest gives way.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.limits.pending_sessions, given.integer()),
        },
        Key {
            name: "limits.connections_per_client",
            kind: Kind::Integer { least: 16, most: 1_000_000 },
            absent: Absent::Default("2000"),
            example: "500",
            meaning: "Tracked connections of one device through the gateway; {least} to {most}.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.limits.connections_per_client, given.integer()),
        },
        Key {
            name: "esp.enabled",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether clients that can use the `esp` carrier may. It is faster and shares the port; without it all packets travel by `quic`.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.esp.enabled, given.boolean()),
        },
        Key {
            name: "esp.suites",
            kind: Kind::List,
            absent: Absent::Default(r#"["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"]"#),
            example: r#"["aes-256-gcm", "chacha20-poly1305"]"#,
            meaning: "Cipher suites of `esp`, the preferred one first. A client that knows none of them stays on `quic`.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.esp.permitted.offer.suites, given.items(value::suite)),
        },
        Key {
            name: "esp.vouched",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether TCP and UDP checksums inside `esp` may be left to the tunnel's own authentication, which is stronger and saves time.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.esp.permitted.offer.vouched, given.boolean()),
        },
        Key {
            name: "esp.rekey_after",
            kind: Kind::Duration { least: "1s", most: "24h" },
            absent: Absent::Default(r#""1h""#),
            example: r#""15m""#,
            meaning: "How long the keys of an `esp` session are used; {least} to {most}.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.esp.permitted.policy.after, given.duration()),
        },
        Key {
            name: "esp.rekey_packets",
            kind: Kind::Integer { least: 1 << 10, most: MOST_REKEY_PACKETS },
            absent: Absent::Default("268435456"),
            example: "16777216",
            meaning: "Packets sent to a client after which the keys of its `esp` session are replaced; {least} to {most} (2^28).",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.esp.permitted.policy.packets, given.integer()),
        },
        Key {
            name: "workers.count",
            kind: Kind::Integer { least: 0, most: WORKERS as u64 },
            absent: Absent::Default("0"),
            example: "4",
            meaning: "Threads that move packets, each with its own queue of the TUN device; at most {most}. 0 makes one per core, at most 16.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.workers.count, given.integer()),
        },
        Key {
            name: "workers.yields",
            kind: Kind::Integer { least: 0, most: 1000 },
            absent: Absent::Default("0"),
            example: "20",
            meaning: "How often a worker that has just moved superpackets lets others run before it sleeps; {least} to {most}.\n\
         Some machines move more with 20; measure it, since others lose rate and latency by it.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.workers.settings.yields, given.integer()),
        },
        Key {
            name: "workers.tun_offload",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether the kernel hands over packets of one flow together and leaves their checksums to the gateway.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.workers.tun_offload, given.boolean()),
        },
        Key {
            name: "workers.udp_offload",
            kind: Kind::Boolean,
            absent: Absent::Default("true"),
            example: "false",
            meaning: "Whether the kernel cuts and joins the datagrams of `esp`; it is given up by itself where a network device cannot.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.workers.udp_offload, given.boolean()),
        },
        Key {
            name: "workers.quic_threads",
            kind: Kind::Integer { least: 0, most: WORKERS as u64 },
            absent: Absent::Default("0"),
            example: "4",
            meaning: "Threads that serve connections: handshakes, sessions, and packets that go by `quic`; at most {most}. 0 makes half as many\n\
         as there are cores, at most 16.",
            applies: Applies::Restart,
            read: |given, config| put(&mut config.workers.quic_threads, given.integer()),
        },
    ],
};

#[cfg(test)]
mod tests {
    use adit_net::worker::MAX_SOCKETS;
    use adit_program::configuration::with_part;

    use super::*;

    #[test]
    fn tables_are_contiguous_and_top_level_comes_first() {
        let mut seen: Vec<&str> = vec![""];
        for key in KEYS.rows {
            if seen.last() != Some(&key.table()) {
                assert!(!seen.contains(&key.table()), "table {} is split", key.table());
                seen.push(key.table());
            }
        }
    }

    #[test]
    fn misspelt_key_is_recognised() {
        assert_eq!(KEYS.closest("tun.mtuu"), Some("tun.mtu"));
        assert_eq!(KEYS.closest("masquerde"), Some("masquerade"));
        assert_eq!(KEYS.closest("mtu"), Some("tun.mtu"));
        assert_eq!(KEYS.closest("limit"), Some("limits"));
        assert_eq!(KEYS.closest("esp.suite"), Some("esp.suites"));
        assert_eq!(KEYS.closest("worker"), Some("workers"));
        assert_eq!(KEYS.closest("zzzzzz"), None);
    }

    #[test]
    fn bounds_in_prose_are_those_of_the_rows_and_of_the_packet_path() {
        for key in KEYS.rows {
            let meaning = key.meaning();
            assert!(!meaning.contains(['{', '}']), "{} has bounds in its meaning, but none in its kind", key.name);
            assert!(key.kind.bounds().is_none() || key.meaning.contains("{most}"), "{} hides its bounds", key.name);
        }
        let listen = KEYS.find("listen").unwrap().meaning();
        assert!(listen.contains(&format!("{MAX_SOCKETS} at most with esp")), "{listen}");
    }

    /// With `ADIT_WRITE_DOCS` set the table is written instead.
    #[test]
    fn table_in_the_documentation_is_made_of_the_rows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap();
        let right = with_part(&page, "gateway", &KEYS.reference()).unwrap();
        if std::env::var_os("ADIT_WRITE_DOCS").is_some() {
            std::fs::write(path, &right).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap();
        assert!(found == right, "run `ADIT_WRITE_DOCS=1 cargo test -p adit-server table_in_the_documentation`");
    }
}
