//! Runs the commands that hints and remedies offer, as `hints` does. These are about the host: files, directories, users,
//! packages and modules.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::access::open_to_all;
use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::fixture::{BINARY, Fixture, Run, needs_root};
use crate::hints::{commands_in, one_command, output_of, run_in_shell, succeeds};

#[test]
fn the_hint_gives_the_policy_file_back_to_root() {
    needs_root("it changes the owner of a policy");
    let fixture = Fixture::new();
    let run = crate::system_policy::run_under(&fixture, "[policy]\n", (1000, "646"), &["list"]);
    let command = one_command(&run.failed(2), "chown ");
    let script = format!("mount --bind etc /etc && {command} && exec \"$@\"");
    Run::from_output(fixture.in_mount_namespace(&script).args(["list"]).finish()).ok();
}

/// The user `daemon`.
const DAEMON: &str = "1";

#[test]
fn the_remedy_creates_directories_that_the_user_can_write() {
    needs_root("it acts as another user of the host");
    let fixture = Fixture::new();
    open_to_all(fixture.path());
    let state = fixture.file("its state");
    let doctor = |options: &[&str]| fixture.run_as(DAEMON, "", &[&["doctor"], options].concat()).stdout;
    let line =
        |report: &str, check: &str| report.lines().find(|line| line.contains(check)).unwrap_or_default().to_owned();
    // First it does not exist, then it belongs to another user.
    for what in ["absent", "other"] {
        let said = doctor(&["--state-dir", &state]);
        assert!(line(&said, " state directory ").starts_with("failed"), "{what}: {said}");
        succeeds(&fixture, &one_command(&said, "install -d -m 700 -o daemon"));
        assert!(line(&doctor(&["--state-dir", &state]), " state directory ").starts_with("ok"), "{what}");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&state, Some(0), Some(0)).unwrap();
    }
    // A directory with files of other users keeps its owner.
    fs::create_dir(fixture.file("shared")).unwrap();
    fixture.write("shared/somebodys", "");
    let said = doctor(&["--state-dir", &fixture.file("shared")]);
    succeeds(&fixture, &one_command(&said, "install -d -m 700 -o daemon"));
    assert!(line(&doctor(&["--state-dir", &fixture.file("shared/cba-agent")]), " state directory ").starts_with("ok"));
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(fixture.file("shared")).unwrap()), 0);
    // An audit log that belongs to another user.
    fs::create_dir(fixture.file("log of mine")).unwrap();
    let log = fixture.file("log of mine/audit.jsonl");
    let doctor = |log: &str| doctor(&["--state-dir", &state, "--audit-path", log]);
    fixture.write("log of mine/audit.jsonl", "");
    succeeds(&fixture, &one_command(&doctor(&log), "chown daemon"));
    assert!(line(&doctor(&log), " audit log ").starts_with("ok"), "{}", doctor(&log));
    let absent = fixture.file("another log/audit.jsonl");
    succeeds(&fixture, &one_command(&doctor(&absent), "install -d -m 750 -o daemon"));
    assert!(line(&doctor(&absent), " audit log ").starts_with("ok"), "{}", doctor(&absent));
}

#[test]
fn the_hint_creates_the_directory_of_a_socket() {
    let fixture = Fixture::new();
    let socket = fixture.file("not there/not yet/agent.sock");
    let said = fixture.run(&["serve", "--pin-source", &fixture.pin_source(), "--socket", &socket]).failed(2);
    succeeds(&fixture, &one_command(&said, "mkdir -p"));
    drop(Agent::ready(&fixture, &["--socket", &socket]));
    let pages = fixture.file("the pages");
    succeeds(&fixture, &one_command(&fixture.run(&["man", &pages]).failed(2), "mkdir -p"));
    fixture.run(&["man", &pages]).ok();
}

