//! The program `cba-gateway`. Everything is in the library: see `lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cba_gateway::run(std::env::args_os().collect()))
}
