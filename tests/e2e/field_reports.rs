//! Reports of the last two years about PKCS#11 stacks and tools; docs/field-reports.md lists them with their tests.

use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run, faulty_module, needs_root};
use crate::openssl::accepted;

/// The faulty module under the file name of another module, with these rules and without a sandbox.
fn named(fixture: &mut Fixture, file: &str, rules: &str) -> String {
    fixture.faulty(rules);
    let module = fixture.file(file);
    std::fs::copy(faulty_module(), &module).unwrap();
    fixture.set("CBA_AGENT_SANDBOX", "off");
    fixture.use_module(Some(&module));
    module
}

#[test]
fn a_hundred_parallel_signatures_all_verify() {
    let fixture = Fixture::new();
    let source = fixture.pin_source();
    let start = |_| -> Child {
        let mut command = fixture.command(&["sign", "--pin-source", &source, "--timeout", "10m"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<Child> = (0..100).map(start).collect();
    for child in running {
        accepted(&fixture, Run::from_output(child.wait_with_output().unwrap()));
    }
}

/// A SoftHSM2 that passes over its tokens as often as there are files `hide.0` to `hide.8`: each load removes one.
const FORGETFUL: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void hide(void) {
    for (int number = 0; number < 9; number++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/hide.%d", getenv("SHIM_DIRECTORY"), number);
        if (unlink(path) == 0) {
            snprintf(path, sizeof path, "%s/empty.conf", getenv("SHIM_DIRECTORY"));
            setenv("SOFTHSM2_CONF", path, 1);
            return;
        }
    }
}
unsigned long C_GetFunctionList(void **list) {
    void *real = dlopen(getenv("SHIM_MODULE"), RTLD_NOW);
    unsigned long (*get)(void **) = (unsigned long (*)(void **))dlsym(real, "C_GetFunctionList");
    return get(list);
}
"#;

#[test]
fn a_token_that_softhsm2_passes_over_is_found_when_it_is_loaded_again() {
    let mut fixture = Fixture::new();
    fixture.write("shim.c", FORGETFUL);
    fixture.tool("cc", &["-shared", "-fPIC", "-o", "libsofthsm2.so", "shim.c"]);
    std::fs::create_dir(fixture.file("no tokens")).unwrap();
    fixture.write("empty.conf", format!("directories.tokendir = {}\n", fixture.file("no tokens")));
    fixture.set("SHIM_MODULE", crate::fixture::softhsm_module());
    fixture.set("SHIM_DIRECTORY", fixture.path().display().to_string());
    fixture.set("CBA_AGENT_SANDBOX", "off");
    let module = fixture.file("libsofthsm2.so");
    fixture.use_module(Some(&module));
    let hide = |times: usize| (0..times).for_each(|number| _ = fixture.write(&format!("hide.{number}"), ""));
    hide(3);
    accepted(&fixture, fixture.sign(&[]));
    hide(9);
    let error = fixture.sign(&[]).failed(3);
    assert!(error.contains("1 of the tokens in its directory; their files may be damaged"), "{error}");
}

#[test]
fn an_elliptic_key_of_the_same_id_is_passed_over() {
    let fixture = Fixture::new();
    fixture.pkcs11_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "cba"]);
    accepted(&fixture, fixture.sign(&[]));
    accepted(&fixture, fixture.sign(&["--key-id", "01", "--key-label", "cba"]));
}

#[test]
fn a_mechanism_without_information_is_tried() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_GetMechanismInfo=0x70");
    assert!(fixture.run(&["list"]).ok().contains("signs with CKM_SHA512_RSA_PKCS"));
    accepted(&fixture, fixture.sign(&[]));
}

