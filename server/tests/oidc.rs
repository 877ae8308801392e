//! Logins at a real OpenID Connect provider, over HTTP, by a browser without a screen.

#![cfg(feature = "oidc")]
#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_program::task::{self, Task};
use adit_proto::login::{Cause, Person, Verdict};
use adit_server::listener::{self, Guests, Listener};
use adit_server::sources::oidc::Oidc;
use adit_server::sources::{LinkAnswer, LinkSource as _, LinkWish, Origin, StartedLink};
use adit_testing::PATIENCE;
use adit_testing::browser::{Browser, Seen, way_on};

use provider::GATEWAY;

#[path = "oidc/code.rs"]
mod code;
#[path = "oidc/device.rs"]
mod device;
#[path = "oidc/provider.rs"]
mod provider;
#[path = "oidc/recheck.rs"]
mod recheck;

/// Serves the way back of a source. It ends with the task.
fn serve(oidc: &Arc<Oidc>, address: SocketAddr) -> (SocketAddr, Task) {
    let socket = listener::bind(address, "oidc.listen", "").unwrap();
    let address = socket.local_addr().unwrap();
    let guests = Guests::alone(vec![Arc::<Oidc>::clone(oidc)], 512);
    (address, task::spawn(Listener::new(socket, None).unwrap().serve(Arc::new(guests))))
}

/// Where a client without a device comes from.
fn somewhere() -> Origin {
    Origin { address: [192, 0, 2, 1].into(), device: None }
}

/// A login by redirect that has begun, and a browser that has opened its link.
struct Begun {
    oidc: Arc<Oidc>,
    browser: Browser,
    started: StartedLink,
    /// Where the gateway's page leads.
    authorization: String,
    _serving: Task,
}

impl Begun {
    async fn new(oidc: Arc<Oidc>) -> Self {
        Self::with(oidc, LinkWish::Redirect).await
    }

    async fn with(oidc: Arc<Oidc>, wish: LinkWish) -> Self {
        let (address, serving) = serve(&oidc, ([127, 0, 0, 1], 0).into());
        let started = oidc.begin(wish, &somewhere()).await.unwrap();
        let mut browser = Browser::new(GATEWAY, address);
        let page = browser.get(&started.url).await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.contains(started.user_code.as_deref().unwrap()), "page and client show one code");
        let authorization = way_on(&page);
        Self { oidc, browser, started, authorization, _serving: serving }
    }

    /// Logs in at the provider, and gives where that sends the browser.
    async fn callback(&mut self, user: Option<&str>) -> String {
        let authorization = self.authorization.clone();
        let callback = self.browser.log_in(&authorization, user).await.expect_err("a way back");
        assert!(callback.starts_with(&format!("{GATEWAY}/login/callback?")), "{callback}");
        callback
    }

    /// The whole login of a user.
    async fn log_in(&mut self, user: &str) -> (Seen, LinkAnswer) {
        let callback = self.callback(Some(user)).await;
        let page = self.browser.get(&callback).await;
        (page, self.poll().await)
    }

    async fn poll(&self) -> LinkAnswer {
        self.oidc.poll(&self.started.state, None).await
    }
}

/// Polls as a client does until the login is over.
async fn settled(oidc: &Oidc, started: &StartedLink) -> Verdict {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match oidc.poll(&started.state, None).await {
            LinkAnswer::Settled(verdict) => return verdict,
            LinkAnswer::Pending { interval } => tokio::time::sleep(interval.min(Duration::from_secs(6))).await,
        }
        assert!(Instant::now() < deadline, "the login does not end");
    }
}

fn accepted(answer: LinkAnswer) -> Person {
    let LinkAnswer::Settled(Verdict::Accepted(person)) = answer else { panic!("not accepted: {answer:?}") };
    person
}

/// Why a login was not permitted.
fn not_permitted(answer: LinkAnswer) -> String {
    let LinkAnswer::Settled(Verdict::Refused(Cause::NotPermitted(reason))) = answer else {
        panic!("not refused: {answer:?}")
    };
    reason
}
