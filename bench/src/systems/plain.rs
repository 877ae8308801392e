//! The bare cable: what this machine can do without any tunnel.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use adit_program::exit::Failure;
use anyhow::Result;

use super::{End, Running, System};
use adit_lab::{GATEWAY_V4, Lab};

/// The client's address on the cable.
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);

#[derive(Debug)]
pub(super) struct Plain;

impl System for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn programs(&self) -> Result<Vec<PathBuf>, Failure> {
        Ok(Vec::new())
    }

    fn start(&self, mut lab: Lab) -> Result<Running> {
        let mut end = |name: &str, address| {
            Ok::<_, anyhow::Error>(End { host: lab.host(name)?, link: "eth0".to_owned(), address, process: None })
        };
        let (client, gateway) = (end("client", CLIENT_V4)?, end("gateway", GATEWAY_V4)?);
        Ok(Running { client, gateway, owner: Box::new(()), lab })
    }
}
