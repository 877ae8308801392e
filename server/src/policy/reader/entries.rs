//! Finding values in the file, and complaining of those that are wrong.

use adit_program::closest::next_step;
use adit_program::configuration::{Complaint, Problem};
use adit_proto::policy::Written;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::values::Parsed;
use super::Reader;

/// A value in the file.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    pub(super) place: Place,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

/// A table in the file.
pub(super) struct Fields<'a> {
    pub(super) place: Place,
    table: &'a DeTable<'a>,
}

/// Where something is in the file.
#[derive(Clone)]
pub(super) struct Place {
    /// What it is, such as `groups.staff.mtu`.
    pub(super) thing: String,
    pub(super) line: usize,
}

impl Place {
    fn inner(&self, key: &str) -> String {
        if self.thing.is_empty() { key.to_owned() } else { format!("{}.{key}", self.thing) }
    }
}

/// The offset of each line's first byte.
pub(super) fn line_starts(text: &str) -> Vec<usize> {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect()
}

impl<'a> Reader<'a> {
    /// The whole file as a table.
    pub(super) fn root(table: &'a DeTable<'a>) -> Fields<'a> {
        Fields { place: Place { thing: String::new(), line: 1 }, table }
    }

    pub(super) fn complain(&mut self, place: &Place, complaint: Complaint) {
        let what = format!("{}:{}: {}", self.path, place.line, place.thing);
        self.problems.push((place.line, Problem::new(what, complaint.reason, complaint.next)));
    }

    /// The value, or else a problem more.
    pub(super) fn keep<T>(&mut self, place: &Place, parsed: Parsed<T>) -> Option<T> {
        parsed.map_err(|complaint| self.complain(place, complaint)).ok()
    }

    /// Complains of every key of a table that is not known.
    pub(super) fn refuse_unknown(&mut self, fields: &Fields<'a>, known: &[&str]) {
        for key in fields.table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let place = Place { thing: fields.place.inner(name), line: self.line_at(key.span().start) };
                self.complain(&place, Complaint::unfit("unknown key", next_step(name, known.iter().copied())));
            }
        }
    }

    pub(super) fn find(&self, fields: &Fields<'a>, key: &str) -> Option<Entry<'a>> {
        let (name, value) = fields.table.get_key_value(key)?;
        let place = Place { thing: fields.place.inner(key), line: self.line_at(name.span().start) };
        Some(Entry { place, value })
    }

    /// The entry as a table.
    pub(super) fn fields(&mut self, entry: &Entry<'a>) -> Option<Fields<'a>> {
        let table = entry.value.get_ref().as_table();
        if table.is_none() {
            self.complain(
                &entry.place,
                Complaint::malformed("is no table", format!("write [{}] and its keys below it", entry.place.thing)),
            );
        }
        Some(Fields { place: entry.place.clone(), table: table? })
    }

    /// What a table of the file holds, by name and in file order.
    pub(super) fn entries(&mut self, root: &Fields<'a>, key: &str) -> Vec<(&'a str, Entry<'a>)> {
        let Some(fields) = self.find(root, key).and_then(|entry| self.fields(&entry)) else { return Vec::new() };
        let mut entries: Vec<_> = fields.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let inner = entries.into_iter().map(|(name, value)| {
            let place = Place { thing: fields.place.inner(name.get_ref()), line: self.line_at(name.span().start) };
            let name: &str = name.get_ref();
            (name, Entry { place, value })
        });
        inner.collect()
    }

    /// The tables of a list of tables.
    pub(super) fn tables(&mut self, root: &Fields<'a>, key: &str) -> Vec<Fields<'a>> {
        let Some(entry) = self.find(root, key) else { return Vec::new() };
        let Some(items) = entry.value.get_ref().as_array() else {
            self.complain(
                &entry.place,
                Complaint::malformed("is no list of tables", format!("write [[{key}]] before each")),
            );
            return Vec::new();
        };
        let entry = |item: &'a Spanned<_>| {
            let place = Place { thing: key.to_owned(), line: self.line_at(item.span().start) };
            Entry { place, value: item }
        };
        let entries: Vec<_> = items.iter().map(entry).collect();
        entries.iter().filter_map(|entry| self.fields(entry)).collect()
    }

    /// The good items of a list. Each bad one is a problem, in its own line.
    pub(super) fn list<T>(&mut self, entry: &Entry<'a>, item: impl Fn(&DeValue<'_>) -> Parsed<T>) -> Vec<T> {
        let Some(items) = entry.value.get_ref().as_array() else {
            self.complain(&entry.place, Complaint::malformed("is not a list", "put it in [ and ]"));
            return Vec::new();
        };
        let mut good = Vec::with_capacity(items.len());
        for value in items.iter() {
            let place = Place { line: self.line_at(value.span().start), ..entry.place.clone() };
            good.extend(self.keep(&place, item(value.get_ref())));
        }
        good
    }

    /// As [`Self::list`], where an empty list is a problem, too.
    pub(super) fn items<T>(&mut self, entry: &Entry<'a>, item: impl Fn(&DeValue<'_>) -> Parsed<T>) -> Vec<T> {
        if entry.value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
            self.complain(&entry.place, Complaint::unfit("the list is empty", "name at least one, or remove the key"));
        }
        self.list(entry, item)
    }

    /// What a group sets, whatever reads it.
    pub(super) fn set<T>(
        &mut self,
        group: &Fields<'a>,
        key: &str,
        read: impl FnOnce(&mut Self, &Entry<'a>) -> Option<T>,
    ) -> Option<Written<T>> {
        let entry = self.find(group, key)?;
        let value = read(self, &entry)?;
        let literal = self.text.get(entry.value.span()).unwrap_or_default().to_owned();
        Some(Written { value, literal, line: entry.place.line })
    }

    /// As [`Self::set`], for a single value.
    pub(super) fn one<T>(
        &mut self,
        group: &Fields<'a>,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Parsed<T>,
    ) -> Option<Written<T>> {
        self.set(group, key, |reader, entry| reader.keep(&entry.place, read(entry.value.get_ref())))
    }

    fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }
}
