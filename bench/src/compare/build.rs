//! The two builds that are compared, as the command line names them: folders, or revisions of a git repository.

use std::path::{Path, PathBuf};

use adit_program::exit::{Exit, Failure};
use anyhow::Result;
use serde::Serialize;

use super::git::{git, short};
use super::worktree::{PROGRAMS, Workshop};
use crate::report::machine::Program;

/// Where the programs of one side come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A folder that holds them.
    Folder(PathBuf),
    /// A commit, by its full name.
    Commit(String),
}

/// One side of a comparison, ready to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Build {
    /// What the command line said.
    pub(super) given: String,
    /// The commit it was built from, where this program built it.
    pub(super) commit: Option<String>,
    /// The folder with its programs.
    pub(super) folder: PathBuf,
    pub(super) programs: Vec<Program>,
}

impl Build {
    /// In a few words, for people: what was given, and the commit where that is not the same.
    pub(super) fn title(&self) -> String {
        let short = self.commit.as_deref().map(short);
        match short {
            Some(commit) if !self.given.starts_with(commit) => format!("{} ({commit})", self.given),
            _ => self.given.clone(),
        }
    }

    /// Whether both are the same programs, byte for byte.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.programs == other.programs && self.programs.iter().all(|program| program.sha256.is_some())
    }
}

/// Finds out what `given` means: a folder with both programs, else a revision.
///
/// # Errors
/// Fails with exit code 2 where it is neither, and says which of both it nearly was.
pub(super) fn source(given: &str) -> Result<Source, Failure> {
    let folder = Path::new(given);
    let missing = PROGRAMS.iter().find(|program| !folder.join(program).is_file());
    if missing.is_none() {
        // Programs start where their host is, so a relative path would not do.
        return Ok(Source::Folder(folder.canonicalize().unwrap_or_else(|_| folder.to_owned())));
    }
    let usage = |reason: String, next: &str| Failure::new(Exit::Usage, given, reason, next);
    let revision = format!("{given}^{{commit}}");
    let output = git(Path::new("."), &["rev-parse", "--verify", "--quiet", "--end-of-options", &revision]);
    match output {
        Ok(commit) => Ok(Source::Commit(commit)),
        Err(_) if folder.is_dir() => {
            let missing = missing.copied().unwrap_or_default();
            let reason = format!("the folder holds no {missing}");
            Err(usage(
                reason,
                "build both programs first, such as: cargo build --release -p adit-server -p adit-client",
            ))
        }
        Err(_) => match repository() {
            Ok(root) => Err(usage(
                format!("is no folder, and no revision of {}", root.display()),
                "name a folder or a commit, branch or tag; a shallow clone lacks old ones: git fetch --unshallow",
            )),
            Err(said) => Err(usage(
                format!("is no folder, and revisions need a git repository around the current folder ({said})"),
                "change to the repository, or name a folder with adit-server and adit-client",
            )),
        },
    }
}

/// The folder of the repository this program was started in; fails with what git says.
pub(super) fn repository() -> Result<PathBuf, String> {
    git(Path::new("."), &["rev-parse", "--show-toplevel"]).map(PathBuf::from)
}

/// Whether files of the repository differ from `commit`, and that is what is checked out.
pub(super) fn lacks_changes(commit: &str) -> bool {
    let here = Path::new(".");
    let head = git(here, &["rev-parse", "HEAD"]);
    let changes = git(here, &["status", "--porcelain", "--untracked-files=no"]);
    head.as_deref() == Ok(commit) && changes.is_ok_and(|list| !list.is_empty())
}

/// Makes both sides ready, building what is not built; `say` gets what happens, for people.
///
/// # Errors
/// Fails where a build does, with its last lines, or when interrupted.
pub(super) fn prepare(given: [&str; 2], say: &dyn Fn(&str)) -> Result<[Build; 2]> {
    let [base, head] = given;
    // Both before anything is built: a mistake should not take minutes to be found.
    let sources = [source(base)?, source(head)?];
    let mut workshop = None;
    let mut ready = |given: &str, source: &Source| -> Result<Build> {
        let (commit, folder) = match source {
            Source::Folder(folder) => (None, folder.clone()),
            Source::Commit(commit) => {
                if lacks_changes(commit) {
                    say(&format!(
                        "{given}: uncommitted changes are not in it; to compare those, build and name a folder"
                    ));
                }
                let workshop = match &mut workshop {
                    Some(workshop) => workshop,
                    empty => empty.insert(Workshop::open(&repository().map_err(anyhow::Error::msg)?)?),
                };
                (Some(commit.clone()), workshop.build(given, commit, say)?)
            }
        };
        let programs = PROGRAMS.iter().map(|program| Program::of(&folder.join(program))).collect();
        Ok(Build { given: given.to_owned(), commit, folder, programs })
    };
    let [base_source, head_source] = &sources;
    Ok([ready(base, base_source)?, ready(head, head_source)?])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folder_with_both_programs_is_a_source() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().to_str().unwrap();
        let failure = source(given).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("adit-server"), "{failure}");
        for program in PROGRAMS {
            fs::write(folder.path().join(program), "").unwrap();
        }
        assert_eq!(source(given).unwrap(), Source::Folder(folder.path().canonicalize().unwrap()));
    }

    #[test]
    fn neither_folder_nor_revision_is_a_usage_failure() {
        for given in ["no-such-revision", "--help", ""] {
            let failure = source(given).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{given}");
            assert!(!failure.next.is_empty(), "{failure}");
        }
    }

    #[test]
    fn title_names_the_commit_unless_that_is_what_was_given() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let build = |given: &str, commit: Option<&str>| Build {
            given: given.to_owned(),
            commit: commit.map(str::to_owned),
            folder: PathBuf::new(),
            programs: Vec::new(),
        };
        assert_eq!(build("main", Some(commit)).title(), "main (0123456789)");
        assert_eq!(build(commit, Some(commit)).title(), commit);
        assert_eq!(build("target/release", None).title(), "target/release");
    }
}
