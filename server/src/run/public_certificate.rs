//! Shows the public certificate, and takes the new one when its files change.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::tls::ServerIdentity;
use adit_program::exit::{Exit, Failure};

use crate::identity::PublicCertificateFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Reads the files and shows their certificate.
pub(super) fn show(identity: &ServerIdentity, files: &PublicCertificateFiles) -> Result<(), Failure> {
    let certificate = files.load()?;
    identity.show_to_public(certificate.chain, certificate.key).map_err(|error| {
        let next = "mend tls.certificate and tls.key: the key must be that of the certificate";
        Failure::new(Exit::Usage, files.certificate.display().to_string(), error.to_string(), next)
    })
}

/// Shows what the files hold whenever they have changed. While they are of no use, the former certificate stays.
pub(super) async fn follow(identity: Arc<ServerIdentity>, files: PublicCertificateFiles) {
    let mut shown = stamps(&files);
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = stamps(&files);
        if now == shown {
            continue;
        }
        match show(&identity, &files) {
            Ok(()) => {
                tracing::info!("the public certificate was renewed");
                (shown, told) = (now, None);
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

/// When each file was changed last, where it can be known.
fn stamps(files: &PublicCertificateFiles) -> [Option<SystemTime>; 2] {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    [&files.certificate, &files.key].map(|path| changed(path))
}
