//! Writing to the state directory.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use adit_program::exit::{Exit, Failure};

/// Makes a folder that is closed to others, unless it is there.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Why a file could not be written, and what to do.
pub(super) fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let kind = error.kind();
    let next = if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem].contains(&kind) {
        "let the gateway's own user write to its directory"
    } else if [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&kind) {
        "make room on its file system"
    } else {
        "mend its file system"
    };
    Failure::new(Exit::Other, path.display().to_string(), format!("cannot be written: {error}"), next)
}