#[test]
fn an_allowed_user_reaches_the_socket_after_the_remedy() {
    needs_root("it acts as users and groups of the host");
    let fixture = Fixture::new();
    fs::create_dir(fixture.file("the directory")).unwrap();
    open_to_all(fixture.path());
    let socket = fixture.file("the directory/agent.sock");
    let agent = Agent::begun(&fixture, &["--socket", &socket, "--socket-group", "games"]);
    fs::set_permissions(fixture.file("the directory"), fs::Permissions::from_mode(0o700)).unwrap();
    let config = fixture.write(
        "c.toml",
        format!("[serve]\nsocket = \"{socket}\"\nsocket_group = \"games\"\nallow_users = [\"daemon\"]\n"),
    );
    // Runs `doctor` with a copy of /etc, in which `before` may change a group.
    let doctor = |before: &str| {
        let script = format!("{{ [ -d etc ] || cp -a /etc etc; }} && mount --bind etc /etc && {before} exec \"$@\"");
        Run::from_output(fixture.in_mount_namespace(&script).args(["doctor", "--config", &config]).finish()).stdout
    };
    let usermod = one_command(&doctor(""), "usermod -aG games daemon");
    let said = doctor(&format!("{usermod};"));
    let chmod = one_command(&said, "chmod o+x");
    let said = doctor(&format!("{chmod};"));
    assert!(said.contains("ok       who may ask"), "{said}");
    drop(agent);
}

#[test]
fn the_remedy_removes_a_variable_of_the_loader() {
    let mut fixture = Fixture::new();
    fixture.set("LD_BIND_NOT", "1");
    fixture.set("OPENSSL_CONF", "/dev/null");
    let said = fixture.run(&["doctor", "--pin-source", &fixture.pin_source()]).stdout;
    let command = format!("{}; cba-agent doctor --pin-source {}", one_command(&said, "unset "), fixture.pin_source());
    assert!(run_in_shell(&fixture, &command).stdout.contains("no variable changes which libraries are loaded"));
}

#[test]
fn an_audit_log_is_checked_by_the_command_that_a_message_offers() {
    let fixture = Fixture::new();
    let log = fixture.file("Jo's log");
    for _ in 0..3 {
        fixture.sign(&["--audit-path", &log]).ok();
    }
    fixture.tool("gzip", &["-k", &log]);
    let head = fixture.run(&["audit", "head", &log]).ok();
    fs::rename(format!("{log}.gz"), format!("{log}.1.gz")).unwrap();
    let said = fixture.run(&["audit", "verify", &format!("{log}.1.gz"), "--expect-head", head.trim()]).failed(2);
    assert!(succeeds(&fixture, &one_command(&said, "zcat ")).starts_with("valid: 3 records"));
    // The offered command names the damaged line.
    let log = fixture.write("a damaged log", "no record\n");
    for said in [
        fixture.run(&["audit", "head", &log]).failed(8),
        fixture.sign(&["--audit-path", &log]).stderr,
        fixture.run(&["doctor", "--audit-path", &log, "--pin-source", &fixture.pin_source()]).stdout,
    ] {
        let checked = run_in_shell(&fixture, &one_command(&said, "cba-agent audit verify"));
        assert!(checked.code == 8 && checked.stderr.contains("line 1"), "{checked:?}");
    }
    let unwritable = fixture.sign(&["--audit-path", "/proc/audit.jsonl"]).stderr;
    let shown = run_in_shell(&fixture, &one_command(&unwritable, "ls -ld"));
    assert!(shown.stdout.contains("/proc"), "{shown:?}");
}

#[test]
fn every_package_that_a_hint_offers_exists() {
    needs_root("it makes a mount namespace");
    let fixture = Fixture::new();
    let mut offered_names = 0;
    for name in ["softhsm2", "opensc", "ykcs11", "tpm2", "opencryptoki", "p11-kit", "p11-kit-client"] {
        // Hides installed modules from the program.
        let hide = "for d in /usr/lib/*/softhsm /usr/lib/softhsm /usr/lib/*/pkcs11 /usr/lib/*/opencryptoki /usr/lib/opencryptoki; do \
                    [ ! -d \"$d\" ] || mount -t tmpfs tmpfs \"$d\"; done; for f in /usr/lib/*/opensc-pkcs11.so /usr/lib/*/onepin-opensc-pkcs11.so \
                    /usr/lib/*/libykcs11.so* /usr/lib/*/libtpm2_pkcs11.so* /usr/lib/*/p11-kit-proxy.so; do \
                    [ ! -e \"$f\" ] || mount --bind /dev/null \"$f\"; done; exec \"$@\"";
        let list = ["list", "--module", name];
        let said = Run::from_output(fixture.in_mount_namespace(hide).args(list).finish()).stderr;
        for install in commands_in(&said).iter().filter(|command| command.starts_with("apt-get ")) {
            succeeds(&fixture, &format!("{install} --simulate"));
            offered_names += 1;
        }
    }
    assert!(offered_names >= 5, "{offered_names}");
}

