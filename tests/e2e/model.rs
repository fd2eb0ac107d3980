//! The part of Anaplan's integration API that clients use: workspaces, files, and tasks of actions, which take time.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::{Value, json};

const JSON: &str = "application/json";

/// One workspace with one model, which contains what clients put into it.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Files by their IDs.
    files: Mutex<HashMap<String, Vec<u8>>>,
    /// How often a client polled each task.
    polls: Mutex<HashMap<String, usize>>,
}

impl Model {
    /// The answer to a request: status, content type, body. `None` for an unknown path.
    pub(crate) fn answer(&self, method: &str, path: &str, body: &[u8]) -> Option<(u16, &'static str, String)> {
        let path = path.strip_prefix("/2/0/workspaces")?;
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let ok = |value: Value| Some((200, JSON, value.to_string()));
        match (method, parts.as_slice()) {
            ("GET", []) => ok(json!({
                "meta": { "paging": { "currentPageSize": 1, "totalSize": 1, "offset": 0 } },
                "status": { "code": 200, "message": "Success" },
                "workspaces": [{
                    "id": "ws1", "name": "Planning", "active": true, "sizeAllowance": 1_073_741_824_u64, "currentSize": 4096,
                }],
            })),
            ("PUT", ["ws1", "models", "m1", "files", file]) => {
                self.files.lock().unwrap().insert((*file).into(), body.to_vec());
                Some((204, JSON, String::new()))
            }
            ("POST", ["ws1", "models", "m1", "files", file]) => {
                assert!(serde_json::from_slice::<Value>(body).unwrap()["chunkCount"].as_u64() > Some(1));
                self.files.lock().unwrap().insert((*file).into(), Vec::new());
                ok(json!({ "file": { "id": file } }))
            }
            ("PUT", ["ws1", "models", "m1", "files", file, "chunks", _]) => {
                // In the order in which the script sends them.
                self.files.lock().unwrap().get_mut(*file)?.extend(body);
                Some((204, JSON, String::new()))
            }
            ("GET", ["ws1", "models", "m1", "files", file, "chunks"]) => {
                let is_there = self.files.lock().unwrap().contains_key(*file);
                is_there.then(|| ok(json!({ "chunks": [{ "id": "0", "name": "Chunk 0" }] })))?
            }
            ("GET", ["ws1", "models", "m1", "files", file, "chunks", "0"]) => {
                let file = self.files.lock().unwrap().get(*file).cloned()?;
                Some((200, "application/octet-stream", String::from_utf8(file).unwrap()))
            }
            ("POST", ["ws1", "models", "m1", kind, action, "tasks"]) => {
                assert!(["imports", "exports", "processes", "actions"].contains(kind), "{kind}");
                assert_eq!(serde_json::from_slice::<Value>(body).unwrap(), json!({ "localeName": "en_US" }));
                if *kind == "exports" {
                    self.files.lock().unwrap().insert((*action).into(), b"a,b\n1,2\n".to_vec());
                }
                ok(json!({ "task": { "taskId": format!("t-{action}") } }))
            }
            ("GET", ["ws1", "models", "m1", _, action, "tasks", task]) => {
                let mut polls = self.polls.lock().unwrap();
                let count = polls.entry((*task).into()).or_insert(0);
                *count += 1;
                let task = if *count < 3 {
                    json!({ "taskId": task, "taskState": "IN_PROGRESS", "progress": 0.3 * *count as f64 })
                } else {
                    let successful = *action != "118000000666";
                    json!({
                        "taskId": task, "taskState": "COMPLETE", "progress": 1.0,
                        "result": { "successful": successful, "failureDumpAvailable": !successful },
                    })
                };
                ok(json!({ "task": task }))
            }
            _ => None,
        }
    }
}
