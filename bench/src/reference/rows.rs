//! What was found of goals beside a reference, as text.

use std::fmt;

use super::judge::Row;
use crate::report::table::number;

/// A line for each goal and task, with the verdict.
pub(crate) struct Rows<'a>(pub(crate) &'a [Row]);

impl fmt::Display for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.0.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
        writeln!(
            f,
            "    {:<what$}  {:<8}  {:>9}  {:>9}  {:<7}  {:>23}  {:>7}",
            "target", "task", "system", "reference", "bound", "ratio", "noise"
        )?;
        for row in self.0 {
            let shown = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), number);
            let ratio = match (row.measured, row.lowest, row.highest) {
                (Some(middle), Some(lowest), Some(highest)) => format!("{middle:.3} ({lowest:.3}–{highest:.3})"),
                _ => "unknown".to_owned(),
            };
            let noise = row.noise_percent.map_or_else(|| "unknown".to_owned(), |percent| format!("±{percent:.1} %"));
            let verdict = match row.met {
                Some(true) => "met",
                Some(false) => "missed",
                None if row.target.is_none() => "",
                None => "not decided",
            };
            let (value, reference) = (shown(row.value), shown(row.reference_value));
            let target = row.target.as_deref().unwrap_or("none");
            let note = row.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
            writeln!(
                f,
                "{}  {:<what$}  {:<8}  {value:>9}  {reference:>9}  {:<7}  {ratio:>23}  {noise:>7}  {verdict}{note}",
                row.name, row.what, row.task, target,
            )?;
        }
        Ok(())
    }
}
