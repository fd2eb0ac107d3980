//! The bodies of the fuzz targets, so that no internal is public for them. A unit test runs each of their seeds.

use std::fmt::Debug;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::LazyLock;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::audit::chain::{Head, LINE_LIMIT, digest, follows, head_of, may_be_first};
use crate::audit::check::ChainCheck;
use crate::cba::message::time_of;
use crate::cba::received::Received;
use crate::cba::verify;
use crate::cba::verify::Freshness;
use crate::certificate::chain::{Roots, above};
use crate::certificate::{
    Certificate, HeaderEncoding, attestation, file_format, leaf, pem_certificates, unpadded, utc,
};
use crate::client;
use crate::config::{Config, Settings};
use crate::error::Error;
use crate::http_api::{SignRequest, is_job};
use crate::policy::{Policy, decide_certificate};
use crate::selector::Uri;
use crate::worker_protocol::{FrameKind, HEADER, LIMIT, WorkerReply, WorkerRequest, decode, encode, length};

/// Inputs that contain it have it as their PIN: no other text looks like this.
const MARKER: &str = "QZXPINXZQ";

/// Reads an answer on an agent's socket: only a complete HTTP answer is accepted, and its text is escaped.
pub fn answer(bytes: &[u8]) {
    match client::read("/run/agent.sock", bytes) {
        Ok(answer) => {
            // Empty lines before it are ignored (RFC 9112 section 2.2).
            assert!(bytes.trim_ascii_start().starts_with(b"HTTP/1.") && bytes.ends_with(&answer));
        }
        Err(error) => {
            let error = Error::from(error);
            let words = error.hints.iter().chain([&error.message]);
            assert!(words.into_iter().all(|text| !text.chars().any(char::is_control)), "{error:?}");
        }
    }
}

/// Reads a body of `POST /sign`: an accepted body has two members of fixed forms.
pub fn asked(body: &[u8]) {
    let Ok(request_body) = SignRequest::from_json(body) else { return };
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else { panic!("no JSON object") };
    assert!(members.keys().all(|name| name == "payload_version" || name == "job"), "{members:?}");
    assert!(members.values().all(Value::is_string), "{members:?}");
    assert!(request_body.job.as_deref().is_none_or(is_job), "{request_body:?}");
    assert_eq!(
        request_body.version.map(|version| version.to_string()).as_deref(),
        members.get("payload_version").and_then(Value::as_str)
    );
}

/// Checks an audit log: a chain that passes the check was written completely.
pub fn audit(bytes: &[u8]) {
    let mut check = ChainCheck::default();
    let mut problems = Vec::new();
    let mut before: Option<Head> = None;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let whole = line.ends_with(b"\n");
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = &line[..line.len().min(LINE_LIMIT)];
        let _ = (may_be_first(line), digest(line));
        problems.extend(check.line(line, whole, &format!("line {}", number + 1)));
        if let (Some(head), Some(before)) = (head_of(line), &before) {
            assert!(!follows(line, before) || head.seq == before.seq + 1, "{head}");
        }
        before = head_of(line).or(before);
        let named = before.as_ref().map(ToString::to_string);
        assert_eq!(named.as_deref().and_then(Head::parse), before);
    }
    problems.extend(check.end());
    assert!(problems.iter().all(|line| !line.chars().any(char::is_control)), "{problems:?}");
    if problems.is_empty() {
        assert!(check.head().is_none_or(|head| Some(head) == before.as_ref()), "the head is not of the last record");
    }
}

/// Reads certificates and their files: facts, both encodings of the header, chains, attestations, padding.
pub fn certificate(bytes: &[u8]) {
    let _ = (pem_certificates(bytes), attestation::statement(bytes));
    match file_format::read(bytes) {
        Ok(file) => drop(leaf::find(&file.certificates)),
        Err(what) => assert!(!what.remedy("a file").is_empty()),
    }
    if let Ok(certificate) = unpadded(bytes) {
        assert!(bytes.starts_with(certificate) && unpadded(certificate).ok() == Some(certificate));
    }
    let roots = Roots::read(bytes);
    let parsed = if bytes.starts_with(&[0x30]) { Certificate::from_der(bytes) } else { Certificate::from_pem(bytes) };
    let Ok(certificate) = parsed else { return };
    let _ = (certificate.key_usage_names(), certificate.bits());
    let _ = (certificate.is_self_issued(), utc(certificate.not_before), utc(certificate.not_after));
    let _ = decide_certificate(&Policy::default(), &certificate, 1_800_000_000);
    let _ = above(&certificate, &[bytes, certificate.der()], 1_800_000_000);
    if let Ok((roots, _)) = roots {
        let _ = roots.check(&certificate, &[bytes], 1_800_000_000);
    }
    for encoding in [HeaderEncoding::Der, HeaderEncoding::Pem] {
        let value = certificate.header_value(encoding);
        assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)), "{value:?}");
    }
    let again = Certificate::from_pem(certificate.pem().as_bytes()).expect("its own PEM");
    assert_eq!(again.der(), certificate.der());
    assert_eq!(again.sha256(), certificate.sha256());
}

