//! Every command in a message, pasted into a shell in the situation of that message: it must work, and the situation must be better
//! afterwards.
//!
//! A hint is a complete command, or has its commands in backticks. `every_command_in_a_message_has_a_trial` reads the source: a command
//! without an entry in `TRIALS` fails it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::access::open_to_all;
use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::stand::{BINARY, Run, Stand, needs_root, same_environment};

/// The commands in the hints of errors and in the remedies of `doctor`.
pub(crate) fn offered(said: &str) -> Vec<String> {
    let hint = |line: &str| {
        let text = line.trim_start();
        text.strip_prefix("hint: ").or_else(|| text.strip_prefix("fix: ")).map(str::to_owned)
    };
    said.lines().filter_map(hint).flat_map(|hint| commands(&hint)).collect()
}

/// The commands of one hint.
fn commands(hint: &str) -> Vec<String> {
    if hint.contains('`') {
        return hint.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    }
    let first = hint.split(' ').next().unwrap_or_default();
    if PROGRAMS.contains(&first) && hint.contains(' ') { vec![hint.to_owned()] } else { Vec::new() }
}

/// The one command with this beginning.
#[track_caller]
pub(crate) fn one(said: &str, beginning: &str) -> String {
    let found: Vec<String> = offered(said).into_iter().filter(|command| command.starts_with(beginning)).collect();
    assert_eq!(found.len(), 1, "{beginning}: {said}");
    found.into_iter().next().unwrap()
}

/// A pasted command, in the stand's environment and with the binary in the PATH.
pub(crate) fn paste(stand: &Stand, command: &str) -> Run {
    let mut shell = Command::new("bash");
    shell.args(["-c", command]).current_dir(stand.path());
    same_environment(&mut shell, &stand.command(&[]));
    let directory = Path::new(BINARY).parent().unwrap().display().to_string();
    shell.env("PATH", format!("{directory}:{}", std::env::var("PATH").unwrap()));
    Run::from_output((&mut shell).finish())
}

/// The same; it must succeed.
#[track_caller]
fn pasted(stand: &Stand, command: &str) -> String {
    let run = paste(stand, command);
    assert_eq!(run.code, 0, "{command}: {run:?}");
    run.stdout
}

fn both(run: &Run) -> String {
    format!("{}\n{}", run.stdout, run.stderr)
}

#[test]
fn a_pin_file_that_others_can_read_is_closed_by_the_hint() {
    let stand = Stand::new();
    let path = stand.write("Jo's \"own\" pin", stand.pin());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let source = format!("file:{path}");
    for said in
        [stand.run(&["sign", "--pin-source", &source]).stderr, stand.run(&["doctor", "--pin-source", &source]).stdout]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        pasted(&stand, &one(&said, "chmod "));
        stand.run(&["sign", "--pin-source", &source]).ok();
    }
}

#[test]
fn the_hint_fixes_a_pin_file_with_control_characters() {
    let stand = Stand::new();
    let (pin, path) = (stand.pin(), stand.file("Jo's pin"));
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut with_nul = pin.clone().into_bytes();
    with_nul.push(0);
    for content in [
        format!("\u{feff}{pin}\r\n").into_bytes(),
        format!("{pin}\r\n").into_bytes(),
        [&[0xff, 0xfe][..], &wide(&format!("{pin}\r\n"))].concat(),
        with_nul,
    ] {
        stand.write("Jo's pin", &content);
        let said = stand.run(&["sign", "--pin-source", &format!("file:{path}")]).failed(4);
        pasted(&stand, &one(&said, "pin=$("));
        stand.run(&["sign", "--pin-source", &format!("file:{path}")]).ok();
    }
    // Only the owner knows the PIN in another encoding.
    stand.write("Jo's pin", b"p\xfcn");
    let said = stand.run(&["sign", "--pin-source", &format!("file:{path}")]).failed(4);
    pasted(&stand, &one(&said, "pin=$("));
    assert_eq!(stand.read("Jo's pin"), "p\u{fc}n");
}

#[test]
fn the_hint_clears_a_blown_fuse_in_the_commands_state_directory() {
    let stand = Stand::with(&["--label", "Jo's token; rm x"]);
    let (state, wrong) = (stand.file("my state"), stand.write("wrong", "wrong-pin"));
    let sign = |pin: &str| {
        stand.run(&["sign", "--module", "softhsm2", "--state-dir", &state, "--pin-source", &format!("file:{pin}")])
    };
    let blow = || {
        sign(&wrong).failed(4);
        sign(&wrong).failed(4)
    };
    let doctor = || stand.run(&["doctor", "--state-dir", &state, "--pin-source", &stand.pin_source()]).stdout;
    let said = blow();
    pasted(&stand, &one(&said, "cba-agent pin-fuse --reset"));
    sign(&stand.file("pin")).ok();
    blow();
    pasted(&stand, &one(&doctor(), "cba-agent pin-fuse --reset"));
    sign(&stand.file("pin")).ok();
    assert!(doctor().contains("ok       PIN fuse"), "{}", doctor());
}

