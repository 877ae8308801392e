use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use adit_proto::dns::DnsScope;
use adit_testing::namespace::in_namespace_async;
use adit_testing::skip;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use super::*;
use crate::changes::{HostOptions, recover_with};
use crate::dns::SystemBus;
use crate::guard::{GuardReport, GuardState};

const ORIGINAL: &str = "nameserver 192.0.2.53\n";
const OURS: &str = "nameserver 10.64.3.1\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// A resolver's file, and changes that point it at a tunnel's server.
struct Host {
    directory: tempfile::TempDir,
    file: PathBuf,
    changes: HostChanges,
}

impl Host {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("resolv.conf"), ORIGINAL).unwrap();
        let folder = directory.path().to_owned();
        Self::with_file_in(directory, &folder).await
    }

    async fn with_file_in(directory: tempfile::TempDir, folder: &Path) -> Self {
        let changes = HostChanges::open_with(&directory.path().join("journal"), options(folder)).await.unwrap();
        Self { directory, file: folder.join("resolv.conf"), changes }
    }

    async fn with_tunnel() -> Self {
        let mut host = Self::new().await;
        host.set_dns().await;
        assert_eq!(host.servers(), OURS);
        host
    }

    async fn set_dns(&mut self) {
        let servers = vec!["10.64.3.1".parse().unwrap()];
        let settings = DnsSettings { servers, search: Vec::new(), scope: DnsScope::All, exclusive: true };
        self.changes.set_dns("lo", &settings).await.unwrap();
    }

    fn path(&self) -> PathBuf {
        self.file.clone()
    }

    /// What the resolver's file says without its comments.
    fn servers(&self) -> String {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
    }

    /// Does what the program's main loop does, until the file is right.
    async fn hold_until_right(&mut self, what: &str) -> Vec<GuardReport> {
        let holding = async {
            loop {
                self.changes.changed().await;
                let reports = self.changes.hold().await;
                if self.servers() == OURS {
                    return reports;
                }
            }
        };
        tokio::time::timeout(PATIENCE, holding).await.unwrap_or_else(|_| panic!("{what}: the file stays wrong"))
    }

    /// Sets or clears an attribute of the file; `false`, loudly, where that cannot be done.
    fn chattr(&self, flag: &str) -> bool {
        let mut command = Command::new("chattr");
        let done = command.arg(flag).arg(self.path()).stderr(Stdio::null()).status();
        let done = Uid::effective().is_root() && done.is_ok_and(|status| status.success());
        if !done {
            skip("needs root, chattr(1) and a file system with attributes");
        }
        done
    }
}

fn options(directory: &Path) -> HostOptions {
    HostOptions { resolv_conf: directory.join("resolv.conf"), bus: SystemBus::Absent, ..HostOptions::default() }
}

/// Something another program does to the file.
type Interference = fn(&Path, &str);

#[tokio::test]
async fn a_file_that_others_write_is_put_back_and_what_they_wrote_is_restored() {
    let ways: [(&str, Interference); 3] = [
        ("written in place", |path, text| fs::write(path, text).unwrap()),
        ("replaced", |path, text| {
            let beside = path.with_extension("new");
            fs::write(&beside, text).unwrap();
            fs::rename(beside, path).unwrap();
        }),
        ("made a link", |path, text| {
            fs::write(path.with_extension("target"), text).unwrap();
            fs::remove_file(path).unwrap();
            symlink(path.with_extension("target"), path).unwrap();
        }),
    ];
    for (number, (what, interfere)) in ways.into_iter().enumerate() {
        let mut host = Host::with_tunnel().await;
        let theirs = format!("nameserver 192.0.2.{number}\n");
        interfere(&host.path(), &theirs);
        let reports = host.hold_until_right(what).await;
        let [report] = reports.try_into().unwrap();
        assert_eq!((report.guard.as_str(), report.state, report.times), ("resolver file", GuardState::Mended, 1));
        host.changes.undo().await.unwrap();
        assert_eq!(host.servers(), theirs, "{what}");
    }
}

#[tokio::test]
async fn a_file_that_others_take_away_is_put_back_and_the_original_is_restored() {
    let ways: [(&str, Interference); 3] = [
        ("removed", |path, _| fs::remove_file(path).unwrap()),
        ("emptied", |path, _| fs::write(path, "").unwrap()),
        ("restored", |path, original| fs::write(path, original).unwrap()),
    ];
    for (what, interfere) in ways {
        let mut host = Host::with_tunnel().await;
        interfere(&host.path(), ORIGINAL);
        host.hold_until_right(what).await;
        host.changes.undo().await.unwrap();
        assert_eq!(host.servers(), ORIGINAL, "{what}");
    }
}