/// Reads a configuration file: no error repeats the value of a PIN key, nor forges a line.
pub fn config(bytes: &[u8]) {
    let mut file = File::from(memfd_create("config", MemfdFlags::CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("a written file");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let settings = Settings::gather(Some(path.as_ref()), |_| None, |_| None);
    let error = match settings.and_then(|settings| Config::resolve(&settings, false)) {
        Ok(_) => return,
        Err(error) => Error::from(error).to_string(),
    };
    let is_key_or_table =
        |text: &str| text.lines().any(|line| line.split('=').next().is_some_and(|key| key.contains(MARKER)));
    let text = String::from_utf8_lossy(bytes);
    assert!(!error.contains(MARKER) || is_key_or_table(&text), "{error}");
    assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{error:?}");
}

/// Reads frames of both directions: a decoded message is encoded and decoded to the same message, and no length over the
/// limit is accepted.
pub fn frames(bytes: &[u8]) {
    if let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        assert!(length(*header, FrameKind::Message, LIMIT).unwrap_or_default() <= LIMIT);
    }
    both_ways::<WorkerRequest>(bytes);
    both_ways::<WorkerReply>(bytes);
}

fn both_ways<T: Serialize + DeserializeOwned + Debug + PartialEq>(bytes: &[u8]) {
    let Ok(message) = decode::<T>(bytes) else { return };
    let frame = encode(&message).expect("what was read is no longer than what was read");
    let (header, body) = frame.split_first_chunk::<HEADER>().expect("a frame has a header");
    assert_eq!(length(*header, FrameKind::Message, LIMIT).expect("our own length"), body.len());
    assert_eq!(decode::<T>(body).expect("our own frame"), message);
    // It contains no field with which its sender could choose the signed bytes.
    let text = serde_json::from_slice::<Value>(body).expect("JSON").to_string();
    assert!(!text.contains("\"Sign\":{\"message\"") && !text.contains("\"data\""), "{text}");
}

/// Signatures that a token really made.
static SIGNED: LazyLock<Vec<Received>> = LazyLock::new(|| {
    let whole = [
        &include_bytes!("../fuzz/seeds/received/request.json")[..],
        include_bytes!("../fuzz/seeds/received/request-pem.json"),
        include_bytes!("../fuzz/seeds/received/request-v1.json"),
    ];
    let (header, body) = include_str!("../fuzz/seeds/received/parts").split_once('\n').expect("two lines");
    let parts = Received::from_parts(header, body.as_bytes());
    let all = whole.into_iter().map(Received::from_json).chain([parts]);
    all.map(|received| received.expect("a seed is a request")).collect()
});

/// Reads a request for `verify`: only the signatures of the seeds, each over its own message, are ever accepted.
pub fn received(bytes: &[u8]) {
    if let Ok(received) = Received::from_json(bytes) {
        check(&received);
    }
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    if let Ok(received) = Received::from_parts(&String::from_utf8_lossy(&bytes[..at]), &bytes[at + 1..]) {
        check(&received);
    }
}

fn check(received: &Received) {
    let now = time_of(&SIGNED[0].message).expect("a v2 message");
    let freshness = Freshness { now, max_age: 300, max_ahead: 60 };
    let signed = (received.message.as_slice(), received.signature.as_slice());
    if verify(received.version, received.payload(), &received.certificate, freshness).is_ok() {
        let is_real = |real: &Received| (real.message.as_slice(), real.signature.as_slice()) == signed;
        assert!(SIGNED.iter().any(is_real), "a forged signature was accepted");
    }
}

/// Parses a PKCS#11 URI: it is printed and parses to the same again, and no error repeats a possible PIN.
pub fn uri(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Uri::parse(text) {
        Ok(mut uri) => {
            let printed = uri.to_string();
            let again = Uri::parse(&printed).unwrap_or_else(|error| panic!("{printed:?}: {error}"));
            // The PIN's source and the name of an unknown attribute are never printed.
            uri.pin_file = None;
            uri.token.unknown = None;
            assert_eq!(uri, again, "{printed:?}");
        }
        Err(error) => {
            let error = error.to_string();
            if let Some((before, rest)) = text.split_once("pin-value=") {
                let after = rest.find(['&', ';', '?']).map_or("", |end| &rest[end..]);
                let marked = Uri::parse(&format!("{before}pin-value={MARKER}{after}"));
                assert!(!marked.is_err_and(|error| error.to_string().contains(MARKER)), "{text:?}");
            }
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds");

    type Body = fn(&[u8]);

    const BODIES: [(&str, Body); 8] = [
        ("answer", answer),
        ("asked", asked),
        ("audit", audit),
        ("certificate", certificate),
        ("config", config),
        ("frames", frames),
        ("received", received),
        ("uri", uri),
    ];

    #[test]
    fn every_seed_is_run() {
        for (target, body) in BODIES {
            let directory = format!("{SEEDS}/{target}");
            let seeds = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
            let seeds: Vec<Vec<u8>> = seeds.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
            assert!(seeds.len() >= 3, "{target}");
            seeds.iter().for_each(|seed| body(seed));
        }
    }

    #[test]
    fn every_target_of_the_agent_has_its_body_and_its_seeds() {
        let names = |directory: &str| -> BTreeSet<String> {
            let name = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
            let names = fs::read_dir(directory).unwrap().map(|entry| name(entry.unwrap()));
            names.filter(|name| !name.starts_with("gateway_")).collect()
        };
        let bodies: BTreeSet<String> = BODIES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names(SEEDS), bodies);
        assert_eq!(names(&format!("{SEEDS}/../targets")), bodies);
    }
}
