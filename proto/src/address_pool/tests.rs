use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(120);

#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
fn start() -> Instant {
    Instant::now()
}

fn pool(v4: &str, v6: &str) -> AddressPool {
    AddressPool::new(PoolConfig { v4: v4.parse().ok(), v6: v6.parse().ok(), cooldown: COOLDOWN })
}

fn lease(v4: &str, v6: &str) -> Lease {
    Lease { v4: v4.parse().ok(), v6: v6.parse().ok() }
}

#[test]
fn gateway_is_the_first_host_of_each_network() {
    let gateway = pool("10.64.0.0/24", "fd00:0:0:1::/64").gateway();
    assert_eq!(gateway.v4, "10.64.0.1".parse().ok());
    assert_eq!(gateway.v6, "fd00:0:0:1::1".parse().ok());
    assert_eq!(pool("10.64.0.0/24", "").gateway().v6, None);
}

#[test]
fn host_bits_of_the_configured_network_are_ignored() {
    let mut pool = pool("10.64.0.77/24", "");
    assert_eq!(pool.gateway().v4, "10.64.0.1".parse().ok());
    assert_eq!(pool.lease("a", None, start()), Ok(lease("10.64.0.2", "")));
}

#[test]
fn families_get_the_same_host_number() {
    let mut pool = pool("10.64.0.0/24", "fd00::/64");
    assert_eq!(pool.lease("a", None, start()), Ok(lease("10.64.0.2", "fd00::2")));
    assert_eq!(pool.lease("b", None, start()), Ok(lease("10.64.0.3", "fd00::3")));
    assert_eq!(pool.lease("c", Some(lease("10.64.0.9", "")), start()), Ok(lease("10.64.0.9", "fd00::9")));
}

#[test]
fn live_device_keeps_its_lease() {
    let mut pool = pool("10.64.0.0/24", "");
    let first = pool.lease("a", None, start());
    assert_eq!(pool.lease("a", Some(lease("10.64.0.9", "")), start()), first);
    assert_eq!(pool.live(), 1);
}

#[test]
fn device_that_returns_gets_its_former_addresses() {
    let now = start();
    let mut pool = pool("10.64.0.0/24", "fd00::/64");
    let first = pool.lease("a", None, now);
    pool.release("a", now);
    assert_eq!(pool.live(), 0);
    assert_ne!(pool.lease("b", None, now + COOLDOWN * 2), first);
    assert_eq!(pool.lease("a", None, now + COOLDOWN * 3), first);
}

#[test]
fn wanted_address_is_given_only_if_free() {
    let now = start();
    let mut pool = pool("10.64.0.0/24", "");
    assert_eq!(pool.lease("a", Some(lease("10.64.0.77", "")), now), Ok(lease("10.64.0.77", "")));
    assert_eq!(pool.lease("b", Some(lease("10.64.0.77", "")), now), Ok(lease("10.64.0.2", "")));
    for (device, refused) in [("c", "10.64.0.0"), ("d", "10.64.0.1"), ("e", "10.64.0.255"), ("f", "10.65.0.9")] {
        let given = pool.lease(device, Some(lease(refused, "")), now).unwrap();
        assert_ne!(given, lease(refused, ""));
    }
}

#[test]
fn released_address_can_be_wanted_by_another_after_the_cooldown() {
    let now = start();
    let mut pool = pool("10.64.0.0/24", "");
    pool.lease("a", None, now).unwrap();
    pool.release("a", now);
    let wanted = Some(lease("10.64.0.2", ""));
    assert_eq!(pool.lease("b", wanted, now + COOLDOWN / 2), Ok(lease("10.64.0.3", "")));
    assert_eq!(pool.lease("c", wanted, now + COOLDOWN), Ok(lease("10.64.0.2", "")));
    assert_eq!(pool.lease("a", None, now + COOLDOWN), Ok(lease("10.64.0.4", "")));
}