#[tokio::test]
async fn the_file_of_a_later_client_is_left_to_it() {
    let mut host = Host::with_tunnel().await;
    let later_journal = host.directory.path().join("later-journal");
    let mut later = HostChanges::open_with(&later_journal, options(host.directory.path())).await.unwrap();
    let servers = vec!["10.65.0.1".parse().unwrap()];
    let settings = DnsSettings { servers, search: Vec::new(), scope: DnsScope::All, exclusive: false };
    later.set_dns("lo", &settings).await.unwrap();
    let [report] = host.changes.hold().await.try_into().unwrap();
    assert_eq!(report.state, GuardState::Broken);
    assert!(report.reason.contains("another Adit client"), "{report:?}");
    assert_eq!(host.servers(), "nameserver 10.65.0.1\n");
    later.undo().await.unwrap();
    assert_eq!(host.changes.hold().await, []);
    host.changes.undo().await.unwrap();
    assert_eq!(host.servers(), ORIGINAL);
}

#[tokio::test]
async fn without_a_file_that_can_be_written_the_tunnel_is_set_up_and_the_cure_is_named() {
    let mut host = Host::new().await;
    if !host.chattr("+i") {
        return;
    }
    host.set_dns().await;
    let [report] = host.changes.hold().await.try_into().unwrap();
    let untouched = host.servers() == ORIGINAL;
    assert!(host.chattr("-i"));
    assert!(untouched);
    assert_eq!((report.guard.as_str(), report.state), ("resolver file", GuardState::Broken));
    assert!(report.reason.contains(&format!("`chattr -i {}`", host.path().display())), "{report:?}");
    host.hold_until_right("writable again").await;
    host.changes.undo().await.unwrap();
    assert_eq!(host.servers(), ORIGINAL);
}

#[tokio::test]
async fn a_file_that_cannot_be_restored_keeps_nobody_from_connecting() {
    let host = Host::with_tunnel().await;
    if !host.chattr("+i") {
        return;
    }
    let (next, last) = (host.directory.path().join("next"), host.directory.path().join("last"));
    fs::copy(host.changes.journal(), &next).unwrap();
    fs::copy(host.changes.journal(), &last).unwrap();
    let opened = HostChanges::open_with(&next, options(host.directory.path())).await;
    let recovered = recover_with(&last, options(host.directory.path())).await;
    assert!(host.chattr("-i"));
    drop(opened.unwrap());
    let Err(HostError::Undo { failures }) = recovered else { panic!("{recovered:?}") };
    assert!(
        matches!(&*failures, [HostError::ResolverFile { reason, .. }] if reason.contains("chattr -i")),
        "{failures:?}"
    );
    // Whoever can write it again finds what to restore.
    recover_with(&next, options(host.directory.path())).await.unwrap();
    assert_eq!(host.servers(), ORIGINAL);
}

/// As on systems whose /etc is part of a read-only image: the file there is a link to one that can be written.
#[test]
fn link_in_a_read_only_directory_stays_and_the_file_behind_it_is_written() {
    in_namespace_async(|| async {
        let directory = tempfile::tempdir().unwrap();
        let (etc, run) = (directory.path().join("etc"), directory.path().join("run"));
        [&etc, &run].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(run.join("resolv.conf"), ORIGINAL).unwrap();
        symlink("../run/resolv.conf", etc.join("resolv.conf")).unwrap();
        mount_read_only(&etc);
        let mut host = Host::with_file_in(directory, &etc).await;
        host.set_dns().await;
        assert_eq!(host.servers(), OURS);
        fs::write(run.join("resolv.conf"), "nameserver 192.0.2.66\n").unwrap();
        host.hold_until_right("written by others").await;
        fs::write(etc.join("new"), "").unwrap_err();
        assert_eq!(fs::read_link(host.path()).unwrap(), Path::new("../run/resolv.conf"));
        host.changes.undo().await.unwrap();
        assert_eq!(fs::read_to_string(run.join("resolv.conf")).unwrap(), "nameserver 192.0.2.66\n");
        assert_eq!(fs::read_dir(&run).unwrap().count(), 1, "nothing is left beside it");
        umount(&etc).unwrap();
    });
}

/// Mounts a directory over itself, read-only, in a mount namespace of this thread's own.
fn mount_read_only(directory: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    for flags in [MsFlags::empty(), MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY] {
        mount(Some(directory), directory, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>).unwrap();
    }
}
