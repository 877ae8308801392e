//! The certificate that others trust: read at the start, at each reload, and when its files change.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::tls::{Certified, PublicCertificates, ServerIdentity};
use adit_program::exit::{Exit, Failure};
use arc_swap::ArcSwap;

use crate::config::Config;
use crate::identity::PublicCertificateFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Reads the files that the configuration names, if it names any.
pub(super) fn read(config: &Config) -> Result<PublicCertificates, Failure> {
    let read = config.tls.files()?.as_ref().map(certified).transpose()?;
    Ok(read.map(PublicCertificates::from).unwrap_or_default())
}

fn certified(files: &PublicCertificateFiles) -> Result<Certified, Failure> {
    let certificate = files.load()?;
    Certified::new(certificate.chain, certificate.key).map_err(|error| {
        let next = "mend tls.certificate and tls.key: the key must be that of the certificate";
        Failure::new(Exit::Usage, files.certificate.display().to_string(), error.to_string(), next)
    })
}

/// Which files hold it, and when each was changed.
type Seen = (PublicCertificateFiles, [Option<SystemTime>; 2]);

/// Follows the files of the configuration.
pub(super) struct Following {
    identity: Arc<ServerIdentity>,
    config: Arc<ArcSwap<Config>>,
    /// What was read last, and the turn of the identity since then.
    known: Option<(u64, Seen)>,
    told: Option<String>,
}

/// A certificate that was read and is not shown yet.
pub(super) struct Renewed {
    turn: u64,
    seen: Seen,
    certified: Certified,
}

/// Shows what the files hold whenever they have changed. While they are of no use, the former certificate stays.
pub(super) async fn follow(identity: Arc<ServerIdentity>, config: Arc<ArcSwap<Config>>) {
    let mut following = Following::new(identity, config);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
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
        let seen = seen(&self.config.load())?;
        if self.known.as_ref().is_some_and(|known| *known == (turn, seen.clone())) {
            return None;
        }
        match certified(&seen.0) {
            Ok(certified) => Some(Renewed { turn, seen, certified }),
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

    /// Shows a certificate that was read, unless a reload has put another one in force since, or taken it away: then
    /// the files are read again at the next look.
    pub(super) fn show(&mut self, Renewed { turn, seen, certified }: Renewed) {
        let Some(turn) = self.identity.show_to_public_if(turn, certified.into()) else { return };
        if self.known.as_ref().is_some_and(|(_, known)| *known != seen) {
            tracing::info!("the public certificate was read again");
        }
        (self.known, self.told) = (Some((turn, seen)), None);
    }
}

/// The files as they are now.
fn seen(config: &Config) -> Option<Seen> {
    let files = config.tls.files().ok().flatten()?;
    // Where it can be known.
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let stamps = [&files.certificate, &files.key].map(|path| changed(path));
    Some((files, stamps))
}
