//! Where a PIN must not appear: output, logs, other processes, swapped memory.

use std::fs;
use std::process::Stdio;

use crate::deadline::{Finish as _, status};
use crate::fixture::{BINARY, Fixture, Run, needs_root};
use crate::pin::MARKER;

#[test]
fn a_marker_pin_in_any_wrong_place_is_never_echoed() {
    let mut fixture = Fixture::new();
    let config = |text: String| fixture.write("c.toml", text);
    let file = config(format!("[pin]\nsource = {MARKER}\n"));
    let mut runs = vec![fixture.run(&["sign", "--config", &file])];
    for text in [
        format!("pin = \"{MARKER}\"\n"),
        format!("[pin]\nsource = \"{MARKER}\"\n"),
        format!("[pin]\nvalue = \"{MARKER}\"\n"),
        format!("[token]\nuri = \"pkcs11:token=cba?pin-value={MARKER}\"\n"),
        format!("[pin]\nsource = [\"{MARKER}\"]\n"),
    ] {
        config(text);
        runs.push(fixture.run(&["sign", "--config", &file]));
    }
    let uri = format!("pkcs11:token=cba?pin-value={MARKER}");
    let source = format!("pkcs11:token=cba?pin-source=|cat {MARKER}");
    for arguments in [
        &["sign", "--pin", MARKER][..],
        &["sign", &format!("--pin={MARKER}")],
        &["list", "--pin", MARKER],
        &["sign", "--pin-source", MARKER],
        &["sign", "--pin-source", &format!("env{MARKER}")],
        &["sign", "--pin-source", &format!("file:{MARKER}")],
        &["verify", "--pin", MARKER],
        &["sign", "--pin", "--slot", MARKER],
        &["sign", MARKER],
        &["sign", "--slot", "0", MARKER],
        &["sign", &format!("--pin{MARKER}")],
        &["sign", &format!("-p{MARKER}")],
        &["sign", "--uri", &uri],
        &["sign", "--uri", &source],
        &["sign", "--uri", MARKER],
        &["sign", "--key-id", MARKER],
        &["sign", "--slot", MARKER],
        &["sign", "--timeout", MARKER],
    ] {
        for format in ["text", "json"] {
            let mut all = arguments.to_vec();
            all.extend(["--log-format", format, "-v"]);
            runs.push(fixture.run(&all));
        }
    }
    fixture.set("CBA_AGENT_PIN_SOURCE", MARKER);
    runs.push(fixture.run(&["sign"]));
    for run in runs {
        assert_ne!(run.code, 0, "{run:?}");
        assert!([2, 4].contains(&run.code), "{run:?}");
        assert!(!run.stderr.contains(MARKER) && run.stdout.is_empty(), "{run:?}");
    }
    let error = fixture.run(&["sign", "--pin", MARKER]).failed(2);
    assert!(
        error.contains("every user of this host could read it") && error.contains("--pin-source file:PATH"),
        "{error}"
    );
}

#[test]
fn a_pin_reaches_no_log_and_no_process_but_the_worker() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let mut fixture = Fixture::new();
    // The module prints the names in its environment and waits, so that the process table can be read.
    fixture.faulty("environment;C_Sign=delay:400");
    fixture.set("MY_PIN", fixture.pin());
    let mut command = fixture.command(&["sign", "--pin-source", "env:MY_PIN", "-vv"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pin = fixture.pin();
    let parent = child.id();
    fixture.await_calls("C_Sign", 1);
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let worker = children.trim().to_owned();
    for process in [parent.to_string(), worker.clone()] {
        let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&arguments).contains(&pin));
    }
    // Root can read it although the worker is not dumpable.
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains(&pin), "the worker inherited the PIN's variable");
    let run = Run::from_output(child.finish());
    assert!(!run.stderr.contains(&pin), "{}", run.stderr);
    run.ok();
    // A prestarted worker gets its environment later, where the process table does not show it.
    sees_no_variable(&fixture, "MY_PIN");
    let _ = fs::remove_file(fixture.file("calls"));
    let file = fixture.write("config.toml", "# No socket, so that no worker is prestarted.\n");
    fixture.run(&["sign", "--pin-source", "env:MY_PIN", "--config", &file]).ok();
    sees_no_variable(&fixture, "MY_PIN");
}

/// The module's own list of its environment has the caller's variables and not this one.
#[track_caller]
fn sees_no_variable(fixture: &Fixture, name: &str) {
    assert_eq!(fixture.calls("variable SOFTHSM2_CONF"), 1);
    assert_eq!(fixture.calls(&format!("variable {name}")), 0, "the module has {name} in its environment");
}

#[test]
fn the_worker_inherits_no_descriptor_of_the_callers() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let mut fixture = Fixture::new();
    fixture.faulty("C_Initialize=delay:600");
    let mut shell = fixture.program("sh");
    shell.args(["-c", &format!("exec {BINARY} sign --pin-source fd:7 7< pin 8< pin")]);
    let child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fixture.await_calls("C_Initialize", 1);
    let parent = child.id();
    let worker = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let open: Vec<String> = fs::read_dir(format!("/proc/{}/fd", worker.trim()))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    assert!(open.iter().all(|target| !target.ends_with("/pin")), "{open:?}");
    Run::from_output(child.finish()).ok();
}

#[test]
fn the_module_does_not_see_an_overridden_pin_source() {
    needs_root("it reads the memory and descriptors of processes that hide them");
    let mut fixture = Fixture::new();
    fixture.faulty("environment;C_Initialize=delay:400");
    fixture.set("OLD_PIN", MARKER);
    fixture.set("CBA_AGENT_PIN_SOURCE", "env:OLD_PIN");
    let source = fixture.pin_source();
    let mut command = fixture.command(&["sign", "--pin-source", &source]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fixture.await_calls("C_Initialize", 1);
    let parent = child.id();
    let worker = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let environment = fs::read(format!("/proc/{}/environ", worker.trim())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains(MARKER));
    Run::from_output(child.finish()).ok();
    sees_no_variable(&fixture, "OLD_PIN");
}

#[test]
fn the_pins_buffer_is_locked_in_memory() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Sign=hang");
    let source = fixture.pin_source();
    let mut command = fixture.command(&["sign", "--pin-source", &source]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fixture.await_calls("C_Sign", 1);
    let parent = child.id();
    let worker = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    for process in [parent.to_string(), worker.trim().to_owned()] {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let locked = status.lines().find(|line| line.starts_with("VmLck")).unwrap();
        assert_ne!(locked.split_whitespace().nth(1), Some("0"), "{locked}");
    }
    child.kill().unwrap();
    status(&mut child);
}

#[test]
fn a_pin_source_without_its_kind_is_explained_and_never_shown() {
    let fixture = Fixture::new();
    for (source, said) in [
        (format!("/{MARKER}"), "write file: before a path"),
        (format!("FILE:/{MARKER}"), "write its kind in lower case"),
        (format!("Env:{MARKER}"), "write its kind in lower case"),
        (MARKER.to_owned(), "not a PIN source\n"),
    ] {
        let error = fixture.sign_with(&source).failed(2);
        assert!(error.contains(said) && !error.contains(MARKER), "{source}: {error}");
    }
}
