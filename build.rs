//! Tells the program when it was built, so that `doctor` can say that a clock is behind that. `SOURCE_DATE_EPOCH` makes
//! builds repeatable (reproducible-builds.org/specs/source-date-epoch).
//!
//! Takes the unwinder into the program, where the compiler has it as an archive: the standard library needs it for backtraces
//! alone, and a shared library is a tenth of a millisecond at each start.

use std::env::var;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let built = var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now);
    println!("cargo::rustc-env=CBA_AGENT_BUILT={built}");
    if let Some(directory) = unwinder() {
        println!("cargo::rustc-link-search=native={directory}");
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// The directory of libgcc_eh.a, for a GNU system that is this host's own.
fn unwinder() -> Option<String> {
    let is_own = var("HOST").ok()? == var("TARGET").ok()?;
    if !is_own || var("CARGO_CFG_TARGET_ENV").ok()? != "gnu" {
        return None;
    }
    let output = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output().ok()?;
    let file = String::from_utf8(output.stdout).ok()?;
    let file = Path::new(file.trim()).canonicalize().ok().filter(|file| file.is_file())?;
    file.parent()?.to_str().map(str::to_owned)
}
