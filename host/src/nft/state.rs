//! What of a table changes when anybody changes it.

use std::io;

use super::listing::ListedTable;
use super::socket::Socket;

/// How often a table is listed until nothing changes meanwhile.
const MOST_LISTINGS: usize = 5;

/// A table as somebody has loaded it: the kernel never gives a number twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableState {
    pub(crate) table: ListedTable,
    chains: Vec<(String, u64, bool)>,
    rules: Vec<u64>,
}

impl TableState {
    /// The table as it is. While other programs change their tables, a listing may leave something out, so it counts
    /// only if nothing changed meanwhile; on a host without a quiet moment the last one has to do.
    pub(crate) fn read(socket: &Socket, family: u8, name: &str) -> io::Result<Option<Self>> {
        for _ in 1..MOST_LISTINGS {
            let before = socket.generation()?;
            let state = Self::listed(socket, family, name)?;
            if socket.generation()? == before {
                return Ok(state);
            }
        }
        Self::listed(socket, family, name)
    }

    fn listed(socket: &Socket, family: u8, name: &str) -> io::Result<Option<Self>> {
        let Some(table) = socket.table(family, name)? else { return Ok(None) };
        if table.owner == Some(socket.port()) {
            // Nobody else can change what is in it.
            return Ok(Some(Self { table, chains: Vec::new(), rules: Vec::new() }));
        }
        let chains = socket.chains_of_table(family, name)?;
        let rules = socket.rules_of_table(family, name)?;
        Ok(Some(Self {
            table,
            chains: chains.into_iter().map(|chain| (chain.name, chain.handle, chain.drops)).collect(),
            rules: rules.into_iter().map(|rule| rule.handle).collect(),
        }))
    }
}
