//! TLS on the data plane: both versions of HTTP, callers' certificates, and what is not let in.

use std::time::Duration;

use futures_util::future::join;
use http::{Method, Version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use ctct_proxy::config::settings;
use ctct_proxy::engine::ClientName;

use crate::support::certificates::{Authority, Pair, connect};
use crate::support::{Call, Http, Rig, RigBuilder, Watch, judge, raw, until};

const PATH: &str = "/v3/contacts?limit=1";

/// What a proxy with TLS is made of; the folder must outlive it.
struct Ground {
    authority: Authority,
    /// Signs callers' certificates.
    callers: Authority,
    folder: TempDir,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { authority: Authority::new(), callers: Authority::new(), folder }
    }

    /// TLS without certificates of callers.
    fn rig(&self) -> RigBuilder {
        let files = self.authority.server().write(self.folder.path());
        Rig::build()
            .set(&settings::TLS_CERT, files.cert.to_str().unwrap())
            .set(&settings::TLS_KEY, files.key.to_str().unwrap())
    }

    /// TLS where callers may show certificates.
    fn rig_with_callers(&self) -> RigBuilder {
        let file = self.folder.path().join("callers.pem");
        std::fs::write(&file, self.callers.pem()).unwrap();
        self.rig().set(&settings::CLIENT_CA, file.to_str().unwrap())
    }

    fn plain_caller(&self) -> Http {
        Http::tls(self.authority.trusted())
    }

    /// A caller that shows a certificate with these names.
    fn caller(&self, names: &[&str]) -> Http {
        self.showing(&self.callers.sign(names))
    }

    fn showing(&self, pair: &Pair) -> Http {
        Http::tls(self.authority.trusted_by(Some(pair)))
    }
}

#[tokio::test]
async fn both_versions_are_spoken_as_alpn_says_and_bodies_pass() {
    let ground = Ground::new();
    let rig = ground.rig().start().await;
    let h1 = Http::h1_tls(ground.authority.trusted());
    for (http, version) in [(ground.plain_caller(), Version::HTTP_2), (h1, Version::HTTP_11)] {
        let get = rig.call(Method::GET, "t0", "/v3/contacts?limit=20");
        let reply = http.send(get).await.expect(200);
        assert_eq!(reply.version, version);
        assert_eq!(reply.json()["contacts"].as_array().unwrap().len(), 20);
        let filler = "x".repeat(300_000);
        let body = serde_json::json!({"create_source": "Account", "notes": filler});
        let post = rig.call(Method::POST, "t0", "/v3/contacts").json(&body);
        let status = http.send(post).await.status;
        assert!([201, 400].contains(&status), "{status}: the sandbox has read it");
    }
    assert_eq!(judge::arrivals(&rig.sandbox), 4);
}

