//! Asks a person at the terminal for a PIN.
//!
//! Of its own, since a wrong byte costs a try: the library at hand prints its prompt before it turns the echo off,
//! leaves the terminal without echo at Ctrl-C, and takes what was typed before a hang-up for a whole PIN.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::PIN_LIMIT;

const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const QUIT: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// The controlling terminal, whatever standard input is.
///
/// # Errors
/// When there is none.
pub(super) fn terminal() -> io::Result<File> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    if terminal.is_terminal() { Ok(terminal) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Asks for one line without echo. Ctrl-C ends the process by its signal, the terminal as it was.
///
/// # Errors
/// When there is no terminal, or the input ends before the line does.
pub(super) fn ask(prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut quiet = Quiet::new(terminal()?)?;
    quiet.terminal.write_all(prompt.as_bytes())?;
    let line = read_line(&quiet.terminal);
    quiet.terminal.write_all(b"\n")?;
    drop(quiet);
    if line.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
        kill_process(getpid(), Signal::INT)?;
    }
    line
}

/// A terminal that echoes nothing and hands on every byte, until dropped.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    /// What was typed ahead is thrown away: it was not meant for this question.
    fn new(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

fn read_line(mut terminal: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(PIN_LIMIT + 1));
    let mut byte = Zeroizing::new([0; 1]);
    loop {
        if terminal.read(&mut byte[..])? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match byte[0] {
            b'\n' | b'\r' => return Ok(line),
            INTERRUPT | QUIT => return Err(io::ErrorKind::Interrupted.into()),
            END_OF_INPUT => return Err(io::ErrorKind::UnexpectedEof.into()),
            BACKSPACE | DELETE => remove_character(&mut line),
            KILL_LINE => line.clear(),
            other if line.len() <= PIN_LIMIT => line.push(other),
            _ => {}
        }
    }
}

/// A character of UTF-8 is one byte that is no continuation, and those behind it.
fn remove_character(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backspace_removes_one_character() {
        let mut line = "aü".as_bytes().to_vec();
        remove_character(&mut line);
        assert_eq!(line, b"a");
        remove_character(&mut line);
        remove_character(&mut line);
        assert_eq!(line, b"");
    }
}
