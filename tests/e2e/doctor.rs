//! `doctor`: its findings and remedies. It sends no PIN.

use serde_json::Value;

use crate::agent::Agent;
use crate::deadline::Finish as _;
use crate::fixture::{BINARY, EXTENSIONS, Fixture, Run, needs_root};

/// The line of a check in a report with a failing check.
#[track_caller]
fn failing(run: Run, check: &str) -> String {
    assert_eq!(run.code, 8, "{run:?}");
    let start = format!("failed   {check}");
    let mut lines = run.stdout.lines().skip_while(|line| !line.starts_with(&start));
    let line = lines.next().unwrap_or_else(|| panic!("{run:?}"));
    let remedy = lines.next().unwrap_or_default();
    assert!(remedy.trim_start().starts_with("fix: "), "{run:?}");
    format!("{line} {}", remedy.trim_start())
}

#[test]
fn a_ready_host_passes_without_a_login() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    // Under a known name, so that it gets a sandbox, and where SoftHSM2's profile allows its log.
    let module = fixture.file("libsofthsm2.so");
    std::fs::copy(crate::fixture::faulty_module(), &module).unwrap();
    fixture.use_module(Some(&module));
    fixture.set("FAULTY_LOG", fixture.file("tokens/calls"));
    let source = fixture.pin_source();
    let mut command = fixture.command(&["doctor", "--pin-source", &source, "--slot", "0"]);
    // cargo sets a variable for its tests that `doctor` warns about.
    let report = Run::from_output(command.env_remove("LD_LIBRARY_PATH").finish()).ok();
    // The clock of the test machine may be wrong.
    let lines: Vec<&str> =
        report.lines().filter(|line| !line.contains("`date -u`") && !line.contains("timedatectl")).collect();
    let is_fine = |line: &&str| line.starts_with("ok ") || line.starts_with("warning  clock");
    assert!(lines.iter().all(is_fine), "{report}");
    let order = [
        "configuration",
        "environment",
        "module",
        "sandbox",
        "slots",
        "token",
        "PIN state",
        "PIN source",
        "identity",
        "mechanism",
        "certificate",
        "clock",
        "state directory",
    ];
    let places = order.map(|check| lines.iter().position(|line| line[9..].starts_with(check)));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}: {report}");
    let calls = |name: &str| fixture.read("tokens/calls").lines().filter(|line| *line == name).count();
    assert_eq!(calls("C_Login"), 0);
    let report = fixture.run(&["doctor", "--pin-source", &source, "--sign", "--json"]).ok();
    let report: Value = serde_json::from_str(&report).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["check"] == "trial payload" && check["verdict"] == "ok"), "{report}");
    assert_eq!((calls("C_Login"), calls("C_Sign")), (1, 1));
}

#[test]
fn each_failed_check_names_its_remedy() {
    let mut fixture = Fixture::new();
    let source = fixture.pin_source();
    let doctor =
        |fixture: &Fixture, more: &[&str]| fixture.run(&[&["doctor", "--pin-source", &source][..], more].concat());
    let open = fixture.write("open", "1");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let run = fixture.run(&["doctor", "--pin-source", &format!("file:{open}")]);
    assert!(failing(run, "PIN source").contains("chmod o-rwx"));
    assert!(failing(doctor(&fixture, &["--module", "/nonexistent.so"]), "module").contains("check the path"));
    assert!(failing(doctor(&fixture, &["--token-label", "x"]), "token").contains("there is --uri"));
    for (content, why) in [("12\r\n", "printf"), ("", "no login was tried")] {
        let odd = fixture.write("odd", content);
        let run = fixture.run(&["doctor", "--pin-source", &format!("file:{odd}")]);
        assert!(failing(run, "PIN source").contains(why), "{content:?}");
    }
    assert!(failing(fixture.run(&["doctor", "--pin-source", "env:NOT_THERE"]), "PIN source").contains("not set"));
    let gone = failing(fixture.run(&["doctor", "--socket", "/nonexistent/s"]), "agent");
    assert!(gone.contains("systemctl status cba-agent"), "{gone}");
    fixture.faulty("flags+CKF_USER_PIN_LOCKED");
    assert!(failing(doctor(&fixture, &[]), "PIN state").contains("unblock"));
    fixture.faulty("flags+CKF_USER_PIN_FINAL_TRY");
    assert!(failing(doctor(&fixture, &[]), "PIN state").contains("one try is left"));
}