#[test]
fn the_hint_inspects_a_module_that_the_host_cannot_load() {
    let mut fixture = Fixture::new();
    fs::create_dir(fixture.file("my lib")).unwrap();
    fixture.write("m.c", "extern int missing; int C_GetFunctionList(void) { return missing; }\n");
    fixture.tool("cc", &["-shared", "-fPIC", "-o", "my lib/m.so", "m.c"]);
    let module = fixture.file("my lib/m.so");
    fixture.use_module(Some(&module));
    let checked = run_in_shell(&fixture, &one_command(&fixture.sign(&[]).failed(3), "ldd -r"));
    assert!(output_of(&checked).contains("missing"), "{checked:?}");
}

#[test]
fn a_file_system_without_execution_is_remounted_by_the_hint() {
    needs_root("it mounts a file system");
    let fixture = Fixture::new();
    fs::create_dir(fixture.file("no exec")).unwrap();
    let script = format!(
        "set -e; d='{}'; mount -t tmpfs -o noexec,size=64m tmpfs \"$d\"; cp {} \"$d/m.so\"; \
         hint=$(\"$@\" 2>&1 | sed -n 's/^hint: .*`\\(mount .*\\)`.*/\\1/p'); eval \"$hint\"; exec \"$@\"",
        fixture.file("no exec"),
        crate::fixture::softhsm_module()
    );
    let mut command = fixture.in_mount_namespace(&script);
    command.args(["sign", "--pin-source", &fixture.pin_source()]);
    command.env("CBA_AGENT_MODULE", fixture.file("no exec/m.so"));
    Run::from_output(command.finish()).ok();
}

/// A unit with `ProtectSystem=strict`, or a container without a volume.
#[test]
fn a_read_only_file_system_is_named_with_its_mount() {
    needs_root("it mounts a file system");
    let fixture = Fixture::new();
    fs::create_dir(fixture.file("ro")).unwrap();
    let (source, inside) = (fixture.pin_source(), |name: &str| fixture.file(&format!("ro/{name}")));
    let script = "set -e; mount --bind ro ro; mount -o remount,bind,ro ro; text=$(\"$@\" 2>&1) || :; printf '%s\\n' \"$text\"; \
                  eval \"$(printf '%s' \"$text\" | sed -n 's/.*`\\(findmnt .*\\)` shows.*/\\1/p' | head -n 1)\"";
    let (state, log, socket) = (inside("state"), inside("audit.jsonl"), inside("a.sock"));
    for arguments in [
        ["sign", "--pin-source", &source, "--state-dir", &state],
        ["sign", "--pin-source", &source, "--audit-path", &log],
        ["serve", "--pin-source", &source, "--socket", &socket],
        ["doctor", "--pin-source", &source, "--state-dir", &state],
        ["doctor", "--pin-source", &source, "--audit-path", &log],
    ] {
        let shown = Run::from_output(fixture.in_mount_namespace(script).args(arguments).finish()).ok();
        assert!(shown.contains("Read-only file system"), "{arguments:?}: {shown}");
        assert!(shown.contains("ReadWritePaths=") && !shown.contains("install -d"), "{arguments:?}: {shown}");
        let mount = shown.lines().last().unwrap();
        assert!(mount.starts_with(&fixture.file("ro")) && mount.contains(" ro,"), "{arguments:?}: {shown}");
    }
}

