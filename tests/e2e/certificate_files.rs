//! Certificate files in every form that users have: each is read or named, and a private key in it is always reported.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::fixture::{Fixture, Run, tool};

/// Verdict, finding and remedy of each line of `doctor --certificate` for one check.
fn lines(run: &Run, check: &str) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    let all = report["checks"].as_array().unwrap().iter().filter(|line| line["check"] == check);
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    all.map(|line| (text(line, "verdict"), text(line, "found"), text(line, "remedy"))).collect()
}

fn doctor(fixture: &Fixture, name: &str) -> Run {
    fixture.run(&["doctor", "--json", "--certificate", &fixture.file(name)])
}

fn wide(text: &str, write: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(write).collect()
}

/// The token's certificate in each form: a name, the bytes, and the name that `doctor` gives the form.
fn forms(fixture: &Fixture) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let pem = fixture.read("cert.pem");
    let made = |arguments: &[&str]| {
        fixture.tool("openssl", &[arguments, &["-out", "made"]].concat());
        std::fs::read(fixture.file("made")).unwrap()
    };
    let der = made(&["x509", "-in", "cert.pem", "-outform", "DER"]);
    let p7b = ["crl2pkcs7", "-nocrl", "-certfile", "cert.pem", "-certfile", "ca.pem"];
    let p7b_ca_first = ["crl2pkcs7", "-nocrl", "-certfile", "ca.pem", "-certfile", "cert.pem"];
    let p7b_pem = String::from_utf8(made(&p7b)).unwrap();
    let p7b_der = made(&[&p7b[..], &["-outform", "DER"]].concat());
    // OpenSSL writes BER with indefinite length when it streams.
    let p7b_ber = ["cms", "-sign", "-stream", "-nodetach", "-signer", "key-and-cert.pem", "-in", "cert.pem"];
    fixture.tool(
        "openssl",
        &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", "k", "-out", "c"],
    );
    fixture.write("key-and-cert.pem", fixture.read("k") + &fixture.read("c"));
    let p7b_ber = made(&[&p7b_ber[..], &["-certfile", "cert.pem", "-nocerts", "-outform", "DER"]].concat());
    let trusted = made(&["x509", "-in", "cert.pem", "-trustout", "-addtrust", "clientAuth"]);
    let p12 = ["pkcs12", "-export", "-in", "c", "-inkey", "k", "-passout", "pass:x", "-name", "friend"];
    std::fs::copy(fixture.file("k"), fixture.file("key.pem")).unwrap();
    let ca = fixture.read("ca.pem");
    let bag = format!("Bag Attributes\n    friendlyName: cba\nsubject=CN = x\n\nissuer=CN = y\n\n{pem}");
    let no_lines = pem.replace('\n', "");
    vec![
        ("plain", pem.clone().into_bytes(), "PEM"),
        ("crlf", pem.replace('\n', "\r\n").into_bytes(), "PEM"),
        ("mac", pem.replace('\n', "\r").into_bytes(), "PEM; its lines are not in PEM form"),
        ("indented", pem.replace('\n', "\n    ").into_bytes(), "PEM"),
        ("mark", [b"\xef\xbb\xbf", pem.as_bytes()].concat(), "PEM; it begins with a byte order mark"),
        ("utf16", [&[0xff, 0xfe], &wide(&pem, u16::to_le_bytes)[..]].concat(), "PEM; it is written in UTF-16"),
        ("utf16be", [&[0xfe, 0xff], &wide(&pem, u16::to_be_bytes)[..]].concat(), "PEM; it is written in UTF-16"),
        ("utf16-no-mark", wide(&pem, u16::to_le_bytes), "PEM; it is written in UTF-16"),
        ("utf16be-no-mark", wide(&pem, u16::to_be_bytes), "PEM; it is written in UTF-16"),
        ("bag", bag.into_bytes(), "PEM; other text is around it"),
        ("text", made(&["x509", "-in", "cert.pem", "-text"]), "PEM; other text is around it"),
        ("trusted", trusted, "PEM; labelled TRUSTED CERTIFICATE"),
        ("x509", pem.replace("CERTIFICATE", "X509 CERTIFICATE").into_bytes(), "PEM; labelled X509 CERTIFICATE"),
        ("no-lines", no_lines.into_bytes(), "PEM; its lines are not in PEM form"),
        (
            "escaped",
            pem.replace('\n', "\\n").into_bytes(),
            "PEM; other text is around it, which Anaplan does not accept; its lines are not in PEM form",
        ),
        (
            "yaml",
            format!(
                "kind: Secret\ntls.crt: |\n{}",
                pem.replace('\n', "\n    ").replacen("-----BEGIN", "    -----BEGIN", 1)
            )
            .into_bytes(),
            "PEM; other text is around it, which Anaplan does not accept; its lines are not in PEM form",
        ),
        (
            "json-of-two",
            format!("{{\"chain\": \"{}\"}}\n", format!("{ca}{pem}").replace('\n', "\\n")).into_bytes(),
            "PEM; other text is around it, which Anaplan does not accept; its lines are not in PEM form",
        ),
        ("secret", STANDARD.encode(&pem).into_bytes(), "PEM; encoded in base64 once more"),
        ("chain", format!("{pem}{ca}").into_bytes(), "PEM"),
        ("chain-ca-first", format!("{ca}{pem}").into_bytes(), "PEM"),
        ("der", der.clone(), "DER; Anaplan registers PEM"),
        ("der-newline", [&der[..], b"\r\n"].concat(), "DER; Anaplan registers PEM"),
        ("base64", STANDARD.encode(&der).into_bytes(), "base64 without PEM lines"),
        (
            "base64-lines",
            pem.lines()
                .filter(|line| !line.starts_with('-'))
                .map(|line| format!("{line}\r\n"))
                .collect::<String>()
                .into_bytes(),
            "base64 without PEM lines",
        ),
        ("p7b-pem", p7b_pem.clone().into_bytes(), "PKCS#7 (.p7b)"),
        ("p7b-windows", p7b_pem.replace("PKCS7", "CERTIFICATE").into_bytes(), "PKCS#7 (.p7b)"),
        ("p7b-cms", p7b_pem.replace("PKCS7", "CMS").into_bytes(), "PKCS#7 (.p7b)"),
        ("p7b-der", p7b_der.clone(), "PKCS#7 (.p7b)"),
        ("p7b-ca-first", made(&[&p7b_ca_first[..], &["-outform", "DER"]].concat()), "PKCS#7 (.p7b)"),
        ("p7b-base64", STANDARD.encode(&p7b_der).into_bytes(), "PKCS#7 (.p7b)"),
        ("p7b-ber", p7b_ber, "PKCS#7 (.p7b)"),
        ("p12", made(&p12), ""),
    ]
}

