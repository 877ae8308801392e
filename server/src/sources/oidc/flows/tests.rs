use adit_proto::login::Cause;
use openidconnect::{CsrfToken, Nonce, PkceCodeVerifier};

use super::*;
use crate::sources::WayToClient;

fn browser(number: usize) -> Browser {
    Browser {
        link: format!("link-{number}"),
        cookie: format!("cookie-{number}"),
        user_code: "BCDF-GHJK".to_owned(),
        state: CsrfToken::new(format!("state-{number}")),
        nonce: Nonce::new(format!("nonce-{number}")),
        verifier: PkceCodeVerifier::new("v".repeat(43)),
        authorization: "https://provider.example/".to_owned(),
        to_client: None,
    }
}

/// As [`browser`], which goes on to its client.
fn returning(number: usize) -> Browser {
    let proof = Zeroizing::new(format!("proof{number}"));
    Browser { to_client: Some(WayToClient { location: format!("to-{number}"), proof }), ..browser(number) }
}

fn refused() -> Verdict {
    Verdict::Refused(Cause::NotPermitted("test".to_owned()))
}

#[test]
fn browser_comes_back_once_and_its_client_hears_once() {
    let (mut flows, now) = (Flows::default(), Instant::now());
    flows.begin_browser("ticket".to_owned(), browser(1), &stranger(1), now);
    assert!(matches!(flows.poll("ticket", None, now), Progress::Pending(Flows::INTERVAL)));
    assert_eq!(flows.page("link-1", now).unwrap().cookie, "cookie-1");
    let returned = flows.returned("state-1", Some("cookie-1"), now).ok().unwrap();
    assert_eq!((returned.ticket.as_str(), returned.nonce.secret().as_str()), ("ticket", "nonce-1"));
    assert_eq!(flows.returned("state-1", Some("cookie-1"), now).err(), Some(NotSent::UnknownState));
    assert!(matches!(flows.poll("ticket", None, now), Progress::Pending(_)), "the provider is still being asked");
    flows.settle("ticket", refused());
    assert!(matches!(flows.poll("ticket", None, now), Progress::Over(verdict) if verdict == refused()));
    assert!(matches!(flows.poll("ticket", None, now), Progress::Gone));
}

#[test]
fn login_that_goes_on_to_its_client_lets_in_who_brings_its_proof_alone() {
    let now = Instant::now();
    let over = || {
        let mut flows = Flows::default();
        for number in [1, 2] {
            flows.begin_browser(format!("ticket-{number}"), returning(number), &stranger(1), now);
            let (state, cookie) = (format!("state-{number}"), format!("cookie-{number}"));
            let returned = flows.returned(&state, Some(&cookie), now).ok().unwrap();
            assert_eq!(returned.location, Some(format!("to-{number}")));
            flows.settle(&returned.ticket, refused());
        }
        flows
    };
    let mut flows = over();
    assert!(matches!(flows.poll("ticket-1", None, now), Progress::Pending(_)), "nobody is told without it");
    assert!(matches!(flows.poll("ticket-1", Some("proof1"), now), Progress::Over(_)), "the positive control");
    assert!(matches!(flows.poll("ticket-1", Some("proof1"), now), Progress::Gone), "it is good once");
    for wrong in ["proof2", "proof", "proof11", ""] {
        let mut flows = over();
        assert!(matches!(flows.poll("ticket-1", Some(wrong), now), Progress::Unproven), "{wrong:?}");
        assert!(matches!(flows.poll("ticket-1", Some("proof1"), now), Progress::Gone), "nobody guesses again");
        assert!(matches!(flows.poll("ticket-2", Some("proof2"), now), Progress::Over(_)), "the other one goes on");
    }
    assert!(matches!(over().poll("ticket-1", Some("proof1"), now + LIFETIME), Progress::Gone), "it expires");
}

#[test]
fn proof_before_the_browser_came_back_proves_nothing_yet() {
    let (mut flows, now) = (Flows::default(), Instant::now());
    flows.begin_browser("ticket".to_owned(), returning(1), &stranger(1), now);
    assert!(matches!(flows.poll("ticket", Some("proof1"), now), Progress::Pending(_)));
}

#[test]
fn other_browser_and_other_state_leave_the_login_as_it_was() {
    let (mut flows, now) = (Flows::default(), Instant::now());
    flows.begin_browser("ticket".to_owned(), browser(1), &stranger(1), now);
    assert_eq!(flows.returned("state-1", None, now).err(), Some(NotSent::OtherBrowser));
    assert_eq!(flows.returned("state-1", Some("cookie-2"), now).err(), Some(NotSent::OtherBrowser));
    assert_eq!(flows.returned("state-2", Some("cookie-1"), now).err(), Some(NotSent::UnknownState));
    assert!(flows.page("ticket", now).is_none(), "who sees the ticket has no link");
    assert!(matches!(flows.poll("link-1", None, now), Progress::Gone), "who sees the link cannot poll");
    assert!(flows.returned("state-1", Some("cookie-1"), now).is_ok());
}

