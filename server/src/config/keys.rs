//! Every key of the configuration, in one table: the reader, the messages and the commented sample all come from it.

use adit_program::closest::likeness;

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name; a dot separates the table from the key.
    pub name: &'static str,
    /// The default as a TOML literal; `None` when there is none.
    pub default: Option<&'static str>,
    /// A TOML literal that shows the form of the value.
    pub sample: &'static str,
    /// What it means, one sentence a line.
    pub meaning: &'static str,
}

impl Key {
    /// The table the key is in; empty for the top level.
    #[must_use]
    pub fn table(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(table, _)| table)
    }

    /// The name inside its table.
    #[must_use]
    pub fn leaf(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, leaf)| leaf)
    }

    /// The environment variable that overrides it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ADIT_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// Whether its value is a list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.sample.starts_with('[')
    }
}

/// Shorthand for the table below.
const fn key(name: &'static str, default: Option<&'static str>, sample: &'static str, meaning: &'static str) -> Key {
    Key { name, default, sample, meaning }
}

/// All keys, top level first, then table by table.
pub const KEYS: &[Key] = &[
    key(
        "public",
        None,
        r#"["vpn.example.org"]"#,
        "Names or addresses, with an optional :PORT (default 443), under which clients reach this gateway.\n\
         Invites carry the first; the gateway's certificate carries all.",
    ),
    key(
        "listen",
        Some(r#"["[::]:443"]"#),
        r#"["[::]:443"]"#,
        "Local addresses, for UDP; 30 at most with esp. [::] takes IPv4 too.",
    ),
    key(
        "routes",
        Some(r#"["0.0.0.0/0", "::/0"]"#),
        r#"["10.1.0.0/16"]"#,
        "Networks that clients send through the tunnel. 0.0.0.0/0 and ::/0 send everything.",
    ),
    key("client_to_client", Some("false"), "true", "Whether devices may reach each other through the gateway."),
    key(
        "masquerade",
        Some("true"),
        "false",
        "Whether clients' packets leave with the gateway's own address.\n\
         Without it the network behind the gateway must route the pools back to it.",
    ),
    key(
        "lease_cooldown",
        Some(r#""120s""#),
        r#""10m""#,
        "How long the address of a device that left is kept from other devices; at most 24h.",
    ),
    key("invite_lifetime", Some(r#""24h""#), r#""24h""#, "How long an invite may be used; 1s to 30d."),
    key(
        "certificate_lifetime",
        Some(r#""30d""#),
        r#""30d""#,
        "How long a device certificate is valid; 1m to 825d. Clients renew by themselves after two thirds of it.",
    ),
    key(
        "state_dir",
        Some(r#""/var/lib/adit""#),
        r#""/var/lib/adit""#,
        "Directory of the keys and of the store of users and devices.",
    ),
    key("runtime_dir", Some(r#""/run/adit""#), r#""/run/adit""#, "Directory of the admin socket."),
    key("tun.name", Some(r#""adit0""#), r#""adit0""#, "Name of the TUN device, at most 15 characters."),
    key(
        "tun.mtu",
        Some("1420"),
        "1420",
        "Largest packet inside the tunnel, in bytes; 1280 to 9216. What does not fit is answered with the size that does.",
    ),
    key(
        "pool.v4",
        None,
        r#""10.77.0.0/24""#,
        "IPv4 network from which devices get addresses; /8 to /29. The gateway takes the first address.",
    ),
    key(
        "pool.v6",
        None,
        r#""fd00:77::/64""#,
        "IPv6 network from which devices get addresses; /48 to /120. The gateway takes the first address.",
    ),
    key(
        "dns.servers",
        Some("[]"),
        r#"["10.1.0.53"]"#,
        "Resolvers for clients. The gateway runs none itself; `init` takes those of its host.\n\
         With an empty list clients keep their own, which may be out of reach while everything goes through the tunnel.",
    ),
    key(
        "dns.domains",
        Some("[]"),
        r#"["corp.example.org"]"#,
        "Domains for which clients ask these resolvers; an empty list means every name.",
    ),
    key("limits.sessions", Some("10000"), "10000", "Live sessions; 1 to 1000000."),
    key(
        "limits.pending_sessions",
        Some("1024"),
        "1024",
        "Connections that have not authenticated yet; 1 to 65535. Further ones are ignored.",
    ),
    key(
        "limits.connections_per_client",
        Some("2000"),
        "2000",
        "Tracked connections of one device through the gateway; 16 to 1000000.",
    ),
    key(
        "esp.enabled",
        Some("true"),
        "false",
        "Whether clients that can use the `esp` carrier may. It is faster and shares the port; without it all packets travel by `quic`.",
    ),
    key(
        "esp.suites",
        Some(r#"["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"]"#),
        r#"["aes-256-gcm", "chacha20-poly1305"]"#,
        "Cipher suites of `esp`, the preferred one first. A client that knows none of them stays on `quic`.",
    ),
    key(
        "esp.vouched",
        Some("true"),
        "false",
        "Whether TCP and UDP checksums inside `esp` may be left to the tunnel's own authentication, which is stronger and saves time.",
    ),
    key("esp.rekey_after", Some(r#""1h""#), r#""1h""#, "How long the keys of an `esp` session are used; 1s to 24h."),
    key(
        "esp.rekey_packets",
        Some("268435456"),
        "268435456",
        "Packets sent to a client after which the keys of its `esp` session are replaced; 1024 to 268435456 (2^28).",
    ),
    key(
        "workers.count",
        Some("0"),
        "4",
        "Threads that move packets, each with its own queue of the TUN device; at most 64. 0 makes one per core, at most 16.",
    ),
    key(
        "workers.yields",
        Some("0"),
        "20",
        "How often a worker that has just moved superpackets lets others run before it sleeps; 0 to 1000.\n\
         Some machines move more with 20; measure it, since others lose rate and latency by it.",
    ),
    key(
        "workers.tun_offload",
        Some("true"),
        "false",
        "Whether the kernel hands over packets of one flow together and leaves their checksums to the gateway.",
    ),
    key(
        "workers.udp_offload",
        Some("true"),
        "false",
        "Whether the kernel cuts and joins the datagrams of `esp`; it is given up by itself where a network device cannot.",
    ),
    key(
        "workers.quic_threads",
        Some("0"),
        "4",
        "Threads that serve connections: handshakes, sessions, and packets that go by `quic`; at most 64. 0 makes half as many\n\
         as there are cores, at most 16.",
    ),
];

/// The key of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether a name is a table of keys.
#[must_use]
pub fn is_table(name: &str) -> bool {
    !name.is_empty() && KEYS.iter().any(|key| key.table() == name)
}

/// The known name most like an unknown one, if any is like it enough to be meant.
#[must_use]
pub fn closest(name: &str) -> Option<&'static str> {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    KEYS.iter()
        .flat_map(|key| {
            let whole = (likeness(name, key.name), key.name);
            let inner = (likeness(leaf, key.leaf()), key.name);
            let table = (likeness(name, key.table()), key.table());
            [whole, inner, table]
        })
        .filter(|(_, candidate)| !candidate.is_empty())
        .filter_map(|(likeness, candidate)| Some((likeness?, candidate)))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// A complete, commented configuration file: every key with its meaning; those in `values` (TOML literals) are set, the
/// others are shown with their defaults behind a `#`.
#[must_use]
pub fn template(values: &[(&str, String)]) -> String {
    let mut text = String::from(
        "# Configuration of an Adit gateway. It is read at start: check a change with `adit-server check`, then restart.\n",
    );
    let mut table = "";
    for key in KEYS {
        if key.table() != table {
            table = key.table();
            text.push_str(&format!("\n[{table}]\n"));
        }
        text.push('\n');
        for line in key.meaning.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        let value = values.iter().find(|(name, _)| *name == key.name).map(|(_, value)| value.as_str());
        text.push_str(&match (value, key.default) {
            (Some(value), _) => format!("{} = {value}\n", key.leaf()),
            (None, Some(default)) => format!("# (default)\n# {} = {default}\n", key.leaf()),
            (None, None) => format!("# (no default)\n# {} = {}\n", key.leaf(), key.sample),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_contiguous_and_top_level_comes_first() {
        let mut seen: Vec<&str> = vec![""];
        for key in KEYS {
            if seen.last() != Some(&key.table()) {
                assert!(!seen.contains(&key.table()), "table {} is split", key.table());
                seen.push(key.table());
            }
        }
    }

    #[test]
    fn misspelt_key_is_recognised() {
        assert_eq!(closest("tun.mtuu"), Some("tun.mtu"));
        assert_eq!(closest("masquerde"), Some("masquerade"));
        assert_eq!(closest("mtu"), Some("tun.mtu"));
        assert_eq!(closest("limit"), Some("limits"));
        assert_eq!(closest("esp.suite"), Some("esp.suites"));
        assert_eq!(closest("worker"), Some("workers"));
        assert_eq!(closest("zzzzzz"), None);
    }

    #[test]
    fn template_is_toml_that_sets_only_the_values_given() {
        let text = template(&[("public", r#"["a.example"]"#.to_owned()), ("pool.v4", r#""10.70.1.0/24""#.to_owned())]);
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["public"][0].as_str(), Some("a.example"));
        assert_eq!(table["pool"]["v4"].as_str(), Some("10.70.1.0/24"));
        assert!(!table.contains_key("listen"));
        for key in KEYS {
            assert!(text.contains(&format!("{} = ", key.leaf())), "{} is documented", key.name);
        }
    }
}
