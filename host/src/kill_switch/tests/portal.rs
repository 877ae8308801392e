//! One program at a captive portal, and all others, against the loaded rules.

use std::net::TcpStream;
use std::time::Duration;

use nix::unistd::{Gid, setfsgid};

use super::*;

/// The group of the program that is let out, and that of another.
const LET_OUT: u32 = 61_234;
const OTHER: u32 = 61_235;
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(1);

fn way() -> PortalWay {
    PortalWay {
        profile: "home".into(),
        group: LET_OUT,
        mark: Mark::CLIENT,
        ports: [80, 443, 8880].into(),
        resolvers: [NEIGHBOUR.into(), NEIGHBOUR_V6.into()].into(),
    }
}

/// Does something as a program of this user and group: its sockets are theirs.
fn as_member(user: u32, group: u32, probe: impl FnOnce()) {
    setfsgid(Gid::from_raw(group));
    setfsuid(Uid::from_raw(user));
    probe();
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
}

/// Opens a connection, of which the first packet is enough.
fn visit(to: IpAddr, port: u16) {
    drop(TcpStream::connect_timeout(&SocketAddr::new(to, port), Duration::from_millis(10)));
}

/// What a browser at a portal does.
const VISITS: [(&str, fn()); 7] = [
    ("a page in clear", || visit(INTERNET.into(), 80)),
    ("a page over TLS", || visit(INTERNET.into(), 443)),
    ("a page at the portal's own port", || visit(NEIGHBOUR.into(), 8880)),
    ("a page over IPv6", || visit(INTERNET_V6.into(), 80)),
    ("a question for a name", || send(NEIGHBOUR, 53)),
    ("one over IPv6", || send(NEIGHBOUR_V6, 53)),
    ("one over TCP", || visit(NEIGHBOUR.into(), 53)),
];

/// What nobody needs at a portal.
const OTHERS: [(&str, fn()); 6] = [
    ("another service", || visit(INTERNET.into(), 22)),
    ("one of IPv6", || visit(INTERNET_V6.into(), 22)),
    ("a datagram", || send(INTERNET, 443)),
    ("one of IPv6", || send(INTERNET_V6, 443)),
    ("a question to another resolver", || send(INTERNET, 53)),
    ("one over IPv6", || send(INTERNET_V6, 53)),
];

#[test]
fn program_at_a_portal_alone_is_let_out_to_pages_and_resolvers() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        for (what, probe) in VISITS.into_iter().chain(OTHERS) {
            assert!(host.leaves(|| as_member(STRANGER, OTHER, probe)), "{what} is not seen on an open host");
        }
        for closed in [connecting(), switch()] {
            load(&closed).unwrap();
            for (what, probe) in VISITS {
                assert!(!host.leaves(|| as_member(STRANGER, LET_OUT, probe)), "{what} leaves before there is a way");
            }
            way().open(LONG).unwrap();
            for (what, probe) in VISITS {
                assert!(host.leaves(|| as_member(STRANGER, LET_OUT, probe)), "{what} does not leave");
                assert!(!host.leaves(|| as_member(STRANGER, OTHER, probe)), "{what} of another program of that user");
                assert!(!host.leaves(|| as_member(0, 0, probe)), "{what} of root");
            }
            for (what, probe) in OTHERS {
                assert!(!host.leaves(|| as_member(STRANGER, LET_OUT, probe)), "{what}");
            }
        }
    });
}

#[test]
fn way_closes_after_its_time_and_when_it_is_closed_and_with_every_other_table() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let probe: fn() = || visit(INTERNET.into(), 80);
        let is_open = || host.leaves(|| as_member(STRANGER, LET_OUT, probe));
        load(&connecting()).unwrap();
        way().open(SHORT).unwrap();
        eventually("its time is over", || (!is_open()).then_some(()));
        // Somebody opens it anew as often as it is to stay open.
        way().open(SHORT).unwrap();
        way().open(LONG).unwrap();
        assert!(is_open());
        close_portal_way("home").unwrap();
        assert!(!is_open());
        way().open(LONG).unwrap();
        load(&switch()).unwrap();
        assert!(!is_open(), "the tunnel stands");
        unload("home").unwrap();
        assert!(is_open(), "an opened host is open for all");
        assert_eq!(way().open(LONG).unwrap_err().errno(), Some(libc::ENOENT));
        close_portal_way("home").unwrap();
    });
}

#[test]
fn another_program_takes_the_way_from_the_one_before() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        load(&connecting()).unwrap();
        let probe: fn() = || visit(INTERNET.into(), 80);
        way().open(LONG).unwrap();
        PortalWay { group: OTHER, ..way() }.open(LONG).unwrap();
        assert!(!host.leaves(|| as_member(STRANGER, LET_OUT, probe)));
        assert!(host.leaves(|| as_member(STRANGER, OTHER, probe)));
    });
}

/// The routes lead into a tunnel whose other end nobody hears, as in a network with a portal.
#[test]
fn program_is_led_past_a_tunnel_with_an_address_of_its_link() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        load(&switch()).unwrap();
        let netlink = Netlink::open().unwrap();
        for (family, prefix) in [(Family::V4, "0.0.0.0/0"), (Family::V6, "::/0")] {
            let target = RouteTarget::Link("tunnel0".into());
            let route = Route { table: 44_311, prefix: prefix.parse().unwrap(), target, metric: None };
            netlink.add_route(&route).await.unwrap();
            let unless = Mark::CLIENT;
            netlink.add_rule(&PolicyRule { family, unless, table: 44_311, priority: 5_000 }).await.unwrap();
        }
        let way = way();
        way.open(LONG).unwrap();
        let visit_v4: fn() = || visit(INTERNET.into(), 80);
        assert!(!host.leaves(|| as_member(STRANGER, LET_OUT, visit_v4)), "the routes lead it into the tunnel");
        way.lead_past_tunnel(LONG).unwrap();
        let visits: [(fn(), Vec<u8>); 3] = [
            (visit_v4, OWN_ADDRESS.octets().to_vec()),
            (|| visit(INTERNET_V6.into(), 80), OWN_ADDRESS_V6.octets().to_vec()),
            (|| send(NEIGHBOUR, 53), OWN_ADDRESS.octets().to_vec()),
        ];
        for (probe, source) in visits {
            let left = host.leaving(|| as_member(STRANGER, LET_OUT, probe));
            let mut sent = left.iter().filter(|packet| !is_neighbourly(packet));
            let first = sent.next().expect("it leaves");
            let at = if first[0] >> 4 == 4 { 12 } else { 8 };
            assert_eq!(first[at..at + source.len()], source, "from the address of its link");
            assert!(!host.leaves(|| as_member(STRANGER, OTHER, probe)), "and nobody else's");
        }
        for (what, probe) in OTHERS {
            assert!(!host.leaves(|| as_member(0, LET_OUT, probe)), "{what}, though root's sockets may bear the mark");
        }
        // The mark alone lets root's packets out.
        for user in [STRANGER, 0] {
            let is_open = || host.leaves(|| as_member(user, LET_OUT, visit_v4));
            way.open(LONG).unwrap();
            assert!(is_open(), "user {user}");
            way.open(SHORT).unwrap();
            eventually("the time is over for root, too", || (!is_open()).then_some(()));
        }
        way.open(LONG).unwrap();
        close_portal_way("home").unwrap();
        assert!(!host.leaves(|| as_member(STRANGER, LET_OUT, visit_v4)));
        let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&tables.stdout).contains("portal"), "the table beside is gone");
    });
}
