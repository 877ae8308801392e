use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

fn sysctl(key: &str) -> Change {
    Change::Sysctl { key: key.into(), previous: "0".into(), set: "1".into(), side_effect: false }
}

fn open(path: &Path) -> Result<Journal, HostError> {
    Journal::open(path, &Guard::default(), WithoutDisk::Refuse)
}

fn changes(journal: &Journal) -> Vec<Change> {
    journal.live().iter().map(|entry| entry.change.clone()).collect()
}

#[test]
fn unsettled_changes_survive_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/journal");
    let mut journal = open(&path).unwrap();
    let ids = ["a", "b", "c"].map(|key| journal.record(sysctl(key)).unwrap());
    journal.settle(ids[1]).unwrap();
    let path_copy = path.with_extension("copy");
    fs::copy(&path, &path_copy).unwrap();
    let mut after = open(&path_copy).unwrap();
    assert_eq!(changes(&after), [sysctl("a"), sysctl("c")]);
    let next = after.record(sysctl("d")).unwrap();
    assert!(!ids.contains(&next));
}

#[test]
fn the_file_is_private_and_vanishes_when_all_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path).unwrap();
    let id = journal.record(sysctl("a")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    journal.settle(id).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    drop(journal);
    assert!(!path.exists());
}

#[test]
fn journal_of_changes_without_end_stays_short_and_locked_and_tells_what_is_not_settled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path).unwrap();
    journal.record(sysctl("first")).unwrap();
    let batch = || (0..FEW_LINES / 4).map(|n| sysctl(&n.to_string())).collect::<Vec<_>>();
    for _ in 0..20 {
        let ids = journal.record_all(batch()).unwrap();
        assert_eq!(changes(&journal)[1..], batch());
        journal.settle_all(&ids).unwrap();
    }
    journal.record(sysctl("last")).unwrap();
    let lines = fs::read_to_string(&path).unwrap().lines().count();
    assert!(lines <= FEW_LINES + 1, "{lines} lines for 2 changes");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a draft is left");
    assert!(matches!(open(&path), Err(HostError::Busy { .. })), "the lock went with the old file");
    drop(journal);
    let mut after = open(&path).unwrap();
    assert_eq!(changes(&after), [sysctl("first"), sysctl("last")]);
    let ids: Vec<u64> = after.live().iter().map(|entry| entry.id).collect();
    after.settle_all(&ids).unwrap();
    drop(after);
    assert!(!path.exists());
}

#[test]
fn changes_that_are_made_together_wait_for_the_disk_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(&directory.path().join("journal")).unwrap();
    let first = journal.record(sysctl("first")).unwrap();
    assert_eq!(journal.flushes, 1);
    let ids = journal.record_all((0..300).map(|n| sysctl(&n.to_string())).collect()).unwrap();
    assert_eq!(journal.flushes, 2);
    journal.settle_all(&ids).unwrap();
    assert_eq!(journal.flushes, 3);
    journal.settle(first).unwrap();
    assert_eq!(journal.flushes, 4);
    // The control: one by one they wait one by one.
    for n in 0..3 {
        journal.record(sysctl(&n.to_string())).unwrap();
    }
    assert_eq!(journal.flushes, 7);
}

#[test]
fn a_living_holder_is_respected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let holder = open(&path).unwrap();
    assert!(matches!(open(&path), Err(HostError::Busy { .. })));
    drop(holder);
    assert!(open(&path).is_ok());
}

#[test]
fn half_a_line_at_the_end_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path).unwrap();
    journal.record(sysctl("a")).unwrap();
    journal.file.write_all(b"{\"change\":{\"id\":1,\"cha").unwrap();
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    let mut after = open(&copy).unwrap();
    assert_eq!(changes(&after), [sysctl("a")]);
    after.record(sysctl("b")).unwrap();
    fs::copy(&copy, path.with_extension("third")).unwrap();
    assert_eq!(changes(&open(&path.with_extension("third")).unwrap()), [sysctl("a"), sysctl("b")]);
}

#[test]
fn a_broken_line_in_the_middle_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    fs::write(&path, "{\"boot\":\"x\"}\nnonsense\n{\"settled\":0}\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(open(&path), Err(HostError::Journal { line: 2, .. })));
    assert!(path.exists());
}

