//! The resolver's file, `resolv.conf`.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use adit_proto::dns::DnsSettings;
use serde::{Deserialize, Serialize};

/// First line of a file that is ours.
const MARKER: &str = "# Written by adit while its tunnel is up; the original comes back when it ends.\n";
/// Servers the C library reads at most (`MAXNS` of resolv.h).
const MOST_SERVERS: usize = 3;

/// A file as it was before we replaced it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedFile {
    path: PathBuf,
    was: Was,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Was {
    Missing,
    Symlink { target: PathBuf },
    Regular { content: Vec<u8>, mode: u32, uid: u32, gid: u32 },
}

impl SavedFile {
    /// Reads what is at a path now.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let was = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Was::Missing,
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_symlink() => Was::Symlink { target: fs::read_link(path)? },
            Ok(metadata) => Was::Regular {
                content: fs::read(path)?,
                mode: metadata.mode() & 0o7777,
                uid: metadata.uid(),
                gid: metadata.gid(),
            },
        };
        Ok(Self { path: path.to_owned(), was })
    }

    /// Whether this is the file at a path.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.path == path
    }

    /// Writes the file that points the resolver at the tunnel's servers; the saved file's options are kept.
    pub(crate) fn replace(&self, settings: &DnsSettings) -> io::Result<()> {
        let original = match &self.was {
            Was::Regular { content, .. } => content.clone(),
            Was::Symlink { target } => {
                let followed = self.path.parent().unwrap_or_else(|| Path::new("/")).join(target);
                fs::read(followed).unwrap_or_default()
            }
            Was::Missing => Vec::new(),
        };
        let content = render(settings, &String::from_utf8_lossy(&original));
        put(&self.path, content.as_bytes(), 0o644, None)
    }

    /// Puts back what was there, unless somebody else has replaced our file since. Doing it twice is harmless.
    pub(crate) fn restore(&self) -> io::Result<()> {
        match (&self.was, self.is_ours()?) {
            (_, false) => Ok(()),
            (Was::Missing, true) => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
            (Was::Symlink { target }, true) => {
                let beside = beside(&self.path);
                remove_if_present(&beside)?;
                symlink(target, &beside)?;
                fs::rename(&beside, &self.path)?;
                flush_directory(&self.path)
            }
            (Was::Regular { content, mode, uid, gid }, true) => put(&self.path, content, *mode, Some((*uid, *gid))),
        }
    }

    /// Whether what is at the path now is our file, or the beginning of one being written in place when a process died.
    fn is_ours(&self) -> io::Result<bool> {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_symlink()) {
            return Ok(false);
        }
        let now = match fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            other => other?,
        };
        let restored_in_part = matches!(&self.was, Was::Regular { content, .. } if content.starts_with(&now));
        Ok(now.starts_with(MARKER.as_bytes()) || MARKER.as_bytes().starts_with(&now) || restored_in_part)
    }
}

fn render(settings: &DnsSettings, original: &str) -> String {
    let mut text = MARKER.to_owned();
    for server in settings.servers.iter().take(MOST_SERVERS) {
        writeln!(text, "nameserver {server}").expect("writing to a string");
    }
    let search: Vec<_> = settings.search_domains().collect();
    if !search.is_empty() {
        writeln!(text, "search {}", search.join(" ")).expect("writing to a string");
    }
    for line in original.lines().filter(|line| line.starts_with("options ")) {
        writeln!(text, "{line}").expect("writing to a string");
    }
    text
}

/// Puts a file in place in one step; where that is not possible, because the path is a mount point or its directory is
/// read-only, as containers have it, writes into the existing file.
fn put(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    match put_renamed(path, content, mode, owner) {
        Err(error) if is_for_lack_of_rename(&error) && fs::symlink_metadata(path).is_ok_and(|file| file.is_file()) => {
            let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
            file.write_all(content)?;
            file.sync_all()
        }
        other => other,
    }
}

