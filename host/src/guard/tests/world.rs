//! Random interference by another program; in the end nothing of ours is missing, and nothing of others.

use tokio::process::Command;

use super::*;

/// Rounds of a world, and the most things the stranger does in one.
const ROUNDS: usize = 8;
const MOST_AT_ONCE: u64 = 6;

/// What the stranger does to our settings.
const DEEDS: [&str; 18] = [
    "rule del pref 5300",
    "-6 rule del pref 5300",
    "rule flush",
    "route flush table 44311",
    "-6 route flush table 44311",
    "route del default dev adit0 table 44311",
    "route replace default dev other table 44311 metric 100",
    "-6 route replace unreachable default table 44311 metric 100",
    "address flush dev adit0",
    "address del 10.64.3.2/32 dev adit0",
    "address change fd00::2/128 dev adit0 valid_lft 900 preferred_lft 0",
    "link set adit0 down",
    "link set adit0 up",
    "link set adit0 mtu 1300",
    "link set adit0 name elsewhere",
    "link set elsewhere down",
    "address flush dev elsewhere",
    "link set elsewhere mtu 9000",
];

/// What the stranger has of its own, which nobody may touch.
const OWN: [&str; 9] = [
    "link add other type veth peer name other-end",
    "address add 192.0.2.9/24 dev other",
    "link set other up",
    "link set other-end up",
    "route add 203.0.113.0/24 via 192.0.2.1",
    "route add 198.51.100.0/24 dev other table 7",
    "-6 route add fd77::/16 dev other",
    "rule add pref 99 from 192.0.2.9 lookup 7",
    "-6 rule add pref 99 fwmark 0x9 lookup 7",
];

/// Numbers that look random (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// `rule flush` also takes what is not ours, and the kernel's own rules; the stranger puts those back itself.
async fn do_to_host(deed: &str) {
    // Some deeds fail, as when the device has its other name.
    Command::new("ip").args(deed.split(' ')).output().await.unwrap();
    if deed == "rule flush" {
        for own in ["rule add pref 32766 lookup main", "rule add pref 32767 lookup default", OWN[7]] {
            Command::new("ip").args(own.split(' ')).output().await.unwrap();
        }
    }
}

fn world(seed: u64) {
    in_namespace_async(move || async move {
        ip("link set lo up");
        OWN.iter().for_each(|own| ip(own));
        let mut host = Host::new().await;
        let before = picture();
        host.set_up().await;
        let wanted = picture();
        let Host { changes, .. } = &mut host;
        let mut dice = Dice(seed);
        for round in 0..ROUNDS {
            let deeds: Vec<&str> =
                (0..=dice.below(MOST_AT_ONCE)).map(|_| DEEDS[usize::try_from(dice.below(18)).unwrap()]).collect();
            let stranger = async {
                for deed in &deeds {
                    do_to_host(deed).await;
                }
                becomes(&wanted, &format!("seed {seed}, round {round}: after {deeds:?} everything is put back")).await;
            };
            hold_beside(changes, stranger).await;
        }
        changes.undo().await.unwrap();
        becomes(&before, &format!("seed {seed}: all is as before")).await;
    });
}

#[test]
fn random_interference_is_mended_and_leaves_no_trace() {
    for seed in 1..=3 {
        world(seed);
    }
}
