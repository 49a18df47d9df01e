//! A stand-in for the admin API of a running proxy: the contract's shapes with fixed content.
//!
//! It keeps what it was asked, so that tests can say which calls a command made and with what.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// A stand-in for the admin API that keeps what it was asked.
pub(crate) struct Admin {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Admin {
    pub(crate) fn start() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (told, address) = mpsc::channel();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = serve(log, &told) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = address.recv().unwrap();
        Self { url: format!("http://{address}"), asked, _stop: stop }
    }

    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn serve(log: Arc<Mutex<Vec<(String, Value)>>>, told: &mpsc::Sender<SocketAddr>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    told.send(listener.local_addr().unwrap()).unwrap();
    let connections = tokio_util::task::TaskTracker::new();
    while let Ok((stream, _)) = listener.accept().await {
        let log = Arc::clone(&log);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&log)));
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let target = head.uri.path_and_query().unwrap().to_string();
    let authorization = head.headers.get("authorization").map(|value| value.to_str().unwrap());
    let token = authorization.map(|value| format!(" {value}")).unwrap_or_default();
    log.lock().unwrap().push((format!("{} {target}{token}", head.method), body.clone()));
    let (status, answer) = route(&head.method, head.uri.path(), head.uri.query(), &body);
    let bytes = if answer.is_null() { Bytes::new() } else { answer.to_string().into() };
    Ok(Response::builder().status(status).body(Full::new(bytes)).unwrap())
}

fn route(method: &Method, path: &str, query: Option<&str>, body: &Value) -> (StatusCode, Value) {
    let refused = |status, text| (status, json!({"error_key": "admin.x", "error_message": text}));
    let second_page = query.is_some_and(|query| query.contains("cursor=next"));
    match (method.as_str(), path) {
        ("GET", "/v1/api-keys") => {
            (StatusCode::OK, json!({"items": [api_key()], "next_cursor": null}))
        }
        ("GET", "/v1/instances") => {
            let items = json!([instance("0a", "here", true), instance("0b", "silent", false)]);
            (StatusCode::OK, json!({"items": items, "next_cursor": null, "store_lost": false}))
        }
        ("GET", "/v1/tenants") if second_page => {
            (StatusCode::OK, json!({"items": [tenant("zeta")], "next_cursor": null}))
        }
        ("GET", "/v1/tenants") => {
            (StatusCode::OK, json!({"items": [tenant("acme")], "next_cursor": "next"}))
        }
        ("GET" | "PUT", "/v1/tenants/acme") => (StatusCode::OK, tenant("acme")),
        ("PUT", "/v1/tenants/stranger") => {
            refused(StatusCode::UNPROCESSABLE_ENTITY, "the token belongs to another API key")
        }
        ("PUT", "/v1/tenants/known") => (StatusCode::OK, outcome("known", "unchanged")),
        ("PUT", "/v1/tenants/burnt") => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "the store could not store a grant now")
        }
        ("PUT", _) if query.is_some_and(|query| query.contains("on_conflict=")) => {
            (StatusCode::CREATED, outcome("new", "created"))
        }
        ("PUT", _) => (StatusCode::CREATED, tenant("new")),
        ("DELETE", "/v1/tenants/acme" | "/v1/clients/app") => (StatusCode::NO_CONTENT, Value::Null),
        ("POST", "/v1/clients") => {
            (StatusCode::CREATED, json!({"name": body["name"], "key": "ctp_key"}))
        }
        ("POST", "/v1/clients/app/rotate") => {
            (StatusCode::OK, json!({"name": "app", "key": "ctp_key", "previous_key_until": null}))
        }
        ("GET", "/v1/clients") => {
            let app = json!({"name": "app", "tenants": ["acme", "zeta"]});
            let items = json!([app, {"name": "all", "tenants": "*"}]);
            (StatusCode::OK, json!({"items": items, "next_cursor": null}))
        }
        _ => refused(StatusCode::NOT_FOUND, "there is no such thing"),
    }
}

fn api_key() -> Value {
    json!({
        "name": "default", "client_id": "id", "plan": "standard", "per_second": 4,
        "per_day": 10_000, "paused": false,
        "queue": {
            "depth": 12, "by_class": {}, "oldest_wait_ms": 5,
            "estimated_wait_ms": {"interactive": 265, "normal": 1_590, "bulk": 62_000},
        },
        "day": {"used": 345, "remaining": 9_655, "resets_at": "2026-11-25T00:00:00Z",
                "forecast_exhausted_at": "2026-11-24T21:00:00Z",
                "forecast_exhausted_between": ["2026-11-24T20:00:00Z", null]},
        "upstream": {"in_flight": 3, "throttled_total": 1, "guard_ms": 60},
        "token_lane": {"depth": 2}, "tenants": {"ready": 2, "needs_authorization": 0},
    })
}

fn instance(id: &str, state: &str, is_self: bool) -> Value {
    json!({
        "id": id, "name": "node/10.0.0.1:8080", "host": "node", "listen": "10.0.0.1:8080",
        "admin_listen": "127.0.0.1:9090", "version": "0.1.0",
        "started_at": "2026-11-24T06:00:00Z", "state": state, "self": is_self,
        "last_seen_at": "2026-11-24T07:00:00Z", "slots": {"default": 2}, "store": "shared",
    })
}

fn outcome(tenant: &str, outcome: &str) -> Value {
    json!({"tenant": tenant, "outcome": outcome})
}

fn tenant(name: &str) -> Value {
    json!({
        "tenant": name, "api_key": "default", "state": "ready", "state_reason": null,
        "access_token_expires_at": "2026-11-24T20:00:00Z", "weight": 1,
        "today": {"calls": 77, "throttled": 0, "errors": 0}, "queue_depth": 4,
    })
}
