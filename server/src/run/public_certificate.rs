//! The certificate that others trust: read at the start, at each reload, and when its files change.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::tls::{Certified, ServerIdentity};
use adit_program::exit::{Exit, Failure};
use arc_swap::ArcSwap;

use crate::config::Config;
use crate::identity::PublicCertificateFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Reads the files that the configuration names, if it names any.
pub(super) fn read(config: &Config) -> Result<Option<Certified>, Failure> {
    config.tls.files()?.as_ref().map(certified).transpose()
}

fn certified(files: &PublicCertificateFiles) -> Result<Certified, Failure> {
    let certificate = files.load()?;
    Certified::new(certificate.chain, certificate.key).map_err(|error| {
        let next = "mend tls.certificate and tls.key: the key must be that of the certificate";
        Failure::new(Exit::Usage, files.certificate.display().to_string(), error.to_string(), next)
    })
}

/// What was read last: which files, and when each was changed.
type Seen = (PublicCertificateFiles, [Option<SystemTime>; 2]);

/// Shows what the files hold whenever they have changed. While they are of no use, the former certificate stays.
pub(super) async fn follow(identity: Arc<ServerIdentity>, config: Arc<ArcSwap<Config>>) {
    let mut seen = seen(&config.load());
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = self::seen(&config.load());
        if now == seen {
            continue;
        }
        let Some((files, _)) = &now else {
            // A reload has taken the certificate away.
            seen = None;
            continue;
        };
        match certified(files) {
            Ok(certified) => {
                identity.show_to_public(Some(certified));
                tracing::info!("the public certificate was read again");
                (seen, told) = (now, None);
            }
            // One of the two files may just be new: it is tried again.
            Err(failure) => {
                let error = failure.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(error, "the renewed public certificate is not used");
                }
                told = Some(error);
            }
        }
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
