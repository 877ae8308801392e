//! Finds the gateway's addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most addresses remembered, and tried in one attempt: more would not all be begun in its time.
const MOST_ADDRESSES: usize = 8;
/// Most addresses taken of a name, so that a resolver that lies cannot crowd out all that are known to work.
const MOST_RESOLVED: usize = 6;

/// Resolves a host name, or takes an address as it is. Empty if the name does not resolve in time.
pub(crate) async fn resolve(host: &str, port: u16, timeout: Duration) -> Vec<SocketAddr> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return vec![SocketAddr::new(address, port)];
    }
    match tokio::time::timeout(timeout, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => remember(found, &[]).into_iter().take(MOST_RESOLVED).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The addresses to try: those last known to work and still named by the resolver first, then the resolver's, then the
/// rest.
pub(crate) fn merge(resolved: impl IntoIterator<Item = SocketAddr>, known: &[SocketAddr]) -> Vec<SocketAddr> {
    let resolved: Vec<SocketAddr> = resolved.into_iter().collect();
    let confirmed = known.iter().filter(|address| resolved.contains(address));
    remember(confirmed.copied().chain(resolved.iter().copied()), known)
}

/// What to remember: the newest addresses first, then those known before, none twice.
pub(crate) fn remember(newest: impl IntoIterator<Item = SocketAddr>, known: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut remembered: Vec<SocketAddr> = Vec::new();
    for address in newest.into_iter().chain(known.iter().copied()) {
        if !remembered.contains(&address) {
            remembered.push(address);
        }
    }
    remembered.truncate(MOST_ADDRESSES);
    remembered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    #[test]
    fn known_and_confirmed_comes_first_and_nothing_twice() {
        let merged = merge([address(1), address(2)], &[address(9), address(2)]);
        assert_eq!(merged, [address(2), address(1), address(9)]);
    }

    #[test]
    fn known_addresses_serve_when_nothing_resolves() {
        assert_eq!(merge([], &[address(9)]), [address(9)]);
    }

    #[test]
    fn number_of_addresses_is_bounded() {
        assert_eq!(merge((0..100).map(address), &[]).len(), MOST_ADDRESSES);
    }

    #[tokio::test]
    async fn literal_addresses_need_no_resolver() {
        assert_eq!(resolve("::1", 443, Duration::ZERO).await, [SocketAddr::new("::1".parse().unwrap(), 443)]);
    }
}
