//! The calls of a module, recorded by pkcs11-spy and compared with a list of allowed calls.

use std::collections::BTreeSet;
use std::path::Path;

use crate::deadline::Finish as _;
use crate::fixture::Run;
use crate::stack::Stack;

/// Calls that read.
const READING: [&str; 15] = [
    "C_GetInterface",
    "C_GetFunctionList",
    "C_Initialize",
    "C_Finalize",
    "C_GetInfo",
    "C_GetSlotList",
    "C_GetSlotInfo",
    "C_GetTokenInfo",
    "C_GetMechanismList",
    "C_GetMechanismInfo",
    "C_OpenSession",
    "C_CloseSession",
    "C_GetSessionInfo",
    "C_GetAttributeValue",
    "C_FindObjects",
];

const FINDING: [&str; 2] = ["C_FindObjectsInit", "C_FindObjectsFinal"];
const LOGIN: [&str; 2] = ["C_Login", "C_Logout"];
/// In one part, or in two where the module keeps a separate state for each load.
const SIGNING: [&str; 4] = ["C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal"];

/// Attributes that hold a private key.
const PRIVATE: [&str; 6] =
    ["CKA_PRIVATE_EXPONENT", "CKA_PRIME_1", "CKA_PRIME_2", "CKA_EXPONENT_1", "CKA_EXPONENT_2", "CKA_COEFFICIENT"];

fn module() -> String {
    let usual = [
        "/usr/lib/x86_64-linux-gnu/pkcs11/pkcs11-spy.so",
        "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
        "/usr/lib64/pkcs11-spy.so",
    ];
    let found = usual.into_iter().find(|path| Path::new(path).exists());
    found.expect("pkcs11-spy is not installed: apt-get install opensc-pkcs11").to_owned()
}

/// Runs the agent through the spy. Returns the log, and deletes it, since it holds the PIN.
pub(crate) fn record(stack: &mut dyn Stack, arguments: &[&str]) -> String {
    let real = stack.module();
    let log = stack.fixture().write("spy.log", "");
    let mut command = stack.command(arguments);
    command
        .arg("--module-debug")
        .env("CBA_AGENT_MODULE", module())
        .env("PKCS11SPY", real)
        .env("PKCS11SPY_OUTPUT", &log);
    let run = Run::from_output(command.finish());
    assert!(run.stderr.contains("warning: --module-debug"), "{}", run.stderr);
    // Some tokens do not meet the custody rules, and some hosts lack what doctor looks for.
    assert!(run.code == 0 || run.code == 8 && ["custody", "doctor"].contains(&arguments[0]), "{run:?}");
    let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    std::fs::remove_file(log).unwrap();
    text
}

/// Compares a log with the list.
#[track_caller]
pub(crate) fn check(log: &str, may_log_in: bool, may_sign: bool) {
    let call = |line: &str| {
        let (number, name) = line.split_once(": ")?;
        (number.chars().all(|c| c.is_ascii_digit()) && name.starts_with("C_")).then(|| name.trim().to_owned())
    };
    let made: BTreeSet<String> = log.lines().filter_map(call).collect();
    assert!(made.contains("C_Initialize"), "the spy saw nothing: {log}");
    for name in &made {
        let name = name.as_str();
        let allowed = READING.contains(&name)
            || FINDING.contains(&name)
            || may_log_in && LOGIN.contains(&name)
            || may_sign && SIGNING.contains(&name);
        assert!(allowed, "{name} was called");
    }
    assert_eq!(made.contains("C_Sign") || made.contains("C_SignFinal"), may_sign);
    for attribute in PRIVATE {
        assert!(!log.contains(attribute), "{attribute} was asked for");
    }
}
