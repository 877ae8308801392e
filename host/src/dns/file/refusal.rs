//! Why a file cannot be written, in words that lead to the cure.

use std::io::{self, ErrorKind};
use std::path::Path;

use nix::unistd::Uid;
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags};

use crate::error::HostError;

/// The error of doing something to a file.
pub(super) fn explain(doing: &str, path: &Path, source: io::Error) -> HostError {
    let reason = reason(path, &source);
    HostError::ResolverFile { doing: format!("{doing} {}", path.display()), reason, source }
}

fn reason(path: &Path, error: &io::Error) -> String {
    let file = path.display();
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
        // The directory counts, too: the file is replaced by another one.
        for at in [path, directory] {
            if let Some((name, letter)) = attribute(at) {
                return format!(
                    "{at} has the attribute {name}; `chattr -{letter} {at}` takes it off",
                    at = at.display()
                );
            }
        }
        if is_read_only(path) {
            return format!("{file} is mounted read-only; mount it writable, or mount a writable file over it");
        }
    }
    let kind = error.kind();
    if kind == ErrorKind::ReadOnlyFilesystem {
        format!("the file system of {} is read-only", directory.display())
    } else if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        format!("the file system of {} is full; make room there", directory.display())
    } else if kind == ErrorKind::IsADirectory {
        format!("{file} is a directory; move it away")
    } else if kind != ErrorKind::PermissionDenied {
        format!("{file} cannot be used")
    } else if Uid::effective().is_root() {
        format!("root may not write {file} here; look at the rules of SELinux, AppArmor or the container")
    } else {
        format!("only its owner may write {file}; run as root")
    }
}

/// The attribute of a file or directory that forbids to change it, and its letter for chattr(1).
fn attribute(path: &Path) -> Option<(&'static str, char)> {
    let status = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).ok()?;
    let has = |attribute| status.stx_attributes.contains(attribute);
    if has(StatxAttributes::IMMUTABLE) {
        Some(("immutable", 'i'))
    } else if has(StatxAttributes::APPEND) {
        Some(("append-only", 'a'))
    } else {
        None
    }
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|status| status.f_flag.contains(StatVfsMountFlags::RDONLY))
}