#[test]
fn every_selector_that_a_hint_offers_selects() {
    let stand = Stand::with(&["--label", "Jo's \"first\""]);
    stand.provision(&["--label", "$HOME `id` second"]);
    let said = stand.sign(&[]).failed(3);
    let selectors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("hint: choose with ")).collect();
    assert_eq!(selectors.len(), 2, "{said}");
    for selector in selectors {
        // A name for people follows.
        let selector = selector.split("   (").next().unwrap();
        pasted(&stand, &format!("cba-agent sign --pin-source {} {selector}", stand.pin_source()));
    }
    let said = stand.sign(&["--slot", "7"]).failed(3);
    for selector in said.lines().filter_map(|line| line.strip_prefix("hint: there is ")) {
        let selector = selector.split("   (").next().unwrap();
        pasted(&stand, &format!("cba-agent sign --pin-source {} {selector}", stand.pin_source()));
    }
}

#[test]
fn commands_that_only_show_something_run_with_the_options_of_the_command_that_failed() {
    let stand = Stand::new();
    let config = stand.write("my config.toml", format!("[pin]\nsource = \"{}\"\n", stand.pin_source()));
    let source = stand.pin_source();
    for (arguments, beginning) in [
        (&["sign", "--slto", "x"][..], "cba-agent help sign"),
        (&["sign", "--slot", "x"], "cba-agent help sign"),
        (&["audit", "verify", "--expect-head", "x", "/x"], "cba-agent help audit verify"),
        (&["list", "--module", "softhsm2", "--token-label", "none"], "cba-agent list --module softhsm2"),
        (&["sign", "--config", &config, "--key-id", "77"], "cba-agent list"),
        (&["sign", "--pin-source", &source, "--key-id", "77"], "cba-agent list"),
    ] {
        let said = both(&stand.run(arguments));
        for command in offered(&said).iter().filter(|command| command.starts_with(beginning)) {
            pasted(&stand, command);
        }
        assert!(arguments.contains(&"--key-id") || said.contains(beginning), "{arguments:?}: {said}");
    }
    // Another agent is already running.
    let agent = Agent::ready(&stand, &["--socket", &stand.file("a b.sock")]);
    let said = stand.run(&["serve", "--pin-source", &source, "--socket", &agent.socket]).stderr;
    assert_eq!(pasted(&stand, &one(&said, "cba-agent health")).trim(), "ready");
    drop(agent);
    let said = stand.run(&["serve", "--pin-source", &source, "--socket-group", "no-such-group"]).stderr;
    pasted(&stand, &one(&said, "getent "));
}