#[test]
fn what_the_policy_refuses_is_a_failure_before_any_login() {
    let fixture = Fixture::new();
    let source = fixture.pin_source();
    let other = "07".repeat(32);
    for (rule, value, found) in [
        ("token-serials", "99", "token serial '"),
        ("require", "hardware-token", "CKF_HW_SLOT"),
        ("certificate-sha256", other.as_str(), "certificate "),
        ("mechanism", "rsa-pkcs", "the token would sign with CKM_SHA512_RSA_PKCS"),
    ] {
        let flag = format!("--policy-{rule}");
        let line = failing(fixture.run(&["doctor", "--pin-source", &source, &flag, value]), "policy");
        assert!(line.contains(found), "{rule}: {line}");
        assert_eq!(fixture.sign(&[&flag, value]).code, 5, "{rule}: `sign` agrees");
    }
}

#[test]
fn the_source_of_each_value_and_variables_of_the_loader_are_shown() {
    let mut fixture = Fixture::new();
    let config = fixture.write("config.toml", "[token]\nslot = 0\n\n[policy]\nmin_rsa_bits = 2048\n");
    fixture.set("LD_AUDIT", "");
    fixture.set("OPENSSL_CONF", "/dev/null");
    let source = fixture.pin_source();
    let report = fixture.run(&["doctor", "--config", &config, "--pin-source", &source]).ok();
    for line in [
        format!("configuration    token.slot = 0 ({config} line 2)"),
        format!("configuration    policy.min_rsa_bits = 2048 ({config} line 5)"),
        "configuration    module = softhsm2 (CBA_AGENT_MODULE)".to_owned(),
        format!("configuration    pin.source = {source} (--pin-source)"),
    ] {
        assert!(report.contains(&line), "{line}: {report}");
    }
    let warned = report.lines().find(|line| line.starts_with("warning  environment")).unwrap();
    assert!(warned.contains("LD_AUDIT") && warned.contains("OPENSSL_CONF"), "{report}");
}

#[test]
fn an_audit_log_that_cannot_be_continued_is_named() {
    let fixture = Fixture::new();
    let (source, path) = (fixture.pin_source(), fixture.file("audit.jsonl"));
    let doctor = |path: &str| fixture.run(&["doctor", "--pin-source", &source, "--audit-path", path]);
    assert!(doctor(&path).ok().contains("no records yet"));
    assert!(!fixture.path().join("audit.jsonl").exists() && !fixture.path().join(".audit.jsonl.lock").exists());
    fixture.sign(&["--audit-path", &path]).ok();
    assert!(doctor(&path).ok().contains("audit.jsonl, 1 records"));
    let damaged = fixture.write("damaged", "x\n");
    assert!(failing(doctor(&damaged), "audit log").contains("audit verify"));
    assert!(failing(doctor("/dev/null"), "audit log").contains("not a regular file"));
    assert!(failing(doctor(&fixture.file("missing/audit.jsonl")), "audit log").contains("install -d -m 750 -o "));
}

