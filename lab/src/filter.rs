//! Networks that drop packets, played by a host's packet filter.

use std::fs;
use std::io;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Host;
use super::programs::PATIENCE;

impl Host {
    /// Has the host's packet filter apply rules, each with its hook, in the syntax of nft(8); replaces at once what it
    /// applied under this name.
    ///
    /// # Errors
    /// Fails where nft is not installed, or does not understand the rules.
    pub fn filter(&self, name: &str, rules: &[(&str, &str)]) -> Result<()> {
        let chain = |(number, (hook, rules)): (usize, &(&str, &str))| {
            format!("chain rules{number} {{ type filter hook {hook}; {rules}; }};")
        };
        let chains: String = rules.iter().enumerate().map(chain).collect();
        self.nft(&format!("table inet {name}; delete table inet {name}; table inet {name} {{ {chains} }};")).map(drop)
    }

    /// Takes back [`Self::filter`].
    ///
    /// # Errors
    /// Fails where nothing is applied under this name.
    pub fn unfilter(&self, name: &str) -> Result<()> {
        self.nft(&format!("delete table inet {name}")).map(drop)
    }

    /// Has the host drop what comes from the UDP ports that are open on `other` now, as a NAT does that forgot that one
    /// and gave its ports to somebody else.
    ///
    /// # Errors
    /// Fails where nft is not installed, or no port is open.
    pub fn forget(&self, other: &Self) -> Result<()> {
        let ports = other.udp_ports()?;
        ensure!(!ports.is_empty(), "no UDP port is open on {}", other.name());
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let rule = format!("udp sport {{ {ports} }} drop");
        self.filter("forgotten", &[("prerouting priority -300", &rule)])
    }

    /// The UDP ports that are open on the host.
    fn udp_ports(&self) -> Result<Vec<u16>> {
        // Not /proc/net, which is that of the process's first thread.
        let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let tables = self.run(move || Ok::<_, io::Error>([read("udp")?, read("udp6")?]));
        let tables = tables.context("read the tables of UDP sockets")?;
        Ok(tables.iter().flat_map(|table| table.lines().skip(1).filter_map(local_port)).collect())
    }

    /// Runs nft(8) on the host and returns what it printed.
    ///
    /// # Errors
    /// Fails where it is not installed, or says why it does not do this.
    pub fn nft(&self, commands: &str) -> Result<String> {
        let mut nft = Command::new("nft");
        nft.arg(commands);
        self.output(nft, PATIENCE)?.success().with_context(|| format!("nft {commands}"))
    }
}

/// The local port in a line of `/proc/net/udp` (proc_net_udp(5)).
fn local_port(line: &str) -> Option<u16> {
    u16::from_str_radix(line.split_whitespace().nth(1)?.rsplit_once(':')?.1, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_port_is_read_of_both_families() {
        let v4 = "  12: 1200000A:D431 110000C0:01BB 01 00000000:00000000 00:00000000 00000000 0 0 77 2 0000 0";
        let v6 = "  13: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 07 0:0 0:0 0";
        assert_eq!([v4, v6].map(local_port), [Some(0xd431), Some(443)]);
        assert_eq!(local_port(""), None);
    }
}