#[tokio::test]
async fn a_message_that_could_be_delimited_in_two_ways_is_refused_over_tls_too() {
    let ground = Ground::new();
    let rig = ground.rig().start().await;
    let mut stream = connect(rig.app.data_address(), ground.authority.trusted()).await.unwrap();
    let head =
        format!("POST /t/t0/v3/contacts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}", rig.key);
    let both =
        format!("{head}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    stream.write_all(both.as_bytes()).await.unwrap();
    let answer = raw::read_head_of(&mut stream).await;
    assert_eq!(raw::status(&answer), 400, "{answer}");
    closed(stream).await;
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
}

#[tokio::test]
async fn an_alpn_that_is_not_spoken_ends_the_handshake() {
    let ground = Ground::new();
    let rig = ground.rig().start().await;
    let mut config = ground.authority.trusted();
    config.alpn_protocols = vec![b"http/1.0".to_vec()];
    let refused = connect(rig.app.data_address(), config).await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
}

#[tokio::test]
async fn a_certificate_stands_for_the_key_of_the_client_that_it_names() {
    let ground = Ground::new();
    let rig = ground.rig_with_callers().tenants(2).start().await;
    let shop_key = rig.client("shop", &["t0"]).await;
    rig.client("reports", &[]).await;
    let get = |tenant: &str| Call::get(rig.url(PATH)).header("ctct-tenant", tenant);
    let shop = ground.caller(&["shop"]);
    let alone = shop.send(Call::get(rig.url(PATH))).await.expect(200);
    assert_eq!(alone.version, Version::HTTP_2);
    shop.send(get("t1")).await.expect_refusal(403, "tenant_forbidden");
    ground.caller(&["reports"]).send(get("t1")).await.expect(200);
    // with its own key beside it, and with another's
    shop.send(get("t0").bearer(&shop_key)).await.expect(200);
    let other = get("t0").bearer(&rig.key);
    shop.send(other).await.expect_refusal(401, "client_unauthenticated");
    let other = get("t0").header("ctct-proxy-key", rig.key.as_str());
    shop.send(other).await.expect_refusal(401, "client_unauthenticated");
    // who shows none needs a key
    let plain = ground.plain_caller();
    plain.send(get("t0").bearer(&shop_key)).await.expect(200);
    plain.send(get("t0")).await.expect_refusal(401, "client_unauthenticated");
    // a client that is removed is one no more, also on a connection under way
    assert!(rig.app.clients().remove(&ClientName::new("shop").unwrap()).await.unwrap());
    shop.send(get("t0")).await.expect_refusal(401, "client_unauthenticated");
}

#[tokio::test]
async fn a_certificate_that_names_no_client_is_refused_also_where_callers_may_be_anonymous() {
    let ground = Ground::new();
    let rig = ground.rig_with_callers().set(&settings::ALLOW_ANONYMOUS, "true").start().await;
    let get = || Call::get(rig.url(PATH)).header("ctct-tenant", "t0");
    ground.plain_caller().send(get()).await.expect(200);
    for names in [&["nobody"][..], &["all", "other"], &["127.0.0.1"], &[]] {
        let reply = ground.caller(names).send(get()).await;
        reply.expect_refusal(401, "client_unauthenticated");
    }
    ground.caller(&["all", "127.0.0.1"]).send(get()).await.expect(200);
    assert_eq!(judge::arrivals(&rig.sandbox), 2);
}

#[tokio::test]
async fn a_certificate_of_another_authority_ends_the_handshake() {
    let ground = Ground::new();
    let rig = ground.rig_with_callers().start().await;
    let stranger = Authority::new().sign(&["all"]);
    let call = || Call::get(rig.url(PATH)).header("ctct-tenant", "t0").bearer(&rig.key);
    ground.showing(&stranger).try_send(call()).await.unwrap_err();
    // the server's own authority is none of callers
    let own = ground.authority.sign(&["all"]);
    ground.showing(&own).try_send(call()).await.unwrap_err();
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
    ground.caller(&["all"]).send(call()).await.expect(200);
}

#[tokio::test]
async fn a_page_cannot_use_the_certificate_in_its_readers_browser() {
    let ground = Ground::new();
    let rig = ground.rig_with_callers().start().await;
    let caller = ground.caller(&["all"]);
    let post = || Call::post(rig.url("/v3/contacts"), "{}").header("ctct-tenant", "t0");
    let foreign = post().header("origin", "https://evil.example");
    caller.send(foreign).await.expect_refusal(400, "bad_request");
    let foreign = post().header("sec-fetch-site", "cross-site");
    caller.send(foreign).await.expect_refusal(400, "bad_request");
    assert_eq!(judge::arrivals(&rig.sandbox), 0);
    // a program sends neither, and a key is nothing that a browser adds by itself
    caller.send(post()).await;
    let with_key = post().header("origin", "https://evil.example").bearer(&rig.key);
    caller.send(with_key).await;
    assert_eq!(judge::arrivals(&rig.sandbox), 2);
}

/// The hello of a caller whose newest version is TLS 1.`minor`, up to 1.2.
fn hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor + 1];
    hello.extend([7; 32]);
    // no session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression
    hello.extend([0, 0, 2, 0xC0, 0x2B, 1, 0]);
    // extensions: groups x25519 and secp256r1, uncompressed points, ecdsa_secp256r1_sha256
    let extensions: [&[u8]; 3] =
        [&[0, 10, 0, 6, 0, 4, 0, 29, 0, 23], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 4, 0, 2, 4, 3]];
    let extensions = extensions.concat();
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let len = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, len + 4, 1, 0, 0, len];
    record.extend(hello);
    record
}