#[test]
fn an_allowed_user_who_cannot_reach_the_socket_is_named() {
    needs_root("it acts as other users of the host");
    let mut fixture = Fixture::new();
    let agent = Agent::ready(&fixture, &["--socket-group", "games"]);
    fixture.set("CBA_AGENT_SERVE_SOCKET", &agent.socket);
    let source = fixture.pin_source();
    let doctor = |more: &[&str]| {
        let own = ["doctor", "--pin-source", &source];
        fixture.run(&[&own[..], more].concat())
    };
    let line = failing(doctor(&["--socket-group", "games", "--allow-users", "daemon"]), "who may ask");
    assert!(line.contains("daemon is allowed") && line.contains("usermod -aG games daemon"), "{line}");
    let line = failing(doctor(&["--socket-group", "daemon", "--allow-users", "daemon"]), "who may ask");
    assert!(line.contains("may not"), "{line}");
    let line = failing(doctor(&["--allow-users", "nosuchuser"]), "who may ask");
    assert!(line.contains("there is no such user"), "{line}");
    doctor(&["--socket-group", "games", "--allow-users", "root"]).ok();
    // The packaged configuration does not name the socket.
    fixture.set("CBA_AGENT_SERVE_SOCKET", "");
    let unnamed = ["doctor", "--pin-source", &source, "--socket-group", "games", "--allow-users", "daemon"];
    let line = failing(fixture.run(&unnamed), "who may ask");
    assert!(line.contains("daemon is allowed") && line.contains("usermod -aG games daemon"), "{line}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_a_failed_line() {
    let fixture = Fixture::new();
    let bad = fixture.write("bad.toml", "[token]\nserail = \"1\"\n");
    let line = failing(fixture.run(&["doctor", "--config", &bad]), "configuration");
    assert!(line.contains("line 2: there is no key 'token.serail'"), "{line}");
    assert!(failing(fixture.run(&["doctor", "--config", "/nonexistent"]), "configuration").contains("check the path"));
    let report = fixture.run(&["doctor", "--json", "--config", &bad]);
    let json: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((report.code, &json["ready"], &json["checks"][0]["verdict"]), (8, &false.into(), &"failed".into()));
    // A typing error is a usage error.
    fixture.run(&["doctor", "--slot", "x"]).failed(2);
    let good = fixture.write("good.toml", "");
    let source = fixture.pin_source();
    let report = fixture.run(&["doctor", "--config", &good, "--pin-source", &source]).ok();
    assert!(report.contains(&format!("configuration    read from {good}")), "{report}");
}

#[test]
fn a_library_that_a_module_lacks_is_named() {
    let fixture = Fixture::new();
    fixture.write("lacking.c", "int x(void); int C_GetFunctionList(void) { return x(); }\n");
    fixture.write("lacked.c", "int x(void) { return 1; }\n");
    fixture.tool("cc", &["-shared", "-fPIC", "-o", "liblacked.so", "lacked.c"]);
    fixture.tool("cc", &["-shared", "-fPIC", "-o", "lacking.so", "lacking.c", "-L.", "-llacked"]);
    std::fs::remove_file(fixture.file("liblacked.so")).unwrap();
    let line = failing(fixture.run(&["doctor", "--module", &fixture.file("lacking.so")]), "module");
    assert!(
        line.contains("it needs the library liblacked.so") && line.contains("apt-file search liblacked.so"),
        "{line}"
    );
}

#[test]
fn pcscd_is_checked_if_the_module_needs_it() {
    use std::io::{Read as _, Write as _};
    let mut fixture = Fixture::new();
    fixture.faulty("");
    // A module with the name of one that uses pcscd.
    let module = fixture.file("libykcs11.so");
    std::fs::copy(crate::fixture::faulty_module(), &module).unwrap();
    // The SoftHSM2 token below it is not in that module's sandbox.
    fixture.set("CBA_AGENT_SANDBOX", "off");
    let (source, socket) = (fixture.pin_source(), fixture.file("pcscd.comm"));
    fixture.set("PCSCLITE_CSOCK_NAME", &socket);
    let doctor = || fixture.run(&["doctor", "--module", &module, "--pin-source", &source]);
    assert!(failing(doctor(), "pcscd").contains("systemctl enable --now pcscd.socket"));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let daemon = std::thread::spawn(move || {
        // Refuses the first connection as polkit does, answers the second, and speaks another protocol to the third.
        // Newer libraries then offer an older version and repeat.
        drop(listener.accept().unwrap());
        let (mut client, _) = listener.accept().unwrap();
        let mut said = [0; 20];
        client.read_exact(&mut said).unwrap();
        client.write_all(&said[8..]).unwrap();
        let (mut client, _) = listener.accept().unwrap();
        while client.read_exact(&mut said).is_ok() {
            let words: [u32; 3] = [4, 99, 0x8010_001e];
            client.write_all(&words.map(u32::to_ne_bytes).concat()).unwrap();
            let asked = u32::from_ne_bytes(said[12..16].try_into().unwrap());
            if asked == 99 {
                break;
            }
        }
        said.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect::<Vec<_>>()
    });
    assert!(failing(doctor(), "pcscd").contains("refuses user"));
    assert!(doctor().ok().contains("pcscd            answers user"));
    let line = failing(doctor(), "pcscd");
    assert!(
        line.contains("refuses the protocol of this host's libpcsclite: the daemon speaks 4.99, the library 4."),
        "{line}"
    );
    assert!(line.contains("systemctl restart pcscd"), "{line}");
    let said = daemon.join().unwrap();
    // CMD_VERSION, with the version of the installed library.
    assert_eq!((said[0], said[1], said[2], said[4]), (12, 0x11, 4, 0));
    assert!(said[3] >= 4, "protocol 4.{}", said[3]);
}

#[test]
fn a_clock_before_the_build_is_a_failure() {
    let fixture = Fixture::new();
    let source = fixture.pin_source();
    let mut command = fixture.program("faketime");
    command.args(["2020-01-01 00:00:00", BINARY, "doctor", "--pin-source", &source]);
    let run = Run::from_output(command.finish());
    let line = failing(run, "clock");
    assert!(line.contains("before this program was built"), "{line}");
}

#[test]
fn the_remedy_for_the_clock_fits_the_host() {
    needs_root("it replaces /run and a program");
    let fixture = Fixture::new();
    let script = "set -e; mount -t tmpfs tmpfs /run; mkdir -p $1; mount -t tmpfs tmpfs /usr/local; mkdir /usr/local/b; \
        mount -t overlay -o lowerdir=/usr/local/b:/usr/bin overlay /usr/bin; shift; \
        exec faketime '2020-01-01 00:00:00' \"$@\"";
    let said = |script: &str, directory: &str| {
        let mut command = fixture.program("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", directory, BINARY, "doctor"]);
        command.args(["--pin-source", &fixture.pin_source()]);
        failing(Run::from_output(command.finish()), "clock")
    };
    // A container has no systemd.
    let line = said(script, "/run/other");
    assert!(line.contains("a container has the clock of its host") && !line.contains("timedatectl"), "{line}");
    // A host without the program: an overlay hides it.
    let hidden = script.replace("mkdir /usr/local/b;", "mkdir /usr/local/b; mknod /usr/local/b/timedatectl c 0 0;");
    assert!(!said(&hidden, "/run/systemd/system").contains("timedatectl"));
    let present = script.replace("mkdir /usr/local/b;", "mkdir /usr/local/b; touch /usr/local/b/timedatectl;");
    assert!(said(&present, "/run/systemd/system").contains("`timedatectl set-ntp true`"));
}

