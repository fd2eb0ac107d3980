//! Reads the bytes of a PIN, complete and limited, and identifies the state of its file.
//!
//! Runs in the parent.

use std::fs::{File, Metadata};
use std::io::{self, IsTerminal as _, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::attempt_by::FileMark;
use super::error::PinError;
use super::{Pin, text};
use crate::deadline::Deadline;
use crate::files::in_memory;
use crate::os::input_file;
use crate::text::{hex, printable};
use crate::worker_protocol::PIN_LIMIT;

/// `None` for a file that may look new after a restart: not regular, or in memory.
fn mark(path: &Path, file: &File, metadata: &Metadata) -> Option<FileMark> {
    let kind = rustix::fs::fstatfs(file).ok()?.f_type;
    if !metadata.is_file() || in_memory(kind).is_some() {
        return None;
    }
    let parts = [
        metadata.dev().to_string(),
        metadata.ino().to_string(),
        metadata.mtime().to_string(),
        metadata.mtime_nsec().to_string(),
        metadata.size().to_string(),
    ];
    let digest = Sha256::new().chain_update(path.as_os_str().as_encoded_bytes()).chain_update([0]);
    Some(FileMark(hex(&digest.chain_update(parts.join(" ")).finalize())))
}

pub(super) fn read_file(path: &Path, deadline: &Deadline) -> Result<(Pin, Option<FileMark>), PinError> {
    let shown = printable(&path.display().to_string());
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PinError::NoFile(path.to_owned()),
        _ if Errno::from_io_error(&error) == Some(Errno::NAMETOOLONG) => PinError::NoFile(path.to_owned()),
        _ => PinError::File(shown.clone(), error),
    };
    let file = input_file::open(path).map_err(failed)?;
    // Check the open file, not the path: nobody can replace it in between.
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if file.is_terminal() {
        return Err(PinError::Terminal("the file"));
    }
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Err(PinError::Device(shown));
    }
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(PinError::WorldAccessible(shown));
    }
    let mark = mark(path, &file, &metadata);
    let read = if metadata.is_file() {
        read_all(file).map_err(failed)?
    } else {
        read_line(file, "the file", deadline).map_err(|error| match error {
            PinError::TimedOut(_) => PinError::FileTimedOut(shown.clone()),
            other => other,
        })?
    };
    Ok((checked(read, "the file", Some(shown))?, mark))
}

/// Reads at most one byte more than a PIN may have, so that longer input is noticed.
pub(super) fn read_all(mut file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; PIN_LIMIT + 2]);
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads one line byte by byte, so that the rest stays in the stream.
pub(super) fn read_line(
    mut file: File,
    what: &'static str,
    deadline: &Deadline,
) -> Result<Zeroizing<Vec<u8>>, PinError> {
    let failed = |error: io::Error| PinError::Stream(what, error);
    let mut bytes = Zeroizing::new(Vec::with_capacity(PIN_LIMIT + 2));
    let mut byte = Zeroizing::new([0; 1]);
    while bytes.len() < PIN_LIMIT + 2 {
        if !input_file::wait(&file, deadline).map_err(failed)? {
            return Err(PinError::TimedOut(what));
        }
        match file.read(&mut byte[..]) {
            Ok(0) => break,
            Ok(_) => bytes.push(byte[0]),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => continue,
            Err(error) => return Err(failed(error)),
        }
        if byte[0] == b'\n' {
            break;
        }
    }
    Ok(bytes)
}

/// The PIN in the input, without one newline at its end. Bytes that no keyboard types are refused, since they would
/// cost a try. Errors name the source `from`, and show the path of a file.
pub(super) fn checked(
    mut bytes: Zeroizing<Vec<u8>>,
    from: &'static str,
    path: Option<String>,
) -> Result<Pin, PinError> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(PinError::Empty(from));
    }
    if bytes.len() > PIN_LIMIT {
        return Err(PinError::TooLong(from));
    }
    let text = text::text(&bytes).map_err(|why| PinError::BadText { from, path, why })?;
    // The capacity is exact, so that the conversion does not move the bytes.
    Ok(Pin::from(String::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_is_cut_and_control_characters_are_refused() {
        let pin = |bytes: &[u8]| checked(Zeroizing::new(bytes.to_vec()), "test", None);
        assert_eq!(pin(b"12 34\n").unwrap().expose(), "12 34");
        assert_eq!(pin("pün".as_bytes()).unwrap().expose(), "pün");
        for bad in [&b"1234\r\n"[..], b"1234\n\n", b"12\x0034", b"\n", b"", b"\xff"] {
            assert!(pin(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(pin(&[b'1'; PIN_LIMIT + 1]), Err(PinError::TooLong(_))));
    }
}