#[test]
fn a_certificate_in_another_form_is_converted_by_the_remedy() {
    let stand = Stand::new();
    fs::create_dir(stand.path().join("Jo's files")).unwrap();
    let file = |name: &str| format!("Jo's files/{name}");
    stand.issue("good", "pub.pem", crate::stand::EXTENSIONS, &["-days", "9"]);
    let copy = |from: &str, to: &str| fs::copy(stand.file(from), stand.file(&file(to))).unwrap();
    copy("good.der", "good.der");
    let text = stand.tool("openssl", &["x509", "-in", "good.pem", "-text"]);
    stand.write(&file("bag.pem"), text);
    let base64: String = stand.read("good.pem").lines().filter(|line| !line.starts_with('-')).collect();
    stand.write(&file("bare.txt"), base64);
    let p7b = file("all.p7b");
    stand.tool("openssl", &["crl2pkcs7", "-nocrl", "-certfile", "good.pem", "-certfile", "ca.pem", "-out", &p7b]);
    stand.tool("openssl", &["pkcs7", "-in", &p7b, "-outform", "DER", "-out", &file("all.der")]);
    stand.write("password", "x");
    let p12 = file("own.p12");
    let own = ["-newkey", "rsa:2048", "-nodes", "-keyout", "own.key", "-subj", "/CN=own", "-out", "own.pem"];
    stand.tool("openssl", &[&["req", "-x509"][..], &own].concat());
    let export = ["-in", "own.pem", "-inkey", "own.key", "-passout", "file:password", "-out", &p12];
    stand.tool("openssl", &[&["pkcs12", "-export"][..], &export].concat());
    let doctor = |name: &str| stand.run(&["doctor", "--certificate", name]);
    let plain = doctor("good.pem").stdout;
    let utf16: Vec<u8> = stand.read("good.pem").encode_utf16().flat_map(u16::to_le_bytes).collect();
    stand.write(&file("utf16.pem"), [&[0xff, 0xfe][..], &utf16].concat());
    stand.write(&file("bom.pem"), format!("\u{feff}{}", stand.read("good.pem")));
    for name in ["good.der", "bag.pem", "bare.txt", "all.p7b", "all.der", "own.p12", "utf16.pem", "bom.pem"] {
        let _ = fs::remove_file(stand.file("leaf.pem"));
        let said = doctor(&file(name)).stdout;
        let command = offered(&said)
            .into_iter()
            .find(|command| command.ends_with("leaf.pem"))
            .unwrap_or_else(|| panic!("{said}"));
        if name == "own.p12" {
            pasted(&stand, &command.replacen("-clcerts", "-clcerts -passin file:password", 1));
            assert!(doctor("leaf.pem").stdout.contains("CN=own"));
            continue;
        }
        pasted(&stand, &command);
        assert_eq!(doctor("leaf.pem").stdout, plain, "{name}: {command}");
    }
    stand.write(&file("broken.pem"), "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    pasted(&stand, &one(&doctor(&file("broken.pem")).stdout, "openssl asn1parse"));
    let request = stand.sign(&[]).ok();
    stand.write(&file("roots.pem"), stand.read("good.pem"));
    let said = stand.run_with_input(&["verify", "--roots", &file("roots.pem")], request).stderr;
    assert!(pasted(&stand, &one(&said, "openssl crl2pkcs7")).contains("good"));
    stand.tool(
        "keytool",
        &[
            "-genkeypair",
            "-alias",
            "mykey",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
            "-dname",
            "CN=x",
            "-storetype",
            "JKS",
            "-keystore",
            &file("own.jks"),
            "-storepass",
            "secret",
            "-keypass",
            "secret",
        ],
    );
    let said = doctor(&file("own.jks")).stdout;
    let _ = fs::remove_file(stand.file("leaf.pem"));
    for command in offered(&said) {
        pasted(&stand, &format!("{command} -storepass secret"));
    }
    assert!(doctor("leaf.pem").stdout.contains("CN=x"));
}

#[test]
fn the_hint_gives_the_policy_file_back_to_root() {
    needs_root("it plays other owners of a policy");
    let stand = Stand::new();
    let run = crate::system_policy::run_under(&stand, "[policy]\n", (1000, "646"), &["list"]);
    let command = one(&run.failed(2), "chown ");
    let script = format!("mount --bind etc /etc && {command} && exec \"$@\"");
    let mut again = Command::new("unshare");
    again.args(["--mount", "sh", "-c", &script, "sh", BINARY, "list"]);
    same_environment(&mut again, &stand.command(&[]));
    Run::from_output(again.current_dir(stand.path()).finish()).ok();
}

/// A run of another user of the host.
fn as_user(stand: &Stand, arguments: &[&str]) -> Run {
    let inner = stand.command(arguments);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1", "--regid=1", "--clear-groups", "--"]).arg(BINARY).args(arguments).current_dir("/");
    same_environment(&mut command, &inner);
    command.env("HOME", "/nonexistent").env_remove("SOFTHSM2_CONF");
    Run::from_output(command.finish())
}

#[test]
fn directories_that_a_user_cannot_write_are_made_by_the_remedy() {
    needs_root("it plays another user of the host");
    let stand = Stand::new();
    open_to_all(stand.path());
    let state = stand.file("its state");
    let doctor = |options: &[&str]| as_user(&stand, &[&["doctor"], options].concat()).stdout;
    let line =
        |report: &str, check: &str| report.lines().find(|line| line.contains(check)).unwrap_or_default().to_owned();
    // First it does not exist, then it belongs to another user.
    for what in ["absent", "other"] {
        let said = doctor(&["--state-dir", &state]);
        assert!(line(&said, " state directory ").starts_with("failed"), "{what}: {said}");
        pasted(&stand, &one(&said, "install -d -m 700 -o daemon"));
        assert!(line(&doctor(&["--state-dir", &state]), " state directory ").starts_with("ok"), "{what}");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&state, Some(0), Some(0)).unwrap();
    }
    // A directory with files of other users keeps its owner.
    fs::create_dir(stand.file("shared")).unwrap();
    stand.write("shared/somebodys", "");
    let said = doctor(&["--state-dir", &stand.file("shared")]);
    pasted(&stand, &one(&said, "install -d -m 700 -o daemon"));
    assert!(line(&doctor(&["--state-dir", &stand.file("shared/cba-agent")]), " state directory ").starts_with("ok"));
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(stand.file("shared")).unwrap()), 0);
    // The log of another user, in a separate directory.
    fs::create_dir(stand.file("log of mine")).unwrap();
    let log = stand.file("log of mine/audit.jsonl");
    let doctor = |log: &str| doctor(&["--state-dir", &state, "--audit-path", log]);
    stand.write("log of mine/audit.jsonl", "");
    pasted(&stand, &one(&doctor(&log), "chown daemon"));
    assert!(line(&doctor(&log), " audit log ").starts_with("ok"), "{}", doctor(&log));
    let absent = stand.file("another log/audit.jsonl");
    pasted(&stand, &one(&doctor(&absent), "install -d -m 750 -o daemon"));
    assert!(line(&doctor(&absent), " audit log ").starts_with("ok"), "{}", doctor(&absent));
}

