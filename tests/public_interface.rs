//! The public interface of the library, which is what `cba-gateway` uses: a list of it, and each item used once.
//!
//! `layering::no_public_function_but_run_reaches_a_token` says what it cannot do.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use cba_agent::client::{self, ClientError};
use cba_agent::file_format::{self, CertificateFile, FormatError, Packing, PemBlockError};
use cba_agent::leaf::{self, Leaf, LeafError};
use cba_agent::log::{self, LogFormat, LogSettings};
use cba_agent::{
    AuthUrl, AuthUrlError, BadResult, BerError, CLOCK_TOLERANCE, Certificate, CertificateError, Class, ConfigError,
    Deadline, Decision, Durations, EXIT_CODES, Error, Explain, Freshness, HeaderEncoding, Kind, LoginRequest,
    MAX_RSA_BITS, MIN_RSA_BITS, PayloadChoice, PayloadError, Policy, PolicyRefusal, Received, ReceivedError,
    RequestFormat, Result, SUBORDINATE_USERS, SubordinateIds, TIMEOUTS, VerifiedPayload, Version, by_name,
    check_received, check_stdout, days, decide_payload, hex, ignore_file_size_signal, now, parse_hex, prepare, print,
    printable, refuse_privileges, run, system_policy, take_descriptor, utc, with_causes,
};
use syn::{ImplItem, Item, Type, Visibility};

/// The public items of each layer, with the functions and fields of types.
const INTERFACE: [(&str, &str); 14] = [
    (
        "cba",
        "AuthUrl AuthUrl::parse AuthUrlError RequestFormat LoginRequest LoginRequest::new \
         LoginRequest::message_sha256 LoginRequest::render Version Received Received.certificate \
         Received::from_json Received::from_agent ReceivedError Freshness Freshness.now Freshness.max_age \
         Freshness.max_ahead VerifiedPayload",
    ),
    (
        "certificate",
        "Certificate Certificate.not_after Certificate.emails Certificate.modulus Certificate.exponent \
         Certificate::from_der Certificate::from_pem Certificate::der Certificate::sha256 \
         Certificate::bits Certificate::is_self_issued CertificateError HeaderEncoding BerError \
         CertificateFile CertificateFile.certificates CertificateFile.has_private_key read FormatError \
         FormatError::has_private_key FormatError::remedy Packing Leaf Leaf.certificate \
         LeafError find PemBlockError utc",
    ),
    ("client", "ANSWER_LIMIT ClientError get get_request health read sign_request"),
    ("commands", "run"),
    ("config", "ConfigError system_policy"),
    ("deadline", "Deadline Deadline::after"),
    (
        "error",
        "Class EXIT_CODES Error Error.kind Error.message Error.hints Error::new Error::hint \
         Error::context Explain Kind Kind::class Kind::exit_code Kind::retryable Result with_causes",
    ),
    (
        "log",
        "DEFAULT_LEVEL FORMATS LEVELS LogFormat LogSettings LogSettings.format LogSettings.level end \
         report start take_over_panics",
    ),
    (
        "os",
        "prepare refuse_privileges ignore_file_size_signal now take SubordinateIds SubordinateIds::read \
         SubordinateIds::owner USERS",
    ),
    ("output", "check_stdout print"),
    ("payload_check", "BadResult CLOCK_TOLERANCE PayloadError check_received"),
    (
        "policy",
        "MAX_RSA_BITS MIN_RSA_BITS Policy Policy.certificate_sha256 PayloadChoice PayloadChoice.version PayloadChoice.by_flag \
         Decision Decision::allowed PolicyRefusal decide_payload",
    ),
    ("text", "always_quoted hex parse_hex printable"),
    ("values", "by_name days Durations Durations::parse TIMEOUTS"),
];

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The public names of an item. Tests and `use` have none.
fn names(item: &Item) -> Vec<String> {
    let (visibility, name) = match item {
        Item::Const(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Fn(item) => (&item.vis, &item.sig.ident),
        Item::Static(item) => (&item.vis, &item.ident),
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        Item::Impl(item) => {
            let Type::Path(of) = &*item.self_ty else { return Vec::new() };
            let name = |item: &ImplItem| match item {
                ImplItem::Const(item) if is_public(&item.vis) => Some(item.ident.to_string()),
                ImplItem::Fn(item) if is_public(&item.vis) => Some(item.sig.ident.to_string()),
                _ => None,
            };
            let of = &of.path.segments.last().unwrap().ident;
            return item.items.iter().filter_map(name).map(|name| format!("{of}::{name}")).collect();
        }
        _ => return Vec::new(),
    };
    if !is_public(visibility) {
        return Vec::new();
    }
    let fields = match item {
        Item::Struct(item) => item.fields.iter().filter(|field| is_public(&field.vis)).collect(),
        _ => Vec::new(),
    };
    let fields = fields.into_iter().filter_map(|field| field.ident.as_ref()).map(|field| format!("{name}.{field}"));
    [name.to_string()].into_iter().chain(fields).collect()
}

/// The lint `unreachable_pub` rejects an item that is `pub` and not in the interface, so the two are the same.
#[test]
fn the_interface_is_as_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut open) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(directory) = open.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let file = path.strip_prefix(&root).unwrap().with_extension("").display().to_string();
            let layer = file.split('/').next().unwrap();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && layer != "fuzzing" {
                let items = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap().items;
                found.extend(items.iter().flat_map(names).map(|name| format!("{layer}: {name}")));
            }
        }
    }
    let listed =
        INTERFACE.iter().flat_map(|(layer, names)| names.split(' ').map(move |name| format!("{layer}: {name}")));
    let listed: BTreeSet<String> = listed.collect();
    let (new, gone): (Vec<_>, Vec<_>) = (found.difference(&listed).collect(), listed.difference(&found).collect());
    assert!(new.is_empty() && gone.is_empty(), "not in the list: {new:#?}, only in the list: {gone:#?}");
}

