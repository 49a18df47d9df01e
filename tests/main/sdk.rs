//! The official Python SDK, with nothing changed but its base URL and its access token.
//!
//! Its packages, pinned in `tests/sdk/requirements.txt`, are installed into the target folder and
//! kept there. Without Python, `venv` or the packages the test fails and says what is missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use ctct_proxy::config::settings;
use ctct_proxy::sandbox::Verdict;

use crate::support::{Rig, judge};

const CONTACTS: usize = 230;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

/// Runs a command and gives its output; ends the test, with `help`, when it fails.
async fn run(program: &Path, args: &[&str], help: &str) -> String {
    let line = format!("{} {}", program.display(), args.join(" "));
    let output = Command::new(program).args(args).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(300), output).await;
    let output = output.unwrap_or_else(|_| panic!("{line}: takes too long; {help}"));
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}; {help}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {}\n{out}{err}\n{help}", output.status);
    out.into_owned()
}

/// A Python with the pinned packages, made when there is none or other ones are pinned.
async fn python() -> PathBuf {
    let wanted = std::fs::read_to_string(source("requirements.txt")).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-sdk");
    let (python, installed) = (folder.join("bin/python"), folder.join("installed.txt"));
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    let _ = std::fs::remove_dir_all(&folder);
    let text = folder.to_str().unwrap();
    let help = "this test needs Python 3.9 or later with venv: run tests/install-deps.sh";
    run(Path::new("python3"), &["-m", "venv", text], help).await;
    let requirements = source("requirements.txt");
    let requirements = requirements.to_str().unwrap();
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
    let args: Vec<&str> = pip.into_iter().chain([requirements]).collect();
    run(&python, &args, "this test needs the Python Package Index once").await;
    std::fs::write(installed, wanted).unwrap();
    python
}

#[tokio::test]
async fn the_python_sdk_pages_writes_and_uploads_through_the_proxy() {
    let python = python().await;
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
    let told: Value = serde_json::from_str(&run(&python, &args, "").await).unwrap();
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
