//! What a journal may name.
//!
//! Whoever can write a journal decides what is undone with our privileges. So it may name only what its program
//! changes: a gateway never touches the host's resolver, and a client no other file than the resolver's.

use std::path::Path;

use adit_program::guarded_file::GuardError;

use super::HostOptions;
use crate::error::HostError;
use crate::journal::{Change, Journal};

/// Checks that everything to be undone is within the bounds of a program with these options.
pub(super) fn check(journal: &Journal, options: &HostOptions) -> Result<(), HostError> {
    let Some(reason) = journal.live().iter().find_map(|entry| beyond(&entry.change, options)) else { return Ok(()) };
    let path = journal.path().to_owned();
    let next = format!("look who wrote it; nothing of it was done, and `rm {}` forgets it", path.display());
    Err(GuardError { path, reason, next, source: None }.into())
}

fn beyond(change: &Change, options: &HostOptions) -> Option<String> {
    let resolver = matches!(change, Change::ResolverFile(_) | Change::ResolverLink(_) | Change::ResolverServers { .. });
    if resolver && !options.resolver {
        return Some("tells to change the host's resolver, which this program never does".to_owned());
    }
    if let Change::ResolverFile(saved) = change
        && !is_resolver_file(saved.path(), &options.resolv_conf)
    {
        return Some(format!("tells to write {}, which is no file of a resolver", saved.path().display()));
    }
    None
}

/// Whether a file is the resolver's, or one that its path leads or has led to: those of all programs that write one
/// bear its name.
fn is_resolver_file(path: &Path, resolv_conf: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b"resolv.conf"));
    named || path == resolv_conf || resolv_conf.canonicalize().is_ok_and(|target| target == path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use adit_testing::namespace::in_namespace_async;

    use super::super::recover_with;
    use super::*;
    use crate::WithoutDisk;
    use crate::dns::{SavedFile, SystemBus};

    /// A journal that tells to put back a file, and a file of ours there.
    fn journal(directory: &Path, file: &Path) -> std::path::PathBuf {
        fs::write(file, "nameserver 192.0.2.53\n").unwrap();
        let saved = SavedFile::read(file).unwrap();
        let path = directory.join("host.journal");
        let mut journal = Journal::open(&path, &HostOptions::default().guard, WithoutDisk::Refuse).unwrap();
        journal.record(Change::ResolverFile(saved)).unwrap();
        drop(journal);
        fs::write(file, "# Written by adit").unwrap();
        path
    }

    #[test]
    fn journal_names_the_resolver_s_file_or_nothing_is_undone() {
        in_namespace_async(async || {
            let directory = tempfile::tempdir().unwrap();
            let (ours, other) = (directory.path().join("resolv.conf"), directory.path().join("passwd"));
            let options = |resolver| HostOptions {
                resolv_conf: ours.clone(),
                bus: SystemBus::Absent,
                resolver,
                ..HostOptions::default()
            };
            for (file, resolver) in [(&other, true), (&other, false), (&ours, false)] {
                let journal = journal(directory.path(), file);
                let refused = recover_with(&journal, options(resolver)).await;
                assert!(matches!(refused, Err(HostError::Unguarded(_))), "{refused:?}");
                assert!(fs::read_to_string(file).unwrap().starts_with("# Written"), "it is as it was");
                fs::remove_file(journal).unwrap();
            }
            let journal = journal(directory.path(), &ours);
            assert_eq!(recover_with(&journal, options(true)).await.unwrap().undone, 1);
            assert!(fs::read_to_string(&ours).unwrap().starts_with("nameserver"), "the positive control");
        });
    }
}