fn request() -> Received {
    let received: Result<Received, ReceivedError> =
        Received::from_json(include_bytes!("../fuzz/seeds/received/request.json"));
    received.unwrap()
}

#[test]
fn a_payload_is_checked_and_becomes_a_login_request() {
    let received = request();
    let certificate: &Certificate = &received.certificate;
    let now = certificate.not_after - 1;
    let freshness = Freshness { now, max_age: now, max_ahead: CLOCK_TOLERANCE };
    let choice = PayloadChoice { version: Version::V2, by_flag: false };
    let checked: Result<(VerifiedPayload, Vec<String>), PayloadError> =
        check_received(&received, choice, &Policy::default(), freshness);
    let (payload, _) = checked.unwrap();
    let url: Result<AuthUrl, AuthUrlError> = AuthUrl::parse("https://auth.example.com");
    let request = LoginRequest::new(&url.unwrap(), (certificate, HeaderEncoding::Der), &payload);
    assert!(request.render(RequestFormat::Header).unwrap().starts_with("Authorization: CACertificate "));
    assert_eq!(request.message_sha256().len(), 64);

    let stale = Freshness { max_age: 0, ..freshness };
    let error: BadResult = match check_received(&received, choice, &Policy::default(), stale) {
        Err(PayloadError::Result(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error.kind(), Kind::SignatureInvalid);
}

#[test]
fn the_policy_of_root_refuses_a_payload() {
    let policy: Result<Policy, ConfigError> = system_policy();
    let mut policy = policy.unwrap_or_default();
    policy.certificate_sha256 = Some(vec![vec![0; 32]]);
    let certificate = request().certificate;
    let choice = PayloadChoice { version: Version::V2, by_flag: false };
    let decision: Decision = decide_payload(&policy, choice, &certificate, certificate.not_after - 1);
    let refused: PolicyRefusal = decision.allowed().unwrap_err();
    assert_eq!(refused.kind(), Kind::Policy);
    const { assert!(MIN_RSA_BITS < MAX_RSA_BITS) };
}

#[test]
fn certificates_and_their_files_are_read() {
    let pem = include_bytes!("data/leaf.pem");
    let certificate: Result<Certificate, CertificateError> = Certificate::from_pem(pem);
    let certificate = certificate.unwrap();
    assert_eq!(Certificate::from_der(certificate.der()).unwrap().sha256(), certificate.sha256());
    assert!(certificate.bits() >= MIN_RSA_BITS && !certificate.is_self_issued());
    assert!(!certificate.modulus.is_empty() && !certificate.exponent.is_empty() && certificate.emails.len() < 9);
    assert!(utc(certificate.not_after).ends_with('Z'));
    assert!(matches!(Certificate::from_der(b""), Err(CertificateError::NotX509(BerError::Truncated))));

    let file: Result<CertificateFile, FormatError> = file_format::read(pem);
    let file = file.unwrap();
    assert!(!file.has_private_key);
    let leaf: Result<Leaf, LeafError> = leaf::find(&file.certificates);
    assert_eq!(leaf.unwrap().certificate, certificate);
    let unfinished = file_format::read(b"-----BEGIN CERTIFICATE-----\nAAAA\n");
    assert!(matches!(unfinished, Err(FormatError::Block { reason: PemBlockError::NoEnd, .. })), "{unfinished:?}");
    let _: fn(Packing) -> FormatError = FormatError::Packed;
    let error = file_format::read(include_bytes!("../fuzz/seeds/certificate/c.p12")).unwrap_err();
    assert!(!error.remedy(&file_format::quoted("c.p12")).is_empty() && error.has_private_key());
}

#[test]
fn a_client_of_an_agent_gets_errors_of_their_kind() {
    let deadline = Deadline::after(Duration::from_secs(9));
    let nowhere = Path::new("/nonexistent");
    let reply: Result<Vec<u8>, ClientError> = client::health(nowhere, true, &deadline);
    assert_eq!(reply.unwrap_err().kind(), Kind::AgentUnreachable);
    assert!(client::get(nowhere, "/certificate", &deadline).is_err());
    assert!(client::get_request("/certificate").starts_with("GET /certificate HTTP/1.1\r\n"));
    assert!(client::sign_request(Version::V2, Some("etl")).ends_with("{\"job\":\"etl\",\"payload_version\":\"v2\"}"));
    assert_eq!(client::ANSWER_LIMIT, 1 << 20);
    let reply = client::read("a", include_bytes!("../fuzz/seeds/answer/ok")).unwrap();
    assert!(!reply.is_empty());
}

#[test]
fn errors_have_a_kind_a_class_and_an_exit_code() {
    let error = Error::new(Kind::Config, "cannot start").hint("do this").context("cannot serve");
    assert_eq!((error.message.as_str(), error.hints.len()), ("cannot serve: cannot start", 1));
    assert!(error.kind.class() == Class::Usage && !error.kind.retryable());
    assert!(EXIT_CODES.iter().any(|(code, _)| *code == error.kind.exit_code()));
    let broken = Certificate::from_der(b"x").unwrap_err();
    assert_eq!(with_causes(&broken), broken.to_string());
}

#[test]
fn values_are_parsed_and_printed() {
    let timeouts: Durations = TIMEOUTS;
    assert_eq!(timeouts.parse("5m"), Ok(Duration::from_secs(300)));
    assert_eq!(by_name("json", &log::FORMATS), Ok(LogFormat::Json));
    assert_eq!(by_name("info", &log::LEVELS), Ok(log::DEFAULT_LEVEL));
    assert_eq!(parse_hex(&hex(&[1, 171])), Some(vec![1, 171]));
    assert_eq!((days(86_400).as_str(), printable("\u{7}").contains('\u{7}')), ("1 day", false));
    assert!(now() > 1_700_000_000);
}

/// A call of one of these changes the process of the tests, or ends in a process that signs.
#[test]
fn the_steps_of_a_process_are_public() {
    let _: [fn() -> Result<()>; 4] = [prepare, refuse_privileges, ignore_file_size_signal, check_stdout];
    let _: fn(&str) -> Result<()> = print;
    let _: fn(Vec<OsString>) -> u8 = run;
    let _: fn(RawFd) -> io::Result<File> = take_descriptor;
    let _: fn(LogSettings, u8) = log::start;
    let _: fn(LogFormat) = log::take_over_panics;
    let _: fn(&Error, LogFormat) = log::report;
    let _: fn() = log::end;
    let _ = LogSettings { format: LogFormat::Text, level: log::DEFAULT_LEVEL };
    let owners: SubordinateIds = SubordinateIds::read(Path::new(SUBORDINATE_USERS)).unwrap();
    assert_eq!(owners.owner(u32::MAX), None);
}
