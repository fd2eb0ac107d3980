//! A module that writes to the parent itself, in the worker's place: the parent believes nothing of it and stays usable.

use serde_json::{Value, json};

use crate::stand::Stand;

/// The faulty module sends these messages as the worker would, when that call is made.
fn forging(call: &str, messages: &[Value]) -> Stand {
    let mut stand = Stand::new();
    stand.faulty(&format!("{call}=send"));
    let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
    let frames = stand.write("frames", lines.join("\n"));
    stand.set("FAULTY_FRAMES", frames);
    stand
}

/// A token as a worker reports it.
fn token() -> Value {
    json!({
        "label": "forged", "manufacturer": "nobody", "model": "none", "serial": "1", "firmware": "1.0", "hardware": false,
        "initialized": true, "login_required": true, "pin_initialized": true, "pin_count_low": false,
        "pin_final_try": false, "pin_locked": false, "pin_to_be_changed": false, "pinpad": false,
    })
}

/// A loaded module with one token.
fn opened(token: &Value) -> Value {
    let library = json!({ "cryptoki": "2.40", "manufacturer": "nobody", "description": "forged", "version": "1.0" });
    let confinement = json!({ "profile": "softhsm2", "files": 7, "calls": true });
    json!({ "Opened": {
        "library": library, "slots": [{ "id": 1, "token": token, "error": null }], "confinement": confinement,
    } })
}

#[test]
fn a_module_without_a_sandbox_cannot_claim_one() {
    let claim = json!({ "Confined": { "profile": "softhsm2", "landlock_abi": 7, "system_calls": true } });
    for messages in [vec![opened(&token())], vec![claim.clone(), opened(&token())], vec![claim]] {
        let stand = forging("C_Initialize", &messages);
        let doctor = stand.run(&["doctor", "--pin-source", &stand.pin_source()]);
        assert!(!doctor.stdout.contains("profile softhsm2"), "{doctor:?}");
    }
}
