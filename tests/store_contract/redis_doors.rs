//! How a Redis server lets an instance in: passwords, users with few rights, TLS.

use std::fs;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::time::timeout;

use ctct_proxy::config::{self, StoreUrl};

use crate::redis_process::RedisServer;
use crate::redis_server::{CALL_ENDS, fill, own_place, put, refresh_token, server};
use crate::support::{SharedPlace, secs, tenant, tokens};

/// Names the server of a child of this binary.
const URL: &str = "CTCT_PROXY_TEST_REDIS";
/// The rights that `docs/operations.md` asks for.
const RIGHTS: &str = "+@read +@write +@scripting +@connection +@pubsub +time +info +config|get";

fn url(text: &str) -> StoreUrl {
    config::store_url(text).expect("a URL")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_a_server_or_with_a_wrong_password_says_where() {
    let mut place = own_place(&["--requirepass", "hunter2"]);
    let port = place.server.port();
    let with = |password: &str| {
        let url = format!("redis://:{password}@127.0.0.1:{port}?prefix=p:");
        config::store_url(&url).expect("a URL")
    };
    let refused = place.refusal().await;
    assert!(refused.contains(&format!("127.0.0.1:{port}")), "{refused}");
    place.settings.url = with("hunter3");
    let refused = place.refusal().await;
    assert!(refused.contains("WRONGPASS") && !refused.contains("hunter"), "{refused}");
    place.settings.url = with("hunter2");
    place.open().await.close().await.expect("closes");
    server(&mut place).kill();
    let refused = timeout(2 * CALL_ENDS, place.refusal()).await.expect("in time");
    let place = format!("127.0.0.1:{port}");
    assert!(refused.contains(&place) && refused.contains("refused"), "{refused}");
    assert!(!refused.contains("hunter"), "{refused}");
}

#[tokio::test]
async fn a_server_without_hello_is_refused_and_the_password_that_it_repeats_is_not_told() {
    let without_hello = ["--requirepass", "hunter2", "--rename-command", "HELLO", ""];
    let mut place = own_place(&without_hello);
    let port = place.server.port();
    place.settings.url = url(&format!("redis://:hunter2@127.0.0.1:{port}?prefix=p:"));
    let refused = place.refusal().await;
    assert!(refused.contains("unknown command") && refused.contains("HELLO"), "{refused}");
    assert!(!refused.contains("hunter") && !refused.contains("AUTH"), "{refused}");
}

#[tokio::test]
async fn a_user_needs_no_more_rights_than_the_manual_says() {
    let manual = include_str!("../../docs/operations.md");
    assert!(manual.contains(RIGHTS), "the manual says other rights");
    let mut place = own_place(&[]);
    let keys = format!("~{}*", place.prefix());
    let channels = format!("&{}*", place.prefix());
    let mut words = vec!["ACL", "SETUSER", "proxy", "on", ">pw", "resetchannels"];
    words.extend([keys.as_str(), channels.as_str()]);
    words.extend(RIGHTS.split(' '));
    assert_eq!(place.server.cmd(&words), "+OK");
    let port = place.server.port();
    place.settings.url =
        url(&format!("redis://proxy:pw@127.0.0.1:{port}?prefix={}", place.prefix()));
    let store = place.open().await;
    let version = fill(&store).await;
    store.finish_refresh(&tenant("acme"), version, &tokens("2"), secs(1)).await.expect("finished");
    store.changes(None).await.expect("read");
    timeout(CALL_ENDS, store.changed()).await.expect("it listens");
    store.ping().await.expect("writable");
    store.remove_grant(&tenant("acme")).await.expect("removed");
    assert_eq!(store.clients().await.expect("read").len(), 1);
}

/// A server that speaks TLS, and the file of the authority that it is of.
fn tls_server(folder: &Path) -> (RedisServer, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let cert = params.signed_by(&key, &authority).expect("a certificate");
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("a text").to_owned()
    };
    let ca = write("ca.pem", authority.pem());
    let (cert, key) = (write("cert.pem", cert.pem()), write("key.pem", key.serialize_pem()));
    let args = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
    (RedisServer::start_with(&args), ca)
}

#[tokio::test]
async fn a_server_of_an_authority_that_is_not_trusted_is_refused() {
    let folder = tempfile::tempdir().expect("a directory");
    let (server, _) = tls_server(folder.path());
    let mut place = SharedPlace::on(server.into());
    let port = place.server.tls_port();
    place.settings.url = url(&format!("rediss://127.0.0.1:{port}"));
    let refused = place.refusal().await;
    assert!(refused.contains("certificate") && refused.contains(&port.to_string()), "{refused}");
}

#[tokio::test]
async fn a_server_of_a_trusted_authority_is_spoken_to_over_tls() {
    let folder = tempfile::tempdir().expect("a directory");
    let (server, ca) = tls_server(folder.path());
    // whom the system trusts is told by the environment, which only a child's may be changed
    let program = std::env::current_exe().expect("this binary has a path");
    let done = Command::new(program)
        .args(["redis_doors::role_tls", "--exact", "--nocapture"])
        .env(URL, format!("rediss://127.0.0.1:{}", server.tls_port()))
        .env("SSL_CERT_FILE", ca)
        .output()
        .expect("this binary starts");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && text.contains("role done"), "{text}");
    assert!(server.cmd(&["KEYS", "*"]).contains("{custody}:grant:acme"));
}

/// What the child does; without a server in the environment it does nothing.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a child is told its place by the environment")]
async fn role_tls() {
    let Ok(text) = std::env::var(URL) else { return };
    let mut place = SharedPlace::new();
    place.settings.url = url(&text);
    let store = place.open().await;
    put(&store, "acme", "1").await;
    assert_eq!(refresh_token(&store, "acme").await, "refresh-1");
    println!("role done");
}
