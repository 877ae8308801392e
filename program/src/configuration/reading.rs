//! Reading a configuration from its sources, row by row.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::{Absent, Complaint, Fault, Finding, Given, Key, Keys, Origin, Overrides};
use crate::toml_error::TomlFault;

/// A value that somebody gave for a key.
#[derive(Debug, Clone)]
struct Entry {
    value: Value,
    literal: String,
    origin: Origin,
}

/// The values that somebody gave for keys, by key; not yet looked at.
#[derive(Debug, Clone, Default)]
pub struct Values(BTreeMap<&'static str, Entry>);

impl Values {
    /// The keys that have another value in `newer`, in the order of the rows.
    pub fn differing<D>(&self, newer: &Self, keys: &Keys<D>) -> Vec<&'static Key<D>> {
        keys.rows().filter(|key| self.of(key) != newer.of(key)).collect()
    }

    /// Has a key as `newer` has it.
    pub fn take_over(&mut self, name: &'static str, newer: &Self) {
        match newer.0.get(name) {
            Some(entry) => self.0.insert(name, entry.clone()),
            None => self.0.remove(name),
        };
    }

    /// The value that counts for a key, if there is one.
    fn of<D>(&self, key: &Key<D>) -> Option<Value> {
        let given = self.0.get(key.name).map(|entry| entry.value.clone());
        given.or_else(|| key.default().and_then(value_of))
    }
}

impl<D> Keys<D> {
    /// Reads the text of a file, and what is said on top of it, into `draft`. The findings are complete: first the
    /// names that are no keys, then the keys in the order of the rows. Unless one of them leaves a gap, every row was
    /// read.
    ///
    /// # Errors
    /// The text is no TOML.
    pub fn read(&self, text: &str, overrides: &Overrides, draft: &mut D) -> Result<Vec<Finding>, TomlFault> {
        let (values, mut findings) = self.gather(text, overrides)?;
        findings.extend(self.read_values(&values, draft));
        Ok(findings)
    }

    /// The values of a file, and of what is said on top of it, and what is found of names that are no keys.
    ///
    /// # Errors
    /// The text is no TOML.
    pub fn gather(&self, text: &str, overrides: &Overrides) -> Result<(Values, Vec<Finding>), TomlFault> {
        let fault = |error| TomlFault::of(&error, text);
        let values = toml::from_str::<Table>(text).map_err(fault)?;
        let places = DeTable::parse(text).map_err(fault)?;
        let mut gathering = Gathering { keys: self, text, given: Values::default(), findings: Vec::new() };
        gathering.flatten(values, places.get_ref());
        for (name, text) in &overrides.environment {
            let origin = Origin::Variable(self.find(name).map_or_else(String::new, Key::variable));
            gathering.set(name, text, origin);
        }
        for (name, text) in &overrides.flags {
            gathering.set(name, text, Origin::Flag);
        }
        Ok((gathering.given, gathering.findings))
    }

    /// Reads every row into `draft`. The findings are complete, in the order of the rows.
    pub fn read_values(&self, values: &Values, draft: &mut D) -> Vec<Finding> {
        self.rows().filter_map(|key| read_row(key, values.0.get(key.name), draft).err()).collect()
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
struct Gathering<'a, D: 'static> {
    keys: &'a Keys<D>,
    text: &'a str,
    given: Values,
    findings: Vec<Finding>,
}

impl<D> Gathering<'_, D> {
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
        let literal = written.map_or_else(|| value.to_string(), str::to_owned);
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
        let literal = value.to_string();
        self.take(name, Entry { value, literal, origin });
    }

    fn take(&mut self, name: &str, entry: Entry) {
        if let Some(key) = self.keys.find(name) {
            self.given.0.insert(key.name, entry);
            return;
        }
        let fault = Fault::Unknown { closest: self.keys.closest(name), listed: self.keys.listed };
        self.findings.push(Finding { key: name.to_owned(), origin: entry.origin, fault });
    }
}

/// Reads one row: the value given, else its default, else nothing.
fn read_row<D>(key: &'static Key<D>, entry: Option<&Entry>, draft: &mut D) -> Result<(), Finding> {
    let (value, literal, origin) = match (entry, key.absent) {
        (Some(entry), _) => (entry.value.clone(), entry.literal.as_str(), entry.origin.clone()),
        (None, Absent::Default(literal)) => {
            (value_of(literal).expect("the default of a row is TOML"), literal, Origin::Nowhere)
        }
        (None, Absent::Optional) => return Ok(()),
        (None, Absent::Refused) => {
            let fault = Fault::Missing { example: key.example };
            return Err(Finding { key: key.name.to_owned(), origin: Origin::Nowhere, fault });
        }
    };
    (key.read)(&Given::new(&value, literal, key.kind), draft).map_err(|complaint| Finding {
        key: key.name.to_owned(),
        origin,
        fault: Fault::Refused(complaint),
    })
}

/// The value of a TOML literal.
fn value_of(literal: &str) -> Option<Value> {
    toml::from_str::<Table>(&format!("value = {literal}")).ok()?.remove("value")
}
