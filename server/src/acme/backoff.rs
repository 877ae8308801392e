//! The pause after orders that failed, in a file beside the certificates: a gateway that is started again and again
//! must not ask the authority each time.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use adit_program::durable_file;
use adit_program::exit::{Exit, Failure};
use adit_program::foreign_text::printable;
use adit_program::guarded_file::Readers;
use serde::{Deserialize, Serialize};

use super::files::{create_folder, unwritten};
use super::schedule::Backoff;
use crate::config::{AcmeConfig, guard};
use crate::directories::StateDir;
use crate::off_runtime::off_runtime;

/// A pause, and why it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBackoff {
    /// The pause.
    pub backoff: Backoff,
    /// The reason, and what to do.
    pub trouble: String,
}

/// The same as it lies in its file. Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    settings: Settings,
    failures: u32,
    begins: u64,
    ends: u64,
    trouble: String,
}

/// With what the orders failed. Who changes anything of it wants another try at once.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    names: Vec<String>,
    directory: String,
    contact: Option<String>,
    authority: Option<PathBuf>,
}

impl Settings {
    fn of(config: &AcmeConfig) -> Self {
        let AcmeConfig { names, directory, accept_terms: _, contact, authority } = config.clone();
        Self { names, directory, contact, authority }
    }
}

/// The pause of a name, if one was kept with these settings.
///
/// # Errors
/// Its file cannot be read, others could have changed it, or it holds something else.
pub fn read(state_dir: &StateDir, name: &str, config: &AcmeConfig) -> Result<Option<KeptBackoff>, Failure> {
    let path = state_dir.acme_backoff(name);
    let text = match guard().read(&path, Readers::Owner) {
        Ok(text) => text,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let unfit = |error: serde_json::Error| {
        let reason = format!("it holds no pause of ACME: {error}");
        Failure::new(Exit::Usage, path.display().to_string(), reason, "remove it: the authority is asked again then")
    };
    let stored: Stored = serde_json::from_slice(&text).map_err(unfit)?;
    let moment = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let times = moment(stored.begins).zip(moment(stored.ends)).filter(|_| stored.settings == Settings::of(config));
    Ok(times.map(|(begins, ends)| KeptBackoff {
        backoff: Backoff { failures: stored.failures, begins, ends },
        trouble: printable(&stored.trouble),
    }))
}

/// Keeps the pause of a name, or forgets it where there is none.
///
/// # Errors
/// Its file cannot be written or removed.
pub async fn keep(
    state_dir: &StateDir,
    name: &str,
    config: &AcmeConfig,
    kept: Option<KeptBackoff>,
) -> Result<(), Failure> {
    let (folder, path, settings) = (state_dir.acme(), state_dir.acme_backoff(name), Settings::of(config));
    let place = path.clone();
    let work = move || -> io::Result<()> {
        let Some(KeptBackoff { backoff: Backoff { failures, begins, ends }, trouble }) = kept else {
            return match fs::remove_file(&place) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
        };
        // Rounded up: a second more does no harm.
        let (begins, ends) = (seconds(begins), seconds(ends).saturating_add(1));
        create_folder(&folder)?;
        let stored = serde_json::to_vec(&Stored { settings, failures, begins, ends, trouble })?;
        durable_file::replace(&place, &stored, 0o600)
    };
    off_runtime(work).await.map_err(|error| unwritten(&path, &error))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NAME: &str = "vpn.example.org";

    fn settings(directory: &str) -> AcmeConfig {
        AcmeConfig { names: vec![NAME.to_owned()], directory: directory.to_owned(), ..AcmeConfig::default() }
    }

    fn pause() -> KeptBackoff {
        let begins = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let backoff = Backoff { failures: 3, begins, ends: begins + Duration::from_secs(240) };
        KeptBackoff { backoff, trouble: "the authority refuses".to_owned() }
    }

    #[tokio::test]
    async fn pause_is_kept_for_its_settings_alone_and_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(directory.path());
        let config = settings("https://acme.example/dir");
        let read_with = |config: &AcmeConfig| read(&state_dir, NAME, config).unwrap();
        assert_eq!(read_with(&config), None);
        keep(&state_dir, NAME, &config, Some(pause())).await.unwrap();
        let path = state_dir.acme_backoff(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = read_with(&config).unwrap();
        let left = kept.backoff.ends.duration_since(kept.backoff.begins).unwrap().as_secs();
        assert_eq!((kept.backoff.failures, left, kept.trouble), (3, 241, pause().trouble));
        assert_eq!(read(&state_dir, "other.example.org", &config).unwrap(), None);
        let contact = Some("admin@example.org".to_owned());
        for other in [settings("https://other.example/dir"), AcmeConfig { contact, ..config.clone() }] {
            assert_eq!(read_with(&other), None, "{other:?}");
        }
        for _ in 0..2 {
            keep(&state_dir, NAME, &config, None).await.unwrap();
            assert_eq!(read_with(&config), None);
        }
    }

    #[tokio::test]
    async fn file_that_holds_something_else_or_that_others_could_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(directory.path());
        let config = settings("https://acme.example/dir");
        keep(&state_dir, NAME, &config, Some(pause())).await.unwrap();
        let path = state_dir.acme_backoff(NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read(&state_dir, NAME, &config).is_err());
        for content in ["", "{}", "garbage", "{\"failures\":-1}"] {
            durable_file::replace(&path, content.as_bytes(), 0o600).unwrap();
            let refused = read(&state_dir, NAME, &config).unwrap_err();
            assert!(refused.what.contains(NAME), "{content}: {refused}");
        }
    }
}
