//! Reports of a measurement that was really made (`report/sample.json`), as a user asks the program for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report/sample.json")
}

fn report(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adit-bench")).arg("report").args(arguments).output().unwrap()
}

/// What the program printed; it must have succeeded.
fn printed(arguments: &[&Path]) -> String {
    let output = report(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the program complained of; it must have found its arguments wrong.
fn complaint(arguments: &[&Path]) -> String {
    let output = report(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains("next: "), "{said}");
    said
}

/// Fails unless every element of a page is closed in the right order.
fn assert_balanced(page: &str) {
    let (mut open, mut rest) = (Vec::new(), page.strip_prefix("<!DOCTYPE html>").unwrap());
    while let Some((_, tagged)) = rest.split_once('<') {
        let (tag, after) = tagged.split_once('>').unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        match tag {
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "<{tag}>"),
            _ if tag.ends_with('/') => {}
            _ => open.push(name),
        }
        rest = after;
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn page_stands_alone_and_shows_every_system_and_task() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("report.html");
    assert_eq!(printed(&[&sample(), Path::new("--html"), &path]), "");
    let page = fs::read_to_string(&path).unwrap();
    assert_balanced(&page);
    for foreign in ["http://", "https://", "<script", "<link", "<img", "url(", "src="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for words in ["plain", "wireguard-go", "tcp-up", "tcp-down", "Gbit/s", "s/GB", "SHA-256"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(page.matches("<svg").count() >= 6, "rates, time lines and processor time of two tasks");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no half-written file is left");
}

#[test]
fn text_and_markdown_are_printed_or_written() {
    let folder = TempDir::new().unwrap();
    let text = printed(&[&sample()]);
    assert!(text.contains("tcp-up rate [Gbit/s]") && text.contains("× wireguard-go"), "{text}");
    let markdown = printed(&[&sample(), Path::new("--markdown")]);
    assert!(markdown.contains("| plain |") && markdown.contains("| wireguard-go |"), "{markdown}");
    let path = folder.path().join("report.md");
    let argument = format!("--markdown={}", path.display());
    assert_eq!(printed(&[&sample(), Path::new(&argument)]), "");
    assert_eq!(fs::read_to_string(path).unwrap(), markdown);
}

#[test]
fn files_are_laid_over_each_other_with_what_differs() {
    let folder = TempDir::new().unwrap();
    let other = folder.path().join("other.json");
    let json = fs::read_to_string(sample()).unwrap();
    let changed = json.replacen(r#""congestion":"cubic""#, r#""congestion":"bbr""#, 1);
    assert_ne!(json, changed);
    fs::write(&other, changed).unwrap();
    let page = folder.path().join("both.html");
    printed(&[&sample(), &other, Path::new("--html"), &page]);
    let page = fs::read_to_string(page).unwrap();
    assert_balanced(&page);
    for words in ["plain (sample)", "plain (other)", "Do not compare figures", "cubic (sample), bbr (other)"] {
        assert!(page.contains(words), "{words}");
    }
    let text = printed(&[&sample(), &other]);
    assert!(text.starts_with("Do not compare figures") && text.contains("== other =="), "{text}");
}

#[test]
fn what_is_no_report_is_named_with_a_next_step() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let cases = [
        (folder.path().join("absent.json"), "No such file"),
        (folder.path().to_owned(), "directory"),
        (file("words.json", "hello"), "is no JSON"),
        (file("future.json", r#"{"schema":"adit-bench/9"}"#), "has the schema adit-bench/9"),
        (file("load.json", r#"{"schema":"adit-bench-load/1"}"#), "has the schema adit-bench-load/1"),
    ];
    for (path, reason) in cases {
        let said = complaint(&[&path]);
        assert!(said.contains(path.to_str().unwrap()) && said.contains(reason), "{said}");
    }
    let nowhere = folder.path().join("no/report.html");
    let said = complaint(&[&sample(), Path::new("--html"), &nowhere]);
    assert!(said.contains(nowhere.to_str().unwrap()) && said.contains("cannot be written"), "{said}");
}
