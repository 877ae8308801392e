//! Where the gateway's and the client's programs are.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use adit_program::exit::{Exit, Failure};

/// Environment variable that names the folder with both programs.
pub const BIN_DIR: &str = "ADIT_BIN_DIR";

const SERVER: &str = "adit-server";
const CLIENT: &str = "adit-client";

/// The programs under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The gateway, `adit-server`.
    pub server: PathBuf,
    /// The client, `adit-client`.
    pub client: PathBuf,
}

/// Finds the programs, building them first where cargo started this process; looks once per process.
///
/// They are taken from `ADIT_BIN_DIR`, else from cargo's build, else from beside this program, else from `PATH`.
///
/// # Errors
/// Fails where the build does or no folder holds both programs.
pub fn binaries() -> Result<Binaries, Failure> {
    static FOUND: OnceLock<Result<Binaries, Failure>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> Result<Binaries, Failure> {
    if let Some(folder) = env::var_os(BIN_DIR) {
        return in_folder(Path::new(&folder)).ok_or_else(|| {
            let reason = format!("{} does not hold both {SERVER} and {CLIENT}", Path::new(&folder).display());
            Failure::new(Exit::Usage, BIN_DIR, reason, format!("unset {BIN_DIR} or name the right folder"))
        });
    }
    let own =
        env::current_exe().map_err(|error| not_found(&format!("this program does not know its path: {error}")))?;
    if let Some(cargo) = env::var_os("CARGO") {
        build(&cargo, &own)?;
    }
    let folder = profile_folder(&own);
    let path = env::var_os("PATH").unwrap_or_default();
    in_folder(folder)
        .or_else(|| env::split_paths(&path).find_map(|folder| in_folder(&folder)))
        .ok_or_else(|| not_found("they are neither beside this program nor in PATH"))
}

/// The folder of cargo's profile: that of the program, or the one above where it is a test in `deps`.
fn profile_folder(own: &Path) -> &Path {
    let folder = own.parent().unwrap_or_else(|| Path::new("."));
    if is_test(own) { folder.parent().unwrap_or(folder) } else { folder }
}

/// Whether a program is a test of cargo's.
fn is_test(own: &Path) -> bool {
    own.parent().and_then(Path::file_name) == Some(OsStr::new("deps"))
}

fn in_folder(folder: &Path) -> Option<Binaries> {
    let (server, client) = (folder.join(SERVER), folder.join(CLIENT));
    (server.is_file() && client.is_file()).then_some(Binaries { server, client })
}

/// Builds both programs with the profile this program was built with; cargo shows its progress.
fn build(cargo: &OsString, own: &Path) -> Result<(), Failure> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let started = env::var("CARGO_PKG_NAME").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned());
    let mut command = Command::new(cargo);
    command.arg("build").args(what_to_build(own, &started)).arg("--manifest-path").arg(manifest);
    command.args(profile_arguments(profile_folder(own)));
    let failed = |reason: String| Failure::new(Exit::Other, "cargo build", reason, "mend the build and try again");
    let status = command.status().map_err(|error| failed(format!("could not be started: {error}")))?;
    if status.success() { Ok(()) } else { Err(failed(format!("{SERVER} and {CLIENT} did not build ({status})"))) }
}

/// The arguments with which cargo builds both programs from what it has built for this one already; with others it
/// would choose other features for some dependencies, and compile all that hang on them once more.
///
/// `started` is the package of the program that cargo started.
fn what_to_build(own: &Path, started: &str) -> Vec<String> {
    let arguments: &[&str] = if is_test(own) {
        // Cargo takes the features that tests ask for into account where examples are wanted, and we have none.
        &["--workspace", "--bins", "--examples"]
    } else {
        &["--package", SERVER, "--package", CLIENT, "--package", started, "--bins"]
    };
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

fn profile_arguments(folder: &Path) -> Vec<OsString> {
    match folder.file_name().and_then(OsStr::to_str) {
        None | Some("debug") => Vec::new(),
        Some(profile) => vec!["--profile".into(), profile.into()],
    }
}

fn not_found(reason: &str) -> Failure {
    let next = format!("set {BIN_DIR} to their folder, or run `cargo run --release -p adit-bench` in the source tree");
    Failure::new(Exit::Usage, format!("{SERVER} and {CLIENT}"), reason, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_programs_share_a_profile_folder() {
        assert_eq!(profile_folder(Path::new("/t/debug/deps/tunnel-1")), Path::new("/t/debug"));
        assert_eq!(profile_folder(Path::new("/t/release/adit-bench")), Path::new("/t/release"));
    }

    #[test]
    fn programs_are_built_with_the_features_of_what_cargo_has_built() {
        let test = what_to_build(Path::new("/t/debug/deps/tunnel-1"), "adit-lab");
        assert_eq!(test, ["--workspace", "--bins", "--examples"]);
        let program = what_to_build(Path::new("/t/release/adit-bench"), "adit-bench");
        assert!(program.contains(&"adit-bench".to_owned()) && !program.contains(&"--workspace".to_owned()));
    }

    #[test]
    fn profile_is_that_of_this_program() {
        assert!(profile_arguments(Path::new("/t/debug")).is_empty());
        assert_eq!(profile_arguments(Path::new("/t/release")), ["--profile", "release"]);
    }
}
