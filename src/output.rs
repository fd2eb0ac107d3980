//! Stdout: checked before a key is used, written once.
//!
//! Runs in the parent.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};
use rustix::io::Errno;
use rustix::stdio::stdout;

use crate::error::{Error, Kind, Result};
use crate::log;
use crate::os::standard_streams;
use crate::text::{printable_json, printable_lines};

/// Checks that a result can be written, as far as this is visible in advance.
///
/// # Errors
/// When stdout is closed, or open for reading only. `/dev/null` accepts a result in every mode.
pub fn check_stdout() -> Result<()> {
    if standard_streams::was_closed(1) {
        return Err(cannot_write("stdout is closed"));
    }
    if is_null_device() {
        return Ok(());
    }
    let flags = fcntl_getfl(stdout()).map_err(|error| cannot_write(&error.to_string()))?;
    if flags & OFlags::RWMODE == OFlags::RDONLY || flags.contains(OFlags::PATH) {
        return Err(cannot_write("stdout is open for reading only"));
    }
    Ok(())
}

/// Whether stdout is `/dev/null`, by its device number in null(4). Some callers open it for reading only.
fn is_null_device() -> bool {
    fstat(stdout())
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_char_device() && found.st_rdev == makedev(1, 3))
}

fn cannot_write(why: &str) -> Error {
    Error::new(Kind::Unexpected, format!("cannot write the result: {why}"))
        .hint("redirect stdout: to a file, a pipe, or /dev/null")
}

fn failed_to_write(error: Errno) -> Error {
    let why = std::io::Error::from(error).to_string();
    if matches!(error, Errno::NOSPC | Errno::DQUOT) {
        let hint = "free space on the file system of stdout, or redirect stdout to a file on another one";
        return Error::new(Kind::Unexpected, format!("cannot write the result: {why}")).hint(hint);
    }
    cannot_write(&why)
}

/// Writes a result and a newline to stdout.
///
/// # Errors
/// When it cannot be written. A closed pipe is an error without a message.
pub fn print(text: &str) -> Result<()> {
    print_bytes(format!("{text}\n").as_bytes())
}

/// The same for a report: escapes control characters, which a token or certificate may have put into it.
pub(crate) fn print_report(text: &str) -> Result<()> {
    print(&printable_lines(text))
}

/// The same for a JSON document.
pub(crate) fn print_json(document: &str) -> Result<()> {
    print(&printable_json(document))
}

/// The same for bytes, unchanged.
pub(crate) fn print_bytes(mut bytes: &[u8]) -> Result<()> {
    check_stdout()?;
    // If both go to one terminal, the notices come first.
    log::flush();
    if is_null_device() {
        return Ok(());
    }
    // Rust's library reports success if stdout is closed, so this code does not use it.
    while !bytes.is_empty() {
        match rustix::io::write(stdout(), bytes) {
            Ok(0) => return Err(cannot_write("stdout accepts no bytes")),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Another process made this open file non-blocking.
            Err(Errno::AGAIN) => _ = poll(&mut [PollFd::from_borrowed_fd(stdout(), PollFlags::OUT)], None),
            Err(Errno::PIPE) => return Err(Error::new(Kind::Unexpected, "")),
            Err(error) => return Err(failed_to_write(error)),
        }
    }
    Ok(())
}
