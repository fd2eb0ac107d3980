//! Every call of a signature, with each relevant return value. The exit code is always as documented, no payload has a
//! bad signature, a failure prints nothing on stdout, and no process remains.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fixture::{Fixture, Run};

/// PKCS#11 return values of failing modules, with their numbers.
const VALUES: [(u64, &str); 24] = [
    (0x02, "CKR_HOST_MEMORY"),
    (0x03, "CKR_SLOT_ID_INVALID"),
    (0x05, "CKR_GENERAL_ERROR"),
    (0x06, "CKR_FUNCTION_FAILED"),
    (0x07, "CKR_ARGUMENTS_BAD"),
    (0x30, "CKR_DEVICE_ERROR"),
    (0x31, "CKR_DEVICE_MEMORY"),
    (0x32, "CKR_DEVICE_REMOVED"),
    (0x50, "CKR_FUNCTION_CANCELED"),
    (0x54, "CKR_FUNCTION_NOT_SUPPORTED"),
    (0x60, "CKR_KEY_HANDLE_INVALID"),
    (0x68, "CKR_KEY_FUNCTION_NOT_PERMITTED"),
    (0x82, "CKR_OBJECT_HANDLE_INVALID"),
    (0x90, "CKR_OPERATION_ACTIVE"),
    (0x91, "CKR_OPERATION_NOT_INITIALIZED"),
    (0xa0, "CKR_PIN_INCORRECT"),
    (0xa4, "CKR_PIN_LOCKED"),
    (0xb0, "CKR_SESSION_CLOSED"),
    (0xb1, "CKR_SESSION_COUNT"),
    (0xb3, "CKR_SESSION_HANDLE_INVALID"),
    (0xe0, "CKR_TOKEN_NOT_PRESENT"),
    (0xe1, "CKR_TOKEN_NOT_RECOGNIZED"),
    (0x190, "CKR_CRYPTOKI_NOT_INITIALIZED"),
    (0x8000_0001, "CKR_VENDOR_DEFINED(0x80000001)"),
];

/// Calls that every signature needs.
const NEEDED: [&str; 9] = [
    "C_Initialize",
    "C_GetSlotList",
    "C_OpenSession",
    "C_Login",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_GetAttributeValue",
    "C_SignInit",
    "C_Sign",
];

/// Calls whose failure does not prevent the signature.
const NOT_NEEDED: [&str; 7] = [
    "C_GetInfo",
    "C_GetSlotInfo",
    "C_GetMechanismList",
    "C_GetMechanismInfo",
    "C_Logout",
    "C_CloseSession",
    "C_Finalize",
];

/// The documented exit code of a failed call; `None` if another way still leads to a signature.
fn expected(call: &str, name: &str) -> Option<i32> {
    match (call, name) {
        ("C_Login", "CKR_PIN_INCORRECT" | "CKR_PIN_LOCKED" | "CKR_ARGUMENTS_BAD" | "CKR_FUNCTION_CANCELED") => Some(4),
        ("C_Sign" | "C_SignInit", "CKR_KEY_FUNCTION_NOT_PERMITTED") => Some(3),
        (_, "CKR_SLOT_ID_INVALID" | "CKR_KEY_FUNCTION_NOT_PERMITTED") => Some(3),
        // A token that does not report a class of attributes shows keys without the required properties.
        ("C_GetAttributeValue", "CKR_FUNCTION_NOT_SUPPORTED") => Some(3),
        _ => Some(6),
    }
}

fn workers_of(fixture: &Fixture) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let directories = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    directories.filter(|directory| directory == fixture.path()).count()
}

#[test]
fn processes_started_by_a_module_end_with_it() {
    let mut fixture = Fixture::new();
    for (rules, code) in
        [("C_Initialize=spawn", 0), ("C_Initialize=spawn;C_Sign=abort", 6), ("C_Login=spawn;C_Login#2=0xa0", 0)]
    {
        fixture.faulty(rules);
        assert_eq!(fixture.sign(&[]).code, code, "{rules}");
        assert_eq!(workers_of(&fixture), 0, "{rules}");
    }
}

/// Rules of the faulty module, and the check of the run.
type Row = (String, Box<dyn Fn(&Fixture, Run) + Send + Sync>);

/// Runs every row on two threads, each with separate fixtures.
fn run_rows(rows: Vec<Row>) -> usize {
    let (next, ran) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut fixture = Fixture::new();
                while let Some((rules, check)) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let _ = std::fs::remove_dir_all(fixture.path().join("home"));
                    fixture.faulty(rules);
                    let run = fixture.sign(&["--timeout", "20s"]);
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&fixture, run)));
                    if outcome.is_err() || workers_of(&fixture) != 0 {
                        failed.lock().unwrap().push(rules.clone());
                    }
                    ran.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "rows that do not hold: {failed:#?}");
    ran.into_inner()
}

#[test]
fn every_call_times_every_return_value_ends_as_documented() {
    let mut rows: Vec<Row> = Vec::new();
    for call in NEEDED {
        for (value, name) in VALUES {
            let check = move |_: &Fixture, run: Run| match expected(call, name) {
                Some(code) => {
                    let error = run.failed(code);
                    assert!(error.contains("CKR_") || code == 3, "{error}");
                }
                None => drop(run.ok()),
            };
            rows.push((format!("{call}={value:#x}"), Box::new(check)));
        }
    }
    for call in NOT_NEEDED {
        for value in [0x05, 0x06, 0x30, 0x54] {
            rows.push((format!("{call}={value:#x}"), Box::new(|_: &Fixture, run: Run| drop(run.ok()))));
        }
    }
    let ran = run_rows(rows);
    assert!(ran >= 200, "{ran} rows");
}

#[test]
fn a_corrupted_signature_is_exit_7_and_nothing_on_stdout() {
    let mut fixture = Fixture::new();
    for rules in ["C_Sign=corrupt", "C_Sign=corrupt;nomech:42"] {
        fixture.faulty(rules);
        let error = fixture.sign(&[]).failed(7);
        assert!(error.contains("the signature does not verify") && error.contains("alarm"), "{error}");
    }
}

#[test]
fn a_token_that_is_taken_out_is_exit_6_and_works_again_when_it_is_back() {
    let mut fixture = Fixture::new();
    fixture.faulty("");
    fixture.set("FAULTY_GONE", fixture.file("gone"));
    fixture.sign(&[]).ok();
    fixture.write("gone", "");
    assert!(fixture.sign(&[]).failed(6).contains("C_GetTokenInfo: CKR_DEVICE_REMOVED"));
    std::fs::remove_file(fixture.file("gone")).unwrap();
    fixture.sign(&[]).ok();
}
