//! What people read about the keys: a commented file, and the table of the documentation.

use super::{Absent, Key, Keys, Kind};

impl<D> Keys<D> {
    /// A complete, commented file that begins with `heading`: every key with its meaning; those in `values` (TOML
    /// literals) are set, the others are shown with their defaults behind a `#`.
    #[must_use]
    pub fn sample(&self, heading: &str, values: &[(&str, String)]) -> String {
        let mut text = format!("# {heading}\n");
        let mut table = "";
        for key in self.rows() {
            if key.table() != table {
                table = key.table();
                text.push_str(&format!("\n[{table}]\n"));
            }
            text.push('\n');
            for line in key.meaning().lines() {
                text.push_str(&format!("# {line}\n"));
            }
            let value = values.iter().find(|(name, _)| *name == key.name).map(|(_, value)| value.as_str());
            text.push_str(&match (value, key.default()) {
                (Some(value), _) => format!("{} = {value}\n", key.leaf()),
                (None, Some(default)) => format!("# (default)\n# {} = {default}\n", key.leaf()),
                (None, None) => format!("# (no default)\n# {} = {}\n", key.leaf(), key.example),
            });
        }
        text
    }

    /// The keys as a Markdown table.
    #[must_use]
    pub fn reference(&self) -> String {
        let mut text =
            String::from("| key | values | default | applies | meaning |\n| --- | --- | --- | --- | --- |\n");
        for key in self.rows() {
            let default = match key.absent {
                Absent::Default(literal) => format!("`{literal}`"),
                Absent::Optional => "none".to_owned(),
                Absent::Refused => "must be given".to_owned(),
            };
            let meaning = key.meaning().replace('\n', " ");
            let (name, applies) = (key.name, key.applies.label());
            text.push_str(&format!("| `{name}` | {} | {default} | {applies} | {meaning} |\n", values(key)));
        }
        text
    }
}

/// Which values a key takes, in a few words.
fn values<D>(key: &Key<D>) -> String {
    match key.kind {
        Kind::Boolean => "`true`, `false`".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Name { least, most } => format!("name, {least} to {most} characters"),
        Kind::Integer { least, most } => format!("number, {least} to {most}"),
        Kind::Duration { least, most } => format!("time, `\"{least}\"` to `\"{most}\"`"),
        Kind::Network { least, most } => format!("network, /{least} to /{most}"),
        Kind::List => "list".to_owned(),
    }
}

/// A page with the part between the lines `<!-- NAME: begin -->` and `<!-- NAME: end -->` replaced; `None` if it has no
/// such lines.
#[must_use]
pub fn with_part(page: &str, name: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(&format!("<!-- {name}: begin -->\n"))?;
    let (_, after) = rest.split_once(&format!("<!-- {name}: end -->\n"))?;
    Some(format!("{before}<!-- {name}: begin -->\n{part}<!-- {name}: end -->\n{after}"))
}
