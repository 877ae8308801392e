//! How much of the resolver's file belongs to this network namespace.
//!
//! A program can be in another network than the host and yet have the host's files: `ip netns exec NAME` gives it a
//! `resolv.conf` of its own only where `/etc/netns/NAME` holds one. The tunnel's resolver in a file of the host would
//! take the names of everybody else on it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::namespace;

/// A setting that the kernel has in the first network namespace alone. Where it stands, we are the host.
const FIRST_NAMESPACE_ONLY: &str = "/proc/sys/net/core/netdev_max_backlog";
/// Most links that lead from one to the next; the kernel's limit is 40.
const MOST_LINKS: usize = 40;

/// How much of the resolver's file is ours to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The path itself, which may be replaced by another file.
    Path,
    /// What the link at the path leads to, while the link is shared with another network namespace.
    Target(PathBuf),
    /// None of it: another network namespace uses the file, too. Holds the name of ours, if it has one.
    Foreign(Option<String>),
}

/// A file as the kernel knows it: device and inode.
type Identity = (u64, u64);

/// What somebody else has where we have the path and the end of its links.
#[derive(Debug, Clone, Copy)]
struct Shared {
    path: bool,
    target: bool,
}

impl Reach {
    /// Finds out whose file is at a path.
    pub(crate) fn of(path: &Path) -> Self {
        if Path::new(FIRST_NAMESPACE_ONLY).exists() {
            return Self::Path;
        }
        let ours = namespace::inode(Path::new(namespace::OWN));
        let name = ours.and_then(namespace::name);
        match (shared(path, ours, name.is_some()), follow(Path::new("/"), path)) {
            (Shared { path: false, .. }, _) => Self::Path,
            (Shared { target: false, .. }, target) if target != path => Self::Target(target),
            _ => Self::Foreign(name),
        }
    }
}

/// Who else, in another network, has our files. Process 1 knows best; where we may not look at it, our ancestors do.
/// A service manager's child with few rights can look at neither: then the name of a namespace and a mount tell.
fn shared(path: &Path, ours: Option<u64>, is_named: bool) -> Shared {
    let none = Shared { path: false, target: false };
    let Some(ours) = ours else { return none };
    let first = compare(1, path);
    match first {
        Some((namespace, _)) if namespace == ours => return none,
        Some((_, shared)) if shared.path => return shared,
        Some(_) | None => {}
    }
    let seen = ancestors().filter_map(|process| compare(process, path)).find(|(namespace, _)| *namespace != ours);
    match seen {
        Some((_, shared)) => shared,
        None if first.is_some() => none,
        None => Shared { path: is_named, target: is_named && !is_mount_point(&follow(Path::new("/"), path)) },
    }
}

/// The network namespace of a process, and what of our files it has; `None` where we may not look.
fn compare(process: u32, path: &Path) -> Option<(u64, Shared)> {
    let process = PathBuf::from(format!("/proc/{process}"));
    let namespace = namespace::inode(&process.join("ns/net"))?;
    let root = process.join("root");
    fs::metadata(&root).ok()?;
    let same = |theirs: &Path, ours: &Path| identity(theirs) == identity(ours);
    let path_is_shared = same(&below(&root, path), path);
    let target_is_shared = same(&follow(&root, path), &follow(Path::new("/"), path));
    Some((namespace, Shared { path: path_is_shared, target: target_is_shared }))
}

/// A file's identity, without following a link; that of its directory where it is missing.
fn identity(path: &Path) -> Option<Identity> {
    let found = fs::symlink_metadata(path).or_else(|error| path.parent().map_or(Err(error), fs::metadata));
    found.ok().map(|file| (file.dev(), file.ino()))
}

/// Follows the links at a path to their end, as a process with another root sees it.
fn follow(root: &Path, path: &Path) -> PathBuf {
    let mut end = below(root, path);
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&end) else { break };
        end = match target.is_absolute() {
            true => below(root, &target),
            false => end.parent().unwrap_or(root).join(target),
        };
    }
    end
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Parent, grandparent and so on of this process, without process 1.
fn ancestors() -> impl Iterator<Item = u32> {
    let parent = |process: &str| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        parent.trim().parse().ok().filter(|parent| *parent > 1)
    };
    std::iter::successors(parent("self"), move |process: &u32| parent(&process.to_string()))
}

fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    mounts.lines().any(|mount| mount.split(' ').nth(4).is_some_and(|point| Path::new(point) == path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use adit_testing::namespace::in_namespace;
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn with_own_mounts() {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    }

    fn bind(from: &Path, to: &Path) {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }

    #[test]
    fn the_file_of_the_network_we_were_started_in_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Reach::of(&directory.path().join("resolv.conf")), Reach::Path);
        assert_eq!(Reach::of(Path::new("/etc/resolv.conf")), Reach::Path);
    }

    #[test]
    fn another_network_does_not_make_the_hosts_files_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        in_namespace(move || {
            assert_eq!(Reach::of(&path), Reach::Foreign(None), "a missing file is as its directory");
            fs::write(&path, "").unwrap();
            assert_eq!(Reach::of(&path), Reach::Foreign(None));
            // A mount namespace alone changes nothing.
            with_own_mounts();
            assert_eq!(Reach::of(&path), Reach::Foreign(None));
        });
        drop(directory);
    }

    #[test]
    fn a_file_mounted_for_us_alone_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let (path, own) = (directory.path().join("resolv.conf"), directory.path().join("own"));
        in_namespace(move || {
            fs::write(&path, "").unwrap();
            fs::write(&own, "").unwrap();
            with_own_mounts();
            bind(&own, &path);
            assert_eq!(Reach::of(&path), Reach::Path);
        });
        drop(directory);
    }

    #[test]
    fn a_shared_link_stays_where_only_its_target_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let [path, target, own] = ["resolv.conf", "target", "own"].map(|name| directory.path().join(name));
        in_namespace(move || {
            fs::write(&target, "").unwrap();
            fs::write(&own, "").unwrap();
            symlink("target", &path).unwrap();
            assert_eq!(Reach::of(&path), Reach::Foreign(None));
            with_own_mounts();
            bind(&own, &target);
            assert_eq!(Reach::of(&path), Reach::Target(target));
        });
        drop(directory);
    }
}