#[test]
fn the_directory_of_a_socket_is_made_by_the_hint() {
    let stand = Stand::new();
    let socket = stand.file("not there/not yet/agent.sock");
    let said = stand.run(&["serve", "--pin-source", &stand.pin_source(), "--socket", &socket]).failed(2);
    pasted(&stand, &one(&said, "mkdir -p"));
    drop(Agent::ready(&stand, &["--socket", &socket]));
    let pages = stand.file("the pages");
    pasted(&stand, &one(&stand.run(&["man", &pages]).failed(2), "mkdir -p"));
    stand.run(&["man", &pages]).ok();
}

#[test]
fn an_allowed_user_reaches_the_socket_after_the_remedy() {
    needs_root("it plays users and groups of the host");
    let stand = Stand::new();
    fs::create_dir(stand.file("the door")).unwrap();
    open_to_all(stand.path());
    let socket = stand.file("the door/agent.sock");
    let agent = Agent::begun(&stand, &["--socket", &socket, "--socket-group", "games"]);
    fs::set_permissions(stand.file("the door"), fs::Permissions::from_mode(0o700)).unwrap();
    let config = stand.write(
        "c.toml",
        format!("[serve]\nsocket = \"{socket}\"\nsocket_group = \"games\"\nallow_users = [\"daemon\"]\n"),
    );
    // With a separate /etc, where a group may change.
    let doctor = |before: &str| {
        let script = format!("{{ [ -d etc ] || cp -a /etc etc; }} && mount --bind etc /etc && {before} exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh", BINARY, "doctor", "--config", &config]);
        same_environment(&mut command, &stand.command(&[]));
        Run::from_output(command.current_dir(stand.path()).finish()).stdout
    };
    let group = one(&doctor(""), "usermod -aG games daemon");
    let said = doctor(&format!("{group};"));
    let door = one(&said, "chmod o+x");
    let said = doctor(&format!("{door};"));
    assert!(said.contains("ok       who may ask"), "{said}");
    drop(agent);
}

#[test]
fn a_variable_of_the_loader_is_gone_after_the_remedy() {
    let mut stand = Stand::new();
    stand.set("LD_BIND_NOT", "1");
    stand.set("OPENSSL_CONF", "/dev/null");
    let said = stand.run(&["doctor", "--pin-source", &stand.pin_source()]).stdout;
    let command = format!("{}; cba-agent doctor --pin-source {}", one(&said, "unset "), stand.pin_source());
    assert!(paste(&stand, &command).stdout.contains("nothing in it changes what is loaded"));
}

#[test]
fn an_audit_log_is_checked_by_the_command_that_a_message_offers() {
    let stand = Stand::new();
    let log = stand.file("Jo's log");
    for _ in 0..3 {
        stand.sign(&["--audit-path", &log]).ok();
    }
    stand.tool("gzip", &["-k", &log]);
    let head = stand.run(&["audit", "head", &log]).ok();
    fs::rename(format!("{log}.gz"), format!("{log}.1.gz")).unwrap();
    let said = stand.run(&["audit", "verify", &format!("{log}.1.gz"), "--expect-head", head.trim()]).failed(2);
    assert!(pasted(&stand, &one(&said, "zcat ")).starts_with("valid: 3 records"));
    // A hint names the place of the damage.
    let log = stand.write("a damaged log", "no record\n");
    for said in [
        stand.run(&["audit", "head", &log]).failed(8),
        stand.sign(&["--audit-path", &log]).stderr,
        stand.run(&["doctor", "--audit-path", &log, "--pin-source", &stand.pin_source()]).stdout,
    ] {
        let checked = paste(&stand, &one(&said, "cba-agent audit verify"));
        assert!(checked.code == 8 && checked.stderr.contains("line 1"), "{checked:?}");
    }
    let unwritable = stand.sign(&["--audit-path", "/proc/audit.jsonl"]).stderr;
    let shown = paste(&stand, &one(&unwritable, "ls -ld"));
    assert!(shown.stdout.contains("/proc"), "{shown:?}");
}

