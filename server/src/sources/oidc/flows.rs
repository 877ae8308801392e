//! The logins in a browser that have begun, in the memory of this process: a restart ends them, and their users begin
//! anew.
//!
//! A login has two secrets. Its *ticket* is the client's, which polls by it. Its *link* is what the browser opens; a
//! stranger who sees it learns nothing of what the login brings.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use adit_proto::login::Verdict;
use openidconnect::{CsrfToken, Nonce, PkceCodeVerifier};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Origin, WayToClient};
use crate::core::admission::networks::{Networks, Shares};

/// How long a login in a browser may take.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);
/// Most logins at once, each below 2 KiB. A network has a share of them, as of the connections without a tunnel, so
/// that nobody can fill them all from one. Where they or a share are full, the oldest there gives way, strangers before
/// devices.
const MOST: usize = 4096;
/// Most logins at once of a device that shows its certificate; its own oldest gives way.
const MOST_OF_DEVICE: usize = 4;

/// Every login that has begun, by its ticket.
pub(super) struct Flows {
    flows: HashMap<String, Flow>,
    /// How many of strangers each network has.
    networks: Networks,
    shares: Shares,
}

struct Flow {
    client: IpAddr,
    /// The device, where it has shown its certificate.
    device: Option<String>,
    until: Instant,
    /// What the client has to bring, where the browser goes on to it.
    proof: Option<Zeroizing<String>>,
    stage: Stage,
}

enum Stage {
    /// The browser is on its way.
    Browser(Browser),
    /// It came back, and the provider is asked about what it brought.
    Checking,
    /// The user has to type a code at the provider.
    Device(Device),
    /// The client has not been told yet.
    Over(Verdict),
}

/// What a login by redirect is bound to. Secrets, so it has no `Debug`.
pub(super) struct Browser {
    /// The name of the link.
    pub(super) link: String,
    /// What the browser must bring back as a cookie, so that nobody can have somebody else's browser finish a login.
    pub(super) cookie: String,
    /// The code that client and page both show.
    pub(super) user_code: String,
    pub(super) state: CsrfToken,
    pub(super) nonce: Nonce,
    pub(super) verifier: PkceCodeVerifier,
    /// Where the provider is asked to begin.
    pub(super) authorization: String,
    /// Where the browser goes on at the end, if it does.
    pub(super) to_client: Option<WayToClient>,
}

/// A login by a device code.
pub(super) struct Device {
    pub(super) code: Zeroizing<String>,
    pub(super) interval: Duration,
    /// Not before this the provider is asked again.
    pub(super) next: Instant,
}

/// What a page of the link shows.
pub(super) struct Page {
    pub(super) cookie: String,
    pub(super) user_code: String,
    pub(super) authorization: String,
}

/// A browser that came back.
pub(super) struct Returned {
    pub(super) ticket: String,
    pub(super) nonce: Nonce,
    pub(super) verifier: PkceCodeVerifier,
    /// Where it goes on to its client, if it does.
    pub(super) location: Option<String>,
}

/// Why a browser that came back is not the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSent {
    /// No login waits for this state: none ever did, it is over, or the browser was here before.
    UnknownState,
    /// Another browser opened the link.
    OtherBrowser,
}

/// How far a login is.
#[derive(Debug)]
pub(super) enum Progress {
    /// Ask again after this time.
    Pending(Duration),
    /// The provider may be asked about this device code.
    AskProvider(Zeroizing<String>),
    /// It is over.
    Over(Verdict),
    /// There is no such login, or not any longer.
    Gone,
    /// The client brought another proof than this login's, which ends it.
    Unproven,
}

impl Default for Flows {
    fn default() -> Self {
        Self { flows: HashMap::new(), networks: Networks::default(), shares: Shares::of(MOST) }
    }
}

impl Flows {
    /// How long to wait between two polls while the browser is on its way.
    pub(super) const INTERVAL: Duration = Duration::from_secs(2);