#[test]
fn a_certificate_is_checked_before_it_is_bought_in_any_form() {
    let fixture = Fixture::new();
    let check = |file: &str| fixture.run(&["doctor", "--certificate", file]);
    let good = EXTENSIONS.to_owned() + "crlDistributionPoints=URI:http://ca.example/crl\n";
    fixture.issue("good", "pub.pem", &good, &["-days", "9"]);
    let report = check("good.pem").ok();
    assert!(report.lines().all(|line| line.starts_with("ok ")), "{report}");
    fixture
        .tool("openssl", &["crl2pkcs7", "-nocrl", "-certfile", "good.pem", "-certfile", "ca.pem", "-out", "all.p7b"]);
    fixture.tool("openssl", &["pkcs7", "-in", "all.p7b", "-outform", "DER", "-out", "all.der.p7b"]);
    let text = fixture.tool("openssl", &["x509", "-in", "good.pem", "-text"]);
    fixture.write("bag.pem", text);
    let base64: String = fixture.read("good.pem").lines().filter(|line| !line.starts_with('-')).collect();
    fixture.write("bare.txt", base64);
    for (file, said) in [
        ("good.der", "fix: openssl x509 -inform DER -in 'good.der' -out leaf.pem"),
        ("all.p7b", "openssl pkcs7 -inform DER -print_certs | openssl x509 -out leaf.pem"),
        ("all.der.p7b", "fix: openssl pkcs7 -inform DER -in 'all.der.p7b' -print_certs"),
        ("bag.pem", "PEM; other text is around it, which Anaplan does not accept"),
        ("bare.txt", "fix: cat 'bare.txt' | sed"),
    ] {
        let report = check(file).ok();
        assert!(report.contains(said) && report.contains("integration@example.com"), "{file}: {report}");
    }
    fixture.write("password", "x");
    let export = ["-export", "-in", "ca.pem", "-inkey", "ca.key", "-passout", "file:password", "-out", "ca.p12"];
    fixture.tool("openssl", &[&["pkcs12"][..], &export].concat());
    fixture.tool("openssl", &["req", "-new", "-key", "ca.key", "-subj", "/CN=x", "-out", "x.csr"]);
    for (file, said) in [
        ("ca.p12", "openssl pkcs12 -in 'ca.p12' -clcerts -nokeys"),
        ("ca.key", "a private key and no certificate"),
        ("x.csr", "send it to the CA"),
        ("password", "get the certificate from the CA as X.509"),
    ] {
        assert!(failing(check(file), "file").contains(said), "{file}");
    }
    check("/nonexistent").failed(2);
}

