//! Input files that are named by flags of commands.
//!
//! Runs in the parent.

use std::io::{self, IsTerminal as _, Read, StdinLock};
use std::path::Path;

use crate::certificate::chain::Roots;
use crate::certificate::file_format::HOLDS_A_PRIVATE_KEY;
use crate::error::{Error, Kind, Result};
use crate::files::unreadable_hint;
use crate::os::{input_file, standard_streams};
use crate::pin::is_in_background;

/// Much more than any request or bundle of roots needs.
const LIMIT: usize = 8 << 20;

/// Reads the roots in a certificate file.
///
/// # Errors
/// When it cannot be read, or contains no root.
pub(super) fn read_roots(path: &str) -> Result<Roots> {
    let (roots, has_private_key) = Roots::read(&read_file(path)?).map_err(|error| {
        let message = format!("cannot use the roots {path}: {error}");
        error.remedy(path).into_iter().fold(Error::new(Kind::Config, message), Error::hint)
    })?;
    if has_private_key {
        tracing::warn!("{path} {HOLDS_A_PRIVATE_KEY}");
    }
    Ok(roots)
}

/// Reads a file; `-` is standard input.
///
/// # Errors
/// When it cannot be read, or is too long.
pub(super) fn read_file(path: &str) -> Result<Vec<u8>> {
    if path == "-" {
        return read_stdin();
    }
    input_file::read(Path::new(path), LIMIT).map_err(|error| {
        Error::new(Kind::Config, format!("cannot read {path}: {error}")).hint(unreadable_hint(Path::new(path)))
    })
}

/// Reads all of stdin. It must not be empty: a failed command before a pipe prints nothing.
///
/// # Errors
/// When it cannot be read, is empty, or is too long.
pub(super) fn read_stdin() -> Result<Vec<u8>> {
    let bytes = read(STDIN, stdin()?)?;
    if bytes.trim_ascii().is_empty() { Err(empty_stdin(Kind::Config)) } else { Ok(bytes) }
}

pub(super) fn empty_stdin(kind: Kind) -> Error {
    Error::new(kind, "standard input (stdin) was empty")
        .hint("in a pipe, the command before `|` printed nothing: check its error")
}

/// A request's bytes, which must be UTF-8 without a byte order mark. PowerShell writes UTF-16.
///
/// # Errors
/// When another program wrote them in another encoding.
pub(super) fn plain_text(bytes: Vec<u8>) -> Result<Vec<u8>> {
    let what = match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16 text",
        [b'{', 0, ..] | [0, b'{', ..] => "it is UTF-16 text",
        [0xef, 0xbb, 0xbf, ..] => "it begins with a byte order mark (EF BB BF)",
        _ => return Ok(bytes),
    };
    let hint = "save the request as UTF-8 without a byte order mark; PowerShell's > and some editors write UTF-16";
    Err(Error::new(Kind::Invalid, format!("invalid: cannot read the request: {what}")).hint(hint))
}

/// The name of stdin in errors.
pub(super) const STDIN: &str = "standard input";

/// Opens stdin.
///
/// # Errors
/// When it is closed, or is the terminal of another job, where a read would stop this process.
pub(super) fn stdin() -> Result<StdinLock<'static>> {
    let stdin = io::stdin();
    let why = if standard_streams::was_closed(0) {
        "it is closed"
    } else if stdin.is_terminal() && is_in_background(&stdin) {
        "this process is in the background of its terminal"
    } else {
        return Ok(stdin.lock());
    };
    Err(Error::new(Kind::Config, format!("cannot read {STDIN}: {why}")).hint("redirect it: < FILE"))
}

/// Reads all of a source, under this name in errors.
///
/// # Errors
/// When it cannot be read, or is too long.
pub(super) fn read(name: &str, source: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = source.take(LIMIT as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::new(Kind::Config, format!("cannot read {name}: {error}")))?;
    if bytes.len() > LIMIT {
        return Err(Error::new(Kind::Config, format!("{name} is longer than {LIMIT} bytes")));
    }
    Ok(bytes)
}
