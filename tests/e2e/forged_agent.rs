//! A process that answers on an agent's socket and signs with its own keys: the client checks its answers against its
//! own policy.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA512, RsaKeyPair};

use crate::deadline::Finish as _;
use crate::fixture::{EXTENSIONS, Fixture, needs_root};

/// The extensions of a CA's server certificate.
const SERVER_CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature,keyCertSign\n\
    extendedKeyUsage=serverAuth\n";

/// The listener, with a key in a file.
struct Forger {
    fixture: Fixture,
    key: Arc<RsaKeyPair>,
    asked: Arc<AtomicUsize>,
}

impl Forger {
    fn new() -> Self {
        let fixture = Fixture::new();
        fixture.tool("openssl", &["genrsa", "-out", "forger.key", "2048"]);
        fixture.tool("openssl", &["rsa", "-in", "forger.key", "-pubout", "-out", "forger.pub"]);
        let pkcs8 = ["pkcs8", "-topk8", "-nocrypt", "-in", "forger.key", "-outform", "DER", "-out", "forger.der"];
        fixture.tool("openssl", &pkcs8);
        let key = RsaKeyPair::from_pkcs8(&fs::read(fixture.file("forger.der")).unwrap()).unwrap();
        Self { fixture, key: Arc::new(key), asked: Arc::default() }
    }

    /// Answers on a new socket with new payloads, under a new certificate.
    fn listen(&self, name: &str, version: &'static str, extensions: &str, validity: &[&str]) -> String {
        self.fixture.issue(name, "forger.pub", extensions, validity);
        let certificate = fs::read(self.fixture.file(&format!("{name}.der"))).unwrap();
        let socket = self.fixture.file(&format!("{name}.sock"));
        let (listener, asked, key) =
            (UnixListener::bind(&socket).unwrap(), Arc::clone(&self.asked), Arc::clone(&self.key));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let body = payload(&key, version, &certificate);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        socket
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A payload in the `json` format.
fn payload(key: &RsaKeyPair, version: &str, certificate: &[u8]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let message = [&now.to_be_bytes()[..], &[7; 92]].concat();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), &message, &mut signature).unwrap();
    let mut body = serde_json::json!({
        "encodedData": STANDARD.encode(&message),
        "encodedSignedData": STANDARD.encode(&signature),
    });
    if version == "v2" {
        body["encodedDataFormat"] = "v2".into();
    }
    serde_json::json!({
        "method": "POST",
        "url": "https://auth.anaplan.com/token/authenticate",
        "headers": {
            "Authorization": format!("CACertificate {}", STANDARD.encode(certificate)),
            "Content-Type": "application/json",
        },
        "body": body,
    })
    .to_string()
}

#[test]
fn the_client_checks_an_agents_payload_against_its_own_certificate_rules() {
    let forger = Forger::new();
    let good = EXTENSIONS.to_owned();
    let days = &["-days", "9"][..];
    let pin = "00".repeat(32);
    for (name, extensions, validity, options, why) in [
        ("expired", &good, &["-days", "-1"][..], &[][..], "expired on"),
        ("server", &SERVER_CA.to_owned(), days, &[], "is a CA's"),
        ("purpose", &good.replace("clientAuth,emailProtection", "serverAuth"), days, &[], "is for serverAuth"),
        ("usage", &good.replace("digitalSignature", "keyEncipherment"), days, &[], "lacks digitalSignature"),
        ("unpinned", &good, days, &["--policy-certificate-sha256", &pin], "is not allowed"),
        ("small", &good, days, &["--policy-min-rsa-bits", "3072"], "fewer than 3072"),
        ("version", &good, days, &["--policy-payload-versions", "v1"], "version v2 is not allowed"),
    ] {
        let socket = forger.listen(name, "v2", extensions, validity);
        let other = forger.fixture.file("no.sock");
        let arguments = [&["sign", "--socket", &socket, "--socket", &other][..], options].concat();
        let error = forger.fixture.run(&arguments).failed(5);
        assert!(
            error.contains(why) && error.contains("[policy]") | error.contains("always applies"),
            "{name}: {error}"
        );
    }
    let socket = forger.listen("good", "v2", EXTENSIONS, days);
    forger.fixture.run(&["sign", "--socket", &socket]).ok();
}

#[test]
fn the_client_does_not_request_a_version_that_its_policy_forbids() {
    let forger = Forger::new();
    let socket = forger.listen("v1", "v1", EXTENSIONS, &["-days", "9"]);
    let sign = ["sign", "--socket", &socket];
    let mut by_configuration = forger.fixture.command(&sign);
    by_configuration.env("CBA_AGENT_PAYLOAD_VERSION", "v1");
    let run = crate::fixture::Run::from_output(by_configuration.finish());
    assert!(run.failed(5).contains("--payload-version v1"));
    let flag = [&sign[..], &["--payload-version", "v1", "--policy-payload-versions", "v2"]].concat();
    assert!(forger.fixture.run(&flag).failed(5).contains("use --payload-version v2"));
    assert_eq!(forger.asked(), 0);
    forger.fixture.run(&[&sign[..], &["--payload-version", "v1"]].concat()).ok();
    // An agent that answers with v1 for a request of v2.
    let error = forger.fixture.run(&sign).failed(7);
    assert!(error.contains("the agent's payload is v1"), "{error}");
}

#[test]
fn roots_policy_applies_to_an_agents_payload_too() {
    needs_root("it mounts file systems of its own");
    let forger = Forger::new();
    let socket = forger.listen("unpinned", "v2", EXTENSIONS, &["-days", "9"]);
    let ask = |policy: &str, code: i32| {
        let arguments = ["sign", "--socket", &socket, "--policy-certificate-validity", "warn"];
        let run = crate::system_policy::run_under(&forger.fixture, policy, crate::system_policy::ROOTS, &arguments);
        assert_eq!((run.code, run.stdout.is_empty()), (code, code != 0), "{policy}: {run:?}");
    };
    ask(&format!("[policy]\ncertificate_sha256 = [\"{}\"]\n", "00".repeat(32)), 5);
    ask("[policy]\npayload_versions = [\"v1\"]\n", 5);
    ask("[policy]\npayload_versions = [\"v2\"]\n", 0);
}
