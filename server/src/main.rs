//! The binary `adit-server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    adit_server::cli::main()
}