#[test]
fn every_form_is_read_and_the_printed_command_converts_it_for_anaplan() {
    let fixture = Fixture::new();
    for (name, bytes, form) in forms(&fixture) {
        if form.is_empty() {
            continue;
        }
        let file = fixture.write(&format!("the '{name}' file"), bytes);
        let run = fixture.run(&["doctor", "--json", "--certificate", &file]);
        let found = lines(&run, "file");
        assert!(found[0].1.starts_with(form), "{name}: {run:?}");
        assert_eq!(lines(&run, "e-mail")[0].1, "integration@example.com", "{name}: {run:?}");
        assert!(!run.stdout.contains("ask for PEM"), "{name}: {run:?}");
        let Some((_, _, remedy)) = found.iter().find(|(verdict, _, _)| verdict != "ok") else { continue };
        let _ = std::fs::remove_file(fixture.file("leaf.pem"));
        tool(Command::new("sh").args(["-ec", remedy]).current_dir(fixture.path()));
        let repaired = doctor(&fixture, "leaf.pem");
        assert_eq!(
            lines(&repaired, "file"),
            [("ok".into(), "PEM".into(), String::new())],
            "{name}: {remedy}: {repaired:?}"
        );
        assert_eq!(fixture.read("leaf.pem"), fixture.read("cert.pem"), "{name}: {remedy}");
    }
}

#[test]
fn every_form_can_be_the_certificate_file_and_the_file_of_roots() {
    let fixture = Fixture::new();
    fixture.pkcs11_tool(&["--delete-object", "--type", "cert", "--id", "01"]);
    for (name, bytes, form) in forms(&fixture) {
        let file = fixture.write(name, bytes);
        let options = ["--certificate-file", &file, "--policy-certificate-source", "token-or-file"];
        if form.is_empty() {
            let error = fixture.sign(&options).failed(2);
            assert!(error.contains("a PKCS#12 file (.p12, .pfx), which holds a private key"), "{error}");
            continue;
        }
        let run = fixture.sign(&options);
        assert_eq!(run.code, 0, "{name}: {run:?}");
        // A leaf certificate is not a root: this error differs from an unreadable file.
        let source = fixture.pin_source();
        let roots = ["custody", "--pin-source", &source, "--roots", &file];
        let run = fixture.run(&[&roots[..], &options].concat());
        match name {
            "chain" | "chain-ca-first" | "json-of-two" => assert_eq!(run.code, 0, "{name}: {run:?}"),
            _ if name.starts_with("p7b") && name != "p7b-ber" => assert_eq!(run.code, 0, "{name}: {run:?}"),
            _ => assert!(run.failed(2).contains("none of the certificates is self-issued"), "{name}"),
        }
    }
}

