//! Records the build time in the program, so that `doctor` can name a clock that is behind it. `SOURCE_DATE_EPOCH`
//! makes builds reproducible (reproducible-builds.org/specs/source-date-epoch).

use std::env::var;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let built = var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now);
    println!("cargo::rustc-env=CBA_AGENT_BUILT={built}");
}
