//! The Adit client's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    adit_client::cli::main()
}
