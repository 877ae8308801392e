use super::*;

/// A time from which tests count, and some seconds after it.
fn at(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Takes places until there is none; gives them and what was said last.
fn fill(pending: &Arc<Pending>, client: &str, proven: bool, now: Instant) -> (Vec<Place>, Admission) {
    let mut places = Vec::new();
    loop {
        match pending.admit(address(client), proven, now) {
            Admission::Place(place) => places.push(place),
            full @ (Admission::ProveAddress | Admission::Full) => return (places, full),
        }
    }
}

fn place(pending: &Arc<Pending>, client: &str, now: Instant) -> Option<Place> {
    match pending.admit(address(client), true, now) {
        Admission::Place(place) => Some(place),
        Admission::ProveAddress | Admission::Full => None,
    }
}

fn has_given_way(place: &Place) -> bool {
    !place.pending.book().entries.contains_key(&place.number)
}

#[test]
fn forged_addresses_take_few_places_and_keep_nobody_out_who_proves_his() {
    for (limit, most) in [(1000, UNPROVEN), (100, 25), (2, 0)] {
        let (pending, now) = (Pending::new(limit), Instant::now());
        let (places, full) = fill(&pending, "192.0.2.1", false, now);
        assert_eq!(places.len(), most);
        assert!(matches!(full, Admission::ProveAddress));
        assert!(matches!(pending.admit(address("198.51.100.1"), false, now), Admission::ProveAddress));
        assert!(place(&pending, "198.51.100.1", now).is_some());
        assert!(place(&pending, "192.0.2.1", now).is_some(), "the forger's victim gets in, too");
    }
}

#[test]
fn networks_of_every_size_have_a_share() {
    let now = Instant::now();
    let sizes = [
        ("192.0.2.1", "192.0.2.200", "192.0.3.1", 64),
        ("2001:db8:0:1::1", "2001:db8:0:ff::2", "2001:db8:0:100::1", 64),
        ("::ffff:192.0.2.1", "192.0.2.200", "192.0.3.1", 64),
    ];
    for (first, same, other, share) in sizes {
        let pending = Pending::new(1024);
        let (places, full) = fill(&pending, first, true, now);
        assert_eq!(places.len(), share);
        assert!(matches!(full, Admission::Full));
        assert!(place(&pending, same, now).is_none(), "{same} is of the same site");
        assert!(place(&pending, other, now).is_some(), "{other} is of another");
    }
}

#[test]
fn owner_of_a_large_network_cannot_take_all_places_by_small_ones() {
    type Client = fn(usize) -> String;
    let sizes: [(&str, usize, Client); 5] = [
        ("a /48", 128, |n| format!("2001:db8:a:{n:x}00::1")),
        ("a /40", 256, |n| format!("2001:db8:{n:x}:{n:x}00::1")),
        ("a /32", 512, |n| format!("2001:db8:{n:x}00:{n:x}00::1")),
        ("a /20", 128, |n| format!("192.0.{}.1", n % 16)),
        ("a /16", 256, |n| format!("192.0.{n}.1")),
    ];
    for (size, share, client) in sizes {
        let (pending, now) = (Pending::new(1024), Instant::now());
        let places: Vec<_> = (0..256).flat_map(|n| fill(&pending, &client(n), true, now).0).collect();
        assert_eq!(places.len(), share, "{size}");
        assert!(place(&pending, "198.51.100.1", now).is_some() && place(&pending, "2001:db9::1", now).is_some());
    }
}

#[test]
fn idlest_gives_way_when_its_network_or_the_whole_is_full() {
    let (pending, start) = (Pending::new(1024), Instant::now());
    let (places, _) = fill(&pending, "192.0.2.1", true, start);
    assert!(place(&pending, "192.0.2.2", start).is_none(), "nobody has been idle yet");
    places[0].set_busy(false, at(start, 2));
    let newcomer = place(&pending, "192.0.2.2", at(start, 2)).unwrap();
    let gone: Vec<_> = places.iter().filter(|place| has_given_way(place)).collect();
    assert_eq!(gone.len(), 1);
    assert!(!has_given_way(&places[0]) && !has_given_way(&newcomer), "whoever was active stays");

    let pending = Pending::new(2);
    let (places, _) = fill(&pending, "192.0.2.1", true, start);
    let (others, full) = fill(&pending, "198.51.100.1", true, start);
    assert_eq!((places.len(), others.len()), (1, 1));
    assert!(matches!(full, Admission::Full));
    places[0].know(start);
    assert!(place(&pending, "203.0.113.1", at(start, 2)).is_some());
    assert!(has_given_way(&others[0]) && !has_given_way(&places[0]), "a stranger goes before a known device");
}

#[test]
fn stranger_who_asks_for_something_goes_after_idle_ones_but_goes() {
    let (pending, start) = (Pending::new(2), Instant::now());
    let asking = place(&pending, "192.0.2.1", start).unwrap();
    let idle = place(&pending, "198.51.100.1", at(start, 1)).unwrap();
    asking.touch(at(start, 3));
    let third = place(&pending, "203.0.113.1", at(start, 3)).unwrap();
    assert!(has_given_way(&idle) && !has_given_way(&asking), "the idlest goes, though it came later");
    let now = at(start, 6);
    third.touch(now - GRACE / 2);
    asking.touch(now);
    assert!(place(&pending, "198.18.0.1", now).is_some(), "nobody keeps a place by asking");
    assert!(has_given_way(&third) && !has_given_way(&asking));
}

#[test]
fn device_whose_login_is_served_does_not_give_way() {
    let (pending, start) = (Pending::new(1), Instant::now());
    let login = place(&pending, "192.0.2.1", start).unwrap();
    login.know(start);
    login.set_busy(true, start);
    assert!(place(&pending, "198.51.100.1", at(start, 60)).is_none());
    login.set_busy(false, at(start, 60));
    assert!(place(&pending, "198.51.100.1", at(start, 62)).is_some());
    assert!(has_given_way(&login));
}

#[test]
fn address_counts_against_its_network_once_the_handshake_has_proved_it() {
    let (pending, now) = (Pending::new(1024), Instant::now());
    let Admission::Place(early) = pending.admit(address("192.0.2.1"), false, now) else { panic!("there is room") };
    let (_places, _) = fill(&pending, "192.0.2.1", true, now);
    assert!(!early.prove(now), "the share is taken");
    let Admission::Place(early) = pending.admit(address("198.51.100.1"), false, now) else { panic!("there is room") };
    assert!(early.prove(now));
    assert_eq!(fill(&pending, "198.51.100.1", true, now).0.len(), 63);
}

#[test]
fn place_is_free_again_after_its_connection() {
    let (pending, now) = (Pending::new(1), Instant::now());
    let (places, _) = fill(&pending, "192.0.2.1", true, now);
    assert!(place(&pending, "192.0.2.1", now).is_none());
    drop(places);
    let again = place(&pending, "192.0.2.1", now).unwrap();
    // One that gave way frees nothing a second time.
    let next = place(&pending, "192.0.2.1", at(now, 2)).unwrap();
    drop(again);
    assert!(place(&pending, "192.0.2.1", at(now, 2)).is_none());
    drop(next);
    let book = pending.book();
    assert!(book.networks.is_empty() && book.entries.is_empty() && book.unproven == 0);
}

#[tokio::test]
async fn who_gives_way_hears_of_it() {
    let (pending, now) = (Pending::new(1), Instant::now());
    let first = place(&pending, "192.0.2.1", now).unwrap();
    let _second = place(&pending, "192.0.2.1", at(now, 2)).unwrap();
    first.given_way().await;
}