fn put_renamed(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let beside = beside(path);
    remove_if_present(&beside)?;
    let placed = write_new(&beside, content, mode, owner).and_then(|()| fs::rename(&beside, path));
    if placed.is_err() {
        remove_if_present(&beside)?;
    }
    placed.and_then(|()| flush_directory(path))
}

fn write_new(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if let Some((uid, gid)) = owner {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (uid, gid) {
            chown(path, Some(uid), Some(gid))?;
        }
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn is_for_lack_of_rename(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
    )
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.adit"))
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn flush_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use adit_proto::dns::DnsScope;
    use adit_testing::skip;
    use nix::mount::MsFlags;
    use nix::sched::CloneFlags;
    use nix::unistd::Uid;

    use super::*;

    fn settings() -> DnsSettings {
        DnsSettings {
            servers: ["10.64.3.1", "fd12::1", "10.64.3.2", "10.64.3.3"].map(|server| server.parse().unwrap()).to_vec(),
            search: vec!["corp.example".into(), "x\nnameserver 198.51.100.1".into()],
            scope: DnsScope::All,
        }
    }

    #[test]
    fn a_regular_file_comes_back_to_the_byte_and_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let original = b"# \xff no final newline\noptions edns0\nnameserver 192.0.2.53";
        fs::write(&path, original).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let saved = SavedFile::read(&path).unwrap();
        saved.replace(&settings()).unwrap();
        let expected = format!(
            "{MARKER}nameserver 10.64.3.1\nnameserver fd12::1\nnameserver 10.64.3.2\nsearch corp.example\noptions edns0\n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        for _ in 0..2 {
            saved.restore().unwrap();
            assert_eq!(fs::read(&path).unwrap(), original);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_symlink_comes_back_and_its_target_is_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let target = directory.path().join("stub.conf");
        fs::write(&target, "nameserver 127.0.0.53\noptions trust-ad\n").unwrap();
        symlink("stub.conf", &path).unwrap();
        let saved = SavedFile::read(&path).unwrap();
        saved.replace(&settings()).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("options trust-ad\n"));
        for _ in 0..2 {
            saved.restore().unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), Path::new("stub.conf"));
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "nameserver 127.0.0.53\noptions trust-ad\n");
    }

    #[test]
    fn a_missing_file_is_missing_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let saved = SavedFile::read(&path).unwrap();
        saved.replace(&settings()).unwrap();
        assert!(path.exists());
        saved.restore().unwrap();
        saved.restore().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_somebody_else_wrote_since_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
        let saved = SavedFile::read(&path).unwrap();
        saved.replace(&settings()).unwrap();
        fs::write(&path, "# from another network\nnameserver 192.0.2.99\n").unwrap();
        saved.restore().unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("192.0.2.99"));
    }

    #[test]
    fn a_file_emptied_by_a_crash_while_writing_in_place_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
        let saved = SavedFile::read(&path).unwrap();
        fs::write(&path, "").unwrap();
        saved.restore().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.53\n");
    }

    #[test]
    fn a_file_that_is_a_mount_point_is_written_in_place() {
        if !Uid::effective().is_root() {
            return skip("needs root to mount");
        }
        let mounted = || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
            nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("resolv.conf");
            let behind = directory.path().join("behind");
            fs::write(&path, "").unwrap();
            fs::write(&behind, "nameserver 192.0.2.53\n").unwrap();
            nix::mount::mount(Some(&behind), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            let saved = SavedFile::read(&path).unwrap();
            saved.replace(&settings()).unwrap();
            assert!(fs::read_to_string(&behind).unwrap().starts_with(MARKER));
            saved.restore().unwrap();
            assert_eq!(fs::read_to_string(&behind).unwrap(), "nameserver 192.0.2.53\n");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
            nix::mount::umount(&path).unwrap();
        };
        std::thread::spawn(mounted).join().unwrap();
    }
}