#[tokio::test]
async fn plain_text_and_old_versions_are_closed_and_others_served() {
    let ground = Ground::new();
    let rig = ground.rig().start().await;
    let address = rig.app.data_address();
    let plain =
        format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", rig.key);
    let mut answers = Vec::new();
    for bytes in [plain.as_bytes(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &hello(1)] {
        let mut stream = raw::connect(address).await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // closed with an alert, or reset with what was not read
        let closing = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = closing.expect("it is closed");
        assert!(answer.is_empty() || answer[0] == 21, "an alert or nothing: {answer:?}");
        answers.push(answer);
    }
    // fatal, protocol_version
    assert_eq!(answers[2][5..], [2, 70]);
    let mut stream = raw::connect(address).await;
    stream.write_all(&hello(2)).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 22, "the same hello is answered in TLS 1.2");
    ground.plain_caller().send(rig.call(Method::GET, "t0", PATH)).await.expect(200);
    assert_eq!(judge::arrivals(&rig.sandbox), 1);
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the far side closes, and gives how long that took.
async fn closed(mut stream: impl tokio::io::AsyncRead + Unpin) -> Duration {
    let watch = Watch::start();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed");
    watch.elapsed()
}

#[tokio::test]
async fn who_does_not_come_to_the_point_is_closed_in_time() {
    let ground = Ground::new();
    let rig = ground.rig().set(&settings::HEADER_TIMEOUT, "300ms").start().await;
    let address = rig.app.data_address();
    // nothing; half of a hello; a handshake without a request, in either version of HTTP
    let silent = raw::connect(address).await;
    let mut half = raw::connect(address).await;
    half.write_all(&hello(2)[..20]).await.unwrap();
    let h1 = connect(address, ground.authority.trusted()).await.unwrap();
    let mut config = ground.authority.trusted();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut h2 = connect(address, config).await.unwrap();
    h2.write_all(b"PRI * HTTP").await.unwrap();
    let took = join(join(closed(silent), closed(half)), join(closed(h1), closed(h2))).await;
    for took in [took.0.0, took.0.1, took.1.0, took.1.1] {
        assert!(took < PATIENCE / 2, "{took:?}");
    }
}

#[tokio::test]
async fn a_preface_in_pieces_is_put_together() {
    let ground = Ground::new();
    let rig = ground.rig().start().await;
    let mut config = ground.authority.trusted();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut h2 = connect(rig.app.data_address(), config).await.unwrap();
    for piece in [&b"PRI * HTTP/2.0\r\n"[..], b"\r\nSM\r\n\r", b"\n\0\0\0\x04", b"\0\0\0\0\0"] {
        h2.write_all(piece).await.unwrap();
        h2.flush().await.unwrap();
    }
    // the server's settings, and its acknowledgement of ours
    let mut frame = [0; 9];
    let mut kinds = Vec::new();
    while !kinds.contains(&(4, 1)) {
        let reading = tokio::time::timeout(PATIENCE, h2.read_exact(&mut frame));
        reading.await.expect("an answer").expect("a frame");
        kinds.push((frame[3], frame[4]));
        let len = usize::from(frame[1]) << 8 | usize::from(frame[2]);
        h2.read_exact(&mut vec![0; len]).await.unwrap();
    }
    assert_eq!(kinds[0], (4, 0), "settings come first: {kinds:?}");
}

#[tokio::test]
async fn a_stop_finishes_calls_over_tls_and_closes_the_rest() {
    let ground = Ground::new();
    let slow = ground.rig().sandbox(|options| options.latency = Duration::from_millis(400));
    let rig = slow.start().await;
    let address = rig.app.data_address();
    let idle = connect(address, ground.authority.trusted()).await.unwrap();
    // a handshake that has only begun
    let mut begun = raw::connect(address).await;
    begun.write_all(&[22, 3]).await.unwrap();
    let (h1, h2) = (Http::h1_tls(ground.authority.trusted()), ground.plain_caller());
    let (one, other) = (rig.call(Method::GET, "t0", PATH), rig.call(Method::GET, "t0", PATH));
    let Rig { app, sandbox, .. } = rig;
    let stopping = async {
        until("both calls have arrived", async || judge::arrivals(&sandbox) == 2).await;
        join(app.stop(), join(closed(idle), closed(begun))).await
    };
    let (replies, stopped) = join(join(h1.send(one), h2.send(other)), stopping).await;
    assert_eq!((replies.0.status, replies.1.status), (200, 200));
    let (stopped, (idle, begun)) = stopped;
    assert!(stopped, "in order");
    assert!(idle.max(begun) < PATIENCE / 2);
}