#[test]
fn a_file_with_a_private_key_is_always_reported() {
    const WORDS: &str = "holds a private key; do not give this file to anybody";
    let fixture = Fixture::new();
    fixture.tool("openssl", &["genrsa", "-out", "pkcs8.pem", "2048"]);
    fixture.tool("openssl", &["rsa", "-in", "pkcs8.pem", "-traditional", "-out", "pkcs1.pem"]);
    let encrypt = ["pkcs8", "-topk8", "-in", "pkcs8.pem", "-passout", "pass:x", "-out", "encrypted.pem"];
    fixture.tool("openssl", &encrypt);
    let old = ["rsa", "-in", "pkcs8.pem", "-traditional", "-aes128", "-passout", "pass:x", "-out", "old.pem"];
    fixture.tool("openssl", &old);
    fixture.tool("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ec.pem"]);
    fixture.tool("openssl", &["rsa", "-in", "pkcs8.pem", "-outform", "DER", "-out", "pkcs8.der"]);
    fixture.tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "ssh.pem"]);
    let (certificate, ca) = (fixture.read("cert.pem"), fixture.read("ca.pem"));
    for name in ["pkcs8.pem", "pkcs1.pem", "encrypted.pem", "old.pem", "ec.pem", "ssh.pem"] {
        let key = fixture.read(name);
        for (order, both) in [("after", format!("{certificate}{key}")), ("before", format!("{key}{certificate}"))] {
            let file = fixture.write("both.pem", both);
            let run = doctor(&fixture, "both.pem");
            assert_eq!(run.code, 8, "{name} {order}: {run:?}");
            let [(verdict, found, remedy)] = &lines(&run, "private key")[..] else { panic!("{name} {order}: {run:?}") };
            assert_eq!((verdict.as_str(), found.as_str()), ("failed", WORDS), "{name} {order}");
            let command = remedy.split("made by: ").nth(1).unwrap();
            tool(Command::new("sh").args(["-ec", command]).current_dir(fixture.path()));
            assert_eq!(fixture.read("leaf.pem"), certificate, "{name} {order}");
            let options = ["--certificate-file", &file, "--policy-certificate-source", "token-or-file"];
            let run = fixture.sign(&options);
            assert!(run.code == 0 && run.stderr.contains(WORDS), "{name} {order}: {run:?}");
        }
        // Without a certificate in the file, it is named too.
        let run = doctor(&fixture, name);
        assert_eq!((run.code, lines(&run, "private key").len()), (8, 1), "{name}: {run:?}");
        let roots = fixture.write("roots.pem", format!("{ca}{key}"));
        let source = fixture.pin_source();
        let run = fixture.run(&["custody", "--pin-source", &source, "--roots", &roots]);
        assert!(run.code == 0 && run.stderr.contains(WORDS), "{name}: {run:?}");
    }
    let p12 = ["pkcs12", "-export", "-in", "c", "-inkey", "k", "-passout", "pass:x", "-out", "both.p12"];
    fixture.tool(
        "openssl",
        &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", "k", "-out", "c"],
    );
    fixture.tool("openssl", &p12);
    for (name, key) in [
        ("pgp", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n-----END PGP PRIVATE KEY BLOCK-----\n"),
        ("putty", "PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 1\nAAAA\n"),
        ("jwk", "{\"kty\":\"RSA\",\"n\":\"AAAA\",\"d\":\"AAAA\"}\n"),
        ("xml", "<RSAKeyValue><Modulus>AAAA</Modulus><D>AAAA</D></RSAKeyValue>\n"),
    ] {
        fixture.write("both.pem", format!("{certificate}{key}"));
        let run = doctor(&fixture, "both.pem");
        assert_eq!((run.code, lines(&run, "private key").len()), (8, 1), "{name}: {run:?}");
    }
    let read = |name: &str| std::fs::read(fixture.file(name)).unwrap();
    fixture.write("both.der", [read("cert.der"), read("pkcs8.der")].concat());
    assert_eq!(lines(&doctor(&fixture, "both.der"), "private key")[0].1, WORDS);
    fixture.write("a.jks", [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2]);
    for name in ["both.p12", "a.jks", "pkcs8.der"] {
        let run = doctor(&fixture, name);
        assert_eq!((run.code, lines(&run, "private key")[0].1.as_str()), (8, WORDS), "{name}: {run:?}");
    }
    assert_eq!(lines(&doctor(&fixture, "cert.pem"), "private key").len(), 0);
}

