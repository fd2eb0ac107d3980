//! Opens and reads files that users name. A pipe without a writer, or a device, cannot stop the program.
//!
//! Runs in both processes.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FsWord, fstatfs, makedev};
use rustix::io::Errno;

use crate::deadline::Deadline;

/// Flags for `OpenOptionsExt::custom_flags`. With them, opening a named pipe or a device does not wait for another program.
pub(crate) const DO_NOT_WAIT: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// The time limit for the writer of a named pipe: there may be none.
const NAMED_PIPE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for the program at the other end of a shell's pipe. It may ask a person for a passphrase.
const SHELL_PIPE_TIMEOUT: Duration = Duration::from_secs(120);

/// Opens a file of any type for reading. Read it with [`read_opened`], or call [`wait`] before each read.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(DO_NOT_WAIT).open(path)
}

/// Opens a regular file for reading.
///
/// # Errors
/// When it cannot be opened, or is not a regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    if kind.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Reads a regular file, a pipe such as a shell's `<(COMMAND)`, or `/dev/null`, to its end.
///
/// # Errors
/// When it cannot be read, is of another type, is longer than `limit` bytes, or the writer of a pipe does not end in time.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_opened(&open(path)?, limit)
}

/// [`read`] for an open file.
pub(crate) fn read_opened(file: &File, limit: usize) -> io::Result<Vec<u8>> {
    read_within(file, limit, pipe_timeout(file))
}

fn pipe_timeout(file: &File) -> Duration {
    const PIPEFS: FsWord = 0x5049_5045;
    let is_pipe_of_a_shell = fstatfs(file).is_ok_and(|system| system.f_type == PIPEFS);
    if is_pipe_of_a_shell { SHELL_PIPE_TIMEOUT } else { NAMED_PIPE_TIMEOUT }
}

fn read_within(mut file: &File, limit: usize, pipe_timeout: Duration) -> io::Result<Vec<u8>> {
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let is_null = kind.is_char_device() && metadata.rdev() == makedev(1, 3);
    if kind.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    if !kind.is_file() && !kind.is_fifo() && !is_null {
        return Err(io::Error::other("neither a regular file nor a pipe"));
    }
    let deadline = Deadline::after(pipe_timeout);
    let (mut bytes, mut part) = (Vec::new(), [0; 1 << 14]);
    loop {
        if kind.is_fifo() && !wait(file, &deadline)? {
            let message = format!("the program that writes into this pipe did not end within {pipe_timeout:?}");
            return Err(io::Error::new(ErrorKind::TimedOut, message));
        }
        match file.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes.extend_from_slice(&part[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > limit {
            return Err(io::Error::other(format!("it is longer than {limit} bytes")));
        }
    }
}

/// Waits until the file has data, or its writer has ended; false at the deadline.
pub(crate) fn wait(file: &File, deadline: &Deadline) -> io::Result<bool> {
    while let Some(left) = deadline.left() {
        let Ok(timeout) = left.try_into() else { return Ok(false) };
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn pipe_in(directory: &Path) -> std::path::PathBuf {
        let pipe = directory.join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        pipe
    }

    #[test]
    fn only_a_regular_file_is_opened_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let pipe = pipe_in(directory.path());
        let _listener = UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink("missing", path("dangling")).unwrap();
        for refused in [pipe, path("socket"), path("dangling"), path("."), "/dev/zero".into(), "/dev/null".into()] {
            assert!(open_regular(&refused).is_err(), "{}", refused.display());
        }
        fs::write(path("file"), "content").unwrap();
        assert!(open_regular(&path("file")).is_ok());
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_longer_than_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = pipe_in(directory.path());
        let error = read_within(&open(&pipe).unwrap(), 9, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, "content").unwrap()
        });
        assert_eq!(read_within(&open(&pipe).unwrap(), 9, Duration::from_secs(20)).unwrap(), b"content");
        writer.join().unwrap();
    }

    #[test]
    fn the_program_behind_a_shells_pipe_may_ask_for_a_passphrase() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(pipe_timeout(&open(&pipe_in(directory.path())).unwrap()), NAMED_PIPE_TIMEOUT);
        let (reading, _writing) = rustix::pipe::pipe().unwrap();
        let opened = open(Path::new(&format!("/proc/self/fd/{}", reading.as_raw_fd()))).unwrap();
        assert_eq!(pipe_timeout(&opened), SHELL_PIPE_TIMEOUT);
    }

    #[test]
    fn what_has_no_end_or_no_content_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "0123456789").unwrap();
        assert_eq!(read(&file, 10).unwrap().len(), 10);
        assert!(read(&file, 9).unwrap_err().to_string().contains("longer than 9 bytes"));
        assert!(read(Path::new("/dev/zero"), 9).unwrap_err().to_string().contains("neither"));
        assert_eq!(read(directory.path(), 9).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(read(Path::new("/dev/null"), 9).unwrap(), b"");
    }
}
