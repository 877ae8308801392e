//! `adit-bench`: the demo and the benchmarks of Adit.

use std::process::ExitCode;

fn main() -> ExitCode {
    adit_bench::cli::main()
}
