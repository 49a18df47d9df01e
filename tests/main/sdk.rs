//! The official Python SDK, with nothing changed but its base URL and its access token.
//!
//! Its packages are pinned in `tests/sdk/requirements.txt`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::Verdict;

use crate::support::python::{self, Python};
use crate::support::{Rig, judge};

const CONTACTS: usize = 230;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

#[tokio::test]
async fn the_python_sdk_pages_writes_and_uploads_through_the_proxy() {
    let python = Python::with("python-sdk", &source("requirements.txt")).await;
    let rig = Rig::build()
        .tenants(0)
        .expired(1)
        .sandbox(|options| options.contacts = CONTACTS)
        .set(&settings::MAX_WAIT, "60s")
        .start()
        .await;
    let key = rig.client("app-server", &["t0"]).await;
    let (script, url) = (source("python_sdk.py"), rig.url("/v3"));
    let args = [script.to_str().unwrap(), url.as_str(), key.as_str()];
    let told = python::run(&python.program("python"), &args, "").await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["contacts"], &told["different"]), (&CONTACTS.into(), &CONTACTS.into()));
    assert_eq!((&told["created"], &told["updated"]), (&"created".into(), &"updated".into()));
    assert_eq!(told["same"], true);
    assert!(told["activity"].as_str().is_some_and(|id| id.len() > 10), "{told}");
    assert!(told["after"].as_u64() > Some(CONTACTS as u64), "{told}");
    let calls = judge::api_calls(&rig.sandbox);
    // 5 pages, the lists, two writes, an upload, and the pages again
    assert!(calls.len() >= 14, "{}", calls.len());
    assert!(calls.iter().all(|call| call.verdict == Verdict::Ok));
    assert!(calls.iter().all(|call| call.account.as_deref() == Some("t0")));
    judge::assert_no_429(&rig.sandbox);
}
