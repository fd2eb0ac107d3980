//! Asks a person at the terminal for a PIN.
//!
//! Runs in the parent. This is not a library's prompt, since a wrong byte costs a try. The usual library prints its
//! prompt before it turns the echo off, leaves the terminal without echo after Ctrl-C, and treats input before a
//! hang-up as a whole PIN.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use zeroize::Zeroizing;

use super::PinError;
use crate::worker_protocol::PIN_LIMIT;

const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const QUIT: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// The controlling terminal, independent of standard input.
///
/// # Errors
/// When there is none, or the kernel would stop this process for using it.
pub(super) fn terminal() -> Result<File, PinError> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(PinError::Prompt)?;
    if !terminal.is_terminal() {
        return Err(PinError::Prompt(io::ErrorKind::NotFound.into()));
    }
    if is_in_background(&terminal) { Err(PinError::Background) } else { Ok(terminal) }
}

/// Whether another job has the terminal: a process that reads from it, or changes its settings, is stopped (SIGTTIN,
/// SIGTTOU). In another PID namespace this is unknown; then the kernel decides.
pub(crate) fn is_in_background(terminal: impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|foreground| foreground != getpgrp())
}

/// Asks for one line without echo. After Ctrl-C or a signal, the terminal is restored and the signal ends the process.
///
/// # Errors
/// When there is no terminal, or the input ends before the line does.
pub(super) fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, PinError> {
    let terminal = terminal()?;
    ask_at(terminal, prompt).map_err(PinError::Prompt)
}

fn ask_at(terminal: File, prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let signals = Signals::watch()?;
    let mut echo_off = EchoOff::new(terminal)?;
    echo_off.terminal.write_all(prompt.as_bytes())?;
    let line = read_line(&echo_off.terminal, &signals);
    echo_off.terminal.write_all(b"\n")?;
    drop(echo_off);
    // From here on, signals have their usual effect.
    signals.usual.store(true, Ordering::SeqCst);
    match line? {
        TypedLine::Whole(line) => Ok(line),
        TypedLine::Ended(signal) => {
            signal_hook::low_level::raise(signal)?;
            Err(io::ErrorKind::Interrupted.into())
        }
    }
}

enum TypedLine {
    Whole(Zeroizing<Vec<u8>>),
    /// A signal arrived, or its key was pressed.
    Ended(i32),
}

/// The signal handlers that prompts leave behind, so that signals still end the process. Signal dispositions belong to
/// the process, and so does this list.
static LEFT: Mutex<Vec<SigId>> = Mutex::new(Vec::new());

/// Removes the handlers of prompts, for a process that handles its signals itself from now on.
pub(crate) fn leave_signals() {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    for id in left.drain(..) {
        signal_hook::low_level::unregister(id);
    }
}

/// Blocks the signals that end a process while the terminal settings are changed.
struct Signals {
    arrived: Vec<(i32, UnixStream)>,
    pipes: Vec<SigId>,
    usual: Arc<AtomicBool>,
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.pipes.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

impl Signals {
    fn watch() -> io::Result<Self> {
        let usual = Arc::new(AtomicBool::new(false));
        let (mut arrived, mut pipes) = (Vec::new(), Vec::new());
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            let id = signal_hook::flag::register_conditional_default(signal, Arc::clone(&usual))?;
            LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            let (ours, theirs) = UnixStream::pair()?;
            pipes.push(signal_hook::low_level::pipe::register(signal, theirs)?);
            arrived.push((signal, ours));
        }
        Ok(Self { arrived, pipes, usual })
    }

    /// Waits for the terminal or a signal. Returns the signal, if one arrived.
    fn wait(&self, terminal: &File) -> io::Result<Option<i32>> {
        loop {
            let mut watched = vec![PollFd::new(terminal, PollFlags::IN)];
            watched.extend(self.arrived.iter().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
            match poll(&mut watched, None) {
                Ok(_) => {}
                // After a signal, the next iteration sees its mark.
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let hit = watched[1..].iter().position(|signal| !signal.revents().is_empty());
            return Ok(hit.map(|at| self.arrived[at].0));
        }
    }
}

/// A terminal without echo and line editing. Dropping it restores the settings.
struct EchoOff {
    terminal: File,
    before: Termios,
}

impl EchoOff {
    /// Discards earlier input: it was not meant for this question.
    fn new(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut echo_off = before.clone();
        echo_off.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        echo_off.special_codes[SpecialCodeIndex::VMIN] = 1;
        echo_off.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &echo_off)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

fn read_line(mut terminal: &File, signals: &Signals) -> io::Result<TypedLine> {
    let mut line = Zeroizing::new(Vec::with_capacity(PIN_LIMIT + 1));
    let mut byte = Zeroizing::new([0; 1]);
    loop {
        if let Some(signal) = signals.wait(terminal)? {
            return Ok(TypedLine::Ended(signal));
        }
        match terminal.read(&mut byte[..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match byte[0] {
            b'\n' | b'\r' => return Ok(TypedLine::Whole(line)),
            INTERRUPT => return Ok(TypedLine::Ended(SIGINT)),
            QUIT => return Ok(TypedLine::Ended(SIGQUIT)),
            END_OF_INPUT => return Err(io::ErrorKind::UnexpectedEof.into()),
            BACKSPACE | DELETE => remove_character(&mut line),
            KILL_LINE => line.clear(),
            other if line.len() <= PIN_LIMIT => line.push(other),
            _ => {}
        }
    }
}

/// A UTF-8 character is one byte that is not a continuation, and the continuations after it.
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