#[test]
fn released_address_is_not_reassigned_within_the_cooldown() {
    let now = start();
    let mut pool = pool("10.64.0.0/30", "");
    pool.lease("a", None, now).unwrap();
    pool.release("a", now);
    let exhausted = PoolError::Exhausted { pool: "10.64.0.0/30".parse().unwrap() };
    assert_eq!(pool.lease("b", None, now + COOLDOWN - Duration::from_nanos(1)), Err(exhausted));
    assert_eq!(pool.lease("b", None, now + COOLDOWN), Ok(lease("10.64.0.2", "")));
}

#[test]
fn other_cooldown_counts_for_addresses_that_rest_already() {
    let now = start();
    let mut pool = pool("10.64.0.0/30", "fd00::/126");
    pool.lease("a", None, now).unwrap();
    pool.release("a", now);
    pool.set_cooldown(COOLDOWN * 3);
    assert!(matches!(pool.lease("b", None, now + COOLDOWN * 2), Err(PoolError::Exhausted { .. })));
    pool.set_cooldown(COOLDOWN / 3);
    assert_eq!(pool.lease("b", None, now + COOLDOWN / 2), Ok(lease("10.64.0.2", "fd00::2")));
}

#[test]
fn used_up_pool_gives_the_address_released_longest_ago_with_its_partner() {
    let now = start();
    let mut pool = pool("10.64.0.0/29", "fd00::/64");
    for device in ["a", "b", "c", "d", "e"] {
        pool.lease(device, None, now).unwrap();
    }
    pool.release("c", now);
    pool.release("a", now + Duration::from_secs(1));
    let later = now + COOLDOWN * 2;
    assert_eq!(pool.lease("f", None, later), Ok(lease("10.64.0.4", "fd00::4")));
    assert_eq!(pool.lease("g", None, later), Ok(lease("10.64.0.2", "fd00::2")));
    assert!(matches!(pool.lease("a", None, later), Err(PoolError::Exhausted { .. })));
}

#[test]
fn exhausted_family_leases_nothing_of_the_other() {
    let now = start();
    let mut pool = pool("10.64.0.0/24", "fd00::/126");
    pool.lease("a", None, now).unwrap();
    pool.lease("b", None, now).unwrap();
    assert_eq!(pool.lease("c", None, now), Err(PoolError::Exhausted { pool: "fd00::/126".parse().unwrap() }));
    assert_eq!(pool.live(), 2);
    assert_eq!(pool.device_of("10.64.0.4".parse().unwrap()), None);
}

#[test]
fn pool_without_networks_says_so() {
    assert_eq!(pool("", "").lease("a", None, start()), Err(PoolError::NoNetwork));
}

#[test]
fn holder_is_named_while_live() {
    let now = start();
    let mut pool = pool("10.64.0.0/24", "fd00::/64");
    let given = pool.lease("a", None, now).unwrap();
    assert_eq!(pool.device_of("10.64.0.2".parse().unwrap()), Some("a"));
    assert_eq!(pool.device_of("fd00::2".parse().unwrap()), Some("a"));
    assert_eq!(pool.lease_of("a"), Some(given));
    pool.release("a", now);
    assert_eq!(pool.device_of("10.64.0.2".parse().unwrap()), None);
    assert_eq!(pool.lease_of("a"), None);
}

#[test]
fn large_pool_is_leased_without_scanning() {
    // Quadratic work would take minutes here.
    let now = start();
    let mut pool = pool("10.64.0.0/10", "fd00::/64");
    for number in 0..100_000 {
        pool.lease(&number.to_string(), None, now).unwrap();
    }
    assert_eq!(pool.lease_of("99999"), Some(lease("10.65.134.161", "fd00::1:86a1")));
}

/// What a test does to a small pool; devices and addresses are small numbers.
#[derive(Debug, Clone)]
enum Op {
    Lease { device: u8, wanted: Option<Lease> },
    Release(u8),
    Wait(u64),
}

const SMALL_V4: &str = "10.0.0.0/29";
const SMALL_V6: &str = "fd00::/125";

fn small_lease() -> impl Strategy<Value = Lease> {
    let v4 = prop::option::of((0..10u32).prop_map(|host| Ipv4Addr::from_bits(0x0a00_0000 + host)));
    let v6 = prop::option::of((0..10u128).prop_map(|host| Ipv6Addr::from_bits((0xfd << 120) + host)));
    (v4, v6).prop_map(|(v4, v6)| Lease { v4, v6 })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..9u8, prop::option::of(small_lease())).prop_map(|(device, wanted)| Op::Lease { device, wanted }),
        4 => (0..9u8).prop_map(Op::Release),
        3 => (0..100u64).prop_map(Op::Wait),
    ]
}

