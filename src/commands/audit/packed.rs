//! Compressed logs: the program that unpacks them, and the command that checks them.
//!
//! Runs in the parent.

use std::io::Read as _;
use std::path::Path;

use crate::os::input_file;
use crate::text::shell::quoted;

/// The program that prints a compressed file and also a plain one; `None` if these bytes are not the start of a
/// compressed file.
pub(super) fn program(start: &[u8]) -> Option<&'static str> {
    let programs: [(&[u8], &str); 4] =
        [(b"\x1f\x8b", "zcat"), (b"\x28\xb5\x2f\xfd", "zstdcat"), (b"\xfd7zXZ", "xzcat"), (b"BZh", "bzcat")];
    programs.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, program)| *program)
}

/// The command that unpacks all files into one stream, oldest first, and checks it.
pub(super) fn command(files: &[&str], expected: &[&String]) -> Option<String> {
    let program = files.iter().find_map(|file| {
        let mut start = [0; 8];
        let read = input_file::open_regular(Path::new(file)).and_then(|mut file| file.read(&mut start)).ok()?;
        program(&start[..read])
    })?;
    let mut files = files.to_vec();
    files.sort_by_key(|file| age(file));
    let files: Vec<String> = files.iter().map(|file| quoted(file)).collect();
    let expected: String = expected.iter().map(|head| format!(" --expect-head {}", quoted(head))).collect();
    Some(format!("{program} -f {} | cba-agent audit verify -{expected}", files.join(" ")))
}

/// A sort key for the names of logrotate: `log.2.gz`, `log.1`, `log`; with dateext `log-20260101.gz`, `log`.
fn age(name: &str) -> i64 {
    const FIRST_DATE: i64 = 10_000_000;
    let plain = [".gz", ".xz", ".zst", ".bz2"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let number = plain.rsplit(['.', '-']).next().and_then(|part| part.parse::<i64>().ok());
    match number {
        Some(date) if date >= FIRST_DATE => date,
        Some(count) => -count,
        None => i64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_are_put_in_the_order_of_their_age() {
        for wanted in [&["l.10.gz", "l.2.gz", "l.1", "l"][..], &["l-20260101.gz", "l-20260102.gz", "l-20260103", "l"]] {
            let mut names = wanted.to_vec();
            names.reverse();
            names.sort_by_key(|name| age(name));
            assert_eq!(names, wanted);
        }
    }
}
