//! Which openconnect and which ocserv a test runs: those of this machine, and the newest that Debian has.

use std::path::PathBuf;
use std::process::Command;

use adit_testing::skip;

/// Where `.ci/run tools` puts the newest ones, with all that they load.
const NEWEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ci/newest/programs");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// This machine's own.
    Own,
    Newest,
}

impl Version {
    /// Where a program of this version is; `None`, loudly, where it is missing.
    pub(crate) fn program(self, name: &str) -> Option<PathBuf> {
        let found = match self {
            Self::Own => installed(name),
            Self::Newest => Some(PathBuf::from(NEWEST).join(name)).filter(|path| path.exists()),
        };
        if found.is_none() {
            skip(match self {
                Self::Own => format!("needs {name} (the package of that name)"),
                Self::Newest => format!("needs the newest {name}; `.ci/run tools` gets it without installing it"),
            });
        }
        found
    }
}

/// The path of a program that is installed.
fn installed(name: &str) -> Option<PathBuf> {
    let said = Command::new("sh").args(["-c", "command -v \"$0\"", name]).output().ok()?;
    let path = String::from_utf8(said.stdout).ok()?;
    Some(PathBuf::from(path.trim())).filter(|path| path.is_absolute())
}

/// Makes two tests of a function that takes a [`Version`].
macro_rules! with_each_version {
    ($test:ident) => {
        mod $test {
            #[test]
            fn own() {
                super::$test($crate::versions::Version::Own);
            }

            #[test]
            fn newest() {
                super::$test($crate::versions::Version::Newest);
            }
        }
    };
}

pub(crate) use with_each_version;
