//! Every key of the configuration, the rows of each table in a file of their own.

mod acme;
mod anyconnect;
mod dns;
mod esp;
mod general;
mod ldap;
mod limits;
mod login;
mod oidc;
mod pool;
mod radius;
mod tls;
mod tun;
mod workers;

use adit_program::configuration::Keys;

use super::Config;

/// Heading of the commented file.
const HEADING: &str =
    "Configuration of an Adit gateway. `adit-server check` looks at a change, and `adit-server reload` applies it.";

/// A complete, commented configuration file in which `values` (TOML literals) are set.
#[must_use]
pub fn sample(values: &[(&str, String)]) -> String {
    KEYS.sample(HEADING, values)
}

/// All keys, top level first, then table by table.
pub static KEYS: Keys<Config> = Keys {
    listed: "the commented file that `adit-server init` writes lists every key",
    tables: &[
        general::ROWS,
        tun::ROWS,
        pool::ROWS,
        dns::ROWS,
        limits::ROWS,
        tls::ROWS,
        acme::ROWS,
        anyconnect::ROWS,
        login::ROWS,
        oidc::ROWS,
        radius::ROWS,
        ldap::ROWS,
        esp::ROWS,
        workers::ROWS,
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
        for key in KEYS.rows() {
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
        for key in KEYS.rows() {
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
