//! File, environment and flags.

use crate::deadline::Finish as _;
use crate::fixture::{Fixture, Run};

#[test]
fn a_flag_beats_the_environment_and_the_environment_the_file() {
    let mut fixture = Fixture::new();
    let url = |text: &str| format!("[sign]\nauth_url = \"https://{text}.example\"\n");
    let config = fixture.write("c.toml", url("file"));
    let target = |fixture: &Fixture, more: &[&str]| {
        let mut arguments = vec!["--config", &config, "--format", "curl"];
        arguments.extend(more);
        let text = fixture.sign(&arguments).ok();
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(target(&fixture, &[]), r#"url = "https://file.example/token/authenticate""#);
    fixture.set("CBA_AGENT_AUTH_URL", "https://variable.example");
    assert!(target(&fixture, &[]).contains("variable.example"));
    assert!(target(&fixture, &["--auth-url", "https://flag.example"]).contains("flag.example"));
}

#[test]
fn a_configuration_file_alone_is_enough() {
    let mut fixture = Fixture::new();
    fixture.use_module(None);
    let text = format!(
        "module = \"softhsm2\"\nstate_dir = \"{}\"\n[token]\nlabel = \"cba\"\nslot = 0\n[identity]\nkey_id = \"01\"\n\
         [pin]\nsource = \"{}\"\n[sign]\npayload_version = \"v2\"\nheader_encoding = \"pem\"\ntimeout = \"20s\"\nwarn_before = \"1d\"\n\
         [policy]\nmin_rsa_bits = 2048\nrequire = [\"sensitive\", \"non-extractable\", \"local\"]\ncertificate_validity = \"enforce\"\n\
         [log]\nformat = \"json\"\nlevel = \"debug\"\n",
        fixture.file("state"),
        fixture.pin_source(),
    );
    std::fs::create_dir_all(fixture.file("home/.config/cba-agent")).unwrap();
    fixture.write("home/.config/cba-agent/config.toml", text);
    let run = fixture.run(&["sign"]);
    assert!(run.stderr.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{}", run.stderr);
    assert!(run.ok().contains("CACertificate LS0t"));
    let failed = fixture.run(&["sign", "--token-label", "none"]);
    let last: serde_json::Value = serde_json::from_str(failed.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((failed.code, last["code"].as_u64()), (3, Some(3)), "errors have the configured form too");
    assert!(fixture.path().join("state").is_dir());
}

#[test]
fn mistakes_name_key_line_and_expected_value() {
    let fixture = Fixture::new();
    for (text, words) in [
        ("[token]\nlable = \"x\"\n", &["line 2: there is no key 'token.lable'"][..]),
        ("\nmodule = 5\n", &["line 2: module: must be a string"]),
        ("[sign]\ntimeout = \"soon\"\n", &["line 2: sign.timeout", "30s"]),
        ("[policy]\nrequire = []\n", &["line 2: policy.require", "at least one"]),
        ("[policy]\nrequire = [\"good\"]\n", &["one of: sensitive, non-extractable"]),
        ("[sign]\nauth_url = \"http://example.com\"\n", &["only https"]),
        ("module = \"a\"\nmodule = \"b\"\n", &["line 2"]),
        ("[log]\nformat = \"xml\"\n", &["one of: text, json, journald"]),
        ("[token]\nslot = -1\n", &["line 2: token.slot: must be a whole number from 0 to 65535"]),
        ("[token]\nslot = 99999999999999999999999\n", &["line 2: token.slot: must be a whole number from 0 to 65535"]),
        ("[serve]\nqueue = -1\n", &["line 2: serve.queue: must be a whole number from "]),
        ("[token]\nslot_id = 0x99999999999999999\n", &["line 2: token.slot_id: must be a whole number"]),
        ("[[token]]\nlabel = \"x\"\n", &["line 1: token: must be a table: a line [token]"]),
        ("\nsign = \"30s\"\n", &["line 2: sign: must be a table: a line [sign]"]),
    ] {
        let file = fixture.write("c.toml", text);
        let error = fixture.run(&["sign", "--config", &file]).failed(2);
        for word in words {
            assert!(error.contains(word), "{text}: {error}");
        }
    }
    let error = fixture.run(&["sign", "--config", "/nonexistent.toml"]).failed(2);
    assert!(error.contains("cannot read the configuration /nonexistent.toml"), "{error}");
}

#[test]
fn a_refused_auth_url_is_a_usage_error() {
    let fixture = Fixture::new();
    for url in ["http://auth.anaplan.com", "https://u:p@auth.anaplan.com", "https://auth.anaplan.com?a=b", "ftp://x"] {
        fixture.sign(&["--auth-url", url]).failed(2);
    }
}

#[test]
fn the_order_of_tables_in_a_file_does_not_matter() {
    let fixture = Fixture::new();
    let pin = format!("[pin]\nsource = \"{}\"\n", fixture.pin_source());
    let token = "[token]\nuri = \"pkcs11:token=cba?pin-source=file:/nonexistent\"\n";
    for text in [format!("{pin}{token}"), format!("{token}{pin}")] {
        let file = fixture.write("c.toml", text);
        fixture.run(&["sign", "--config", &file]).ok();
    }
}

#[test]
fn policy_values_that_cannot_work_are_refused() {
    let fixture = Fixture::new();
    fixture.sign(&["--policy-min-rsa-bits", "1024"]).failed(2);
    fixture.sign(&["--policy-extended-key-usage", "..."]).failed(2);
    fixture.sign(&["--policy-extended-key-usage", "1.3.6.1.5.5.7.3.2"]).ok();
}

#[test]
fn a_configuration_from_a_pipe_is_read_once() {
    let fixture = Fixture::new();
    let text = format!("[pin]\nsource = \"{}\"\n[sign]\nauth_url = \"https://piped.example\"\n", fixture.pin_source());
    let run = fixture.run_with_input(&["sign", "--config", "/dev/stdin"], &text);
    assert!(run.ok().contains("https://piped.example/token/authenticate"));
}

#[test]
fn an_unknown_cba_agent_variable_gets_a_warning_and_doctor_lists_it() {
    let mut fixture = Fixture::new();
    fixture.set("CBA_AGENT_TOKEN_SERAIL", "SECRET1");
    let said = "the variable CBA_AGENT_TOKEN_SERAIL is unknown, and ignored";
    let file = fixture.write("request", fixture.sign(&[]).stdout);
    for arguments in [
        &["sign", "--pin-source", &fixture.pin_source()][..],
        &["list"],
        &["certificate"],
        &["verify", "--header", &file, "--body", &file],
        &["audit", "head", "/nonexistent"],
        &["pin-fuse"],
        &["health", "--socket", "/nonexistent"],
    ] {
        let run = fixture.run(arguments);
        assert_eq!(run.stderr.matches(said).count(), 1, "{arguments:?}: {run:?}");
        assert!(
            run.stderr.contains("did you mean CBA_AGENT_TOKEN_SERIAL?") && !run.stderr.contains("SECRET1"),
            "{run:?}"
        );
    }
    let report = fixture.run(&["doctor", "--pin-source", &fixture.pin_source()]);
    assert!(report.stdout.contains(said) && !report.stdout.contains("SECRET1"), "{report:?}");
    assert!(!report.stderr.contains(said), "{report:?}");
    let broken = fixture.write("broken.toml", "x");
    assert!(fixture.run(&["doctor", "--config", &broken]).stdout.contains(said));
    // A user's variable, which a PIN source names.
    let mut fixture = Fixture::new();
    fixture.set("CBA_AGENT_PIN", fixture.pin());
    assert_eq!(fixture.run(&["sign", "--pin-source", "env:CBA_AGENT_PIN"]).stderr, "");
    assert!(fixture.sign(&[]).stderr.contains("did you mean CBA_AGENT_PIN_SOURCE?"));
}

#[test]
fn quotation_marks_and_line_ends_from_a_file_of_variables_are_named() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    for (name, value, cause) in [
        ("CBA_AGENT_SLOT", "\"0\"", "quotation mark"),
        ("CBA_AGENT_SLOT", "0\r", "Windows line ends"),
        ("CBA_AGENT_TOKEN_LABEL", "'cba'", "quotation mark"),
        ("CBA_AGENT_TOKEN_LABEL", "cba\r", "Windows line ends"),
        ("CBA_AGENT_CONFIG", "/etc/x.toml\r", "Windows line ends"),
        ("CBA_AGENT_PIN_SOURCE", "\"env:SECRET1\"", "quotation mark"),
        ("CBA_AGENT_POLICY_REQUIRE", "sensitive\nlocal", "line break"),
        ("CBA_AGENT_MODULE", "softhsm2 ", "a space"),
    ] {
        let mut command = fixture.command(&["sign"]);
        let error = Run::from_output(command.env(name, value).finish()).failed(2);
        assert!(error.contains(name) && error.contains(cause) && !error.contains("SECRET1"), "{name}: {error}");
    }
    assert!(fixture.sign(&["--token-label", "cba\r"]).failed(2).contains("Windows line ends"));
    assert!(fixture.sign(&["--slot", "'0'"]).failed(2).contains("quotation mark"));
    // A PIN in quotation marks would cost a try.
    fixture.set("MY_PIN", format!("\"{}\"", fixture.pin()));
    let error = fixture.run(&["sign", "--pin-source", "env:MY_PIN"]).failed(4);
    assert!(error.contains("docker --env-file") && !error.contains(&fixture.pin()), "{error}");
    assert_eq!(fixture.calls("C_Login"), 0);
}

#[test]
fn a_file_in_another_encoding_is_named() {
    let fixture = Fixture::new();
    let text = "module = \"softhsm2\"\n";
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content, cause) in [
        ([&[0xff, 0xfe], &wide[..]].concat(), "UTF-16"),
        (wide, "UTF-16"),
        (b"module = \"s\xfc\"\n".to_vec(), "Latin-1"),
    ] {
        let path = fixture.write("odd.toml", content);
        let error = fixture.sign(&["--config", &path]).failed(2);
        assert!(error.contains(cause) && error.contains("save the file as UTF-8"), "{error}");
    }
}

#[test]
fn a_list_in_one_flag_is_separated_as_in_a_variable() {
    let fixture = Fixture::new();
    fixture.sign(&["--policy-require", "sensitive,non-extractable, local"]).ok();
    let error = fixture.sign(&["--policy-require", "sensitive,hardware-token"]).failed(5);
    assert!(error.contains("hardware-token"), "{error}");
    // A path stays whole.
    let error = fixture.run(&["sign", "--socket", "/nonexistent/a,b"]).failed(9);
    assert!(error.contains("/nonexistent/a,b"), "{error}");
}

#[test]
fn every_large_number_or_duration_is_refused_or_works() {
    let fixture = Fixture::new();
    let payload = fixture.sign(&[]).ok();
    for huge in ["18446744073709551615s", "18446744073709551615", "584942417355y", "-1s", "36501d"] {
        for (command, flag) in [
            ("sign", "--timeout"),
            ("sign", "--warn-before"),
            ("health", "--timeout"),
            ("serve", "--call-timeout"),
            ("serve", "--request-timeout"),
            ("certificate", "--expires-within"),
            ("verify", "--max-age"),
        ] {
            let error = fixture.run(&[command, &format!("{flag}={huge}")]).failed(2);
            assert!(error.contains(&format!("{flag}: must be a duration from ")), "{error}");
        }
        for name in ["CBA_AGENT_TIMEOUT", "CBA_AGENT_SERVE_CALL_TIMEOUT", "CBA_AGENT_SERVE_REQUEST_TIMEOUT"] {
            let error = Run::from_output(fixture.command(&["sign"]).env(name, huge).finish()).failed(2);
            assert!(error.contains(&format!("{name}: must be a duration from ")), "{error}");
        }
    }
    fixture.sign(&["--timeout", "1d", "--warn-before", "36500d"]).ok();
    assert_eq!(fixture.run(&["certificate", "--expires-within", "36500d"]).code, 8);
    fixture.run_with_input(&["verify", "--max-age", "36500d"], &payload).ok();
    let mut command = fixture.command(&["sign"]);
    command.args(["--pin-source", &fixture.pin_source()]).env("CBA_AGENT_SERVE_CALL_TIMEOUT", "1d");
    Run::from_output(command.finish()).ok();
}

#[test]
fn an_agent_accepts_the_largest_values_and_any_watchdog_period() {
    use crate::agent::Agent;
    let fixture = Fixture::new();
    let arguments = Agent::arguments(
        &fixture,
        &[
            "--call-timeout",
            "1d",
            "--request-timeout",
            "1d",
            "--queue",
            "65536",
            "--total-rate-limit-per-second",
            "20000000",
        ],
    );
    for period in ["0", "1", "18446744073709551615"] {
        let mut command = fixture.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        command.env("WATCHDOG_USEC", period);
        let mut agent = Agent::start(&fixture, command);
        agent.wait_for_state("STATUS=ready");
        agent.payload();
        let (status, log) = agent.end("-TERM");
        assert!(status.success(), "{period}: {log}");
    }
}
