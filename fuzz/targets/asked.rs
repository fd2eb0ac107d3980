//! Bodies of `POST /sign`: an accepted body has two members of fixed forms.

#![no_main]
#![allow(missing_docs)]

use cba_agent::http_api::{SignRequest, is_job};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let Ok(asked) = SignRequest::from_json(body) else { return };
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else { panic!("no JSON object") };
    assert!(members.keys().all(|name| name == "payload_version" || name == "job"), "{members:?}");
    assert!(members.values().all(Value::is_string), "{members:?}");
    assert!(asked.job.as_deref().is_none_or(is_job), "{asked:?}");
    assert_eq!(
        asked.version.map(|version| version.to_string()).as_deref(),
        members.get("payload_version").and_then(Value::as_str)
    );
});