#[test]
fn a_token_is_made_ready_by_the_hints() {
    let stand = Stand::empty();
    fs::create_dir(stand.file("tokens")).unwrap();
    stand.write("softhsm2.conf", format!("directories.tokendir = {}\n", stand.file("tokens")));
    let source = format!("file:{}", stand.write("pin", "123456"));
    let sign = || stand.run(&["sign", "--pin-source", &source]).failed(3);
    // The PINs that pkcs11-tool would ask for.
    let pins = " --so-pin 12345678 --new-pin 123456";
    let said = sign();
    pasted(
        &stand,
        &format!(
            "{} --so-pin 12345678",
            offered(&said).into_iter().find(|command| command.contains("--init-token")).unwrap()
        ),
    );
    let said = stand.run(&["sign", "--pin-source", &source]).failed(4);
    assert!(said.contains("no user PIN was ever set"), "{said}");
    let from_doctor = stand.run(&["doctor", "--pin-source", &source]).stdout;
    assert_eq!(one(&said, "pkcs11-tool "), one(&from_doctor, "pkcs11-tool "));
    pasted(&stand, &format!("{}{pins}", one(&said, "pkcs11-tool ")));
    assert!(!sign().contains("PIN"), "{}", sign());
}

#[test]
fn the_second_command_for_a_new_token_sets_its_pin() {
    let stand = Stand::empty();
    fs::create_dir(stand.file("tokens")).unwrap();
    stand.write("softhsm2.conf", format!("directories.tokendir = {}\n", stand.file("tokens")));
    let source = format!("file:{}", stand.write("pin", "123456"));
    let said = stand.run(&["sign", "--pin-source", &source]).failed(3);
    let both: Vec<String> = offered(&said).into_iter().filter(|command| command.starts_with("pkcs11-tool ")).collect();
    assert_eq!(both.len(), 2, "{said}");
    pasted(&stand, &format!("{} --so-pin 12345678", both[0]));
    pasted(&stand, &format!("{} --so-pin 12345678 --new-pin 123456", both[1]));
    let said = stand.run(&["sign", "--pin-source", &source]).failed(3);
    assert!(!said.contains("PIN") && !said.contains("initialise"), "{said}");
}

#[test]
fn a_pin_is_changed_and_mechanisms_are_shown_by_the_hints() {
    let mut stand = Stand::new();
    stand.faulty("flags+80000");
    let source = stand.pin_source();
    let said = stand.run(&["sign", "--pin-source", &source]).failed(4);
    assert!(said.contains("CKF_USER_PIN_TO_BE_CHANGED"), "{said}");
    let command = format!("{} --pin {} --new-pin 87654321", one(&said, "pkcs11-tool "), stand.pin());
    stand.faulty("");
    pasted(&stand, &command);
    stand.write("pin", "87654321");
    stand.sign(&[]).ok();
}

#[test]
fn a_certificate_is_written_beside_its_key_by_the_hint() {
    let stand = Stand::new();
    stand.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    let said = stand.sign(&[]).failed(3);
    let command = one(&said, "pkcs11-tool ").replace("--id ID", "--id 01");
    pasted(&stand, &format!("{command} --pin {}", stand.pin()));
    stand.sign(&[]).ok();
}

#[test]
fn every_package_that_a_hint_offers_exists() {
    let stand = Stand::new();
    let mut offered_names = 0;
    for name in ["softhsm2", "opensc", "ykcs11", "tpm2", "opencryptoki", "p11-kit", "p11-kit-client"] {
        // Hides installed modules from the program.
        let mut command = Command::new("unshare");
        let hide = "for d in /usr/lib/*/softhsm /usr/lib/softhsm /usr/lib/*/pkcs11 /usr/lib/*/opencryptoki /usr/lib/opencryptoki; do \
                    [ ! -d \"$d\" ] || mount -t tmpfs tmpfs \"$d\"; done; for f in /usr/lib/*/opensc-pkcs11.so /usr/lib/*/onepin-opensc-pkcs11.so \
                    /usr/lib/*/libykcs11.so* /usr/lib/*/libtpm2_pkcs11.so* /usr/lib/*/p11-kit-proxy.so; do \
                    [ ! -e \"$f\" ] || mount --bind /dev/null \"$f\"; done; exec \"$@\"";
        command.args(["--mount", "sh", "-c", hide, "sh", BINARY, "list", "--module", name]);
        same_environment(&mut command, &stand.command(&[]));
        let said = Run::from_output(command.finish()).stderr;
        for install in offered(&said).iter().filter(|command| command.starts_with("apt-get ")) {
            pasted(&stand, &format!("{install} --simulate"));
            offered_names += 1;
        }
    }
    assert!(offered_names >= 5, "{offered_names}");
}

