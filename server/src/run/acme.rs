//! Looks after the certificates that the gateway gets itself: orders and renews them when that is due.
//!
//! What is got lies in the state directory; who shows public certificates finds it there.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_program::exit::Failure;
use adit_program::random::random;
use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::acme::backoff::{self, KeptBackoff};
use crate::acme::schedule::{Life, Schedule, Step};
use crate::acme::{Authority, Kept, Refusal};
use crate::admin::{CertificateReport, GatewayView};
use crate::config::Config;
use crate::listener::Challenges;
use crate::off_runtime::off_runtime;

/// How often it is looked what is due. A reload is noticed as soon, and so is a clock that was set.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a certificate has to be unreadable until another one is ordered: what kept it from being read may pass.
const UNREADABLE: Duration = Duration::from_secs(60);
/// What is said of an order that the gateway did not see the end of.
const CUT_SHORT: &str = "the gateway ended while it ordered one; it orders again after a pause";
/// What is said while nothing is ordered because of the clock.
const CLOCK_IS_BEHIND: &str =
    "this host's clock is before the certificate's beginning, so nothing is ordered; set the clock";

/// What the gateway's certificates have to do with.
pub(super) struct Renewal {
    pub(super) config: Arc<ArcSwap<Config>>,
    /// Where authorities find their answers.
    pub(super) challenges: Arc<Challenges>,
    /// Told when there is a new certificate.
    pub(super) renewed: Arc<Notify>,
    /// What administrators see.
    pub(super) view: Arc<GatewayView>,
}

/// The names of one configuration, and who certifies them.
struct Names {
    config: Arc<Config>,
    /// Or why there is nobody, and what to do.
    authority: Result<Authority, String>,
    names: Vec<Name>,
}

/// One name.
struct Name {
    name: String,
    schedule: Schedule,
    /// The certificate there is; also one of another authority than the configured one.
    kept: Option<Kept>,
    /// Since when that cannot be read any more.
    unreadable_since: Option<Instant>,
    /// Why there is no newer one, and what to do.
    trouble: Option<String>,
}

