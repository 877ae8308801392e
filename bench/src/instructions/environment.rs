//! What decides on a count besides the code that is counted.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// Under what the counts came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Environment {
    /// Architecture, system and C library this program was compiled for.
    pub(super) target: String,
    /// Processor features the compiler was allowed to use, of those that matter.
    pub(super) compiled_for: Vec<String>,
    pub(super) rustc: String,
    pub(super) valgrind: String,
    /// The C library, whose copying and filling of memory counts, too.
    pub(super) libc: String,
    /// Features of the processor that valgrind shows, of those that matter.
    pub(super) cpu: Vec<String>,
}

impl Environment {
    /// This program in this folder, and what valgrind showed it.
    pub(super) fn of_this_build(cpu: Vec<String>) -> Self {
        let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
        Self {
            target: format!("{}-{}-{libc}", std::env::consts::ARCH, std::env::consts::OS),
            compiled_for: compiled_features(),
            rustc: first_line("rustc", &["--version"]),
            valgrind: first_line("valgrind", &["--version"]),
            libc: first_line("getconf", &["GNU_LIBC_VERSION"]),
            cpu,
        }
    }

    /// Whether the ciphers, or the compiler, choose other code.
    pub(super) fn has_another_processor(&self, base: &Self) -> bool {
        (&self.target, &self.compiled_for, &self.cpu) != (&base.target, &base.compiled_for, &base.cpu)
    }

    /// What is another one than in the baseline, in words.
    pub(super) fn differences(&self, base: &Self) -> Vec<String> {
        let flags = |flags: &[String]| flags.join(" ");
        let pairs = [
            ("target", self.target.clone(), base.target.clone()),
            ("features compiled for", flags(&self.compiled_for), flags(&base.compiled_for)),
            ("compiler", self.rustc.clone(), base.rustc.clone()),
            ("valgrind", self.valgrind.clone(), base.valgrind.clone()),
            ("C library", self.libc.clone(), base.libc.clone()),
            ("processor", flags(&self.cpu), flags(&base.cpu)),
        ];
        let differing = pairs.into_iter().filter(|(_, here, there)| here != there);
        differing.map(|(what, here, there)| format!("{what}: {here} here, {there} in the baseline")).collect()
    }
}

/// What a program says of itself.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let said = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    said.lines().next().map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}

/// Asks twice for the same features; the macros that answer take literals alone.
macro_rules! features {
    ($($name:tt),*) => {
        /// Those the compiler may use.
        fn compiled_features() -> Vec<String> {
            let all = [$(($name, cfg!(target_feature = $name))),*];
            all.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name.to_owned()).collect()
        }

        /// Those the processor has that this program runs on.
        #[cfg(target_arch = "x86_64")]
        pub(super) fn processor_features() -> Vec<String> {
            let all = [$(($name, std::is_x86_feature_detected!($name))),*];
            all.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name.to_owned()).collect()
        }
    };
}

// By these, ciphers and the copying of memory choose their code.
features!(
    "adx",
    "aes",
    "avx",
    "avx2",
    "avx512bw",
    "avx512f",
    "avx512vl",
    "bmi1",
    "bmi2",
    "fma",
    "lzcnt",
    "movbe",
    "pclmulqdq",
    "popcnt",
    "sha",
    "sse2",
    "ssse3",
    "vaes",
    "vpclmulqdq"
);

/// Those the processor has that this program runs on: elsewhere the target says it all.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn processor_features() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_only_uses_what_the_processor_has() {
        let has = processor_features();
        assert!(compiled_features().iter().all(|name| has.contains(name) || cfg!(not(target_arch = "x86_64"))));
    }

    #[test]
    fn differences_are_told_in_words() {
        let here = Environment { rustc: "rustc 2".into(), ..Environment::default() };
        let base = Environment { rustc: "rustc 1".into(), ..Environment::default() };
        assert_eq!(here.differences(&base), ["compiler: rustc 2 here, rustc 1 in the baseline"]);
        assert!(!here.has_another_processor(&base));
        assert!(here.differences(&here).is_empty());
        assert!(Environment { cpu: vec!["avx2".into()], ..here }.has_another_processor(&base));
    }

    #[test]
    fn program_that_is_missing_has_no_version() {
        assert_eq!(first_line("adit-no-such-program", &[]), "unknown");
    }
}