    pub(super) fn begin_browser(&mut self, ticket: String, browser: Browser, origin: &Origin, now: Instant) {
        let proof = browser.to_client.as_ref().map(|way| way.proof.clone());
        self.begin(ticket, (Stage::Browser(browser), proof), LIFETIME, origin, now);
    }

    pub(super) fn begin_device(
        &mut self,
        ticket: String,
        device: Device,
        lifetime: Duration,
        origin: &Origin,
        now: Instant,
    ) {
        self.begin(ticket, (Stage::Device(device), None), lifetime, origin, now);
    }

    fn begin(
        &mut self,
        ticket: String,
        (stage, proof): (Stage, Option<Zeroizing<String>>),
        lifetime: Duration,
        origin: &Origin,
        now: Instant,
    ) {
        let (client, device) = (origin.address.to_canonical(), origin.device.clone());
        if self.in_the_way(client, device.as_deref()).is_some() {
            let over: Vec<String> = self.tickets_where(|flow| flow.until <= now).cloned().collect();
            over.iter().for_each(|ticket| self.forget(ticket));
        }
        if let Some(ticket) = self.in_the_way(client, device.as_deref()) {
            self.forget(&ticket);
        }
        if device.is_none() {
            self.networks.add(client);
        }
        self.flows.insert(ticket, Flow { client, device, until: now + lifetime, proof, stage });
    }

    /// Which login has to give way to one more of this client, if one has.
    fn in_the_way(&self, client: IpAddr, device: Option<&str>) -> Option<String> {
        let of_device = |flow: &Flow| device.is_some() && flow.device.as_deref() == device;
        let share = self.networks.narrowest_full(client, &self.shares).filter(|_| device.is_none());
        let of_share =
            |flow: &Flow| flow.device.is_none() && share.is_some_and(|network| network.contains(&flow.client));
        let oldest = if device.is_some() && self.tickets_where(of_device).count() >= MOST_OF_DEVICE {
            self.tickets_where(of_device).min_by_key(|ticket| self.flows[*ticket].until)
        } else if share.is_some() {
            self.tickets_where(of_share).min_by_key(|ticket| self.flows[*ticket].until)
        } else if self.flows.len() >= MOST {
            let rank = |ticket: &&String| (self.flows[*ticket].device.is_some(), self.flows[*ticket].until);
            self.flows.keys().min_by_key(rank)
        } else {
            None
        };
        oldest.cloned()
    }

    fn tickets_where(&self, wanted: impl Fn(&Flow) -> bool) -> impl Iterator<Item = &String> {
        self.flows.iter().filter(move |(_, flow)| wanted(flow)).map(|(ticket, _)| ticket)
    }

    /// The page behind a link.
    pub(super) fn page(&self, link: &str, now: Instant) -> Option<Page> {
        let browser = self.waiting(now).map(|(_, browser)| browser).find(|browser| browser.link == link)?;
        Some(Page {
            cookie: browser.cookie.clone(),
            user_code: browser.user_code.clone(),
            authorization: browser.authorization.clone(),
        })
    }

    /// The link of the login that has this state, which names the cookie.
    pub(super) fn link(&self, state: &str, now: Instant) -> Option<&str> {
        let mut waiting = self.waiting(now);
        waiting.find(|(_, browser)| browser.state.secret() == state).map(|(_, browser)| browser.link.as_str())
    }

    fn waiting(&self, now: Instant) -> impl Iterator<Item = (&String, &Browser)> {
        self.flows.iter().filter(move |(_, flow)| now < flow.until).filter_map(|(ticket, flow)| match &flow.stage {
            Stage::Browser(browser) => Some((ticket, browser)),
            Stage::Checking | Stage::Device(_) | Stage::Over(_) => None,
        })
    }

