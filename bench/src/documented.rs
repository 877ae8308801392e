//! Keys of JSON objects, and the documents that describe them: what tests of results have in common.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The text of a document of this project.
pub(crate) fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in a document's tables of fields.
pub(crate) fn fields(document: &str) -> BTreeSet<String> {
    let (mut names, mut is_of_fields) = (BTreeSet::new(), false);
    for line in document.lines() {
        is_of_fields = line.starts_with("| field |") || (is_of_fields && line.starts_with('|'));
        if let Some((cell, _)) = line.strip_prefix("| ").filter(|_| is_of_fields).and_then(|row| row.split_once(" |")) {
            names.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    names
}

/// All keys of an object and of those in it, but what is in those that are described elsewhere.
pub(crate) fn keys(value: &Value, elsewhere: &[&str]) -> BTreeSet<String> {
    match value {
        Value::Object(object) => {
            let inner = object.iter().filter(|(key, _)| !elsewhere.contains(&key.as_str()));
            let inner = inner.flat_map(|(_, field)| keys(field, elsewhere));
            object.keys().cloned().chain(inner).collect()
        }
        Value::Array(values) => values.iter().flat_map(|value| keys(value, elsewhere)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => BTreeSet::new(),
    }
}