#[test]
fn a_file_without_a_certificate_is_named_with_a_next_step() {
    let fixture = Fixture::new();
    fixture.tool(
        "openssl",
        &["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", "k", "-out", "req.pem"],
    );
    fixture.tool("openssl", &["req", "-in", "req.pem", "-outform", "DER", "-out", "req.der"]);
    fixture.tool("openssl", &["rsa", "-in", "k", "-pubout", "-out", "public.pem"]);
    fixture.tool("openssl", &["rsa", "-in", "k", "-pubout", "-outform", "DER", "-out", "public.der"]);
    fixture.write("index.txt", "");
    let list = fixture.write(
        "ca.conf",
        "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ndefault_md = sha256\ndefault_crl_days = 9\n",
    );
    let list = ["ca", "-config", &list, "-gencrl", "-cert", "ca.pem", "-keyfile", "ca.key", "-out", "list.pem"];
    fixture.tool("openssl", &list);
    fixture.tool("openssl", &["crl", "-in", "list.pem", "-outform", "DER", "-out", "list.der"]);
    let pem = fixture.read("cert.pem");
    fixture.write("cut.pem", &pem[..400]);
    fixture.write("typo.pem", pem.replacen("MII", "M!I", 1));
    fixture.write("wrong-end.pem", pem.replace("END CERTIFICATE", "END PKCS7"));
    fixture.write(
        "cut-inside.pem",
        pem.lines().enumerate().filter(|(at, _)| *at != 5).map(|(_, line)| format!("{line}\n")).collect::<String>(),
    );
    fixture.write("page.html", "<!DOCTYPE html>\n<html>sign in</html>\n");
    fixture.write("empty", "");
    fixture.write("a.zip", "PK\x03\x04");
    fixture.write("words", "hello");
    fixture.write("small.pem", pem.replace("BEGIN CERTIFICATE", "begin certificate").replace("END CERT", "end cert"));
    fixture.write("em.pem", pem.replace("-----", "\u{2014}\u{2014}-"));
    fixture.write("four.pem", pem.replace("-----", "----"));
    fixture.tool("tar", &["-cf", "a.tar", "cert.pem"]);
    fixture.write("a.gz", "\u{1f}");
    fixture.tool("sh", &["-c", "gzip -c cert.pem > a.gz"]);
    for (name, words) in [
        ("req.pem", "a certificate signing request and no certificate"),
        ("req.der", "a certificate signing request and no certificate"),
        ("list.pem", "a list of revoked certificates (CRL) and no certificate"),
        ("list.der", "a list of revoked certificates (CRL) and no certificate"),
        ("public.pem", "a public key and no certificate"),
        ("public.der", "a public key and no certificate"),
        ("cut.pem", "a PEM file whose block CERTIFICATE cannot be read: its END line is missing"),
        ("typo.pem", "a PEM file whose block CERTIFICATE cannot be read: the text between BEGIN and END is not base64"),
        ("wrong-end.pem", "a PEM file whose block CERTIFICATE cannot be read: its END line has another label"),
        ("cut-inside.pem", "a certificate that cannot be read: "),
        ("page.html", "a web page (HTML)"),
        ("empty", "an empty file"),
        ("a.zip", "a ZIP archive"),
        ("a.tar", "a tar archive"),
        ("a.gz", "a file compressed with gzip"),
        ("small.pem", "a PEM file whose BEGIN line is damaged"),
        ("em.pem", "a PEM file whose BEGIN line is damaged"),
        ("four.pem", "a PEM file whose BEGIN line is damaged"),
        ("words", "not a certificate in a known form"),
    ] {
        let run = doctor(&fixture, name);
        let [(verdict, found, remedy)] = &lines(&run, "file")[..] else { panic!("{name}: {run:?}") };
        assert!(verdict == "failed" && found.starts_with(words) && !remedy.is_empty(), "{name}: {run:?}");
        assert_eq!(run.code, 8, "{name}");
        assert!(!remedy.contains("in PEM form") || name == "words", "{name}: {remedy}");
        let command = remedy.split('`').nth(usize::from(remedy.contains('`'))).unwrap_or_default();
        if remedy.contains("leaf.pem") || name.starts_with("a.") && name != "a.zip" {
            let _ = std::fs::remove_file(fixture.file("leaf.pem"));
            tool(
                Command::new("sh")
                    .args(["-ec", &command.replace(fixture.path().to_str().unwrap(), ".")])
                    .current_dir(fixture.path()),
            );
            let made = ["leaf.pem", "unpacked", "cert.pem"].into_iter().find(|made| fixture.path().join(made).exists());
            assert_eq!(fixture.read(made.unwrap()), pem, "{name}: {command}");
        }
        let options = ["--certificate-file", &fixture.file(name), "--policy-certificate-source", "token-or-file"];
        assert!(fixture.sign(&options).failed(2).contains(words), "{name}");
        let source = fixture.pin_source();
        let run = fixture.run(&["custody", "--pin-source", &source, "--roots", &fixture.file(name)]);
        assert!(run.failed(2).contains(words), "{name}");
    }
}
