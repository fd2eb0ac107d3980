//! The worker's sandbox, tested by a module that attacks from inside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::agent::Agent;
use crate::deadline::{Finish as _, status, until};
use crate::fixture::{BINARY, Fixture, Run, faulty_module, needs_root, tool};
use crate::process::is_gone;

/// The attacks that every profile blocks from the module's first line on.
const NEVER: [&str; 58] = [
    "read",
    "write",
    "memory file",
    "packet",
    "ptrace",
    "process_vm_readv",
    "signal",
    "io_uring",
    "namespace",
    "dumpable",
    "process",
    "exec",
    "chmod",
    "chown",
    "lchown",
    "utime",
    "utimes",
    "futimesat",
    "fchmodat",
    "fchmodat2",
    "fchmodat2 without a path",
    "fchownat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "removexattr",
    "setxattrat",
    "removexattrat",
    "truncate",
    "open for neither",
    "truncate by opening for neither",
    "truncate by opening to read",
    "fchmod",
    "fchown",
    "futimens",
    "fsetxattr",
    "fremovexattr",
    "file attributes",
    "lease",
    "signal by a descriptor",
    "signal's number",
    "signal by a command",
    "limits",
    "affinity",
    "scheduler",
    "scheduler's parameters",
    "scheduler's attributes",
    "priority",
    "priority of I/O",
    "signal to a thread",
    "signal to a thread of a process",
    "process by descriptor",
    "kcmp",
    "ignored signal",
    "parent-death signal",
    "user",
    "user for files",
    "group",
];

/// The attacks that are also blocked after the login.
const AFTER_LOGIN: [&str; 1] = ["new code"];

/// An attacking module under the name of another one, with its targets.
fn attacker(file: &str) -> Fixture {
    faulty_as(file, "attack")
}

/// The faulty module under the name of another one, so that it runs in that sandbox.
fn faulty_as(file: &str, rules: &str) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.faulty(rules);
    let module = fixture.path().join(file);
    fs::copy(faulty_module(), &module).unwrap();
    fixture.use_module(Some(&module.display().to_string()));
    // A path that SoftHSM2's profile allows.
    fixture.set("FAULTY_LOG", fixture.file("tokens/calls"));
    let prey = fixture.path().join("prey");
    fs::create_dir(&prey).unwrap();
    for file in ["secret", "prey"] {
        fs::write(prey.join(file), "another user's").unwrap();
    }
    tool(Command::new("chown").args(["-R", "nobody"]).arg(&prey));
    fixture.set("FAULTY_PREY", prey.display().to_string());
    fixture
}

fn sign(fixture: &Fixture, more: &[&str]) -> Run {
    fixture.run(&[&["sign", "-v", "--slot", "0", "--pin-source", &fixture.pin_source()][..], more].concat())
}

/// The result of each attack, under a key such as `load: exec`.
fn attacks(run: &Run) -> BTreeMap<String, String> {
    let lines = run.stderr.lines().filter_map(|line| line.split_once("attack at "));
    let found: BTreeMap<String, String> = lines
        .filter_map(|(_, attack)| attack.rsplit_once(": "))
        .map(|(what, how)| (what.to_owned(), how.to_owned()))
        .collect();
    assert!(found.len() >= NEVER.len(), "{run:?}");
    found
}

#[track_caller]
fn forbidden(found: &BTreeMap<String, String>, what: &str) {
    let how = found.get(what).unwrap_or_else(|| panic!("{what} was not tried: {found:?}"));
    assert!(how == "EPERM" || how == "EACCES", "{what}: {how}");
}

#[test]
fn a_compromised_module_is_blocked_and_signing_continues() {
    needs_root("it acts as other users of the host");
    let fixture = attacker("libsofthsm2.so");
    let run = sign(&fixture, &[]);
    let found = attacks(&run);
    for what in NEVER.iter().chain(&["internet", "unix", "x32", "raw socket", "audit socket", "pair"]) {
        forbidden(&found, &format!("load: {what}"));
        forbidden(&found, &format!("signing: {what}"));
    }
    forbidden(&found, "signing: read in a thread");
    for what in AFTER_LOGIN {
        assert_eq!(found[&format!("load: {what}")], "done", "it may while it starts");
        forbidden(&found, &format!("signing: {what}"));
    }
    assert!(run.stderr.contains("sandbox: profile softhsm2: files (Landlock ABI "), "{run:?}");
    assert_eq!(fixture.read("prey/prey"), "another user's");
    assert!(run.ok().contains("CACertificate "));
}

