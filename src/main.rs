//! The entry point: parses, runs, and returns the exit code. All other code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cba_agent::run(std::env::args_os().collect()))
}
