//! Starts that must not succeed: the exit code and what is said.

use std::os::unix::fs::PermissionsExt as _;

use http::Method;
use serde_json::json;

use crate::life::{program, ready, sandbox};
use crate::support::Program;

/// Starts and gives the exit code and the output.
async fn outcome(program: &Program) -> (Option<i32>, String) {
    let mut process = program.spawn();
    let code = process.end().await.code();
    // the readers may be a moment behind
    crate::support::until("it has said something", async || !process.log().is_empty()).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    (code, process.log())
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let sandbox = sandbox(|_| {}).await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (flag, key) in [("listen", "server.listen"), ("admin-listen", "server.admin_listen")] {
        let (code, said) = outcome(&program(&sandbox).flag(flag, &taken)).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&taken) && said.contains(key) && said.contains("in use"), "{said}");
    }
    drop(holder);
}

#[tokio::test]
async fn a_wrong_encryption_key_is_refused_and_changes_nothing() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    let (mut process, key) = ready(&program, &sandbox).await;
    process.signal("TERM").await;
    process.end().await;
    let before = std::fs::read(program.path("proxy.db")).unwrap();
    let file = program.path("other.key");
    std::fs::write(&file, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let program = program.flag("encryption-key-file", file.to_str().unwrap());
    let (code, said) = outcome(&program).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("key"), "{said}");
    assert!(!said.contains("AAAAAAAA"), "{said}");
    assert!(std::fs::read(program.path("proxy.db")).unwrap() == before);
    let program = program.without("encryption-key-file");
    let process = program.start().await;
    let call = process.call(Method::GET, &key, "t0", "/v3/contacts");
    process.http.send(call).await.expect(200);
}

#[tokio::test]
async fn a_database_in_use_is_refused_and_the_first_goes_on() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    let (process, key) = ready(&program, &sandbox).await;
    let (code, said) = outcome(&program).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("used by another process"), "{said}");
    let call = process.call(Method::GET, &key, "t0", "/v3/contacts");
    process.http.send(call).await.expect(200);
    process.put_tenant("t1", &sandbox.connect_tenant("app", "t1")).await;
}

#[tokio::test]
async fn a_corrupt_database_is_refused_in_words() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    let (mut process, _) = ready(&program, &sandbox).await;
    process.signal("TERM").await;
    process.end().await;
    let file = program.path("proxy.db");
    let whole = std::fs::read(&file).unwrap();
    let mut no_header = whole.clone();
    no_header[..32].fill(b'x');
    for damaged in [&no_header[..], &whole[..whole.len() / 2], b"a text"] {
        std::fs::write(&file, damaged).unwrap();
        let (code, said) = outcome(&program).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.to_lowercase().contains("proxy.db"), "{said}");
        assert!(!said.contains("panic"), "{said}");
    }
    std::fs::write(&file, whole).unwrap();
    let process = program.start().await;
    process.admin(Method::GET, "/v1/tenants/t0", &json!(null)).await.expect(200);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox).flag("store", "sqlite:/nonexistent/folder/proxy.db");
    let (code, said) = outcome(&program).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/nonexistent/folder"), "{said}");
}

#[tokio::test]
async fn all_mistakes_of_a_configuration_are_listed_with_exit_code_2() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox)
        .flag("per-second", "fast")
        .flag("max-wait", "soon")
        .flag("store", "redis");
    let (code, said) = outcome(&program).await;
    assert_eq!(code, Some(2), "{said}");
    for part in ["per_second", "fast", "queue.max_wait", "store.url", "sqlite:PATH"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn a_strangers_admin_call_is_refused_where_a_token_is_set() {
    let sandbox = sandbox(|_| {}).await;
    let program = program(&sandbox);
    std::fs::write(program.path("admin.token"), "operator-s3cret\n").unwrap();
    let file = program.path("admin.token");
    let process = program.flag("admin-token-file", file.to_str().unwrap()).start().await;
    for open in ["/livez", "/readyz", "/metrics"] {
        process.admin(Method::GET, open, &json!(null)).await.expect(200);
    }
    for (method, path) in [
        (Method::GET, "/v1/tenants"),
        (Method::GET, "/v1/api-keys"),
        (Method::POST, "/v1/clients"),
        (Method::GET, "/v1/events"),
    ] {
        process.admin(method, path, &json!({"name": "x", "tenants": "*"})).await.expect(401);
    }
    let url = format!("http://{}/v1/tenants", process.admin_address());
    let call = crate::support::Call::get(url).bearer("operator-s3cret");
    process.http.send(call).await.expect(200);
    assert!(!process.log().contains("operator-s3cret"));
}
