//! Configuration files: no error repeats the value of a PIN key, nor forges a line.

#![no_main]
#![allow(missing_docs)]

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use cba_agent::config::Config;
use cba_agent::config::Settings;
use cba_agent::error::Error;
use libfuzzer_sys::fuzz_target;

/// No other text looks like this. Inputs that contain it have it as their PIN.
const MARKER: &str = "QZXPINXZQ";

thread_local! {
    static FILE: RefCell<(String, File)> = RefCell::new({
        let path = std::env::temp_dir().join(format!("cba-agent-fuzz-config.{}", std::process::id()));
        (path.display().to_string(), File::create(&path).expect("a temporary file"))
    });
}

fuzz_target!(|bytes: &[u8]| {
    FILE.with_borrow_mut(|(path, file)| {
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).expect("an empty file");
        file.write_all(bytes).expect("a written file");
        let settings = Settings::gather(Some(path.as_ref()), |_| None, |_| None);
        let error = match settings.and_then(|settings| Config::resolve(&settings, false)) {
            Ok(_) => return,
            Err(error) => Error::from(error).to_string(),
        };
        let is_key_or_table =
            |text: &str| text.lines().any(|line| line.split('=').next().is_some_and(|key| key.contains(MARKER)));
        let text = String::from_utf8_lossy(bytes);
        assert!(!error.contains(MARKER) || is_key_or_table(&text), "{error}");
        assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{error:?}");
    });
});
