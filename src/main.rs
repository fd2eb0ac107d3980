//! Parse, run, exit code; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cba_agent::run(std::env::args_os().collect()))
}
