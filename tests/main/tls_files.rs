//! TLS files that change while the proxy runs, starts that their mistakes keep from happening, and
//! the admin listener behind TLS.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use ctct_proxy::config::settings;

use crate::life::{program, sandbox};
use crate::support::certificates::{Authority, Pair, connect, replace, shows};
use crate::support::{Http, Process, Program, Rig, RigBuilder, raw, until};

const PATH: &str = "/v3/contacts?limit=1";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A proxy whose certificate is in `folder`.
fn rig(folder: &Path) -> RigBuilder {
    Rig::build()
        .set(&settings::TLS_CERT, text(&folder.join("tls.crt")))
        .set(&settings::TLS_KEY, text(&folder.join("tls.key")))
}

/// The same as a process.
fn with_tls(program: Program, folder: &Path) -> Program {
    program
        .flag("tls-cert", text(&folder.join("tls.crt")))
        .flag("tls-key", text(&folder.join("tls.key")))
}

async fn comes_to_show(address: std::net::SocketAddr, authority: &Authority, pair: &Pair) {
    until("the new certificate is shown", async || shows(address, authority, pair).await).await;
}

#[tokio::test]
async fn renewed_files_are_taken_and_connections_under_way_go_on() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (old, new) = (authority.server(), authority.server());
    old.write(folder.path());
    let rig = rig(folder.path()).start().await;
    let address = rig.app.data_address();
    let mut before = connect(address, authority.trusted()).await.unwrap();
    assert!(shows(address, &authority, &old).await);
    new.write(folder.path());
    comes_to_show(address, &authority, &new).await;
    let call = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nCtct-Tenant: t0\r\n");
    let call = format!("{call}Authorization: Bearer {}\r\n\r\n", rig.key);
    before.write_all(call.as_bytes()).await.unwrap();
    let head = raw::read_head_of(&mut before).await;
    assert_eq!(raw::status(&head), 200, "{head}");
    let page = rig.admin(Method::GET, "/metrics").await.expect(200).body;
    // what the certificates of these tests end at: 4096-01-01
    let line = "ctct_proxy_certificate_end_time_seconds{listener=\"server\"} 67090118400";
    assert!(String::from_utf8_lossy(&page).contains(line), "{page:?}");
}

/// Points `folder/..data` to a folder with `pair`, the way Kubernetes does.
fn mount(folder: &Path, version: &str, pair: &Pair) {
    let (versioned, beside) = (folder.join(version), folder.join("..data_tmp"));
    std::fs::create_dir(&versioned).unwrap();
    pair.write(&versioned);
    symlink(version, &beside).unwrap();
    std::fs::rename(&beside, folder.join("..data")).unwrap();
}

#[tokio::test]
async fn a_mounted_secret_is_taken_when_its_link_is_swapped() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (old, new) = (authority.server(), authority.server());
    mount(folder.path(), "..1", &old);
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), folder.path().join(file)).unwrap();
    }
    let rig = rig(folder.path()).start().await;
    let address = rig.app.data_address();
    assert!(shows(address, &authority, &old).await);
    mount(folder.path(), "..2", &new);
    comes_to_show(address, &authority, &new).await;
}

#[tokio::test]
async fn a_pair_that_does_not_belong_together_is_refused_until_it_does() {
    let (authority, sandbox) = (Authority::new(), sandbox(|_| {}).await);
    let (old, new) = (authority.server(), authority.server());
    let program = program(&sandbox);
    let files = old.write(program.folder());
    let process = with_tls(program.clone(), program.folder()).start().await;
    process.says("certificate in use").await;
    let refused = async |count: usize| {
        let said = async || process.log().matches("those before stay in force").count() >= count;
        until("it is refused", said).await;
        assert!(shows(process.data(), &authority, &old).await);
    };
    replace(&files.cert, &new.cert);
    refused(1).await;
    assert!(process.log().contains("server.tls_key does not belong"), "{}", process.log());
    replace(&files.cert, "no PEM at all");
    refused(2).await;
    replace(&files.key, &new.key);
    refused(3).await;
    std::fs::remove_file(&files.cert).unwrap();
    refused(4).await;
    new.write(program.folder());
    comes_to_show(process.data(), &authority, &new).await;
    process.says("new certificate in use").await;
    assert!(!process.log().contains("PRIVATE KEY") && !process.log().contains("no PEM at all"));
}

#[tokio::test]
async fn a_hangup_takes_what_the_system_does_not_tell_of() {
    let (authority, sandbox) = (Authority::new(), sandbox(|_| {}).await);
    let (old, new) = (authority.server(), authority.server());
    let program = program(&sandbox);
    for (version, pair) in [("v1", &old), ("v2", &new)] {
        std::fs::create_dir(program.path(version)).unwrap();
        pair.write(&program.path(version));
    }
    symlink("v1", program.path("live")).unwrap();
    let process = with_tls(program.clone(), &program.path("live")).start().await;
    assert!(shows(process.data(), &authority, &old).await);
    symlink("v2", program.path("next")).unwrap();
    std::fs::rename(program.path("next"), program.path("live")).unwrap();
    process.signal("HUP").await;
    process.says("new certificate in use").await;
    assert!(shows(process.data(), &authority, &new).await);
}