#[test]
fn nothing_is_left_of_a_login_after_ten_minutes() {
    let (mut flows, now) = (Flows::default(), Instant::now());
    flows.begin_browser("ticket".to_owned(), browser(1), &stranger(1), now);
    let end = now + LIFETIME;
    assert!(flows.page("link-1", end - Duration::from_secs(1)).is_some());
    assert!(flows.page("link-1", end).is_none());
    assert_eq!(flows.returned("state-1", Some("cookie-1"), end).err(), Some(NotSent::UnknownState));
    assert!(matches!(flows.poll("ticket", None, end), Progress::Gone));
    assert!(flows.flows.is_empty());
}

/// Begins one login after the other, each from an address of its own; says which of them go on.
fn begin_all(flows: &mut Flows, count: usize, from: impl Fn(u32) -> Origin) -> Vec<usize> {
    let begin = Instant::now();
    for number in 0..count {
        let now = begin + Duration::from_millis(number as u64);
        flows.begin_browser(format!("ticket-{number}"), browser(number), &from(number as u32), now);
    }
    (0..count).filter(|number| flows.flows.contains_key(&format!("ticket-{number}"))).collect()
}

fn stranger(address: u32) -> Origin {
    Origin { address: std::net::Ipv4Addr::from(address).into(), device: None }
}

#[test]
fn table_is_bounded_and_the_oldest_stranger_gives_way() {
    let (mut flows, now) = (Flows::default(), Instant::now());
    let device = Origin { device: Some("dev-a".to_owned()), ..stranger(1) };
    flows.begin_browser("device".to_owned(), browser(0), &device, now);
    // Each from a network of its own, of every size.
    let go_on = begin_all(&mut flows, MOST, |number| stranger(number.reverse_bits()));
    assert_eq!((flows.flows.len(), go_on.len(), go_on[0]), (MOST, MOST - 1, 1));
    assert!(matches!(flows.poll("device", None, now), Progress::Pending(_)), "though it is older");
    flows.forget("ticket-1");
    flows.forget("device");
    assert_eq!(flows.flows.len(), MOST - 2);
    let left: Vec<String> = flows.flows.keys().cloned().collect();
    left.iter().for_each(|ticket| flows.forget(ticket));
    assert!(flows.networks.is_empty());
}

#[test]
fn network_fills_its_share_and_nobody_else_s_place() {
    let (mut flows, now) = (Flows::default(), Instant::now());
    flows.begin_browser("home".to_owned(), browser(0), &stranger(0xc633_6401), now);
    let of_one_network = |number: u32| {
        let address = std::net::Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(number % 256) << 64));
        Origin { address: address.into(), device: None }
    };
    let go_on = begin_all(&mut flows, 2 * MOST, of_one_network);
    assert_eq!((go_on.len(), go_on[0]), (MOST / 16, 2 * MOST - MOST / 16), "its own oldest give way");
    assert!(matches!(flows.poll("home", None, now), Progress::Pending(_)));
}

#[test]
fn device_has_places_of_its_own() {
    let mut flows = Flows::default();
    let of = |device: &str| Origin { device: Some(device.to_owned()), ..stranger(1) };
    flows.begin_browser("other".to_owned(), browser(0), &of("dev-b"), Instant::now());
    assert_eq!(begin_all(&mut flows, 10, |_| of("dev-a")), [6, 7, 8, 9]);
    assert!(matches!(flows.poll("other", None, Instant::now()), Progress::Pending(_)));
}

#[test]
fn provider_is_asked_once_in_each_interval_and_less_often_when_it_says_so() {
    let (mut flows, now) = (Flows::default(), Instant::now());
    let second = Duration::from_secs(1);
    let device = Device { code: Zeroizing::new("code".to_owned()), interval: 5 * second, next: now + 5 * second };
    flows.begin_device("ticket".to_owned(), device, LIFETIME, &stranger(1), now);
    let asks =
        |flows: &mut Flows, at: u32| matches!(flows.poll("ticket", None, now + at * second), Progress::AskProvider(_));
    let asked: Vec<u32> = (0..=16).filter(|at| asks(&mut flows, *at)).collect();
    assert_eq!(asked, [5, 10, 15]);
    assert_eq!(flows.slow_down("ticket", 5 * second, now + 16 * second), 10 * second);
    let asked: Vec<u32> = (16..=40).filter(|at| asks(&mut flows, *at)).collect();
    assert_eq!(asked, [26, 36]);
}
