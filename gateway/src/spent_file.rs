//! The file of the spent messages, so that they survive a restart.
//!
//! Each line adds a message (`+ UNTIL CLIENT SHA256`) or removes one (`- CLIENT SHA256`). An incomplete line is
//! ignored. The file contains no messages and no signatures.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, flock};

use crate::library::{hex, parse_hex};
use crate::replay::{MessageId, SpentMessages};

/// The file is rewritten when its lines exceed twice the remembered messages by this number.
const SPARE_LINES: usize = 1024;

/// The open file.
pub(crate) struct SpentFile {
    path: PathBuf,
    file: File,
    /// Locked while the file is in use. Its path stays the same when the file is rewritten.
    _lock: File,
    lines: usize,
}

impl SpentFile {
    /// Opens or creates the file, and returns the messages in it that are still remembered at `now`.
    ///
    /// # Errors
    /// When the file cannot be read or written, or another gateway uses it.
    pub(crate) fn open(path: &Path, now: u64) -> io::Result<(Self, SpentMessages)> {
        let lock = private_options().truncate(false).create(true).open(with_suffix(path, ".lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another gateway uses it"))?;
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut spent = SpentMessages::default();
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .for_each(|line| apply_line(&mut spent, line));
        spent.drop_old(now);
        let file = write_new_file(path, &spent)?;
        Ok((Self { path: path.to_owned(), file, _lock: lock, lines: spent.count() }, spent))
    }

    /// Checks that this user may open the file. A running gateway has locked it.
    ///
    /// # Errors
    /// When `open` could not create, read or write the file.
    pub(crate) fn check(path: &Path) -> io::Result<()> {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        access(directory.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK)?;
        let rights = [("", Access::READ_OK), (".lock", Access::WRITE_OK), (".new", Access::WRITE_OK)];
        for (suffix, rights) in rights {
            match access(with_suffix(path, suffix), rights) {
                Err(error) if error != rustix::io::Errno::NOENT => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds a spent message. `all` contains the remembered messages, including this one.
    pub(crate) fn spend(&mut self, (client, message, until): (&str, &MessageId, u64), all: &SpentMessages) {
        self.append(&format!("+ {until} {client} {}\n", hex(message)), all);
    }

    /// Removes a message that may come again.
    pub(crate) fn forget(&mut self, client: &str, message: &MessageId, all: &SpentMessages) {
        self.append(&format!("- {client} {}\n", hex(message)), all);
    }

    /// Each line is one write, so that a crash cuts off at most the last line.
    fn append(&mut self, line: &str, all: &SpentMessages) {
        self.lines += 1;
        let mut written = self.file.write_all(line.as_bytes());
        if written.is_ok() && self.lines > 2 * all.count() + SPARE_LINES {
            written = write_new_file(&self.path, all).map(|file| self.file = file);
            self.lines = all.count();
        }
        if let Err(error) = written {
            tracing::error!(
                "cannot write {}: {error}; after a restart, a payload could be used a second time",
                self.path.display()
            );
        }
    }
}

impl fmt::Debug for SpentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpentFile").field(&self.path).finish()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Writes a new file and moves it into place. Returns it, open for more lines.
fn write_new_file(path: &Path, spent: &SpentMessages) -> io::Result<File> {
    let new = with_suffix(path, ".new");
    let mut file = private_options().create(true).truncate(true).open(&new)?;
    let mut text = String::new();
    for (client, message, until) in spent.iter() {
        text.push_str(&format!("+ {until} {client} {}\n", hex(message)));
    }
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)?;
    Ok(file)
}

fn apply_line(spent: &mut SpentMessages, line: &str) {
    let id = |text: &str| parse_hex(text).and_then(|bytes| MessageId::try_from(bytes).ok());
    match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["+", until, client, message] => {
            if let (Ok(until), Some(message)) = (until.parse(), id(message)) {
                spent.spend(client, message, until);
            }
        }
        ["-", client, message] => {
            if let Some(message) = id(message) {
                spent.forget(client, &message);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::ReplayError;

    #[test]
    fn a_restart_knows_what_was_spent_and_what_was_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spent");
        let (mut file, mut spent) = SpentFile::open(&path, 100).unwrap();
        for number in 0..3 {
            spent.spend("a", [number; 32], 400 + u64::from(number));
            file.spend(("a", &[number; 32], 400 + u64::from(number)), &spent);
        }
        spent.forget("a", &[1; 32]);
        file.forget("a", &[1; 32], &spent);
        assert!(SpentFile::open(&path, 100).is_err(), "two gateways share it");
        drop(file);
        // A crash cut off the last line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"+ 900 a 00").unwrap();
        let (file, mut spent) = SpentFile::open(&path, 401).unwrap();
        let mut check = |number| spent.check("a", &[number; 32], 401, 9);
        // The time of the first message is over.
        assert_eq!([check(0), check(1), check(2)], [Ok(()), Ok(()), Err(ReplayError::Used)]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        drop(file);
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spent");
        let (mut file, mut spent) = SpentFile::open(&path, 100).unwrap();
        for _ in 0..5000 {
            spent.spend("a", [7; 32], 400);
            file.spend(("a", &[7; 32], 400), &spent);
        }
        assert!(fs::read_to_string(&path).unwrap().lines().count() <= SPARE_LINES + 3);
    }
}
