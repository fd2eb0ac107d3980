//! Copies of a PIN in the parent's memory: one locked buffer, and no other. Root reads /proc/PID/mem.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Stdio};

use crate::agent::{Agent, children};
use crate::deadline::status;
use crate::fixture::{Fixture, needs_root};

/// No other string in any program looks like this.
const MARKER: &str = "Zq7-marker-Xw4-of-the-memory-test-Vk2-Jp9";

/// The end of the marker: an allocator overwrites the beginning of freed memory, which would hide unwiped copies.
const END: &str = "-Vk2-Jp9";

/// A fixture whose token has the marker as its PIN.
fn marked() -> Fixture {
    let fixture = Fixture::new();
    let pin = fixture.pin();
    fixture.pkcs11_tool(&["--login", "--pin", &pin, "--change-pin", "--new-pin", MARKER]);
    fixture.write("pin", MARKER);
    fixture
}

/// A mapping that contains the marker.
#[derive(Debug)]
struct Found {
    name: String,
    /// Whether its page is locked in memory.
    locked: bool,
}

/// Every place of the marker in a process.
fn places(process: u32) -> Vec<Found> {
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let mut found = Vec::new();
    let mut read = 0;
    let is_head = |line: &&str| line.split_once('-').is_some_and(|(start, _)| u64::from_str_radix(start, 16).is_ok());
    for (at, head) in maps.lines().enumerate().filter(|(_, line)| is_head(line)) {
        let words: Vec<&str> = head.split_whitespace().collect();
        let (start, end) = words[0].split_once('-').unwrap();
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        let name = words.get(5).copied().unwrap_or_default().to_owned();
        if !words[1].starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // Page by page: the guard pages of stacks are mapped but unreadable.
        for (page, at) in bytes.chunks_mut(4096).zip((start..end).step_by(4096)) {
            read += memory.read_exact_at(page, at).map_or(0, |()| page.len());
        }
        let details = maps.lines().skip(at + 1).take_while(|line| !is_head(line));
        let locked = details.into_iter().any(|line| line.starts_with("VmFlags:") && line.contains(" lo"));
        let count = bytes.windows(END.len()).filter(|window| *window == END.as_bytes()).count();
        found.extend((0..count).map(|_| Found { name: name.clone(), locked }));
    }
    assert!(read > 1 << 20, "the memory was not read");
    found
}

/// The marker is once on a locked page, and this many times in the environment on the stack.
#[track_caller]
fn only_in_its_buffer(process: u32, in_the_environment: usize, how: &str) {
    let (environment, buffer): (Vec<Found>, Vec<Found>) =
        places(process).into_iter().partition(|found| found.name == "[stack]");
    assert_eq!(environment.len(), in_the_environment, "{how}: {environment:?}");
    assert_eq!(buffer.len(), 1, "{how}: {buffer:?}");
    assert!(buffer[0].locked, "{how}: {buffer:?}");
}

#[track_caller]
fn in_no_argument_and_no_environment_but_the_users(parent: u32) {
    for process in children(parent).into_iter().chain([parent]) {
        let has_marker = |what: &str| {
            let bytes = fs::read(format!("/proc/{process}/{what}")).unwrap();
            bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
        };
        assert!(!has_marker("cmdline"));
        assert!(process == parent || !has_marker("environ"), "a worker inherited it");
    }
}

#[test]
fn the_agent_has_the_pin_in_its_one_locked_buffer_and_nowhere_else() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let mut fixture = marked();
    fixture.set("CREDENTIALS_DIRECTORY", fixture.path().display().to_string());
    fixture.write("cba-agent-pin", MARKER);
    let file = fixture.pin_source();
    for (source, in_the_environment) in [(file.as_str(), 0), ("credential:cba-agent-pin", 0), ("env:A_PIN", 1)] {
        if in_the_environment > 0 {
            fixture.set("A_PIN", MARKER);
        }
        let agent = Agent::ready(&fixture, &["--pin-source", source, "--workers", "2"]);
        agent.payload();
        let worker = agent.workers()[0];
        agent.kill_worker(worker);
        agent.signal("-HUP");
        agent.payload();
        only_in_its_buffer(agent.id(), in_the_environment, source);
        in_no_argument_and_no_environment_but_the_users(agent.id());
    }
}

#[test]
fn the_parent_of_sign_has_the_pin_in_one_locked_buffer_too() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let mut fixture = marked();
    fixture.faulty("C_Sign=hang");
    let begin = |source: &str, input: Stdio| -> Child {
        let _ = fs::remove_file(fixture.file("calls"));
        let mut command = fixture.command(&["sign", "--pin-source", source]);
        let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        fixture.await_calls("C_Sign", 1);
        child
    };
    let file = fixture.pin_source();
    let input = File::open(fixture.path().join("pin")).unwrap();
    for (source, input) in [(file.as_str(), Stdio::null()), ("stdin", input.into())] {
        let mut child = begin(source, input);
        only_in_its_buffer(child.id(), 0, source);
        in_no_argument_and_no_environment_but_the_users(child.id());
        child.kill().unwrap();
        status(&mut child);
    }
}

#[test]
fn a_refused_pin_is_wiped_from_the_parent() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let fixture = marked();
    // The token's PIN has changed.
    fixture.pkcs11_tool(&["--login", "--pin", MARKER, "--change-pin", "--new-pin", "right-one"]);
    let mut agent = Agent::begun(&fixture, &[]);
    agent.wait_for_state("STATUS=not ready: no login is tried (pin_incorrect)");
    let found = places(agent.id());
    assert!(found.is_empty(), "{found:?}");
}
