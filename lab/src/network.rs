//! Bad networks by their names: those that are part of the program, and those in files.

use std::fs;
use std::path::Path;

use adit_netem::{Profile, ProfileError, Remedy, shipped};
use adit_program::closest::{closest, next_step};
use adit_program::exit::{Exit, Failure};

/// The shipped profile of that name, else the one in the file of that name.
///
/// # Errors
/// Fails with exit code 2, and names the file, the key, what is wrong and what to do.
pub fn network(name: &str) -> Result<Profile, Failure> {
    if let Some(profile) = Profile::shipped(name) {
        return Ok(profile);
    }
    let text = fs::read_to_string(name).map_err(|error| {
        let reason = format!("is no shipped profile, and no file that can be read: {error}");
        let all = || format!("name a file, or one of {}", shipped().collect::<Vec<_>>().join(", "));
        let next = closest(name, shipped()).map_or_else(all, |close| format!("did you mean `{close}`?"));
        Failure::new(Exit::Usage, name, reason, next)
    })?;
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    Profile::parse(&stem, &text).map_err(|error| wrong(name, error))
}

/// What the user of a file hears of its error.
fn wrong(file: &str, error: ProfileError) -> Failure {
    let what = error.key.map_or_else(|| file.to_owned(), |key| format!("{file}: {key}"));
    let next = match error.remedy {
        Remedy::Do(advice) => advice,
        Remedy::KeyOf { written, known } => next_step(&written, known.iter().copied()),
    };
    Failure::new(Exit::Usage, what, error.reason, next)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn file_is_named_after_itself() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("my.toml");
        fs::write(&file, "delay_ms = 5").unwrap();
        let profile = network(file.to_str().unwrap()).unwrap();
        assert_eq!((profile.name.as_str(), profile.up.delay_ms), ("my", 5.0));
    }

    #[test]
    fn faults_are_named_with_file_key_reason_and_next_step() {
        let cases = [
            ("dely_ms = 3", "bad.toml: dely_ms: is no key of a profile\n  next: did you mean `delay_ms`?"),
            ("[up]\nloss = 3", "bad.toml: [up] loss: is no key of a profile"),
            ("x = 3", "bad.toml: x: is no key of a profile\n  next: known are delay_ms, "),
            ("delay_ms = -1", "bad.toml: delay_ms: -1 is out of range\n  next: write a number from 0 to 10000"),
            ("up = 3", "bad.toml: up: 3 is no table\n  next: write [up] and its keys below"),
            ("delay_ms 3", "bad.toml: is no TOML: TOML parse error at line 1"),
        ];
        for (text, expected) in cases {
            let failure = wrong("bad.toml", Profile::parse("bad", text).unwrap_err());
            assert_eq!(failure.exit, Exit::Usage);
            assert!(!failure.next.is_empty());
            assert!(failure.to_string().starts_with(expected), "{text}: {failure}");
        }
    }

    #[test]
    fn unknown_name_is_a_usage_failure_with_a_suggestion() {
        let failure = network("trans-atlantic").unwrap_err();
        assert_eq!((failure.exit, failure.next.as_str()), (Exit::Usage, "did you mean `transatlantic`?"));
        assert!(network("/nonexistent/x.toml").unwrap_err().next.contains("clean, dsl, lte"));
    }
}