/// Does so until the gateway ends.
pub(super) async fn look_after(renewal: Renewal) {
    let mut names = None;
    loop {
        let config = renewal.config.load_full();
        names = if config.acme.names.is_empty() { None } else { Some(Names::by(config, names)) };
        if let Some(names) = &mut names {
            names.go_on(&renewal).await;
        }
        let reports = names.as_ref().map(|names: &Names| names.reports(SystemTime::now()));
        renewal.view.tell_certificates(reports.unwrap_or_default());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Names {
    /// The names of a configuration; those of a former one go on where nothing about them has changed.
    fn by(config: Arc<Config>, former: Option<Self>) -> Self {
        match former {
            Some(former) if Arc::ptr_eq(&former.config, &config) => former,
            // What vouches for the authority is read again, as all files are at a reload.
            Some(former) if former.config.acme == config.acme => Self::new(config, former.names),
            Some(_) | None => {
                let names = config.acme.names.iter().map(|name| Name::of(name, &config)).collect();
                Self::new(config, names)
            }
        }
    }

    fn new(config: Arc<Config>, names: Vec<Name>) -> Self {
        let authority = Authority::new(&config).map_err(|problem| {
            // It was checked at the start or at the reload, but files change.
            tracing::warn!(%problem, "no certificates are ordered until the next reload");
            format!("{problem}; {}, then reload", problem.next)
        });
        Self { config, authority, names }
    }

    async fn go_on(&mut self, renewal: &Renewal) {
        let Ok(authority) = &self.authority else { return };
        for name in &mut self.names {
            if name.go_on(authority, &self.config, &renewal.challenges).await {
                renewal.renewed.notify_one();
            }
        }
    }

    fn reports(&self, clock: SystemTime) -> Vec<CertificateReport> {
        let nobody = self.authority.as_ref().err();
        self.names.iter().map(|name| name.report(clock, nobody)).collect()
    }
}

impl Name {
    fn of(name: &str, config: &Config) -> Self {
        let kept = Kept::read(&config.state_dir, name).unwrap_or_else(|Failure { what, reason, .. }| {
            tracing::warn!(name, file = what, reason, "the certificate there is cannot be used");
            None
        });
        let mut schedule = Schedule::new(life_at(kept.as_ref(), &config.acme.directory));
        let paused = backoff::read(&config.state_dir, name, &config.acme).unwrap_or_else(|failure| {
            tracing::warn!(name, error = %failure, "the pause of before is not known");
            None
        });
        let trouble = paused.map(|KeptBackoff { backoff, trouble }| {
            schedule.resume(backoff, Instant::now(), SystemTime::now());
            trouble
        });
        Self { name: name.to_owned(), schedule, kept, unreadable_since: None, trouble }
    }

    /// Does what is due now; whether there is a new certificate.
    async fn go_on(&mut self, authority: &Authority, config: &Config, challenges: &Arc<Challenges>) -> bool {
        let (state_dir, name) = (config.state_dir.clone(), self.name.clone());
        let found = off_runtime(move || Kept::read(&state_dir, &name)).await;
        self.handle_found(found, &config.acme.directory, Instant::now());
        let clock = SystemTime::now();
        if self.schedule.is_clock_behind(clock) && self.trouble.is_none() {
            tracing::warn!(name = self.name, "{CLOCK_IS_BEHIND}");
        }
        let mut is_new = false;
        match self.schedule.next_step(Instant::now(), clock) {
            Step::Wait => {}
            Step::Ask => {
                if let Some(kept) = &self.kept {
                    let wish = authority.wish(kept).await;
                    self.schedule.handle_wish(wish, any_number(), Instant::now());
                }
            }
            Step::Order => is_new = self.order(authority, config, challenges).await,
        }
        if self.schedule.is_clock_behind(clock) {
            self.trouble = Some(CLOCK_IS_BEHIND.to_owned());
        } else if self.trouble.as_deref() == Some(CLOCK_IS_BEHIND) {
            self.trouble = None;
        }
        is_new
    }

    /// Takes what was found in the file: who removes or replaces the certificate there wants another one.
    fn handle_found(&mut self, found: Result<Option<Kept>, Failure>, directory: &str, now: Instant) {
        let found = match found {
            Ok(found) => found,
            Err(_) if self.kept.is_none() => return,
            Err(Failure { what, reason, .. }) => {
                let since = *self.unreadable_since.get_or_insert(now);
                if now.saturating_duration_since(since) < UNREADABLE {
                    return;
                }
                tracing::warn!(name = self.name, file = what, reason, "the certificate cannot be used any more");
                None
            }
        };
        self.unreadable_since = None;
        if found != self.kept {
            self.schedule.handle_found(life_at(found.as_ref(), directory));
            self.kept = found;
        }
    }

    /// Orders a certificate; whether there is one.
    async fn order(&mut self, authority: &Authority, config: &Config, challenges: &Arc<Challenges>) -> bool {
        // Should the gateway end meanwhile, the next one is not to order at once.
        let mut cut_short = self.schedule.clone();
        cut_short.handle_failure(None, any_number(), Instant::now());
        if let Err(Failure { what, reason, next, .. }) = self.keep_pause(&cut_short, CUT_SHORT, config).await {
            self.handle_refusal(&Refusal { reason: format!("{what}: {reason}"), next, pause: None });
            return false;
        }
        let former = self.kept.as_ref().filter(|kept| kept.directory == config.acme.directory);
        let got = authority.certificate(&self.name, former, challenges).await;
        let is_new = got.is_ok();
        match got {
            Ok(kept) => self.handle_certificate(kept),
            Err(refusal) => self.handle_refusal(&refusal),
        }
        let trouble = self.trouble.as_deref().unwrap_or_default();
        if let Err(error) = self.keep_pause(&self.schedule, trouble, config).await {
            tracing::warn!(name = self.name, %error, "how long to leave the authority alone is not kept");
        }
        is_new
    }

    fn handle_certificate(&mut self, kept: Kept) {
        let ends = humantime::format_rfc3339_seconds(kept.life.ends).to_string();
        tracing::info!(name = self.name, ends, "the authority has issued a certificate");
        self.schedule.handle_certificate(kept.life, any_number(), Instant::now(), SystemTime::now());
        let is_over = self.schedule.is_alarming(SystemTime::now());
        self.trouble = is_over.then(|| "it is nearly over already; look at the clock of this host".to_owned());
        self.kept = Some(kept);
    }

    fn handle_refusal(&mut self, refusal: &Refusal) {
        let pause = self.schedule.handle_failure(refusal.pause, any_number(), Instant::now());
        let (name, reason, next) = (&self.name, &refusal.reason, &refusal.next);
        tracing::warn!(name, reason, next, pause_seconds = pause.as_secs(), "no certificate could be had");
        self.trouble = Some(format!("{reason}; {next}"));
    }

    /// Keeps how long the authority is left alone, or that it is not.
    async fn keep_pause(&self, schedule: &Schedule, trouble: &str, config: &Config) -> Result<(), Failure> {
        let backoff = schedule.backoff(Instant::now(), SystemTime::now());
        let kept = backoff.map(|backoff| KeptBackoff { backoff, trouble: trouble.to_owned() });
        backoff::keep(&config.state_dir, &self.name, &config.acme, kept).await
    }

    /// How it stands; `nobody` says why there is no authority to ask.
    fn report(&self, clock: SystemTime, nobody: Option<&String>) -> CertificateReport {
        let written = |time| humantime::format_rfc3339_seconds(time).to_string();
        let is_alarming = self.schedule.is_alarming(clock) || self.schedule.is_clock_behind(clock);
        CertificateReport {
            name: self.name.clone(),
            ends: self.kept.as_ref().map(|kept| written(kept.life.ends)),
            renews: self.schedule.renews_at().map(written),
            trouble: nobody.or(self.trouble.as_ref()).cloned(),
            alarming: nobody.is_some() || is_alarming,
        }
    }
}

/// The life of a certificate of this authority. One of another is shown until there is one of this, but neither asked
/// about nor renewed.
fn life_at(kept: Option<&Kept>, directory: &str) -> Option<Life> {
    kept.filter(|kept| kept.directory == directory).map(|kept| kept.life)
}

/// A number that keeps gateways from coming all at once. It is no secret, so none will do where there is no randomness.
fn any_number() -> u32 {
    random().map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
mod tests;