#[tokio::test]
async fn new_authorities_of_callers_hold_for_new_connections() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let (old, new) = (Authority::new(), Authority::new());
    authority.server().write(folder.path());
    let file = folder.path().join("callers.pem");
    std::fs::write(&file, old.pem()).unwrap();
    let rig = rig(folder.path()).set(&settings::CLIENT_CA, text(&file)).start().await;
    let caller = |of: &Authority| Http::tls(authority.trusted_by(Some(&of.sign(&["all"]))));
    let call = || rig.call(Method::GET, "t0", PATH);
    let early = caller(&old);
    early.send(call()).await.expect(200);
    caller(&new).try_send(call()).await.unwrap_err();
    replace(&file, &new.pem());
    until("the new ones hold", async || caller(&new).try_send(call()).await.is_ok()).await;
    caller(&old).try_send(call()).await.unwrap_err();
    // its connection was there before
    early.send(call()).await.expect(200);
}

#[tokio::test]
async fn files_that_do_not_fit_stop_the_start_and_no_key_is_printed() {
    let (authority, sandbox) = (Authority::new(), sandbox(|_| {}).await);
    let program = program(&sandbox);
    let pair = authority.server();
    pair.write(program.folder());
    replace(&program.path("tls.key"), &authority.server().key);
    let program = with_tls(program.clone(), program.folder())
        .flag("admin-tls-cert", text(&program.path("tls.key")))
        .flag("client-ca", text(&program.path("nowhere.pem")));
    let mut process = program.spawn();
    assert_eq!(process.end().await.code(), Some(2));
    for part in [
        "4 mistakes",
        "server.tls_key (--tls-key): does not belong to the certificate",
        "admin.tls_cert (--admin-tls-cert)",
        "holds no PEM certificate",
        "admin.tls_key (default): is needed because admin.tls_cert is given",
        "server.client_ca (--client-ca)",
    ] {
        process.says(part).await;
    }
    let secret = pair.key.lines().nth(1).unwrap();
    assert!(!process.log().contains(secret) && !process.log().contains("PRIVATE KEY"));
}

/// An admin listener behind TLS that wants certificates and a token.
struct Guarded {
    process: Process,
    program: Program,
    authority: Authority,
    operators: Authority,
}

impl Guarded {
    async fn start() -> Self {
        let (authority, operators) = (Authority::new(), Authority::new());
        let sandbox = sandbox(|_| {}).await;
        let program = program(&sandbox);
        authority.server().write(program.folder());
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("operators.pem", operators.pem()),
            ("admin.token", "operator-s3cret\n".to_owned()),
        ] {
            std::fs::write(program.path(name), text).unwrap();
        }
        let program = program
            .clone()
            .flag("admin-tls-cert", text(&program.path("tls.crt")))
            .flag("admin-tls-key", text(&program.path("tls.key")))
            .flag("admin-client-ca", text(&program.path("operators.pem")))
            .flag("admin-token-file", text(&program.path("admin.token")));
        let process = program.start().await;
        Self { process, program, authority, operators }
    }

    /// Runs `ctct-proxy status` against it.
    async fn status(&self, url: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ctct-proxy"))
            .args(["status", "--admin-url", url, "--admin-token-file", "admin.token"])
            .args(more)
            .current_dir(self.program.folder())
            .output()
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn commands_reach_an_admin_listener_behind_tls_with_a_certificate_and_the_token() {
    let guarded = Guarded::start().await;
    let operator = guarded.operators.sign(&["operator"]);
    std::fs::write(guarded.program.path("operator.crt"), &operator.cert).unwrap();
    std::fs::write(guarded.program.path("operator.key"), &operator.key).unwrap();
    let url = format!("https://localhost:{}", guarded.process.admin_address().port());
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let trust = ["--admin-ca-file", "ca.pem"];
    let shown = ["--admin-cert", "operator.crt", "--admin-key", "operator.key"];
    let all = [&trust[..], &shown].concat();
    let output = guarded.status(&url, &all).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("API KEY"));
    for (missing, part) in [(&trust[..], "ertificate"), (&shown[..], "UnknownIssuer")] {
        let output = guarded.status(&url, missing).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
    let output = guarded.status(&url, &[&trust[..], &shown[..2]].concat()).await;
    assert!(said(&output).contains("go together"), "{}", said(&output));
    let output = guarded.status(&url.replace("https", "http"), &all).await;
    assert_eq!(output.status.code(), Some(1), "plain text is not answered");
    // a certificate is no token, and a token no certificate
    let admin = guarded.process.admin_address();
    let tenants = || crate::support::Call::get(format!("https://{admin}/v1/tenants"));
    let shown = Http::tls(guarded.authority.trusted_by(Some(&operator)));
    shown.send(tenants()).await.expect(401);
    shown.send(tenants().bearer("operator-s3cret")).await.expect(200);
    let not_shown = Http::tls(guarded.authority.trusted());
    not_shown.try_send(tenants().bearer("operator-s3cret")).await.unwrap_err();
}

#[tokio::test]
async fn a_configuration_tells_commands_that_the_admin_listener_speaks_tls() {
    let guarded = Guarded::start().await;
    let text = format!(
        "[server]\nadmin_listen = \"{}\"\n[admin]\ntls_cert = \"not-for-commands.crt\"\n\
         ca_file = \"ca.pem\"\n",
        guarded.process.admin_address()
    );
    std::fs::write(guarded.program.path("proxy.toml"), text).unwrap();
    let operator = guarded.operators.sign(&["operator"]);
    std::fs::write(guarded.program.path("operator.crt"), &operator.cert).unwrap();
    std::fs::write(guarded.program.path("operator.key"), &operator.key).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ctct-proxy"))
        .args(["status", "--config", "proxy.toml", "--admin-token-file", "admin.token"])
        .env("CTCT_PROXY_ADMIN_CERT", "operator.crt")
        .env("CTCT_PROXY_ADMIN_KEY", "operator.key")
        .current_dir(guarded.program.folder())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