#[test]
fn commands_that_show_the_cause_run_and_show_it() {
    needs_root("it mounts a full file system");
    let mut fixture = Fixture::new();
    let source = fixture.pin_source();
    // A full disk under the audit log.
    fs::create_dir(fixture.file("the log")).unwrap();
    let script = "set -e; mount -t tmpfs -o size=4k tmpfs 'the log'; head -c 4096 /dev/zero > 'the log/x'; \
                  hint=$(\"$@\" 2>&1 | sed -n 's/^hint: .*`\\(df -h [^`]*\\)`.*/\\1/p'); eval \"$hint\"";
    let mut command = fixture.in_mount_namespace(script);
    command.args(["sign", "--pin-source", &source]);
    command.args(["--audit-path", &fixture.file("the log/audit.jsonl")]);
    let shown = Run::from_output(command.finish()).ok();
    assert!(shown.contains("100%") && shown.contains("the log"), "{shown}");
    // A process that holds the lock of the audit log.
    let log = fixture.file("audit.jsonl");
    fixture.sign(&["--audit-path", &log]).ok();
    let lock = fs::read_dir(fixture.path()).unwrap().map(|entry| entry.unwrap().path());
    let lock = lock.into_iter().find(|path| path.display().to_string().contains("audit.jsonl.")).unwrap();
    let held = fs::File::open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let said = fixture.sign(&["--audit-path", &log, "--timeout", "2s"]).failed(1);
    let shown = run_in_shell(&fixture, &one_command(&said, "fuser -v"));
    assert!(output_of(&shown).contains(&std::process::id().to_string()), "{shown:?}");
    drop(held);
    // A module that needs a library whose file is a text.
    fixture.write("user.c", "int x(void); int C_GetFunctionList(void) { return x(); }");
    fixture.write("used.c", "int x(void) { return 1; }");
    fixture.tool("cc", &["-shared", "-fPIC", "-o", "libused.so", "used.c"]);
    fixture.tool("cc", &["-shared", "-fPIC", "-o", "user.so", "user.c", "-L.", "-l:libused.so", "-Wl,-rpath,$ORIGIN"]);
    fixture.write("libused.so", "no library");
    let module = fixture.file("user.so");
    fixture.use_module(Some(&module));
    assert!(succeeds(&fixture, &one_command(&fixture.sign(&[]).failed(3), "ls -lL")).contains("10 ")); // its ten bytes
    let unreadable = fixture.run(&["list", "--config", "/dev/zero"]).failed(2);
    assert!(succeeds(&fixture, &one_command(&unreadable, "ls -ld")).starts_with('c'));
    succeeds(&fixture, "date -u");
    succeeds(&fixture, "ulimit -n");
    assert!(succeeds(&fixture, "dpkg-query -W libp11-kit0").starts_with("libp11-kit0"));
}

#[test]
fn packages_that_doctor_offers_for_card_readers_exist() {
    let mut fixture = Fixture::new();
    fixture.use_module(Some("opensc"));
    fixture.set("PCSCLITE_CSOCK_NAME", fixture.file("none"));
    let install = one_command(&fixture.run(&["doctor"]).stdout, "apt-get install pcscd");
    succeeds(&fixture, &install.replace("&& systemctl", "--simulate && : systemctl"));
    // The errors of other commands offer `doctor`: without pcscd, a module only shows no token or returns CKR_DEVICE_ERROR.
    for (module, code) in [("opensc", 3), ("ykcs11", 6)] {
        fixture.use_module(Some(module));
        let run = run_in_shell(&fixture, &one_command(&fixture.run(&["certificate"]).failed(code), "cba-agent doctor"));
        assert!(run.stdout.contains("pcscd does not run"), "{module}: {run:?}");
    }
}

