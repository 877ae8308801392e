//! One subject under callgrind.

use std::env;
use std::ffi::OsString;
use std::hint::black_box;
use std::io::ErrorKind;
use std::process::{Command, Output, Stdio};

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use anyhow::{Context as _, Result, bail};

use super::environment::processor_features;
use crate::micro::{self, Work};

/// The function inside of which callgrind counts, wherever the compiler puts it.
const COUNTED: &str = "*counted_round*";
/// What stands in front of the sum in callgrind's last words.
const SUM: &str = "Collected :";
/// What stands in front of the processor's features in the counted program's own.
const CPU: &str = "processor:";

/// What a round of one subject took.
pub(super) struct Counted {
    pub(super) instructions: u64,
    /// Features of the processor it ran on.
    pub(super) cpu: Vec<String>,
}

/// Counts one round of a subject in a process of its own.
pub(super) fn count(name: &str) -> Result<Counted> {
    let program = env::current_exe().context("find this program")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(program)
        .args(["instructions", "--inside", name])
        // What else stands there would move the stack, and with it the alignment of what is copied.
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")))
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => read(name, &output),
        Ok(output) => bail!("count {name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let next = "install it, on Debian by `apt-get install valgrind`";
            Err(Failure::new(Exit::Unsupported, "valgrind", "it is not installed", next).into())
        }
        Err(error) => Err(error).context("start valgrind"),
    }
}

fn read(name: &str, output: &Output) -> Result<Counted> {
    let instructions = value(&output.stderr, SUM).and_then(|sum| sum.parse().ok()).filter(|&sum: &u64| sum > 0);
    let cpu = value(&output.stdout, CPU).with_context(|| format!("{name} did not say what it ran on"))?;
    Ok(Counted {
        instructions: instructions.with_context(|| format!("callgrind did not find the round of {name}"))?,
        cpu: cpu.split_whitespace().map(str::to_owned).collect(),
    })
}

/// What stands behind `label` in some line.
fn value(text: &[u8], label: &str) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().find_map(|line| Some(line.split_once(label)?.1.trim().to_owned()))
}

/// Does one round of a subject where callgrind sees it.
pub(super) fn inside(name: &str) -> Result<()> {
    let subject = micro::catalogue().into_iter().find(|subject| subject.name() == name);
    let next = "run `adit-bench instructions` to see all names";
    let subject = subject.ok_or_else(|| Failure::new(Exit::Usage, name, "there is no such subject", next))?;
    let mut work = subject.warm();
    work.prepare();
    counted_round(&mut *work);
    output::line(&format!("{CPU} {}", processor_features().join(" ")));
    Ok(())
}

/// Never becomes part of its caller, so that callgrind can tell when it begins and ends.
#[inline(never)]
fn counted_round(work: &mut dyn Work) {
    work.run();
    // A jump as the last thing would end this function before the round.
    black_box(work);
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn said(stdout: &str, stderr: &str) -> Output {
        Output { status: ExitStatus::from_raw(0), stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn sum_and_processor_are_found_among_other_words() {
        let stderr = "==7== Events    : Ir\n==7== Collected : 659523\n==7== \n==7== I   refs:      659,523\n";
        let counted = read("checksum/64", &said("processor: aes avx2\n", stderr)).unwrap();
        assert_eq!((counted.instructions, counted.cpu), (659_523, vec!["aes".to_owned(), "avx2".to_owned()]));
    }

    #[test]
    fn round_that_was_not_seen_is_no_count() {
        for stderr in ["==7== Collected : 0\n", "==7== Collected :\n", ""] {
            assert!(read("checksum/64", &said("processor:\n", stderr)).is_err());
        }
    }

    #[test]
    fn unknown_subject_is_refused() {
        let failure: Failure = inside("checksum/nothing").unwrap_err().downcast().unwrap();
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::Usage, "checksum/nothing"));
    }
}
