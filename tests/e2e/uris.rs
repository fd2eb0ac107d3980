//! PKCS#11 URIs as other programs print them. Each selects its token.

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, faulty_module, softhsm_module};

/// The four fields of a token, as a module returns them.
struct Fields([Vec<u8>; 4]);

impl Fields {
    /// As OpenSC 0.26's `pkcs11-tool --list-token-slots` and `-O` print them: without trailing spaces, with reserved
    /// characters in lower-case percent-encoding, and everything else unchanged.
    fn as_opensc_prints_them(&self) -> String {
        let names = ["model", "manufacturer", "serial", "token"];
        let field = |name: &str, value: &[u8]| {
            let text = String::from_utf8(value.to_vec()).unwrap();
            let text = text.split('\0').next().unwrap().trim_end_matches(' ').to_owned();
            let encoded: String = text
                .chars()
                .map(|c| if " !\"#$%&'()*+,/:;=?@[]".contains(c) { format!("%{:x}", u32::from(c)) } else { c.into() })
                .collect();
            format!("{name}={encoded}")
        };
        let fields: Vec<String> = names.iter().zip(&self.0).map(|(name, value)| field(name, value)).collect();
        format!("pkcs11:{}", fields.join(";"))
    }

    /// As a program prints them that encodes every byte of each field, including padding.
    fn as_bytes(&self, padding: u8) -> String {
        let names = [("model", 16), ("manufacturer", 32), ("serial", 16), ("token", 32)];
        let field = |name: &str, length: usize, value: &[u8]| {
            let mut padded = value.to_vec();
            padded.resize(length, padding);
            let encoded: String = padded.iter().map(|byte| format!("%{byte:02x}")).collect();
            format!("{name}={encoded}")
        };
        let fields: Vec<String> =
            names.iter().zip(&self.0).map(|((name, length), value)| field(name, *length, value)).collect();
        format!("pkcs11:{}", fields.join(";"))
    }
}

/// The URIs that GnuTLS's p11tool prints.
fn p11tool(fixture: &Fixture, module: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = fixture.program("p11tool");
    let output = command.env("GNUTLS_PIN", fixture.pin()).arg("--provider").arg(module).args(arguments).finish();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let uris = text.lines().filter_map(|line| line.trim().strip_prefix("URL:").map(|uri| uri.trim().to_owned()));
    uris.collect()
}

#[test]
fn the_uris_of_p11tool_and_opensc_select_with_any_padding() {
    let mut fixture = Fixture::new();
    for rules in
        ["", "pad:nul", "label=a b;serial=%1;pad:nul", "label=caf\u{e9} /;=?#[x]", "serial=", "label=\u{e9}\u{4e2d}"]
    {
        fixture.faulty(rules);
        let module = faulty_module().display().to_string();
        let tokens = p11tool(&fixture, &module, &["--list-tokens"]);
        assert!(!tokens.is_empty(), "apt-get install gnutls-bin");
        for uri in tokens.iter().filter(|uri| !uri.contains("token=;") && uri.contains("token=")) {
            fixture.sign(&["--uri", uri]).ok();
            for object in p11tool(&fixture, &module, &["--login", "--list-all", uri]) {
                fixture.sign(&["--uri", &object]).ok();
            }
        }
        let list: serde_json::Value = serde_json::from_str(&fixture.run(&["list", "--json"]).ok()).unwrap();
        let token = &list["modules"][0]["slots"][0]["token"];
        let field = |name: &str| token[name].as_str().unwrap().as_bytes().to_vec();
        let fields = Fields([field("model"), field("manufacturer"), field("serial"), field("label")]);
        fixture.sign(&["--uri", &fields.as_opensc_prints_them()]).ok();
        fixture.sign(&["--uri", &fields.as_bytes(b' ')]).ok();
        fixture.sign(&["--uri", &fields.as_bytes(0)]).ok();
        fixture.sign(&["--uri", list["modules"][0]["slots"][0]["uri"].as_str().unwrap()]).ok();
    }
}

#[test]
fn a_label_that_is_not_utf_8_is_selected_by_its_bytes() {
    let mut fixture = Fixture::new();
    fixture.faulty("latin1");
    let module = faulty_module().display().to_string();
    let uris = p11tool(&fixture, &module, &["--list-tokens"]);
    let uri = uris.iter().find(|uri| uri.contains("token=caf%E9")).expect("p11tool shows the label's bytes");
    fixture.sign(&["--uri", uri]).ok();
}

#[test]
fn attributes_of_module_and_slot_are_compared_and_unknown_ones_match_nothing() {
    let fixture = Fixture::new();
    let show = |flag: &str, name: &str| {
        let mut command = std::process::Command::new("pkcs11-tool");
        command.env("SOFTHSM2_CONF", fixture.file("softhsm2.conf")).args(["--module", &softhsm_module(), flag]);
        let text = String::from_utf8_lossy(&command.finish().stdout).into_owned();
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned();
        line[line.find(name).unwrap() + name.len()..].trim().trim_start_matches(':').trim().to_owned()
    };
    let (maker, library) = (show("--show-info", "Manufacturer"), show("--show-info", "Library"));
    // `Implementation of PKCS11 (ver 2.6)`
    let (description, version) = library.rsplit_once(" (ver ").unwrap();
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let (maker, description, version) = (encoded(&maker), encoded(description), version.trim_end_matches(')'));
    fixture
        .sign(&[
            "--uri",
            &format!("pkcs11:library-manufacturer={maker};library-description={description};library-version={version}"),
        ])
        .ok();
    let slot = show("--list-slots", "Slot 0 (");
    let slot = encoded(slot.split_once("): ").unwrap().1);
    fixture.sign(&["--uri", &format!("pkcs11:slot-description={slot}")]).ok();
    for (uri, word) in [
        ("pkcs11:library-version=99.1", "the module is pkcs11:library-manufacturer="),
        ("pkcs11:slot-description=none", "no token matches"),
        ("pkcs11:slot-manufacturer=none", "no token matches"),
        ("pkcs11:token=cba;x-vendor=SECRET", "the attribute 'x-vendor' of the URI is not known"),
    ] {
        let error = fixture.sign(&["--uri", uri]).failed(3);
        assert!(error.contains(word) && !error.contains("SECRET"), "{uri}: {error}");
    }
    fixture.sign(&["--uri", "pkcs11:token=cba?max-sessions=3&x-vendor=a&x-vendor=b"]).ok();
}

#[test]
fn attributes_that_carry_a_pin_or_code_are_refused_with_the_option_to_use_instead() {
    let fixture = Fixture::new();
    for (uri, option) in [
        ("pkcs11:token=cba?pin-value=SECRET", "use --pin-source file:PATH"),
        ("pkcs11:token=cba;pin-value=SECRET", "use --pin-source file:PATH"),
        ("pkcs11:token=cba?module-path=/SECRET.so", "choose the module with --module"),
        ("pkcs11:token=cba?module-name=SECRET", "choose the module with --module"),
        ("pkcs11:token=cba?pin-source=|/bin/SECRET", "use --pin-source"),
        ("pkcs11:token=cba?pin-source=/SECRET", "use --pin-source"),
    ] {
        let error = fixture.sign(&["--uri", uri]).failed(2);
        assert!(error.contains(option) && !error.contains("SECRET"), "{uri}: {error}");
    }
}