#[test]
fn each_missing_property_of_a_certificate_names_what_to_ask_the_ca_for() {
    let fixture = Fixture::new();
    let changed = |from: &str, to: &str| EXTENSIONS.replace(from, to);
    for (name, check, extensions, ask) in [
        (
            "server",
            "extended usage",
            changed("clientAuth,emailProtection", "serverAuth"),
            "extendedKeyUsage clientAuth",
        ),
        ("nameless", "e-mail", changed("email:integration@example.com", "DNS:x"), "subject alternative name"),
        ("agreed", "key usage", changed("digitalSignature", "keyAgreement"), "keyUsage digitalSignature"),
        ("ca-leaf", "CA", changed("CA:FALSE", "CA:TRUE"), "CA:FALSE"),
    ] {
        fixture.issue(name, "pub.pem", &extensions, &["-days", "9"]);
        let line = failing(fixture.run(&["doctor", "--certificate", &format!("{name}.pem")]), check);
        assert!(line.contains(ask), "{line}");
    }
    fixture.issue("ended", "pub.pem", EXTENSIONS, &["-days", "-1"]);
    assert!(
        failing(fixture.run(&["doctor", "--certificate", "ended.pem"]), "validity").contains("order a new certificate")
    );
    let ec = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null"];
    fixture.tool("openssl", &[&ec[..], &["-subj", "/CN=ec", "-out", "ec.pem"]].concat());
    assert!(failing(fixture.run(&["doctor", "--certificate", "ec.pem"]), "key").contains("RSA key of 2048 bits"));
    let own =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=me", "-out", "me.pem"];
    fixture.tool("openssl", &own);
    let report = fixture.run(&["doctor", "--certificate", "me.pem"]);
    assert!(failing(report, "issuer").contains("self-signed"));
}

#[test]
fn the_pin_source_in_a_uri_appears_in_no_report() {
    let fixture = Fixture::new();
    std::fs::copy(fixture.file("pin"), fixture.file("s3cret-place")).unwrap();
    let uri = format!("pkcs11:token=cba?pin-source=file:{}", fixture.file("s3cret-place"));
    let encoded = uri.replace("s3cret", "s3cre%74");
    let config = fixture.write("c.toml", format!("[token]\nuri = \"{uri}\"\n"));
    for more in [&[][..], &["--json"], &["--sign"], &["-vv"]] {
        for given in [["--uri", uri.as_str()], ["--uri", &encoded], ["--config", &config]] {
            let run = fixture.run(&[&["doctor"], &given[..], more].concat());
            let both = format!("{}{}", run.stdout, run.stderr);
            assert!(both.contains("pkcs11:token=cba?(not shown)"), "{run:?}");
            assert!(both.contains("the file that the URI names"), "{run:?}");
            assert!(!both.contains("s3cre"), "{run:?}");
        }
        let mut command = fixture.command(&[&["doctor"], more].concat());
        let run = Run::from_output(command.env("CBA_AGENT_URI", &uri).finish());
        assert!(!format!("{run:?}").contains("s3cre"), "{run:?}");
    }
    // A PIN in the URI is refused, and no report repeats it.
    let run = fixture.run(&["doctor", "--uri", "pkcs11:token=cba?pin-value=s3cret"]);
    assert!(run.code != 0 && !format!("{run:?}").contains("s3cret"), "{run:?}");
}
