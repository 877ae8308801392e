//! Networks that drop packets, played by a host's packet filter.

use std::process::Command;

use anyhow::{Context as _, Result};

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
