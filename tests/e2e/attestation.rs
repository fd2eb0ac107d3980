//! The attestation of a key in the custody report.

use serde_json::Value;

use crate::custody::{report, verdict, write_certificate};
use crate::fixture::Fixture;

/// A device certificate and its attestation of a key, in a YubiKey's form, under a test root.
pub(crate) fn attest(fixture: &Fixture, name: &str, public_key: &str) {
    if !std::path::Path::new(&fixture.file("device.key")).exists() {
        fixture.tool("openssl", &["genrsa", "-out", "device.key", "2048"]);
        fixture.tool("openssl", &["rsa", "-in", "device.key", "-pubout", "-out", "device.pub"]);
        fixture.issue("device", "device.pub", "basicConstraints=critical,CA:TRUE,pathlen:0\n", &["-days", "9"]);
        write_certificate(fixture, "device", "25");
    }
    // Firmware 5.4.3, serial 12345678, PIN once, touch always.
    let statement = "1.3.6.1.4.1.41482.3.3=DER:05:04:03\n1.3.6.1.4.1.41482.3.7=DER:02:04:00:bc:61:4e\n\
                     1.3.6.1.4.1.41482.3.8=DER:02:02\n";
    let extensions = fixture.write(&format!("{name}.ext"), statement);
    let new = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-out", "req.pem"];
    fixture.tool("openssl", &[&new[..], &["-subj", "/CN=YubiKey PIV Attestation 9a"]].concat());
    let sign = ["x509", "-req", "-in", "req.pem", "-CA", "device.pem", "-CAkey", "device.key", "-CAcreateserial"];
    let der = fixture.file(&format!("{name}.der"));
    let out = ["-force_pubkey", public_key, "-extfile", &extensions, "-days", "9", "-outform", "DER", "-out", &der];
    fixture.tool("openssl", &[&sign[..], &out].concat());
    write_certificate(fixture, name, "01");
}

#[test]
fn an_attestation_counts_only_for_this_key_and_token_with_a_chain_to_its_makers_root() {
    let mut fixture = Fixture::new();
    fixture.faulty("serial=12345678");
    let (root, other) =
        (fixture.file("ca.pem"), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/other-ca.pem").to_owned());
    let none = report(&fixture, &["--attestation-roots", &root]);
    assert_eq!(verdict(&none, "attestation"), "broken");
    assert_eq!(verdict(&report(&fixture, &[]), "attestation"), "not-asked");
    // An attestation of another key under the same ID: the ID proves nothing.
    fixture.tool("openssl", &["genrsa", "-out", "key.pem", "2048"]);
    fixture.tool("openssl", &["rsa", "-in", "key.pem", "-pubout", "-out", "key.pub"]);
    attest(&fixture, "of-another", "key.pub");
    let strange = report(&fixture, &["--attestation-roots", &root]);
    assert_eq!((verdict(&strange, "attestation").as_str(), &strange["attestation"]), ("broken", &Value::Null));
    attest(&fixture, "of-ours", "pub.pem");
    let believed = report(&fixture, &["--attestation-roots", &root]);
    assert_eq!(verdict(&believed, "attestation"), "holds", "{believed}");
    let attestation = &believed["attestation"];
    assert_eq!(attestation["trusted"], true);
    let stated = ["firmware", "serial", "pin_policy", "touch_policy"].map(|name| attestation[name].as_str().unwrap());
    assert_eq!(stated, ["5.4.3", "12345678", "once", "always"]);
    let doubted = report(&fixture, &["--attestation-roots", &other]);
    assert_eq!(
        (verdict(&doubted, "attestation").as_str(), &doubted["attestation"]["trusted"]),
        ("broken", &false.into())
    );
    fixture.sign(&[]).ok();
    // The same attestation on a token with another serial number: the key is in another device.
    for (serial, more) in
        [("12345679", &["--attestation-roots", &root][..]), ("12345679", &[]), ("", &["--attestation-roots", &root])]
    {
        fixture.faulty(&format!("serial={serial}"));
        let allowed = ["--policy-token-serials", serial];
        let allowed = if serial.is_empty() { &[][..] } else { &allowed[..] };
        let elsewhere = report(&fixture, &[more, allowed].concat());
        assert_eq!(verdict(&elsewhere, "attestation"), "broken", "{serial}: {elsewhere}");
        assert_eq!(verdict(&elsewhere, "token_serials"), if serial.is_empty() { "not-asked" } else { "holds" });
        let words = elsewhere["refusals"][0].as_str().unwrap();
        assert!(words.contains("is of device 12345678") || serial.is_empty(), "{words}");
    }
    // Leading zeros make no difference. A forged attestation of another device beside a true one does.
    fixture.faulty("serial=0012345678");
    assert_eq!(verdict(&report(&fixture, &["--attestation-roots", &root]), "attestation"), "holds");
}
