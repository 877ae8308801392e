//! Results of measurements: the JSON object that is kept, and what people see of it.

mod html;
pub(crate) mod machine;
pub(crate) mod markdown;
mod markup;
pub(crate) mod metric;
pub(crate) mod model;
mod overlay;
mod plot;
pub(crate) mod save;
pub(crate) mod summary;
pub(crate) mod table;

use std::fs;
use std::path::{Path, PathBuf};

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use anyhow::Result;
use clap::Args;

use model::Report;
use overlay::Overlay;

/// What shall be shown, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// What --output of `run` or `peers` wrote; several are laid over each other.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write a page with plots that needs nothing but a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print a short table for a pull request, or write it to a file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "a flag whose value may be left out")]
    markdown: Option<Option<PathBuf>>,
}

/// Reads results and shows them: as text, unless a page or Markdown is asked for.
///
/// # Errors
/// Fails with exit code 2 where a file holds no results or is to be overwritten by what is made of it, and where a file
/// cannot be written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let outputs = || options.html.iter().chain(options.markdown.iter().flatten());
    for file in outputs() {
        spare(file, &options.files)?;
    }
    let reports = options.files.iter().map(|path| filled(path)).collect::<Result<Vec<Report>, Failure>>()?;
    let files: Vec<(&Path, &Report)> = options.files.iter().map(PathBuf::as_path).zip(&reports).collect();
    let overlay = Overlay::new(&files);
    if let Some(path) = &options.html {
        save::save(path, &html::page(&overlay))?;
    }
    match &options.markdown {
        Some(Some(path)) => save::save(path, &markdown::of(&overlay))?,
        Some(None) => output::line(markdown::of(&overlay).trim_end()),
        None if options.html.is_none() => output::line(&table::of_all(&overlay)),
        None => {}
    }
    Ok(())
}

/// The page that `report --html` makes of files, for whoever has just measured; paths name the reports.
pub(crate) fn page(reports: &[(&Path, &Report)]) -> String {
    html::page(&Overlay::new(reports))
}

/// A report in which something was measured.
fn filled(path: &Path) -> Result<Report, Failure> {
    let report = Report::read(path)?;
    if report.runs.is_empty() {
        let (name, reason) = (path.display().to_string(), "holds no run: the measurement ended before the first");
        return Err(Failure::new(Exit::Usage, name, reason, "measure again"));
    }
    Ok(report)
}

/// Refuses to write over a file that shall be read.
fn spare(output: &Path, inputs: &[PathBuf]) -> Result<(), Failure> {
    let Ok(target) = fs::canonicalize(output) else { return Ok(()) };
    if inputs.iter().any(|input| fs::canonicalize(input).is_ok_and(|input| input == target)) {
        let name = output.display().to_string();
        return Err(Failure::new(Exit::Usage, name, "is one of the files to read", "name another file to write"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::model::tests::example;
    use super::*;

    fn options(arguments: &[&Path], html: Option<PathBuf>) -> Options {
        Options { files: arguments.iter().map(|path| path.to_path_buf()).collect(), html, markdown: None }
    }

    fn failure(options: &Options) -> Failure {
        run(options).unwrap_err().downcast().unwrap()
    }

    #[test]
    fn page_is_written_beside_its_file_but_not_over_it() {
        let folder = tempfile::tempdir().unwrap();
        let [json, page] = ["base.json", "base.html"].map(|name| folder.path().join(name));
        example().write(&json).unwrap();
        run(&options(&[&json], Some(page.clone()))).unwrap();
        assert!(fs::read_to_string(page).unwrap().contains("Adit benchmark: base"));
        let failure = failure(&options(&[&json], Some(json.clone())));
        assert_eq!((failure.exit, failure.reason.as_str()), (Exit::Usage, "is one of the files to read"));
        assert_eq!(Report::read(&json).unwrap(), example());
    }

    #[test]
    fn empty_measurement_and_unwritable_page_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("empty.json");
        Report { runs: Vec::new(), ..example() }.write(&json).unwrap();
        let failed = failure(&options(&[&json], None));
        assert!(failed.what.ends_with("empty.json") && failed.reason.starts_with("holds no run"), "{failed}");
        example().write(&json).unwrap();
        let failed = failure(&options(&[&json], Some(folder.path().join("no/page.html"))));
        assert!(failed.what.ends_with("no/page.html") && failed.exit == Exit::Usage, "{failed}");
    }
}
