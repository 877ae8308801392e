//! The certificates that others trust: read at the start, at each reload, and when their files change.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::tls::{Certified, PublicCertificates, ServerIdentity};
use adit_program::exit::{Exit, Failure};
use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::config::Config;
use crate::identity::PublicCertificateFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where a certificate lies.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    /// The name it is for; empty for whoever asks.
    name: String,
    files: PublicCertificateFiles,
    /// Whether the gateway gets it itself, so that it may not be there yet.
    is_got: bool,
}

/// Reads the files that the configuration names, if it names any, or what the gateway has got itself.
pub(super) fn read(config: &Config) -> Result<PublicCertificates, Failure> {
    let mut shown = PublicCertificates::default();
    for place in places(config)? {
        match certified(&place.files) {
            Ok(certified) => shown = shown.with(&place.name, certified),
            // Another one is got in its place.
            Err(_missing_or_broken) if place.is_got => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(shown)
}

fn places(config: &Config) -> Result<Vec<Place>, Failure> {
    let named = config.tls.files()?.map(|files| Place { name: String::new(), files, is_got: false });
    let got = config.acme.names.iter().map(|name| {
        let file = config.state_dir.acme_certificate(name);
        let files = PublicCertificateFiles { certificate: file.clone(), key: file };
        Place { name: name.clone(), files, is_got: true }
    });
    Ok(named.into_iter().chain(got).collect())
}

fn certified(files: &PublicCertificateFiles) -> Result<Certified, Failure> {
    let certificate = files.load()?;
    Certified::new(certificate.chain, certificate.key).map_err(|error| {
        let next = "mend tls.certificate and tls.key: the key must be that of the certificate";
        Failure::new(Exit::Usage, files.certificate.display().to_string(), error.to_string(), next)
    })
}

/// Which files hold them, and when each was changed.
type Seen = Vec<(Place, [Option<SystemTime>; 2])>;

/// Follows the files of the configuration.
pub(super) struct Following {
    identity: Arc<ServerIdentity>,
    config: Arc<ArcSwap<Config>>,
    /// What was read last, and the turn of the identity since then.
    known: Option<(u64, Seen)>,
    told: Option<String>,
}

/// Certificates that were read and are not shown yet.
pub(super) struct Renewed {
    turn: u64,
    seen: Seen,
    certificates: PublicCertificates,
}

/// Shows what the files hold whenever they have changed, at once if `renewed` tells of it. While they are of no use,
/// what was shown stays.
pub(super) async fn follow(identity: Arc<ServerIdentity>, config: Arc<ArcSwap<Config>>, renewed: Arc<Notify>) {
    let mut following = Following::new(identity, config);
    loop {
        let _told_or_time_to_look = tokio::time::timeout(LOOK_EVERY, renewed.notified()).await;
        if let Some(renewed) = following.read() {
            following.show(renewed);
        }
    }
}

impl Following {
    pub(super) fn new(identity: Arc<ServerIdentity>, config: Arc<ArcSwap<Config>>) -> Self {
        Self { identity, config, known: None, told: None }
    }

    /// Reads the files if they have changed, or if others have replaced what is shown: a reload may have read them
    /// before they changed.
    pub(super) fn read(&mut self) -> Option<Renewed> {
        // Asked before the configuration: a reload first changes that, and then what is shown.
        let turn = self.identity.turn();
        let config = self.config.load();
        let seen = seen(&config)?;
        if self.known.as_ref().is_some_and(|known| *known == (turn, seen.clone())) {
            return None;
        }
        match read(&config) {
            Ok(certificates) => Some(Renewed { turn, seen, certificates }),
            // One of the two files may just be new: it is tried again.
            Err(failure) => {
                let error = failure.to_string();
                if self.told.as_ref() != Some(&error) {
                    tracing::warn!(error, "the renewed public certificate is not used");
                }
                self.told = Some(error);
                None
            }
        }
    }

    /// Shows what was read, unless a reload has put something else in force since, or taken it away: then the files are
    /// read again at the next look.
    pub(super) fn show(&mut self, Renewed { turn, seen, certificates }: Renewed) {
        let Some(turn) = self.identity.show_to_public_if(turn, certificates) else { return };
        if self.known.as_ref().is_some_and(|(_, known)| *known != seen) {
            tracing::info!("the public certificate was read again");
        }
        (self.known, self.told) = (Some((turn, seen)), None);
    }
}

/// The files as they are now, if there are to be any.
fn seen(config: &Config) -> Option<Seen> {
    // Where it can be known.
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let stamps = |place: Place| {
        let stamps = [&place.files.certificate, &place.files.key].map(|path| changed(path));
        (place, stamps)
    };
    let seen: Seen = places(config).ok()?.into_iter().map(stamps).collect();
    (!seen.is_empty()).then_some(seen)
}
