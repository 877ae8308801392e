//! What is still to be told, on the disk: one file for each record, in the order of their names.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::record::Record;

/// Most records that wait, of some 500 bytes each. Beyond that the oldest is given up.
const MOST: usize = 10_000;

/// What every name of a file ends with; a file that is being written has another name.
const EXTENSION: &str = "json";

/// Records that wait to be told.
pub(super) struct Spool {
    folder: PathBuf,
    most: usize,
    waiting: Mutex<Waiting>,
    added: Notify,
}

struct Waiting {
    /// The files that are there, oldest first.
    numbers: VecDeque<u64>,
    next: u64,
}

impl Spool {
    /// Opens a folder, and finds what waits there since before.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        Self::open_for(folder, MOST)
    }

    fn open_for(folder: &Path, most: usize) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let is_record = path.extension().is_some_and(|extension| extension == EXTENSION);
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            numbers.extend(stem.filter(|_| is_record).and_then(|stem| u64::from_str_radix(stem, 16).ok()));
        }
        numbers.sort_unstable();
        let next = numbers.last().map_or(0, |last| last.saturating_add(1));
        let waiting = Mutex::new(Waiting { numbers: numbers.into(), next });
        Ok(Self { folder: folder.to_owned(), most, waiting, added: Notify::new() })
    }

    /// Adds a record. It survives a crash of the gateway, and is not flushed for one of the host: nothing waits for it.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(super) fn push(&self, record: &Record) -> io::Result<()> {
        let number = {
            let mut waiting = self.waiting();
            waiting.next = waiting.next.saturating_add(1);
            waiting.next
        };
        let path = self.path(number);
        let unfinished = path.with_extension("part");
        fs::write(&unfinished, serde_json::to_vec(record)?)?;
        fs::rename(&unfinished, &path)?;
        let oldest = {
            let mut waiting = self.waiting();
            waiting.numbers.push_back(number);
            if waiting.numbers.len() > self.most { waiting.numbers.pop_front() } else { None }
        };
        self.added.notify_one();
        match oldest {
            Some(oldest) => fs::remove_file(self.path(oldest)),
            None => Ok(()),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting().numbers.len()
    }

    /// Waits for the oldest record that can be read. One that cannot is given up.
    pub(super) async fn oldest(&self) -> (u64, Record) {
        loop {
            let front = self.waiting().numbers.front().copied();
            let Some(number) = front else {
                self.added.notified().await;
                continue;
            };
            let read = tokio::fs::read(self.path(number)).await;
            if let Some(record) = read.ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                return (number, record);
            }
            self.remove(number).await;
        }
    }

    /// Takes out a record that was told.
    pub(super) async fn remove(&self, number: u64) {
        self.waiting().numbers.retain(|waiting| *waiting != number);
        // It may have been the oldest of too many, and is gone then.
        tokio::fs::remove_file(self.path(number)).await.ok();
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}.{EXTENSION}"))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Event;
    use super::*;

    fn record(at: u64) -> Record {
        Record { at, event: Event::GatewayBegins }
    }

    #[tokio::test]
    async fn records_come_back_in_their_order_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        for at in 1..=3 {
            spool.push(&record(at)).unwrap();
        }
        let (number, oldest) = spool.oldest().await;
        assert_eq!(oldest, record(1));
        spool.remove(number).await;
        drop(spool);
        let spool = Spool::open(folder.path()).unwrap();
        spool.push(&record(4)).unwrap();
        for at in 2..=4 {
            let (number, oldest) = spool.oldest().await;
            assert_eq!(oldest, record(at));
            spool.remove(number).await;
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn oldest_is_given_up_for_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open_for(folder.path(), 2).unwrap();
        for at in 1..=5 {
            spool.push(&record(at)).unwrap();
        }
        assert_eq!(spool.len(), 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(spool.oldest().await.1, record(4));
    }

    #[tokio::test]
    async fn broken_file_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("0000000000000001.json"), "half a rec").unwrap();
        fs::write(folder.path().join("0000000000000002.part"), "half a rec").unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        spool.push(&record(7)).unwrap();
        assert_eq!(spool.oldest().await.1, record(7));
    }
}