#[test]
fn the_hint_inspects_a_module_that_the_host_cannot_load() {
    let mut stand = Stand::new();
    fs::create_dir(stand.file("my lib")).unwrap();
    stand.write("m.c", "extern int missing; int C_GetFunctionList(void) { return missing; }\n");
    stand.tool("cc", &["-shared", "-fPIC", "-o", "my lib/m.so", "m.c"]);
    let module = stand.file("my lib/m.so");
    stand.use_module(Some(&module));
    let looked = paste(&stand, &one(&stand.sign(&[]).failed(3), "ldd -r"));
    assert!(both(&looked).contains("missing"), "{looked:?}");
}

#[test]
fn a_file_system_without_execution_is_remounted_by_the_hint() {
    needs_root("it mounts a file system");
    let stand = Stand::new();
    fs::create_dir(stand.file("no exec")).unwrap();
    let script = format!(
        "set -e; d='{}'; mount -t tmpfs -o noexec,size=64m tmpfs \"$d\"; cp {} \"$d/m.so\"; \
         hint=$(\"$@\" 2>&1 | sed -n 's/^hint: .*`\\(mount .*\\)`.*/\\1/p'); eval \"$hint\"; exec \"$@\"",
        stand.file("no exec"),
        crate::stand::softhsm_module()
    );
    let mut sign = stand.command(&["sign", "--pin-source", &stand.pin_source()]);
    sign.env("CBA_AGENT_MODULE", stand.file("no exec/m.so"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", &script, "sh"]).arg(sign.get_program()).args(sign.get_args());
    same_environment(&mut command, &sign);
    Run::from_output((&mut command).finish()).ok();
}

/// Programs that may begin a message, or stand before an option.
const PROGRAMS: &[&str] = &[
    "apt-file",
    "apt-get",
    "base64",
    "cat",
    "cba-agent",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "df",
    "findmnt",
    "fuser",
    "getent",
    "groupadd",
    "iconv",
    "install",
    "journalctl",
    "keytool",
    "ldconfig",
    "ldd",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "mv",
    "od",
    "openssl",
    "p11tool",
    "pkcs11-tool",
    "printf",
    "rm",
    "sed",
    "setfacl",
    "softhsm2-util",
    "sysctl",
    "tail",
    "systemctl",
    "timedatectl",
    "tr",
    "ulimit",
    "unset",
    "useradd",
    "usermod",
    "yubico-piv-tool",
    "ykman",
    "zcat",
];

/// Each message with a command, by a part of it, and the trial of its commands: a test of this or another file, or the
/// reason why it cannot be tried here.
const TRIALS: &[(&str, &str)] = &[
    ("`usermod -aG {name} {own}`", "untried: it needs openCryptoki's daemon and group"),
    ("`ykman piv info`", "untried: it needs a YubiKey"),
    ("`p11-kit --version`", "untried: it shows a version"),
    ("`apt changelog {PACKAGE}`", "untried: it asks the network"),
    (
        "`cba-agent help COMMAND`",
        "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed",
    ),
    (
        "`cba-agent help` lists the commands",
        "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed",
    ),
    (
        "`cba-agent help sign`",
        "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed",
    ),
    ("`cba-agent list", "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed"),
    ("`cba-agent doctor", "doctor::a_ready_host_passes_without_a_login"),
    (
        "`cba-agent health --socket",
        "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed",
    ),
    ("`getent {}`", "hints::commands_that_only_show_something_run_with_the_options_of_the_command_that_failed"),
    ("put the command first, as in `cba-agent sign", "cli::options_of_every_command_may_stand_before_the_command"),
    ("`cba-agent sign --pin-source prompt`", "terminal::a_prompt_names_the_token_and_echoes_nothing"),
    ("make a new request with `cba-agent sign`", "verify::names_the_rule_that_failed"),
    ("the socket of `cba-agent serve`", "untried: it names what must run, not a command to run"),
    ("`cba-agent pin-fuse`", "fuse::a_second_refusal_is_final_until_a_reset"),
    ("cba-agent pin-fuse --reset", "hints::the_hint_clears_a_blown_fuse_in_the_commands_state_directory"),
    ("`cba-agent audit verify {}`", "hints::an_audit_log_is_checked_by_the_command_that_a_message_offers"),
    ("| cba-agent audit verify -", "hints::an_audit_log_is_checked_by_the_command_that_a_message_offers"),
    ("`ls -ld {} {}`", "hints::an_audit_log_is_checked_by_the_command_that_a_message_offers"),
    ("`df -h {}`", "untried: it shows the space of a full disk"),
    ("`fuser -v {}`", "untried: it shows a process, and is not everywhere installed"),
    ("`chmod o-w {directory}`", "fuse::a_state_directory_that_every_user_can_change_is_refused"),
    ("`rm {}`", "fuse::the_hint_removes_a_damaged_record_of_an_unknown_token"),
    ("chmod o-rwx", "hints::a_pin_file_that_others_can_read_is_closed_by_the_hint"),
    ("`chown root:root {path}", "hints::the_hint_gives_the_policy_file_back_to_root"),
    ("`chown {} {directory} {path}`", "hints::directories_that_a_user_cannot_write_are_made_by_the_remedy"),
    ("`install -d -m {mode} -o {} {}`", "hints::directories_that_a_user_cannot_write_are_made_by_the_remedy"),
    ("mkdir -p {}", "hints::the_directory_of_a_socket_is_made_by_the_hint"),
    ("`usermod -aG {} {}`", "hints::an_allowed_user_reaches_the_socket_after_the_remedy"),
    ("`chmod o+x {}`", "hints::an_allowed_user_reaches_the_socket_after_the_remedy"),
    ("`chmod 644 {file}`", "untried: the file is root's, and who may read it is root's choice"),
    ("unset {}", "hints::a_variable_of_the_loader_is_gone_after_the_remedy"),
    ("openssl ", "hints::a_certificate_in_another_form_is_converted_by_the_remedy"),
    ("keytool -list", "hints::a_certificate_in_another_form_is_converted_by_the_remedy"),
    ("cat {path}", "hints::a_certificate_in_another_form_is_converted_by_the_remedy"),
    ("`systemd-ask-password", "untried: it asks a person at a terminal"),
    ("base64 -di", "hints::a_certificate_in_another_form_is_converted_by_the_remedy"),
    ("tail -c +4 {path}", "hints::a_certificate_in_another_form_is_converted_by_the_remedy"),
    ("iconv -f {name} -t UTF-8 {path}", "hints::a_certificate_in_another_form_is_converted_by_the_remedy"),
    ("iconv -f {encoding}", "hints::the_hint_fixes_a_pin_file_with_control_characters"),
    ("LC_ALL=C sed", "hints::the_hint_fixes_a_pin_file_with_control_characters"),
    ("tr -d '", "hints::the_hint_fixes_a_pin_file_with_control_characters"),
    ("tar -xvf {path}", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("gzip -dc < {path}", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("bzip2 -dc < {path}", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("xz -dc < {path}", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("[Bb][Ee][Gg][Ii][Nn]", "certificate_files::a_file_without_a_certificate_is_named_with_a_next_step"),
    ("grep -oE", "certificate_files::every_form_is_read_and_the_printed_command_converts_it_for_anaplan"),
    ("`ulimit -n`", "untried: the limit is the shell's"),
    ("apt-get install libpcsclite1", "untried: it needs pcscd's host"),
    ("apt-get install --only-upgrade", "untried: it needs a booted systemd"),
    ("apt-get install {package}", "hints::every_package_that_a_hint_offers_exists"),
    ("`apt-get install pcscd", "untried: it needs a booted systemd"),
    ("`systemctl", "untried: it needs a booted systemd"),
    ("`journalctl", "untried: it needs a booted systemd"),
    ("timedatectl", "untried: it needs a booted systemd"),
    ("`pkcs11-tool {slot}--init-token", "hints::the_second_command_for_a_new_token_sets_its_pin"),
    ("`pkcs11-tool --login --login-type so --init-pin`", "hints::a_token_is_made_ready_by_the_hints"),
    ("`pkcs11-tool --login --change-pin`", "hints::a_pin_is_changed_and_mechanisms_are_shown_by_the_hints"),
    ("`pkcs11-tool --login --type cert", "hints::a_certificate_is_written_beside_its_key_by_the_hint"),
    ("`pkcs11-tool --list-mechanisms`", "complete_hints::another_programs_command_gets_module_and_slot"),
    ("`ldd -r`", "hints::the_hint_inspects_a_module_that_the_host_cannot_load"),
    ("`mount -o remount,exec", "hints::a_file_system_without_execution_is_remounted_by_the_hint"),
    ("`apt-file search {library}`", "untried: it asks an index on the network"),
    ("`ldconfig -p | grep -F {}`", "untried: it shows what the loader knows"),
    ("with `chmod` or `setfacl`", "untried: which rights are right is the owner's choice"),
];

#[test]
fn every_command_in_a_message_has_a_trial() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("src")];
    let (mut used, mut found, mut untried) = (vec![false; TRIALS.len()], 0, Vec::<String>::new());
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(root).unwrap().display().to_string();
        // Help and manual have examples. `complete_hints` has commands of its own.
        let is_left_out = [
            "src/cba/login_request.rs",
            "src/commands/completions.rs",
            "src/cli.rs",
            "src/cli/manual_page.rs",
            "src/session/complete_hints.rs",
            "src/commands/complete_hints.rs",
        ];
        if !name.ends_with(".rs") || is_left_out.contains(&name.as_str()) {
            continue;
        }
        for literal in literals(&fs::read_to_string(&path).unwrap()).iter().filter(|literal| has_command(literal)) {
            found += 1;
            let trials: Vec<usize> = (0..TRIALS.len()).filter(|at| literal.contains(TRIALS[*at].0)).collect();
            if trials.is_empty() {
                untried.push(format!("{name}: {literal}"));
            }
            trials.iter().for_each(|at| used[*at] = true);
        }
    }
    assert!(untried.is_empty(), "commands that no trial runs (see TRIALS in tests/e2e/hints.rs): {untried:#?}");
    assert!(found > 50, "{found}");
    for ((part, trial), used) in TRIALS.iter().zip(used) {
        assert!(used, "no message has '{part}' any more");
        if let Some((file, test)) = trial.split_once("::") {
            let places = [format!("tests/e2e/{file}.rs"), format!("src/session/{file}.rs")];
            let there = places.iter().filter_map(|place| fs::read_to_string(root.join(place)).ok());
            assert!(there.into_iter().any(|text| text.contains(&format!("fn {test}"))), "{trial} is not there");
        } else {
            assert!(trial.starts_with("untried: "), "{trial}");
        }
    }
}

/// The string literals of a file, without its tests and comments.
fn literals(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let (mut found, mut literal, mut escaped) = (Vec::new(), None::<String>, false);
    let mut characters = code.chars().peekable();
    while let Some(c) = characters.next() {
        match (&mut literal, c) {
            (None, '\'') => {
                // A character literal: the quotation mark in '"' does not begin a string.
                let mut ahead = characters.clone();
                if ahead.next() == Some('"') && ahead.next() == Some('\'') {
                    characters.nth(1);
                }
            }
            (None, '"') => literal = Some(String::new()),
            (None, _) => {}
            (Some(text), '\n') if escaped => {
                // A continued line.
                while characters.peek().is_some_and(|c| c.is_whitespace()) {
                    characters.next();
                }
                text.pop();
                escaped = false;
            }
            (Some(text), '"') if !escaped => {
                found.push(std::mem::take(text));
                literal = None;
            }
            (Some(text), c) => {
                text.push(c);
                escaped = c == '\\' && !escaped;
            }
        }
    }
    found
}

/// Whether a text contains a command: a program before an option, a program in backticks, or a program at the
/// beginning.
fn has_command(text: &str) -> bool {
    let is_program = |word: &str| {
        PROGRAMS.contains(&word) || ["/usr/bin", "/usr/sbin"].iter().any(|path| Path::new(path).join(word).is_file())
    };
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    let words: Vec<&str> = text.split([' ', '\n']).collect();
    let before_option = words.windows(2).any(|pair| {
        let name = pair[0].rsplit(['`', '(', '$']).next().unwrap_or_default();
        let option = pair[1].trim_start_matches('-');
        pair[1].starts_with('-')
            && option.starts_with(|c: char| c.is_ascii_alphabetic())
            && plain(name)
            && is_program(name)
    });
    let in_backticks = text.split('`').skip(1).step_by(2).any(|command| {
        let name = command.split(' ').next().unwrap_or_default();
        plain(name) && is_program(name)
    });
    // "mkdir it first" is English: a command has a path or an option.
    let begins = words[0] != "install"
        && PROGRAMS.contains(&words[0])
        && words.iter().skip(1).any(|word| word.starts_with(['{', '/', '-']));
    let piped = words.windows(2).any(|pair| pair[0] == "|" && PROGRAMS.contains(&pair[1]));
    before_option || in_backticks || begins || piped
}
