//! The login as a user runs it: curl with `sign --format curl`, against the tests' authentication service.

use crate::deadline::Finish as _;
use crate::examples::service;
use crate::fixture::{BINARY, Fixture, Run};
use crate::service::{Behaviour, Service};

/// The README's line, with the service's URL.
fn log_in(fixture: &Fixture, service: &Service, flags: &str) -> Run {
    let line = format!(
        "r=$({BINARY} sign --slot 0 --pin-source file:pin --auth-url {} {flags} --format curl) || exit; \
         printf '%s\\n' \"$r\" | curl -sS --write-out '\\n%{{http_code}}' --config -",
        service.url
    );
    let mut command = fixture.program("sh");
    command.args(["-c", &line]);
    Run::from_output(command.finish())
}

fn status(run: Run) -> String {
    run.ok().lines().last().unwrap().to_owned()
}

#[test]
fn curl_logs_in_with_every_version_and_encoding() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    for version in ["v2", "v1"] {
        for encoding in ["der", "pem"] {
            let said =
                log_in(&fixture, &service, &format!("--payload-version {version} --header-encoding {encoding}")).ok();
            assert!(said.contains(r#""status":"SUCCESS""#) && said.ends_with("201"), "{said}");
        }
    }
}

#[test]
fn the_services_refusals_reach_the_user_through_curl() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    service.behave(Behaviour { refuse_v1: true, ..Behaviour::default() });
    assert_eq!(status(log_in(&fixture, &service, "--payload-version v1")), "401");
    assert_eq!(status(log_in(&fixture, &service, "")), "201");
    service.behave(Behaviour { too_many: true, ..Behaviour::default() });
    assert_eq!(status(log_in(&fixture, &service, "")), "429");
    service.behave(Behaviour { unavailable: true, ..Behaviour::default() });
    assert_eq!(status(log_in(&fixture, &service, "")), "503");
    let other = Fixture::with(&["--label", "other"]);
    let service = crate::examples::service(&other);
    assert!(log_in(&fixture, &service, "").ok().contains("certificate is not registered"));
}

#[test]
fn a_v2_payload_logs_in_once_and_a_v1_payload_again_and_again() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    for (version, again) in [("v2", "401"), ("v1", "201")] {
        let config = fixture.sign(&["--auth-url", &service.url, "--payload-version", version, "--format", "curl"]).ok();
        let file = fixture.write("curlrc", config);
        let post =
            || fixture.tool("curl", &["-sS", "-o", "/dev/null", "--write-out", "%{http_code}", "--config", &file]);
        assert_eq!((post().as_str(), post().as_str()), ("201", again), "{version}");
    }
}

#[test]
fn the_readmes_line_keeps_our_exit_code() {
    let fixture = Fixture::new();
    let service = service(&fixture);
    fixture.write("pin", "wrong-one");
    let run = log_in(&fixture, &service, "");
    assert_eq!((run.code, run.stdout.as_str()), (4, ""));
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
}
