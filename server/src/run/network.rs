//! Sets up the gateway's host: firewall, TUN device, addresses and forwarding.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use adit_host::{
    Family, ForwardedBefore, GatewayRules, HostChanges, HostError, LinkSettings, PolicyTable, TrackedPort,
    tracked_ports,
};
use adit_net::tun::Tun;
use adit_program::causes::with_causes;
use adit_program::exit::{Exit, Failure};
use adit_program::rights::Capability;
use adit_proto::packet::icmp::GatewayAddresses;
use ipnet::IpNet;

use crate::cleanup::host_failure;
use crate::config::Config;
use crate::policy::PolicyFile;

use super::flows;

/// What of the host the gateway works with.
pub(super) struct Network {
    pub(super) tun: Tun,
    /// What holds clients to their policy; `None` without one.
    pub(super) policy: Option<Arc<PolicyTable>>,
}

/// Makes the TUN device, with a queue for each worker, and everything around it. The firewall is loaded before the
/// device is up.
pub(super) async fn set_up(
    config: &Config,
    own: GatewayAddresses,
    policy: Option<&PolicyFile>,
    changes: &mut HostChanges,
) -> Result<Network, Failure> {
    let name = &config.tun.name;
    let tun = Tun::create(name, config.workers.threads(), config.workers.tun_offload)
        .map_err(|error| tun_failure(name, &error))?;
    let policy = configure(config, own, policy, changes).await?;
    flows::warn_if_they_last(own);
    Ok(Network { tun, policy })
}

async fn configure(
    config: &Config,
    own: GatewayAddresses,
    policy: Option<&PolicyFile>,
    changes: &mut HostChanges,
) -> Result<Option<Arc<PolicyTable>>, Failure> {
    let name = &config.tun.name;
    let failed = |error: HostError| host_failure(&format!("set up {name}"), &error);
    changes.join_gateway_links(name).await.map_err(failed)?;
    let rules = firewall_rules(config, own, policy, changes).map_err(failed)?;
    changes.load_firewall(&rules).await.map_err(failed)?;
    let policy = match policy {
        Some(_) => Some(changes.load_policy_table(name).await.map_err(failed)?),
        None => None,
    };
    if config.pool.v6.is_some() {
        // Where IPv6 is off for new links only.
        require_setting(changes, &format!("net/ipv6/conf/{name}/disable_ipv6"), "0").await?;
    }
    harden(config, changes).await.map_err(failed)?;
    let link = LinkSettings { mtu: Some(u32::from(config.tun.mtu)), up: Some(true), ..LinkSettings::default() };
    changes.set_link(name, link).await.map_err(failed)?;
    if let (Some(v4), Some(pool)) = (own.v4, config.pool.v4) {
        changes.add_address(name, net(v4.into(), pool.prefix_len())).await.map_err(failed)?;
    }
    if let (Some(v6), Some(pool)) = (own.v6, config.pool.v6) {
        changes.add_address(name, net(v6.into(), pool.prefix_len())).await.map_err(failed)?;
    }
    forward(config, changes).await?;
    Ok(policy)
}

fn firewall_rules(
    config: &Config,
    own: GatewayAddresses,
    policy: Option<&PolicyFile>,
    changes: &HostChanges,
) -> Result<GatewayRules, HostError> {
    let listen_ports = config.udp_ports();
    let mut rules = GatewayRules {
        tun: config.tun.name.clone(),
        pool_v4: config.pool.v4,
        pool_v6: config.pool.v6,
        gateway_v4: own.v4,
        gateway_v6: own.v6,
        masquerade: false,
        client_to_client: false,
        connections_per_client: 0,
        resolvers: Vec::new(),
        local_services: Vec::new(),
        tracked_ports: tracked(&listen_ports),
        listen_ports,
        forwarded_before_v4: forwarded_before(Family::V4, config.pool.v4.is_some(), changes)?,
        forwarded_before_v6: forwarded_before(Family::V6, config.pool.v6.is_some(), changes)?,
    };
    set_live_rules(&mut rules, config, policy);
    Ok(rules)
}

/// Sets what of the firewall comes from keys that are live: at the start, and again at each reload.
pub(super) fn set_live_rules(rules: &mut GatewayRules, config: &Config, policy: Option<&PolicyFile>) {
    rules.masquerade = config.masquerade;
    rules.client_to_client = config.client_to_client;
    rules.connections_per_client = config.limits.connections_per_client;
    rules.local_services = config.services_for_clients();
    rules.resolvers.clone_from(&config.dns.servers);
    // One that runs on this host is within reach of every client: the table knows no groups.
    rules.resolvers.extend(policy.into_iter().flat_map(PolicyFile::resolvers));
}