#[test]
fn a_token_without_login_signs_without_a_pin_source() {
    let mut fixture = Fixture::new();
    // The module logs in by itself, like a token that needs no PIN.
    fixture.faulty("flags-CKF_LOGIN_REQUIRED;autologin");
    fixture.set("FAULTY_PIN", fixture.pin());
    accepted(&fixture, fixture.run(&["sign"]));
    let socket = fixture.file("agent.sock");
    let user = rustix::process::geteuid().as_raw().to_string();
    let serve = fixture.command(&["serve", "--socket", &socket, "--allow-users", &user]);
    let mut agent = crate::agent::Agent::start(&fixture, serve);
    agent.wait_for_state("STATUS=ready");
    accepted(&fixture, fixture.run(&["sign", "--socket", &socket]));
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn an_empty_reader_before_the_token_is_not_slot_0() {
    let mut fixture = Fixture::new();
    fixture.faulty("empty-reader");
    accepted(&fixture, fixture.sign(&["--slot", "0"]));
    accepted(&fixture, fixture.sign(&[]));
    let list: Value = serde_json::from_str(&fixture.run(&["list", "--json"]).ok()).unwrap();
    assert_eq!(list["modules"][0]["slots"][0]["index"], 0);
}

#[test]
fn tokens_without_a_serial_number_are_told_apart_by_slot() {
    let mut fixture = Fixture::new();
    fixture.provision(&["--label", "second"]);
    for rules in ["label=same;serial=", "label=same;serial=0000000000000000"] {
        fixture.faulty(rules);
        let error = fixture.sign(&["--token-label", "same"]).failed(3);
        let uris: Vec<&str> = error.lines().filter_map(|line| line.split('\'').nth(1)).collect();
        assert_eq!(uris.len(), 2, "{rules}: {error}");
        uris.iter().for_each(|uri| accepted(&fixture, fixture.sign(&["--uri", uri])));
    }
}

#[test]
fn a_key_handle_that_means_another_key_after_a_reset_gives_no_payload() {
    let mut fixture = Fixture::new();
    fixture.import_key();
    fixture.faulty("other-key");
    let agent = crate::agent::Agent::ready(&fixture, &["--key-id", "01"]);
    let ask = || {
        let run = fixture.run(&["sign", "--socket", &agent.socket]);
        (run.code, run.stdout)
    };
    assert_eq!(ask().0, 0);
    // The agent discards the other key's signature, and a new worker selects the identity again.
    let (code, printed) = ask();
    assert_eq!((code, printed.as_str()), (7, ""));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while ask().0 != 0 {
        assert!(std::time::Instant::now() < deadline, "no new worker");
    }
}

#[test]
fn softhsm2_writes_the_log_that_its_configuration_names_in_the_sandbox() {
    let fixture = Fixture::new();
    let conf = fixture.read("softhsm2.conf");
    let log = fixture.file("logs/softhsm.log");
    std::fs::create_dir(fixture.file("logs")).unwrap();
    fixture.write("softhsm2.conf", format!("{conf}log.file = {log}\n"));
    accepted(&fixture, fixture.sign(&[]));
    // SoftHSM2 before 2.7 does not know the setting. The agent creates the file in any case.
    assert!(Path::new(&log).exists(), "the sandbox lets the module write it");
}

#[test]
fn a_user_outside_the_group_of_opencryptoki_sees_its_name() {
    needs_root("it becomes another user");
    let mut fixture = Fixture::new();
    named(&mut fixture, "libopencryptoki.so", "C_Initialize=0x6");
    // The group of the openCryptoki package, in a name service for this command only.
    let run = |before: &str, arguments: &[&str]| {
        let script = format!(
            "{{ [ -d etc ] || {{ cp -a /etc etc && echo pkcs11:x:4242: >> etc/group; }}; }} && mount --bind etc /etc && {before} \
             exec setpriv --reuid nobody --regid nogroup --init-groups \"$@\""
        );
        let mut command = fixture.in_mount_namespace(&script);
        command.args(arguments);
        command.env("HOME", "/nonexistent");
        Run::from_output(command.finish())
    };
    let in_the_group = |arguments: &[&str]| run("", arguments);
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(fixture.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(fixture.file("softhsm2.conf"), std::fs::Permissions::from_mode(0o644)).unwrap();
    fixture.write("calls", "");
    std::fs::set_permissions(fixture.file("calls"), std::fs::Permissions::from_mode(0o666)).unwrap();
    let report = in_the_group(&["doctor"]);
    assert!(report.stdout.contains("user nobody is not in group pkcs11, and the module may hang"), "{report:?}");
    assert!(report.stdout.contains("usermod -aG pkcs11 nobody"), "{report:?}");
    let error = in_the_group(&["sign"]).failed(6);
    assert!(error.contains("hint: the module serves only members of group pkcs11"), "{error}");
    let join = crate::hints::one_command(&error, "usermod -aG pkcs11");
    let report = run(&format!("{join} &&"), &["doctor"]);
    assert!(!report.stdout.contains("is not in group pkcs11"), "{report:?}");
}

#[test]
fn an_old_ykcs11_is_named_where_it_hides_a_token_or_a_large_key() {
    let mut fixture = Fixture::empty();
    std::fs::create_dir(fixture.file("tokens")).unwrap();
    fixture.write("softhsm2.conf", format!("directories.tokendir = {}\n", fixture.file("tokens")));
    named(&mut fixture, "libykcs11.so", "library:2.20");
    let error = fixture.run(&["sign"]).failed(3);
    assert!(error.contains("ykcs11 2.2.0 shows no token where a slot holds an Ed25519 or X25519 key"), "{error}");
    let mut fixture = Fixture::with(&["--bits", "3072"]);
    for (library, is_old) in [("2.20", true), ("2.42", true), ("2.50", false), ("2.72", false)] {
        named(&mut fixture, "libykcs11.so", &format!("library:{library};C_SignInit=0x6"));
        let error = fixture.sign(&[]).failed(6);
        let hint = error.contains("does not know RSA keys of 3072 bits: update ykcs11 to 2.5.0");
        assert_eq!(hint, is_old, "{library}: {error}");
    }
}

#[test]
fn a_p11_kit_before_its_security_fixes_is_warned_about() {
    needs_root("it mounts a file of its own");
    let mut fixture = Fixture::new();
    named(&mut fixture, "p11-kit-client.so", "");
    let source = fixture.pin_source();
    for (version, words) in
        [("0.24.1-2", "0.24.1-2 is before 0.26.3"), ("0.26.3-1", "ok       p11-kit          0.26.3-1")]
    {
        let status = format!("Package: libp11-kit0\nStatus: install ok installed\nVersion: {version}\n\n");
        let status = fixture.write("status", status);
        let script = format!("mount --bind {status} /var/lib/dpkg/status && exec \"$@\"");
        let report =
            Run::from_output(fixture.in_mount_namespace(&script).args(["doctor", "--pin-source", &source]).finish());
        assert!(report.stdout.contains(words), "{report:?}");
    }
}

#[test]
fn a_wrong_tpm_setting_is_named() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Initialize=0x5");
    let module = fixture.file("libtpm2_pkcs11.so.1");
    std::fs::copy(faulty_module(), &module).unwrap();
    fixture.use_module(Some(&module));
    let source = fixture.pin_source();
    // The log of the calls is where the sandbox lets this module write.
    fixture.set("TPM2_PKCS11_STORE", fixture.path().display().to_string());
    for (name, value, words) in [
        (
            "TPM2_PKCS11_TCTI",
            "cmd:swtpm socket",
            "TPM2_PKCS11_TCTI=cmd:... starts a program, which the sandbox forbids",
        ),
        ("TPM2_PKCS11_TCTI", "device:/dev/no-tpm", "names /dev/no-tpm, which this user cannot open"),
        ("PKCS11_SQL_LOCK", "/", "tpm2-pkcs11 before 1.9.1 then puts its lock into /"),
        ("PKCS11_SQL_LOCK", "/no/such/directory", "names /no/such/directory, which is not a directory"),
        ("TPM2_PKCS11_STORE", "/no/such/store", "TPM2_PKCS11_STORE names /no/such/store, which cannot be read"),
    ] {
        let mut command = fixture.command(&["sign", "--pin-source", &source]);
        if name == "TPM2_PKCS11_STORE" {
            command.env("CBA_AGENT_SANDBOX", "off");
        }
        let error = Run::from_output(command.env(name, value).finish()).failed(6);
        assert!(error.contains(words) && error.contains("C_Initialize: CKR_GENERAL_ERROR"), "{name}: {error}");
    }
}

#[test]
fn the_modules_output_at_its_start_is_in_the_error() {
    let mut fixture = Fixture::new();
    fixture.faulty("C_Initialize=cry:0x5");
    let error = fixture.sign(&[]).failed(6);
    assert!(error.contains("C_Initialize: CKR_GENERAL_ERROR"), "{error}");
    assert!(error.contains("hint: the module says: ERROR: no such file\\u{1b}[31m"), "{error}");
}

#[test]
fn a_token_that_is_missing_behind_p11_kit_may_be_hidden_by_the_sandbox() {
    let mut fixture = Fixture::new();
    named(&mut fixture, "p11-kit-proxy.so", "");
    let sign = |fixture: &Fixture| fixture.sign(&["--token-label", "other"]).failed(3);
    assert!(!sign(&fixture).contains("sandbox"));
    fixture.set("CBA_AGENT_SANDBOX", "module");
    fixture.set("FAULTY_LOG", fixture.file("tokens/calls"));
    let error = sign(&fixture);
    assert!(error.contains("the sandbox profile p11-kit; try --sandbox off"), "{error}");
}

#[test]
fn a_backend_that_softhsm2_may_lack_is_named() {
    let mut fixture = Fixture::empty();
    named(&mut fixture, "libsofthsm2.so", "C_Initialize=0x5");
    for backend in ["db", "file"] {
        let settings = format!("directories.tokendir = {}\nobjectstore.backend = {backend}\n", fixture.file(""));
        fixture.write("softhsm2.conf", settings);
        let error = fixture.run(&["sign"]).failed(6);
        assert_eq!(error.contains("sets objectstore.backend = db"), backend == "db", "{error}");
    }
}