#[test]
fn a_path_that_is_not_a_module_is_refused_and_the_hint_lists_the_modules() {
    let mut fixture = Fixture::new();
    fixture.tool("mkfifo", &["pipe.so"]);
    for (path, what) in [
        (fixture.file("tokens"), "it is a directory, not a shared library"),
        (fixture.file("pipe.so"), "it is a named pipe, not a shared library"),
        ("/dev/null".into(), "it is a device, not a shared library"),
        (fixture.file("none.so"), "No such file or directory"),
        (fixture.file("cert.pem"), "it is a text, not a shared library"),
    ] {
        // Once with the option `--module`, and once with the environment variable.
        for by_option in [true, false] {
            let run = if by_option {
                fixture.use_module(Some("softhsm2"));
                fixture.run(&["list", "--module", &path])
            } else {
                fixture.use_module(Some(&path));
                fixture.run(&["list"])
            };
            let said = run.failed(3);
            assert!(said.contains(what) && !said.contains("chmod"), "{said}");
            let all: Vec<String> =
                commands_in(&said).into_iter().filter(|command| command.contains("cba-agent list")).collect();
            assert!(succeeds(&fixture, &all[0]).contains("token 'cba'"), "{all:?}");
        }
    }
    for (name, meant) in
        [("SoftHSM2", "softhsm2"), ("softhsm", "softhsm2"), ("libsofthsm2.so", "softhsm2"), ("ykcs", "ykcs11")]
    {
        let said = fixture.run(&["list", "--module", name]).failed(3);
        assert!(said.contains(&format!("hint: did you mean {meant}?")), "{said}");
    }
}

#[test]
fn no_hint_puts_a_user_into_roots_group() {
    needs_root("it acts as another user of the host");
    let fixture = Fixture::new();
    let agent = Agent::begun(&fixture, &[]);
    open_to_all(fixture.path());
    let said = fixture.run_as(DAEMON, "", &["doctor", "--socket", &agent.socket]).stdout;
    assert!(said.contains("only the group root may connect"), "{said}");
    assert!(said.contains("set socket_group in [serve]") && !said.contains("usermod"), "{said}");
}

#[test]
fn an_unreadable_configuration_of_softhsm2_is_named_with_the_group_that_may_read_it() {
    needs_root("it acts as another user of the host");
    let fixture = Fixture::new();
    open_to_all(fixture.path());
    fs::create_dir(fixture.file("etc-softhsm")).unwrap();
    fs::rename(fixture.file("softhsm2.conf"), fixture.file("etc-softhsm/softhsm2.conf")).unwrap();
    fs::set_permissions(fixture.file("etc-softhsm"), fs::Permissions::from_mode(0o750)).unwrap();
    // Owners and modes as in Debian's package, in a copy of /etc.
    let script = "cp -a /etc etc && rm -rf etc/softhsm && mv etc-softhsm etc/softhsm && chgrp -R games etc/softhsm tokens && chmod 640 etc/softhsm/* && \
                  chmod 2770 tokens && chmod -R g+rwX tokens && mount --bind etc /etc && eval \"$1\" && shift && exec \"$@\"";
    let run = |before: &str, module: &str, arguments: &[&str]| {
        let mut command = fixture.program("unshare");
        let script =
            if before.is_empty() { script } else { "mount --bind etc /etc && eval \"$1\" && shift && exec \"$@\"" };
        command.args(["--mount", "sh", "-c", script, "sh", if before.is_empty() { ":" } else { before }]);
        command.args(["setpriv", "--reuid=daemon", "--regid=daemon", "--init-groups", "--"]);
        command.arg(BINARY).args(arguments);
        command.env("HOME", "/nonexistent").env_remove("SOFTHSM2_CONF").env("CBA_AGENT_MODULE", module);
        Run::from_output(command.finish())
    };
    let said = run("", "softhsm2", &["list"]);
    let cause = "/etc/softhsm belongs to user root and group games (mode 0750)";
    assert!(output_of(&said).contains(cause), "{said:?}");
    let join = one_command(&said.stderr, "usermod -aG games daemon");
    // Without a chosen module, the program tries several modules, and this one fails. An empty variable chooses none.
    for command in ["list", "sign", "doctor"] {
        let said = run(":", "", &[command]);
        assert!(output_of(&said).contains(cause) && output_of(&said).contains(&join), "{command}: {said:?}");
    }
    assert!(run(&join, "softhsm2", &["list"]).ok().contains("token 'cba'"));
}