#[test]
fn a_confined_module_ends_with_its_parent_despite_ignored_signals() {
    needs_root("it acts as other users of the host");
    ends_with_its_parent(&faulty_as("libsofthsm2.so", "C_Initialize=outlive;C_SignInit=outlive;C_Sign=hang"), &[]);
}

#[test]
fn a_module_without_a_sandbox_ends_with_its_parent_though_it_ignores_and_blocks_the_signal() {
    needs_root("it acts as other users of the host");
    for (file, more) in [("unknown.so", &[][..]), ("libsofthsm2.so", &["--sandbox", "off"])] {
        ends_with_its_parent(&faulty_as(file, "C_Initialize=outlive;C_SignInit=outlive;C_Sign=hang"), more);
    }
}

/// Kills `sign` while the module hangs; neither the worker nor what the module started stays.
#[track_caller]
fn ends_with_its_parent(fixture: &Fixture, more: &[&str]) {
    let source = fixture.pin_source();
    let arguments = [&["sign", "--slot", "0", "--pin-source", &source][..], more].concat();
    let mut parent = fixture.command(&arguments).spawn().unwrap();
    let calls = || fixture.read("tokens/calls");
    until(|| calls().lines().any(|call| call == "C_Sign"));
    let id = parent.id();
    let worker = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let started = calls().lines().filter_map(|line| line.strip_prefix("process ")?.parse().ok()).collect::<Vec<u32>>();
    parent.kill().unwrap();
    status(&mut parent);
    assert!(is_gone(worker.trim().parse().unwrap()));
    assert!(started.into_iter().all(is_gone));
}

#[test]
fn without_a_sandbox_every_attack_succeeds() {
    needs_root("it acts as other users of the host");
    for (file, more) in [("libsofthsm2.so", &["--sandbox", "off"][..]), ("unknown.so", &[])] {
        let fixture = attacker(file);
        let run = sign(&fixture, more);
        let found = attacks(&run);
        for what in NEVER.iter().chain(&AFTER_LOGIN).chain(&["internet", "unix"]) {
            // A process that is traced already cannot be traced again.
            for when in if *what == "ptrace" { &["load"][..] } else { &["load", "signing"] } {
                let how = found[&format!("{when}: {what}")].as_str();
                // An older kernel lacks the call, and some file systems have no such attributes.
                assert!(["done", "errno 38", "errno 95"].contains(&how), "{when}: {what}: {how}");
            }
        }
        run.ok();
    }
}

#[test]
fn each_profile_forbids_what_it_does_not_name() {
    needs_root("it acts as other users of the host");
    let local = ["libsofthsm2.so", "libkryoptic_pkcs11.so"];
    let daemons =
        ["opensc-pkcs11.so", "libykcs11.so.2", "libtpm2_pkcs11.so.1", "libopencryptoki.so", "p11-kit-client.so"];
    let network = [
        "yubihsm_pkcs11.so",
        "libcloudhsm_pkcs11.so",
        "libCryptoki2_64.so",
        "libcknfast.so",
        "libcs_pkcs11_R3.so",
        "libkmsp11.so",
        "p11-kit-proxy.so",
    ];
    let all = local.map(|file| (file, "none")).into_iter();
    let all = all.chain(daemons.map(|file| (file, "unix"))).chain(network.map(|file| (file, "internet")));
    for (file, most) in all {
        let fixture = attacker(file);
        let found = attacks(&fixture.run(&["list", "-v"]));
        for what in NEVER {
            forbidden(&found, &format!("load: {what}"));
        }
        let expected = |allowed: bool| if allowed { "done" } else { "EPERM" };
        assert_eq!(found["load: unix"], expected(most != "none"), "{file}");
        assert_eq!(found["load: internet"], expected(most == "internet"), "{file}");
    }
}