/// Those ports whose datagrams another firewall of this host admits only if they are tracked.
fn tracked(ports: &[u16]) -> Vec<u16> {
    let found = tracked_ports(ports).unwrap_or_else(|error| {
        tracing::warn!(error = with_causes(&error), "other firewalls could not be looked at");
        Vec::new()
    });
    for TrackedPort { port, chain } in &found {
        let next = "accept the port there without a state, or `ct state new,untracked`, to spare the cost";
        tracing::info!(port, chain, next, "another firewall admits tracked datagrams only, so they are tracked");
    }
    found.into_iter().map(|found| found.port).collect()
}

/// From which links the host forwards a family anyway. Where no client has an address of it, nothing changes.
fn forwarded_before(family: Family, used: bool, changes: &HostChanges) -> Result<ForwardedBefore, HostError> {
    let before = if used { changes.forwarded_before(family)? } else { ForwardedBefore::FromAll };
    if before != ForwardedBefore::FromAll {
        let next = "to make this host a router, switch it on in /etc/sysctl.d";
        tracing::info!(?family, next, "forwarding is switched on for the tunnel alone");
    }
    Ok(before)
}

/// Sets what protects beyond the firewall, which a gateway can do without. Redirects to clients are the firewall's to
/// stop: the kernel sends them when either the link's `send_redirects` or that of all links allows it.
async fn harden(config: &Config, changes: &mut HostChanges) -> Result<(), HostError> {
    let name = &config.tun.name;
    let v4 = ["accept_redirects", "rp_filter"].into_iter().zip(["0", "1"]).filter(|_| config.pool.v4.is_some());
    let v6 = config.pool.v6.map(|_| ("accept_ra", "0"));
    let v4 = v4.map(|(key, value)| (format!("net/ipv4/conf/{name}/{key}"), value));
    let v6 = v6.map(|(key, value)| (format!("net/ipv6/conf/{name}/{key}"), value));
    for (key, value) in v4.chain(v6) {
        match changes.set_sysctl(&key, value).await {
            Err(error) if is_forbidden(&error) => {
                tracing::warn!(key, value, error = with_causes(&error), "a setting that only hardens cannot be made");
            }
            done => done?,
        }
    }
    Ok(())
}

/// Makes the host forward.
async fn forward(config: &Config, changes: &mut HostChanges) -> Result<(), Failure> {
    if config.pool.v4.is_some() {
        let switched = changes.enable_forwarding(Family::V4).await;
        switched.map_err(|error| setting_failure("net.ipv4.ip_forward", "1", &error))?;
        // New links may have it switched off, and it is the link a packet comes in by that decides. IPv6 asks the
        // switch of all links only.
        require_setting(changes, &format!("net/ipv4/conf/{}/forwarding", config.tun.name), "1").await?;
    }
    if config.pool.v6.is_some() {
        let switched = changes.enable_forwarding(Family::V6).await;
        switched.map_err(|error| setting_failure("net.ipv6.conf.all.forwarding", "1", &error))?;
    }
    Ok(())
}

/// Makes a setting that the gateway cannot do without. The key has slashes, since the name of a link may have dots.
async fn require_setting(changes: &mut HostChanges, key: &str, value: &str) -> Result<(), Failure> {
    changes.set_sysctl(key, value).await.map_err(|error| setting_failure(key, value, &error))
}

fn setting_failure(key: &str, value: &str, error: &HostError) -> Failure {
    if !is_forbidden(error) {
        return host_failure(&format!("set {key} to {value}"), error);
    }
    // A container that is made has no TUN device yet, whose settings are those for new links.
    let for_container = match key.split('/').collect::<Vec<_>>()[..] {
        ["net", family, "conf", _, name] => format!("net.{family}.conf.default.{name}"),
        _ => key.to_owned(),
    };
    let next = format!(
        "set it before the gateway starts: `sysctl -w {for_container}={value}` on a host, `--sysctl {for_container}={value}` \
         when a container is made"
    );
    Failure::new(Exit::Permission, format!("setting {key}"), format!("must be {value}: {}", with_causes(error)), next)
}

/// Whether settings may not be changed here, as in most containers.
fn is_forbidden(error: &HostError) -> bool {
    matches!(error.kind(), Some(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied))
}

fn net(address: IpAddr, prefix_len: u8) -> IpNet {
    IpNet::new(address, prefix_len).unwrap_or_else(|_| IpNet::from(address))
}

fn tun_failure(name: &str, error: &io::Error) -> Failure {
    let kind = error.kind();
    let (exit, next) = if kind == io::ErrorKind::NotFound {
        let next = "load the tun module (`modprobe tun`); in a container, add `--device /dev/net/tun`";
        (Exit::Permission, next.to_owned())
    } else if kind == io::ErrorKind::PermissionDenied {
        let next = format!("{}; /dev/net/tun must be open to it as well", Capability::NetAdmin.next_step());
        (Exit::Permission, next)
    } else if kind == io::ErrorKind::ResourceBusy {
        (Exit::Other, "stop the process that holds it, or change `tun.name`".to_owned())
    } else {
        (Exit::Other, "see docs/operations.md, \"TUN device\"".to_owned())
    };
    Failure::new(exit, format!("TUN device {name}"), error.to_string(), next)
}
