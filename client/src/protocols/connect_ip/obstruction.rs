//! Whether it is this host's own firewall that keeps datagrams from a gateway that does not answer.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use adit_net::quic;
use tokio::time::{Instant, sleep_until};

use super::{ConnectError, dial};
use crate::gateway_addresses::Candidates;

/// How long a gateway may be silent before this host is looked at: more than a slow path takes to answer.
const SILENCE: Duration = Duration::from_secs(1);
/// A datagram that is neither QUIC nor ESP, which gateways drop without a word.
const NOTHING: [u8; 1] = [0];

/// Waits for `dialling`, but no longer than [`SILENCE`] if this host lets no datagram to any of the gateway's addresses
/// go: the error names its firewall then.
pub(super) async fn watch(
    dialling: impl Future<Output = Result<dial::Dialled, ConnectError>>,
    addresses: &Candidates,
    mark: Option<u32>,
) -> Result<dial::Dialled, ConnectError> {
    let look_at = Instant::now() + SILENCE;
    tokio::pin!(dialling);
    tokio::select! {
        dialled = &mut dialling => return dialled,
        () = sleep_until(look_at) => {}
    }
    match obstruction(&addresses.known(), mark) {
        Some(reason) => Err(ConnectError::Firewall(reason)),
        None => dialling.await,
    }
}

/// What keeps datagrams to all of these addresses on this host; `None` if one of them may go, or might.
fn obstruction(addresses: &[SocketAddr], mark: Option<u32>) -> Option<String> {
    let first = addresses.first()?;
    if !addresses.iter().all(|address| is_refused(*address, mark)) {
        return None;
    }
    Some(match mark {
        // The same datagram without the mark tells whether the rule is about that.
        Some(mark) if !is_refused(*first, None) => {
            format!("this host's firewall drops datagrams with the client's mark {mark:#x} to {first}")
        }
        Some(_) | None => format!("this host's firewall drops datagrams to {first}"),
    })
}

/// Whether the kernel says that a datagram may not leave, which it does where a firewall drops what this host sends.
fn is_refused(to: SocketAddr, mark: Option<u32>) -> bool {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Without the right to set marks there is no socket, which says nothing about a firewall.
    let Ok(socket) = quic::bind(SocketAddr::new(any, 0), mark) else { return false };
    socket.send_to(&NOTHING, to).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use adit_testing::namespace::{in_namespace, ip};

    use super::*;

    const GATEWAYS: [&str; 2] = ["192.0.2.1:443", "192.0.2.2:443"];

    fn nft(commands: &str) {
        let status = Command::new("nft").arg(commands).status().expect("nftables is installed");
        assert!(status.success(), "nft {commands}");
    }

    #[test]
    fn firewall_of_this_host_is_told_from_silence_and_a_rule_about_the_mark_from_others() {
        in_namespace(|| {
            ip("link set lo up");
            ip("address add 192.0.2.0/24 dev lo");
            let gateways = GATEWAYS.map(|text| text.parse().unwrap());
            let look = || obstruction(&gateways, Some(0x16));
            assert_eq!(look(), None, "nobody answers, but nothing stops a datagram");

            nft(
                "table ip rules { chain output { type filter hook output priority 0; meta mark and 0x10 == 0x10 drop; }; }",
            );
            let reason = look().unwrap();
            assert!(reason.contains("client's mark 0x16 to 192.0.2.1:443"), "{reason}");
            nft("flush chain ip rules output; add rule ip rules output udp dport 443 drop");
            assert_eq!(look().unwrap(), "this host's firewall drops datagrams to 192.0.2.1:443");
            nft("flush chain ip rules output; add rule ip rules output ip daddr 192.0.2.1 drop");
            assert_eq!(look(), None, "the other address may answer");
        });
    }
}
