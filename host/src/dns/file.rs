//! The resolver's file, `resolv.conf`.

mod put;
mod refusal;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use adit_program::random::random;
use adit_proto::dns::DnsSettings;
use serde::{Deserialize, Serialize};

use super::resolved::{is_resolveds, names_stub};
use crate::error::HostError;
use put::{put, put_link, remove};

/// First line of a file that a client of ours wrote.
const MARKER: &str = "# Written by adit while its tunnel is up; the original comes back when it ends.\n";
/// Servers the C library reads at most (`MAXNS` of resolv.h).
const MOST_SERVERS: usize = 3;

/// A file as it was before we replaced it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedFile {
    path: PathBuf,
    /// Tells our file from one of another client. Empty in journals of older versions, whose files have none.
    #[serde(default)]
    token: String,
    was: Was,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Was {
    Missing,
    Symlink { target: PathBuf },
    Regular { content: Vec<u8>, mode: u32, uid: u32, gid: u32 },
}

/// What stands in the place of our file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Our file, as it should be.
    Right,
    /// Our file with other settings.
    Outdated,
    /// Nothing, the original, or the beginning of it or of ours.
    Gone,
    /// The file of another client of ours.
    OtherClients,
    /// What another program wrote.
    Foreign,
}

impl SavedFile {
    /// Reads what is at a path now.
    pub(crate) fn read(path: &Path) -> Result<Self, HostError> {
        let was = read_was(path).map_err(|source| refusal::explain("read", path, source))?;
        let token = random().map(u64::from_be_bytes).map(|token| format!("{token:016x}"));
        let token = token.map_err(|error| refusal::explain("replace", path, io::Error::other(error)))?;
        Ok(Self { path: path.to_owned(), token, was })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the file at a path.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.path == path
    }

    /// Whether the original leads to systemd-resolved.
    pub(crate) fn leads_to_resolved(&self) -> bool {
        match &self.was {
            Was::Missing => false,
            Was::Symlink { target } => is_resolveds(target),
            Was::Regular { content, .. } => names_stub(&String::from_utf8_lossy(content)),
        }
    }

    /// What stands in our file's place, compared with what [`Self::replace`] would write.
    pub(crate) fn standing(&self, settings: &DnsSettings) -> Result<Standing, HostError> {
        let content = match self.content() {
            Ok(Some(content)) => content,
            Ok(None) => return Ok(Standing::Foreign),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Standing::Gone),
            Err(error) => return Err(refusal::explain("read", &self.path, error)),
        };
        Ok(if content == self.render(settings).as_bytes() {
            Standing::Right
        } else if content.starts_with(self.header().as_bytes()) {
            Standing::Outdated
        } else if self.is_ours(&content) {
            Standing::Gone
        } else if content.starts_with(MARKER.as_bytes()) {
            Standing::OtherClients
        } else {
            Standing::Foreign
        })
    }

    /// Writes the file that points the resolver at the tunnel's servers; the saved file's options are kept.
    pub(crate) fn replace(&self, settings: &DnsSettings) -> Result<(), HostError> {
        put(&self.path, self.render(settings).as_bytes(), 0o644, None)
            .map_err(|source| refusal::explain("write", &self.path, source))
    }

    /// Puts back what was there, unless somebody else has replaced our file since. Doing it twice is harmless.
    pub(crate) fn restore(&self) -> Result<(), HostError> {
        self.restore_if_ours().map_err(|source| refusal::explain("restore", &self.path, source))
    }

    fn restore_if_ours(&self) -> io::Result<()> {
        match self.content() {
            // Untouched, or restored before: it may be a file that nobody can write.
            Ok(Some(now)) if matches!(&self.was, Was::Regular { content, .. } if *content == now) => return Ok(()),
            Ok(Some(now)) if self.is_ours(&now) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match &self.was {
            Was::Missing => remove(&self.path),
            Was::Symlink { target } => put_link(&self.path, target),
            Was::Regular { content, mode, uid, gid } => put(&self.path, content, *mode, Some((*uid, *gid))),
        }
    }

    /// What is in the file; `None` for a link, which is never ours.
    fn content(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::symlink_metadata(&self.path)?.is_symlink() {
            true => Ok(None),
            false => fs::read(&self.path).map(Some),
        }
    }

    /// Whether a content is ours, or the beginning of ours or of the original: a process may have died while it wrote
    /// in place.
    fn is_ours(&self, now: &[u8]) -> bool {
        let header = self.header();
        let restored_in_part = matches!(&self.was, Was::Regular { content, .. } if content.starts_with(now));
        now.starts_with(header.as_bytes()) || header.as_bytes().starts_with(now) || restored_in_part
    }

    fn header(&self) -> String {
        let token = if self.token.is_empty() { String::new() } else { format!("# adit {}\n", self.token) };
        format!("{MARKER}{token}")
    }

    fn render(&self, settings: &DnsSettings) -> String {
        let mut text = self.header();
        for server in settings.servers.iter().take(MOST_SERVERS) {
            writeln!(text, "nameserver {server}").expect("writing to a string");
        }
        let search: Vec<_> = settings.search_domains().collect();
        if !search.is_empty() {
            writeln!(text, "search {}", search.join(" ")).expect("writing to a string");
        }
        let original = self.original();
        for line in String::from_utf8_lossy(&original).lines().filter(|line| line.starts_with("options ")) {
            writeln!(text, "{line}").expect("writing to a string");
        }
        text
    }

    /// What the resolver read before.
    fn original(&self) -> Vec<u8> {
        match &self.was {
            Was::Regular { content, .. } => content.clone(),
            Was::Symlink { target } => {
                let followed = self.path.parent().unwrap_or_else(|| Path::new("/")).join(target);
                fs::read(followed).unwrap_or_default()
            }
            Was::Missing => Vec::new(),
        }
    }
}

fn read_was(path: &Path) -> io::Result<Was> {
    Ok(match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Was::Missing,
        Err(error) => return Err(error),
        Ok(metadata) if metadata.is_symlink() => Was::Symlink { target: fs::read_link(path)? },
        Ok(metadata) => Was::Regular {
            content: fs::read(path)?,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        },
    })
}

#[cfg(test)]
mod tests;
