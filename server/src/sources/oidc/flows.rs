//! The logins in a browser that have begun, in the memory of this process: a restart ends them, and their users begin
//! anew.
//!
//! A login has two secrets. Its *ticket* is the client's, which polls by it. Its *link* is what the browser opens; a
//! stranger who sees it learns nothing of what the login brings.

use std::collections::HashMap;
use std::time::Duration;

use adit_proto::login::Verdict;
use openidconnect::{CsrfToken, Nonce, PkceCodeVerifier};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// How long a login in a browser may take.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);
/// Most logins at once, each below 2 KiB. The oldest gives way: whoever fills the table has to go on filling it, faster
/// than people log in.
const MOST: usize = 4096;

/// Every login that has begun, by its ticket.
#[derive(Default)]
pub(super) struct Flows {
    flows: HashMap<String, Flow>,
}

struct Flow {
    until: Instant,
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
}

impl Flows {
    /// How long to wait between two polls while the browser is on its way.
    pub(super) const INTERVAL: Duration = Duration::from_secs(2);

    pub(super) fn begin_browser(&mut self, ticket: String, browser: Browser, now: Instant) {
        self.begin(ticket, Stage::Browser(browser), LIFETIME, now);
    }

    pub(super) fn begin_device(&mut self, ticket: String, device: Device, lifetime: Duration, now: Instant) {
        self.begin(ticket, Stage::Device(device), lifetime, now);
    }

    fn begin(&mut self, ticket: String, stage: Stage, lifetime: Duration, now: Instant) {
        if self.flows.len() >= MOST {
            self.flows.retain(|_, flow| now < flow.until);
        }
        if self.flows.len() >= MOST {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.until).map(|(ticket, _)| ticket.clone());
            oldest.and_then(|ticket| self.flows.remove(&ticket));
        }
        self.flows.insert(ticket, Flow { until: now + lifetime, stage });
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
            Stage::Browser(browser) => Ok(Returned { ticket, nonce: browser.nonce, verifier: browser.verifier }),
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
        self.flows.remove(ticket);
    }

    /// The client asks how far its login is. Once it is told that it is over, the login is forgotten.
    pub(super) fn poll(&mut self, ticket: &str, now: Instant) -> Progress {
        let Some(flow) = self.flows.get_mut(ticket) else { return Progress::Gone };
        match &mut flow.stage {
            _ if flow.until <= now => {
                self.flows.remove(ticket);
                Progress::Gone
            }
            Stage::Browser(_) | Stage::Checking => Progress::Pending(Self::INTERVAL),
            Stage::Device(device) if now < device.next => Progress::Pending(device.next - now),
            Stage::Device(device) => {
                device.next = now + device.interval;
                Progress::AskProvider(device.code.clone())
            }
            Stage::Over(verdict) => {
                let verdict = verdict.clone();
                self.flows.remove(ticket);
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
        }
    }

    fn refused() -> Verdict {
        Verdict::Refused(Cause::NotPermitted("test".to_owned()))
    }

    #[test]
    fn browser_comes_back_once_and_its_client_hears_once() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        flows.begin_browser("ticket".to_owned(), browser(1), now);
        assert!(matches!(flows.poll("ticket", now), Progress::Pending(Flows::INTERVAL)));
        assert_eq!(flows.page("link-1", now).unwrap().cookie, "cookie-1");
        let returned = flows.returned("state-1", Some("cookie-1"), now).ok().unwrap();
        assert_eq!((returned.ticket.as_str(), returned.nonce.secret().as_str()), ("ticket", "nonce-1"));
        assert_eq!(flows.returned("state-1", Some("cookie-1"), now).err(), Some(NotSent::UnknownState));
        assert!(matches!(flows.poll("ticket", now), Progress::Pending(_)), "the provider is still being asked");
        flows.settle("ticket", refused());
        assert!(matches!(flows.poll("ticket", now), Progress::Over(verdict) if verdict == refused()));
        assert!(matches!(flows.poll("ticket", now), Progress::Gone));
    }

    #[test]
    fn other_browser_and_other_state_leave_the_login_as_it_was() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        flows.begin_browser("ticket".to_owned(), browser(1), now);
        assert_eq!(flows.returned("state-1", None, now).err(), Some(NotSent::OtherBrowser));
        assert_eq!(flows.returned("state-1", Some("cookie-2"), now).err(), Some(NotSent::OtherBrowser));
        assert_eq!(flows.returned("state-2", Some("cookie-1"), now).err(), Some(NotSent::UnknownState));
        assert!(flows.page("ticket", now).is_none(), "who sees the ticket has no link");
        assert!(matches!(flows.poll("link-1", now), Progress::Gone), "who sees the link cannot poll");
        assert!(flows.returned("state-1", Some("cookie-1"), now).is_ok());
    }

    #[test]
    fn nothing_is_left_of_a_login_after_ten_minutes() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        flows.begin_browser("ticket".to_owned(), browser(1), now);
        let end = now + LIFETIME;
        assert!(flows.page("link-1", end - Duration::from_secs(1)).is_some());
        assert!(flows.page("link-1", end).is_none());
        assert_eq!(flows.returned("state-1", Some("cookie-1"), end).err(), Some(NotSent::UnknownState));
        assert!(matches!(flows.poll("ticket", end), Progress::Gone));
        assert!(flows.flows.is_empty());
    }

    #[test]
    fn table_is_bounded_and_its_oldest_login_gives_way() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        for number in 0..=MOST {
            let now = now + Duration::from_millis(number as u64);
            flows.begin_browser(format!("ticket-{number}"), browser(number), now);
        }
        assert_eq!(flows.flows.len(), MOST);
        assert!(matches!(flows.poll("ticket-0", now), Progress::Gone));
        assert!(matches!(flows.poll("ticket-1", now), Progress::Pending(_)));
    }

    #[test]
    fn provider_is_asked_once_in_each_interval_and_less_often_when_it_says_so() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let second = Duration::from_secs(1);
        let device = Device { code: Zeroizing::new("code".to_owned()), interval: 5 * second, next: now + 5 * second };
        flows.begin_device("ticket".to_owned(), device, LIFETIME, now);
        let asks =
            |flows: &mut Flows, at: u32| matches!(flows.poll("ticket", now + at * second), Progress::AskProvider(_));
        let asked: Vec<u32> = (0..=16).filter(|at| asks(&mut flows, *at)).collect();
        assert_eq!(asked, [5, 10, 15]);
        assert_eq!(flows.slow_down("ticket", 5 * second, now + 16 * second), 10 * second);
        let asked: Vec<u32> = (16..=40).filter(|at| asks(&mut flows, *at)).collect();
        assert_eq!(asked, [26, 36]);
    }
}