/// What is known of one address, kept the slow and obvious way.
#[derive(Debug, Clone, Default)]
struct Known {
    live: Option<u8>,
    last: Option<(u8, Instant)>,
}

#[derive(Debug, Default)]
struct Model {
    addresses: BTreeMap<IpAddr, Known>,
    live: BTreeMap<u8, Lease>,
    /// The address of each family (true for IPv4) that a device had last, and nobody else had since.
    kept: BTreeMap<(u8, bool), IpAddr>,
}

fn parts(lease: Lease) -> Vec<IpAddr> {
    lease.v4.map(IpAddr::V4).into_iter().chain(lease.v6.map(IpAddr::V6)).collect()
}

impl Model {
    fn new() -> Self {
        let v4 = (2..=6u32).map(|host| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + host)));
        let v6 = (2..=7u128).map(|host| IpAddr::V6(Ipv6Addr::from_bits((0xfd << 120) + host)));
        let addresses = v4.chain(v6).map(|address| (address, Known::default())).collect();
        Self { addresses, ..Self::default() }
    }

    /// Whether the rules let `device` have `address`.
    fn allowed(&self, address: IpAddr, device: u8, now: Instant) -> bool {
        let Some(known) = self.addresses.get(&address) else { return false };
        known.live.is_none_or(|live| live == device)
            && known.last.is_none_or(|(last, released)| last == device || now - released >= COOLDOWN)
    }

    fn check_lease(&self, device: u8, given: Result<Lease, PoolError>, now: Instant) -> Result<(), TestCaseError> {
        match given {
            Ok(given) => {
                prop_assert!(given.v4.is_some() && given.v6.is_some());
                if let Some(live) = self.live.get(&device) {
                    prop_assert_eq!(given, *live, "a live device keeps its lease");
                }
                for address in parts(given) {
                    prop_assert!(self.allowed(address, device, now), "{} may not have {}", device, address);
                    let kept = self.kept.get(&(device, address.is_ipv4()));
                    prop_assert!(kept.is_none_or(|kept| *kept == address), "{} had {:?}", device, kept);
                }
            }
            Err(PoolError::Exhausted { pool }) => {
                let free = self
                    .addresses
                    .keys()
                    .find(|address| pool.contains(*address) && self.allowed(**address, device, now));
                prop_assert!(free.is_none(), "{:?} is free for {}", free, device);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
        Ok(())
    }

    fn lease(&mut self, device: u8, given: Lease) {
        self.live.insert(device, given);
        for address in parts(given) {
            let known = self.addresses.entry(address).or_default();
            *known = Known { live: Some(device), last: None };
            self.kept.retain(|_, kept| *kept != address);
            self.kept.insert((device, address.is_ipv4()), address);
        }
    }

    fn release(&mut self, device: u8, now: Instant) {
        for address in self.live.remove(&device).into_iter().flat_map(parts) {
            let known = self.addresses.entry(address).or_default();
            *known = Known { live: None, last: Some((device, now)) };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn never_leases_twice_and_keeps_every_rule(ops in prop::collection::vec(op(), 1..120)) {
        let mut now = start();
        let mut pool = pool(SMALL_V4, SMALL_V6);
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Lease { device, wanted } => {
                    let given = pool.lease(&device.to_string(), wanted, now);
                    model.check_lease(device, given.clone(), now)?;
                    if let Ok(given) = given {
                        model.lease(device, given);
                    }
                }
                Op::Release(device) => {
                    pool.release(&device.to_string(), now);
                    model.release(device, now);
                }
                Op::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            prop_assert_eq!(pool.live(), model.live.len());
            for (device, lease) in &model.live {
                for address in parts(*lease) {
                    prop_assert_eq!(pool.device_of(address).map(str::to_owned), Some(device.to_string()));
                }
            }
        }
    }
}