#[test]
fn changes_of_another_network_namespace_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path).unwrap();
    journal.namespace += 1;
    journal.record(sysctl("a")).unwrap();
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    let mut after = open(&copy).unwrap();
    assert_eq!(after.other_namespace(), Some(journal.namespace));
    let id = after.live()[0].id;
    after.settle(id).unwrap();
    assert_eq!(after.other_namespace(), None);
}

#[test]
fn only_files_are_undone_after_a_reboot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path).unwrap();
    journal.boot = "an earlier boot".into();
    let file = Change::ResolverFile(SavedFile::read(&directory.path().join("resolv.conf")).unwrap());
    journal.record(sysctl("a")).unwrap();
    journal.record(file.clone()).unwrap();
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    let mut after = open(&copy).unwrap();
    assert_eq!(changes(&after), std::slice::from_ref(&file));
    after.record(sysctl("b")).unwrap();
    fs::copy(&copy, path.with_extension("third")).unwrap();
    assert_eq!(changes(&open(&path.with_extension("third")).unwrap()), [file, sysctl("b")]);
}

#[test]
fn journal_that_others_could_have_written_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path).unwrap();
    journal.record(sysctl("a")).unwrap();
    drop(journal);
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (culprit, bad, good) in [(path.as_path(), 0o622, 0o600), (directory.path(), 0o777, 0o700)] {
        set_mode(culprit, bad);
        let Err(HostError::Unguarded(error)) = open(&path) else { panic!("{bad:o} is not refused") };
        assert_eq!(error.path, culprit);
        set_mode(culprit, good);
    }
    let target = path.with_extension("target");
    fs::rename(&path, &target).unwrap();
    symlink(&target, &path).unwrap();
    assert!(matches!(open(&path), Err(HostError::Unguarded(_))));
    assert_eq!(changes(&open(&target).unwrap()), [sysctl("a")], "as it was");
}

#[test]
fn journal_of_another_user_needs_trust_and_must_not_write_files() {
    const GATEWAY: u32 = 4242;
    if !nix::unistd::geteuid().is_root() {
        return adit_testing::skip("needs root to give a file away");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path).unwrap();
    journal.record(sysctl("a")).unwrap();
    chown(&path, Some(GATEWAY), None).unwrap();
    drop(journal);
    let trusting = Guard::default().or_user(Some(GATEWAY));
    assert!(matches!(open(&path), Err(HostError::Unguarded(_))));
    let mut journal = Journal::open(&path, &trusting, WithoutDisk::Refuse).unwrap();
    let file = Change::ResolverFile(SavedFile::read(&directory.path().join("resolv.conf")).unwrap());
    journal.record(file).unwrap();
    drop(journal);
    let Err(HostError::Unguarded(error)) = Journal::open(&path, &trusting, WithoutDisk::Refuse) else {
        panic!("it would write a file")
    };
    assert!(error.reason.contains("4242"), "{error}");
    chown(&path, Some(0), None).unwrap();
    assert!(open(&path).is_ok(), "root's own may");
}

#[test]
fn a_journal_without_a_disk_goes_on_only_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let change = || Change::Sysctl { key: "net.x".into(), previous: "0".into(), set: "1".into(), side_effect: false };
    for without_disk in [WithoutDisk::Refuse, WithoutDisk::Continue] {
        let mut journal = Journal::open(&path, &Guard::default(), without_disk).unwrap();
        // Writing to it says that the disk is full.
        let full = File::options().write(true).open("/dev/full").unwrap();
        journal.file = Flock::lock(full, FlockArg::LockExclusiveNonblock).unwrap();
        let recorded = journal.record(change());
        assert_eq!(recorded.is_ok(), without_disk == WithoutDisk::Continue, "{recorded:?}");
        assert_eq!(journal.live().len(), usize::from(recorded.is_ok()), "what is made will be undone");
    }
    assert!(continues(WithoutDisk::Continue, &io::ErrorKind::ReadOnlyFilesystem.into()));
    assert!(!continues(WithoutDisk::Continue, &io::ErrorKind::PermissionDenied.into()));
}
