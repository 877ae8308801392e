//! Sets up the gateway's host: firewall, TUN device, addresses and forwarding.

use std::io;
use std::net::IpAddr;

use adit_host::{Family, GatewayRules, HostChanges, HostError, LinkSettings, foreign_forward_policies};
use adit_net::tun::Tun;
use adit_program::exit::{Exit, Failure};
use adit_proto::packet::icmp::GatewayAddresses;
use ipnet::IpNet;

use crate::cleanup::host_failure;
use crate::config::Config;

/// Makes the TUN device, with a queue for each worker, and everything around it. The firewall is loaded before the
/// device is up.
pub(super) async fn set_up(config: &Config, own: GatewayAddresses, changes: &mut HostChanges) -> Result<Tun, Failure> {
    let name = &config.tun.name;
    let tun = Tun::create(name, config.workers.threads(), config.workers.tun_offload)
        .map_err(|error| tun_failure(name, &error))?;
    let set_up = configure(config, own, changes).await;
    set_up.map_err(|error| host_failure(&format!("set up {name}"), &error))?;
    warn_of_foreign_policies();
    Ok(tun)
}

async fn configure(config: &Config, own: GatewayAddresses, changes: &mut HostChanges) -> Result<(), HostError> {
    let name = &config.tun.name;
    changes
        .load_firewall(&GatewayRules {
            tun: name.clone(),
            pool_v4: config.pool.v4,
            pool_v6: config.pool.v6,
            gateway_v4: own.v4,
            gateway_v6: own.v6,
            masquerade: config.masquerade,
            client_to_client: config.client_to_client,
            connections_per_client: config.limits.connections_per_client,
            listen_ports: config.listen.iter().map(|address| address.port()).collect(),
        })
        .await?;
    // With slashes, since the name may have dots. Redirects to clients are the firewall's to stop: the kernel sends
    // them when either the link's `send_redirects` or that of all links allows it.
    if config.pool.v4.is_some() {
        for (key, value) in [("accept_redirects", "0"), ("rp_filter", "1")] {
            changes.set_sysctl(&format!("net/ipv4/conf/{name}/{key}"), value).await?;
        }
    }
    if config.pool.v6.is_some() {
        changes.set_sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "0").await?;
    }
    let link = LinkSettings { mtu: Some(u32::from(config.tun.mtu)), up: Some(true), ..LinkSettings::default() };
    changes.set_link(name, link).await?;
    if let (Some(v4), Some(pool)) = (own.v4, config.pool.v4) {
        changes.add_address(name, net(v4.into(), pool.prefix_len())).await?;
    }
    if let (Some(v6), Some(pool)) = (own.v6, config.pool.v6) {
        changes.add_address(name, net(v6.into(), pool.prefix_len())).await?;
    }
    if config.pool.v4.is_some() {
        changes.enable_forwarding(Family::V4).await?;
    }
    if config.pool.v6.is_some() {
        changes.enable_forwarding(Family::V6).await?;
    }
    Ok(())
}

fn net(address: IpAddr, prefix_len: u8) -> IpNet {
    IpNet::new(address, prefix_len).unwrap_or_else(|_| IpNet::from(address))
}

fn warn_of_foreign_policies() {
    match foreign_forward_policies() {
        Ok(chains) => {
            for chain in chains {
                tracing::warn!(chain, "another firewall drops forwarded packets; allow the TUN device there");
            }
        }
        Err(error) => tracing::debug!(%error, "other firewalls could not be looked at"),
    }
}

fn tun_failure(name: &str, error: &io::Error) -> Failure {
    let kind = error.kind();
    let (exit, next) = if kind == io::ErrorKind::NotFound {
        (Exit::Permission, "load the tun module (`modprobe tun`), or give the container the device /dev/net/tun")
    } else if kind == io::ErrorKind::PermissionDenied {
        (Exit::Permission, "run as root, or grant CAP_NET_ADMIN and access to /dev/net/tun")
    } else if kind == io::ErrorKind::ResourceBusy {
        (Exit::Other, "stop the process that holds it, or change `tun.name`")
    } else {
        (Exit::Other, "see docs/operations.md, \"TUN device\"")
    };
    Failure::new(exit, format!("TUN device {name}"), error.to_string(), next)
}