    /// A browser came back with this state and, perhaps, a cookie. Each login takes that once.
    pub(super) fn returned(&mut self, state: &str, cookie: Option<&str>, now: Instant) -> Result<Returned, NotSent> {
        let mut waiting = self.waiting(now);
        let (ticket, browser) =
            waiting.find(|(_, browser)| browser.state.secret() == state).ok_or(NotSent::UnknownState)?;
        let is_same = cookie.is_some_and(|cookie| bool::from(cookie.as_bytes().ct_eq(browser.cookie.as_bytes())));
        if !is_same {
            return Err(NotSent::OtherBrowser);
        }
        let ticket = ticket.clone();
        drop(waiting);
        let flow = self.flows.get_mut(&ticket).ok_or(NotSent::UnknownState)?;
        match std::mem::replace(&mut flow.stage, Stage::Checking) {
            Stage::Browser(Browser { nonce, verifier, to_client, .. }) => {
                Ok(Returned { ticket, nonce, verifier, location: to_client.map(|way| way.location) })
            }
            Stage::Checking | Stage::Device(_) | Stage::Over(_) => Err(NotSent::UnknownState),
        }
    }

    /// What a login brought, for the client to hear at its next poll.
    pub(super) fn settle(&mut self, ticket: &str, verdict: Verdict) {
        if let Some(flow) = self.flows.get_mut(ticket) {
            flow.stage = Stage::Over(verdict);
        }
    }

    /// A login is over, and its client has been told.
    pub(super) fn forget(&mut self, ticket: &str) {
        if let Some(flow) = self.flows.remove(ticket).filter(|flow| flow.device.is_none()) {
            self.networks.remove(flow.client);
        }
    }

    /// The client asks how far its login is, and may bring what its browser brought. Once it is told that the login is
    /// over, that is forgotten. Where a proof is wanted, nobody is told anything without it, and nobody may guess.
    pub(super) fn poll(&mut self, ticket: &str, proof: Option<&str>, now: Instant) -> Progress {
        let Some(flow) = self.flows.get_mut(ticket) else { return Progress::Gone };
        if flow.until <= now {
            self.forget(ticket);
            return Progress::Gone;
        }
        match (&flow.proof, proof) {
            (Some(wanted), Some(proof)) if !bool::from(wanted.as_bytes().ct_eq(proof.as_bytes())) => {
                self.forget(ticket);
                return Progress::Unproven;
            }
            (Some(_), None) => return Progress::Pending(Self::INTERVAL),
            (Some(_), Some(_)) | (None, _) => {}
        }
        match &mut flow.stage {
            Stage::Browser(_) | Stage::Checking => Progress::Pending(Self::INTERVAL),
            Stage::Device(device) if now < device.next => Progress::Pending(device.next - now),
            Stage::Device(device) => {
                device.next = now + device.interval;
                Progress::AskProvider(device.code.clone())
            }
            Stage::Over(verdict) => {
                let verdict = verdict.clone();
                self.forget(ticket);
                Progress::Over(verdict)
            }
        }
    }

    /// The provider wants to be asked about this device code less often by `more`. Gives the interval from now on.
    pub(super) fn slow_down(&mut self, ticket: &str, more: Duration, now: Instant) -> Duration {
        match self.flows.get_mut(ticket).map(|flow| &mut flow.stage) {
            Some(Stage::Device(device)) => {
                device.interval += more;
                device.next = now + device.interval;
                device.interval
            }
            Some(Stage::Browser(_) | Stage::Checking | Stage::Over(_)) | None => Self::INTERVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::login::Cause;

    use super::*;

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
        let asks = |flows: &mut Flows, at: u32| {
            matches!(flows.poll("ticket", None, now + at * second), Progress::AskProvider(_))
        };
        let asked: Vec<u32> = (0..=16).filter(|at| asks(&mut flows, *at)).collect();
        assert_eq!(asked, [5, 10, 15]);
        assert_eq!(flows.slow_down("ticket", 5 * second, now + 16 * second), 10 * second);
        let asked: Vec<u32> = (16..=40).filter(|at| asks(&mut flows, *at)).collect();
        assert_eq!(asked, [26, 36]);
    }
}
