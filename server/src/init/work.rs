//! Making the files of a gateway, and removing them when something fails.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adit_program::durable_file;
use adit_program::exit::{Exit, Failure};
use adit_program::rights::to_reach_files_of;
use nix::fcntl::{Flock, FlockArg};

use crate::accounts::sqlite::Store;
use crate::identity::{Authority, ServiceKey, create_endpoint_keys};

use super::Places;

/// What was made so far, to be removed when something fails.
#[derive(Default)]
pub(super) struct Work {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Work {
    /// Makes everything; the configuration comes last, so that a gateway with one is complete.
    pub(super) fn make(&mut self, places: &Places, text: &str, now: SystemTime) -> Result<[u8; 32], Failure> {
        let parent = places.config.parent().unwrap_or_else(|| Path::new("/"));
        self.directory(parent, 0o755)?;
        self.directory(places.state_dir.path(), 0o700)?;
        if places.own {
            self.directory(places.runtime_dir.path(), 0o700)?;
        }
        let _lock = lock(places.state_dir.path())?;
        for path in places.files() {
            refuse_existing(&path)?;
        }
        self.files.extend(places.files());
        self.files.extend(places.state_dir.beside_store());
        let authority = Authority::create(&places.state_dir, now).map_err(|error| error.into_failure())?;
        create_endpoint_keys(&places.state_dir.endpoint_keys()).map_err(|error| error.into_failure())?;
        ServiceKey::load_or_create(&places.state_dir).map_err(|error| error.into_failure())?;
        let store = places.state_dir.store();
        Store::create(&store).map_err(|error| Store::failure(&store, error))?;
        durable_file::create(&places.config, text.as_bytes(), 0o644)
            .map_err(|error| cannot_write(&places.config, &error))?;
        Ok(authority.pin())
    }

    fn directory(&mut self, path: &Path, mode: u32) -> Result<(), Failure> {
        let missing: Vec<PathBuf> =
            path.ancestors().take_while(|ancestor| !ancestor.exists()).map(Path::to_owned).collect();
        for (index, directory) in missing.iter().enumerate().rev() {
            let mode = if index == 0 { mode } else { 0o755 };
            match DirBuilder::new().mode(mode).create(directory) {
                Ok(()) => self.directories.push(directory.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cannot_write(directory, &error)),
            }
        }
        Ok(())
    }

    /// Removes what was made, newest first. What cannot be removed stays; the failure that led here is what matters.
    pub(super) fn undo(&self) {
        for file in self.files.iter().rev() {
            drop(std::fs::remove_file(file));
        }
        for directory in self.directories.iter().rev() {
            drop(std::fs::remove_dir(directory));
        }
    }
}

/// Keeps a second `init` out of the state directory.
fn lock(directory: &Path) -> Result<Flock<File>, Failure> {
    let file = File::open(directory).map_err(|error| cannot_write(directory, &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        let next = "wait for it, then look at what it made";
        Failure::new(Exit::Usage, directory.display().to_string(), "another init is at work here", next)
    })
}

fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let next = "to use that gateway run `adit-server check`; to make another choose --dir DIR; \
                to start afresh move the old files away";
    Err(Failure::new(Exit::Usage, path.display().to_string(), "exists already and is not overwritten", next))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let (exit, next) = if error.kind() == io::ErrorKind::PermissionDenied {
        let next = format!("{}; or choose a directory of yours with --dir DIR", to_reach_files_of("root"));
        (Exit::Permission, next)
    } else {
        (Exit::Other, "choose another place with --dir DIR".to_owned())
    };
    Failure::new(exit, path.display().to_string(), format!("cannot be written: {error}"), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directories::{RuntimeDir, StateDir};

    #[test]
    fn failure_leaves_nothing_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("gateway");
        let blocked = scratch.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let places = Places {
            config: blocked.join("server.toml"),
            state_dir: StateDir::new(directory.join("state")),
            runtime_dir: RuntimeDir::new(directory.join("run")),
            own: true,
        };
        let mut work = Work::default();
        assert!(work.make(&places, "", SystemTime::now()).is_err());
        assert!(places.state_dir.authority_key().exists(), "the last step failed");
        work.undo();
        assert!(!directory.exists());
    }
}