#[test]
fn a_compromised_module_gets_no_payload_from_another_agent_of_its_user() {
    needs_root("it acts as other users of the host");
    let other = Fixture::new();
    // Any configuration that does not name the user.
    let agent = Agent::ready(&other, &["--socket-group", "0"]);
    // A module that uses a daemon may make Unix sockets.
    let mut fixture = attacker("opensc-pkcs11.so");
    fixture.set("FAULTY_AGENT", &agent.socket);
    let found = attacks(&fixture.run(&["list", "-v"]));
    assert_eq!(found["load: unix"], "done");
    assert_eq!(found["load: another agent"], "HTTP/1.1 403 Forbidden");
}

#[test]
fn a_simulated_tpm_is_reachable_if_its_variable_names_it() {
    needs_root("it acts as other users of the host");
    let mut fixture = attacker("libtpm2_pkcs11.so.1");
    fixture.set("TPM2_PKCS11_TCTI", "swtpm:host=127.0.0.1,port=2321");
    assert_eq!(attacks(&fixture.run(&["list", "-v"]))["load: internet"], "done");
}

#[test]
fn doctor_custody_and_the_agent_name_a_module_without_a_sandbox() {
    let mut fixture = Fixture::new();
    let (pin, state) = (fixture.pin_source(), "--pin-source");
    let doctor = fixture.run(&["doctor", state, &pin]).stdout;
    assert!(doctor.contains("ok       sandbox          profile softhsm2: files (Landlock ABI "), "{doctor}");
    let custody = |fixture: &Fixture, more: &[&str]| -> String {
        let arguments = ["custody", state, &pin, "--format", "json"];
        fixture.run(&[&arguments[..], more].concat()).stdout
    };
    let report = custody(&fixture, &[]);
    assert!(report.contains("\"profile\": \"softhsm2\"") && report.contains("\"system_calls\": true"), "{report}");
    let off = fixture.run(&["doctor", state, &pin, "--sandbox", "off"]).stdout;
    assert!(off.contains("warning  sandbox          off"), "{off}");
    let report = custody(&fixture, &["--sandbox", "off"]);
    assert!(report.contains("\"sandbox\": null") && report.contains("runs without a sandbox"), "{report}");
    fixture.faulty("");
    let unknown = fixture.run(&["doctor", state, &pin]).stdout;
    assert!(
        unknown.contains("warning  sandbox          none: there is no sandbox profile for this module"),
        "{unknown}"
    );
}

/// A run where strace changes the first answer of the kernel's interface in each process.
fn on_another_kernel(fixture: &Fixture, inject: &str, arguments: &[&str]) -> Run {
    let mut traced = fixture.program("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=landlock_create_ruleset,seccomp", "-e"]);
    traced.arg(format!("inject={inject}")).arg(BINARY).args(arguments);
    Run::from_output(traced.finish())
}

/// The first call asks for the version of Landlock's interface.
fn landlock_abi(version: u32) -> String {
    format!("landlock_create_ruleset:retval={version}:when=1")
}

#[test]
fn an_older_landlock_confines_a_local_module_as_well() {
    needs_root("it acts as other users of the host");
    for version in [1, 3] {
        let fixture = attacker("libsofthsm2.so");
        let arguments = ["sign", "-v", "--slot", "0", "--pin-source", &fixture.pin_source()];
        let run = on_another_kernel(&fixture, &landlock_abi(version), &arguments);
        let found = attacks(&run);
        for what in NEVER.iter().chain(&["internet", "unix", "x32", "raw socket", "audit socket", "pair"]) {
            forbidden(&found, &format!("load: {what}"));
            forbidden(&found, &format!("signing: {what}"));
        }
        assert_eq!(fixture.read("prey/prey"), "another user's");
        let report = format!("sandbox: profile softhsm2: files (Landlock ABI {version}), system calls\n");
        assert!(run.stderr.contains(&report), "{run:?}");
        run.ok();
    }
}

