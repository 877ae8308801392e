//! Reading a configuration from its sources, row by row.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::{Absent, Complaint, Fault, Finding, Given, Key, Keys, Origin, Overrides};
use crate::toml_error::TomlFault;

/// A value that somebody gave for a key.
struct Entry<'a> {
    value: Value,
    literal: Cow<'a, str>,
    origin: Origin,
}

impl<D> Keys<D> {
    /// Reads the text of a file, and what is said on top of it, into `draft`. The findings are complete: first the
    /// names that are no keys, then the keys in the order of the rows. Unless one of them leaves a gap, every row was
    /// read.
    ///
    /// # Errors
    /// The text is no TOML.
    pub fn read(&self, text: &str, overrides: &Overrides, draft: &mut D) -> Result<Vec<Finding>, TomlFault> {
        let fault = |error| TomlFault::of(&error, text);
        let values = toml::from_str::<Table>(text).map_err(fault)?;
        let places = DeTable::parse(text).map_err(fault)?;
        let mut reader = Reader { keys: self, text, given: BTreeMap::new(), findings: Vec::new() };
        reader.flatten(values, places.get_ref());
        for (name, text) in &overrides.environment {
            let origin = Origin::Variable(self.find(name).map_or_else(String::new, Key::variable));
            reader.set(name, text, origin);
        }
        for (name, text) in &overrides.flags {
            reader.set(name, text, Origin::Flag);
        }
        for key in self.rows() {
            reader.read(key, draft);
        }
        Ok(reader.findings)
    }

    /// Reads one row's default into `draft`.
    ///
    /// # Errors
    /// The row refuses its own default.
    ///
    /// # Panics
    /// There is no such row, or it has no default.
    pub fn read_default(&self, name: &str, draft: &mut D) -> Result<(), Complaint> {
        let key = self.find(name).expect("the program asks for keys it has");
        let literal = key.default().expect("the program asks for defaults that rows have");
        (key.read)(&Given::new(&value_of(literal).expect("a default is TOML"), literal, key.kind), draft)
    }
}

/// The values of all sources by key, and the problems found so far.
struct Reader<'a, D: 'static> {
    keys: &'a Keys<D>,
    text: &'a str,
    given: BTreeMap<&'static str, Entry<'a>>,
    findings: Vec<Finding>,
}

impl<'a, D> Reader<'a, D> {
    /// Takes the known keys out of a file and complains of the others. `places` is the same table, with the place of
    /// each value.
    fn flatten(&mut self, values: Table, places: &DeTable<'_>) {
        for (name, value) in values {
            let place = places.get(name.as_str());
            if !self.keys.is_table(&name) {
                self.take_from_file(&name, value, place);
            } else if let Value::Table(inner) = value {
                let inner_places = place.and_then(|place| place.get_ref().as_table());
                for (leaf, value) in inner {
                    let place = inner_places.and_then(|places| places.get(leaf.as_str()));
                    self.take_from_file(&format!("{name}.{leaf}"), value, place);
                }
            } else {
                let origin = Origin::Line(self.line_of(place));
                self.findings.push(Finding { key: name, origin, fault: Fault::NotTable(value) });
            }
        }
    }

    fn take_from_file(&mut self, name: &str, value: Value, place: Option<&Spanned<DeValue<'_>>>) {
        let origin = Origin::Line(self.line_of(place));
        let written = place.and_then(|place| self.text.get(place.span()));
        let literal = written.map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed);
        self.take(name, Entry { value, literal, origin });
    }

    fn line_of(&self, place: Option<&Spanned<DeValue<'_>>>) -> usize {
        let start = place.map_or(0, |place| place.span().start);
        self.text.bytes().take(start).filter(|byte| *byte == b'\n').count().saturating_add(1)
    }

    /// Takes an override: a TOML literal, or else plain text, which for a list is split at its commas.
    fn set(&mut self, name: &str, text: &str, origin: Origin) {
        let is_list = self.keys.find(name).is_some_and(|key| key.kind == super::Kind::List);
        let value = match (value_of(text), is_list) {
            (Some(value @ Value::Array(_)), true) => value,
            (_, true) => Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()),
            (Some(value), false) => value,
            (None, false) => Value::String(text.to_owned()),
        };
        let literal = Cow::Owned(value.to_string());
        self.take(name, Entry { value, literal, origin });
    }

    fn take(&mut self, name: &str, entry: Entry<'a>) {
        if let Some(key) = self.keys.find(name) {
            self.given.insert(key.name, entry);
            return;
        }
        let fault = Fault::Unknown { closest: self.keys.closest(name), listed: self.keys.listed };
        self.findings.push(Finding { key: name.to_owned(), origin: entry.origin, fault });
    }

    /// Reads one row: the value given, else its default, else nothing.
    fn read(&mut self, key: &'static Key<D>, draft: &mut D) {
        let entry = match (self.given.remove(key.name), key.absent) {
            (Some(entry), _) => entry,
            (None, Absent::Default(literal)) => {
                let value = value_of(literal).expect("the default of a row is TOML");
                Entry { value, literal: Cow::Borrowed(literal), origin: Origin::Nowhere }
            }
            (None, Absent::Optional) => return,
            (None, Absent::Refused) => {
                let fault = Fault::Missing { example: key.example };
                self.findings.push(Finding { key: key.name.to_owned(), origin: Origin::Nowhere, fault });
                return;
            }
        };
        if let Err(complaint) = (key.read)(&Given::new(&entry.value, &entry.literal, key.kind), draft) {
            let fault = Fault::Refused(complaint);
            self.findings.push(Finding { key: key.name.to_owned(), origin: entry.origin, fault });
        }
    }
}

/// The value of a TOML literal.
fn value_of(literal: &str) -> Option<Value> {
    toml::from_str::<Table>(&format!("value = {literal}")).ok()?.remove("value")
}
