//! `cba-gateway`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cba_gateway::run(std::env::args_os().collect()))
}