#[test]
fn the_gaps_of_an_older_kernel_are_named() {
    needs_root("it acts as other users of the host");
    let fixture = attacker("p11-kit-proxy.so");
    let of_each_version = [
        (2, &["tcp-ports", "device-commands", "abstract-sockets", "unix-sockets"][..], "TCP ports (Linux 6.7)"),
        (4, &["device-commands", "abstract-sockets", "unix-sockets"], "commands to devices (Linux 6.10)"),
        (5, &["abstract-sockets", "unix-sockets"], "abstract Unix sockets (Linux 6.12)"),
    ];
    for (version, gaps, words) in of_each_version {
        let run = |arguments: &[&str]| on_another_kernel(&fixture, &landlock_abi(version), arguments);
        let doctor = run(&["doctor", "--pin-source", &fixture.pin_source()]);
        let start = format!(
            "warning  sandbox          profile p11-kit: files (Landlock ABI {version}), system calls; this kernel does not confine {words}"
        );
        assert!(doctor.stdout.contains(&start), "{doctor:?}");
        let custody = run(&["custody", "--pin-source", &fixture.pin_source(), "--format", "json"]).stdout;
        let report: serde_json::Value = serde_json::from_str(&custody).unwrap();
        assert_eq!(report["module"]["sandbox"]["not_confined"], serde_json::json!(gaps), "{report}");
        let rows = report["rules"].as_array().unwrap();
        let row = rows.iter().find(|row| row["rule"] == "sandbox").unwrap();
        assert_eq!(row["verdict"], "warning", "{row}");
        assert!(row["reason"].as_str().unwrap().contains(words), "{row}");
    }
}

#[test]
fn a_kernel_without_confinement_is_named() {
    let fixture = Fixture::new();
    for (inject, words) in [
        ("landlock_create_ruleset:error=ENOSYS", "files are not confined, this kernel has no Landlock, system calls"),
        (
            "landlock_create_ruleset:error=EOPNOTSUPP",
            "Landlock is not enabled in this kernel, so nothing confines files",
        ),
        // The filter of a container, such as that of systemd-nspawn.
        (
            "landlock_create_ruleset:error=EPERM",
            "files are not confined, system calls; the system call filter of this container or service forbids Landlock",
        ),
        ("seccomp:error=ENOSYS", "system calls are not filtered, this kernel has no seccomp"),
    ] {
        let run = on_another_kernel(&fixture, inject, &["doctor", "--pin-source", &fixture.pin_source()]);
        assert!(run.stdout.contains("warning  sandbox          profile softhsm2: "), "{run:?}");
        assert!(run.stdout.contains(words), "{run:?}");
        let custody = on_another_kernel(&fixture, inject, &["custody", "--pin-source", &fixture.pin_source()]).stdout;
        let custody = custody.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(custody.contains(words), "{custody}");
    }
}

#[test]
fn an_error_of_a_sandboxed_module_names_the_sandbox_option() {
    let mut fixture = Fixture::new();
    // A configuration at a path where the module looks and the loader of this process does not.
    fixture.set("SOFTHSM2_CONF", fixture.file("nowhere.conf"));
    let error = fixture.run(&["list"]).failed(6);
    assert!(error.contains("C_Initialize") && error.contains("--sandbox off"), "{error}");
}

#[test]
fn softhsms_tokens_are_found_wherever_its_configuration_says() {
    let mut fixture = Fixture::new();
    let moved = fixture.path().join("a place with spaces");
    fs::rename(fixture.path().join("tokens"), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, fixture.path().join("link")).unwrap();
    let home = fixture.path().join("home/.config/softhsm2");
    fs::create_dir_all(&home).unwrap();
    let configuration =
        |tokens: &Path| format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
    for tokens in [moved.clone(), fixture.path().join("link"), "a place with spaces".into(), "./link/".into()] {
        let named = fixture.write("softhsm2.conf", configuration(&tokens));
        fixture.set("SOFTHSM2_CONF", named);
        sign(&fixture, &[]).ok();
    }
    fs::write(home.join("softhsm2.conf"), configuration(&moved)).unwrap();
    let mut command = fixture.command(&["sign", "--slot", "0", "--pin-source", &fixture.pin_source()]);
    Run::from_output(command.env_remove("SOFTHSM2_CONF").finish()).ok();
}
