//! The metrics of the proxy: how the rest of the program counts, and the page that Prometheus
//! reads.
//!
//! A registry is a value: two proxies in one process do not mix. What happens for each call goes
//! through [`KeyMetrics`], whose series are resolved once per API key: counting is an atomic
//! addition, observing a duration takes one short lock. A series exists from the moment its API key
//! does, so rates start at zero.

mod page;
mod series;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::engine::{ApiKeyName, Class};
use crate::rejection::Reason;
use crate::telemetry::ThrottleScope;
use crate::telemetry::process::Process;

use series::{KeySeries, Series, whole};

/// The media type of [`Metrics::encode`]: `OpenMetrics`, which Prometheus reads as its own.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of [`Metrics::encode_text`], which is what a scraper gets that asks for no other.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every name of ours begins with, before an underscore.
const PREFIX: &str = "ctct_proxy";

/// All metrics of one proxy; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    series: Arc<Series>,
    registry: Arc<Registry>,
}

impl Metrics {
    /// The metrics of a proxy of this `version`, all zero.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let series = Arc::new(Series::default());
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix(PREFIX);
        let build = Info::new([("version", version.to_owned())]);
        ours.register("build", "The program's version", build);
        ours.register_collector(Box::new(Arc::clone(&series)));
        registry.register_collector(Box::new(Process));
        Self { series, registry: Arc::new(registry) }
    }

    /// The series of `name`, made when there are none.
    #[must_use]
    pub fn api_key(&self, name: &ApiKeyName) -> KeyMetrics {
        KeyMetrics(self.series.api_key(name))
    }

    /// Drops the series of `name`. Handles that are still held count on, but nobody sees it.
    pub fn remove_api_key(&self, name: &ApiKeyName) {
        self.series.remove_api_key(name);
    }

    /// Counts an answer to a call whose API key was never known.
    pub fn request_without_key(&self, status: u16) {
        self.series.requests_without_key.count(status);
    }

    /// Counts a refusal.
    pub fn refusal(&self, reason: Reason) {
        self.series.refusals.count(reason);
    }

    /// Records one call of the store.
    pub fn store(&self, op: &'static str, took: Duration, ok: bool) {
        self.series.store.with(op, |store| {
            store.seconds.observe(took.as_secs_f64());
            if !ok {
                store.errors.inc();
            }
        });
    }

    /// Sets whether the store that instances share is lost.
    pub fn store_lost(&self, is_lost: bool) {
        self.series.store_lost.set(is_lost.into());
    }

    /// Sets how many instances are in `state`.
    pub fn instances(&self, state: &'static str, count: usize) {
        self.series.instances.with(state, |gauge| {
            gauge.set(whole(count));
        });
    }

    /// Sets when the certificate that `listener` shows ends.
    pub fn certificate_ends(&self, listener: &'static str, unix_secs: u64) {
        self.series.certificate_ends.with(listener, |ends| {
            ends.set(unix_secs);
        });
    }

    /// The page, in the form of [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// Never in practice: writing to a `String` does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }

    /// The same page in the form of [`TEXT_CONTENT_TYPE`]
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    ///
    /// # Errors
    /// As [`Metrics::encode`].
    pub fn encode_text(&self) -> Result<String, fmt::Error> {
        Ok(plain_text(&self.encode()?))
    }
}

/// `OpenMetrics` as the older text form: there a metric is named as its samples are, and there are
/// neither info metrics, nor units, nor an end mark.
fn plain_text(open_metrics: &str) -> String {
    let mut types = BTreeMap::new();
    for line in open_metrics.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            types.insert(name, kind);
        }
    }
    let mut page = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let meta = line.strip_prefix("# ").and_then(|rest| {
            let (what, rest) = rest.split_once(' ')?;
            let (name, text) = rest.split_once(' ')?;
            Some((what, name, text))
        });
        match meta {
            None if line == "# EOF" => {}
            None => page.extend([line, "\n"]),
            Some(("UNIT", ..)) => {}
            Some((what, name, text)) => {
                let (suffix, kind) = match types.get(name).copied() {
                    Some("counter") => ("_total", "counter"),
                    Some("info") => ("_info", "gauge"),
                    Some("unknown") | None => ("", "untyped"),
                    Some(kind) => ("", kind),
                };
                let text = if what == "TYPE" { kind } else { text };
                page.extend(["# ", what, " ", name, suffix, " ", text, "\n"]);
            }
        }
    }
    page
}

/// The series of one API key; clones share them.
#[derive(Clone, Debug)]
pub struct KeyMetrics(Arc<KeySeries>);

impl KeyMetrics {
    /// Counts an answer to a caller.
    pub fn request(&self, status: u16) {
        self.0.requests.count(status);
    }

    /// Records a call that left the queue, served or not.
    pub fn queue_wait(&self, class: Class, wait: Duration) {
        self.0.queue_wait.of(class).observe(wait.as_secs_f64());
    }

    /// Sets how many calls of `class` wait.
    pub fn queue_depth(&self, class: Class, depth: usize) {
        self.0.queue_depth.of(class).set(whole(depth));
    }

    /// Records an answer of the upstream and how long its head took.
    pub fn upstream(&self, status: u16, took: Duration) {
        self.0.upstream_requests.count(status);
        self.0.upstream_seconds.observe(took.as_secs_f64());
    }

    /// Counts a 429 of the upstream.
    pub fn throttled(&self, scope: ThrottleScope) {
        self.0.throttled.of(scope).inc();
    }

    /// Counts a slot that was granted.
    pub fn slot_granted(&self) {
        self.0.slots_granted.inc();
    }

    /// Sets the margin on the upstream's window.
    pub fn guard(&self, guard: Duration) {
        self.0.guard.set(guard.as_secs_f64());
    }

    /// Sets how much of the day is used.
    pub fn day(&self, used: u64, limit: u64) {
        self.0.day_used.set(used);
        self.0.day_limit.set(limit);
    }

    /// Sets how many calls of the day others seem to have made.
    pub fn foreign_use(&self, calls: u64) {
        self.0.foreign_use_calls.set(calls);
    }

    /// Counts a token request by how it ended.
    pub fn token_refresh(&self, outcome: &'static str) {
        self.0.token_refreshes.with(outcome, |count| {
            count.inc();
        });
    }

    /// Counts something about tokens that somebody should look at.
    pub fn token_alarm(&self, reason: &'static str) {
        self.0.token_alarms.with(reason, |count| {
            count.inc();
        });
    }

    /// Sets how many refresh tokens die soon if they are not used.
    pub fn refresh_tokens_ageing(&self, count: usize) {
        self.0.refresh_tokens_ageing.set(whole(count));
    }

    /// Sets how many tenants wait for a token request.
    pub fn token_lane_depth(&self, depth: usize) {
        self.0.token_lane_depth.set(whole(depth));
    }

    /// Sets how many tenants are in `state`.
    pub fn tenants(&self, state: &'static str, count: usize) {
        self.0.tenants.with(state, |gauge| {
            gauge.set(whole(count));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ApiKeyName {
        ApiKeyName::new(text).unwrap()
    }

    /// A page on which every metric has a series.
    fn full_page() -> String {
        let metrics = Metrics::new("1.2.3");
        let key = metrics.api_key(&name("main"));
        key.request(200);
        key.queue_wait(Class::Bulk, Duration::from_millis(3));
        key.queue_depth(Class::Interactive, 7);
        key.upstream(404, Duration::from_millis(80));
        key.throttled(ThrottleScope::Day);
        key.slot_granted();
        key.guard(Duration::from_millis(40));
        key.foreign_use(300);
        key.day(12, 10_000);
        key.token_refresh("ok");
        key.token_alarm("answer_lost");
        key.refresh_tokens_ageing(1);
        key.token_lane_depth(2);
        metrics.instances("here", 3);
        metrics.store_lost(true);
        key.tenants("ready", 5);
        metrics.request_without_key(401);
        metrics.refusal(Reason::QueueFull);
        metrics.store("reserve", Duration::from_micros(50), true);
        metrics.store("reserve", Duration::from_secs(9), false);
        metrics.certificate_ends("server", 1_900_000_000);
        metrics.encode().unwrap()
    }

    #[test]
    fn every_metric_of_the_contract_is_on_the_page() {
        let page = full_page();
        for line in [
            r#"ctct_proxy_requests_total{api_key="main",status="200"} 1"#,
            r#"ctct_proxy_requests_total{api_key="",status="401"} 1"#,
            r#"ctct_proxy_refusals_total{reason="queue_full"} 1"#,
            r#"ctct_proxy_refusals_total{reason="internal"} 0"#,
            r#"ctct_proxy_queue_depth{api_key="main",class="interactive"} 7"#,
            r#"ctct_proxy_queue_wait_seconds_sum{api_key="main",class="bulk"} 0.003"#,
            r#"ctct_proxy_queue_wait_seconds_count{api_key="main",class="normal"} 0"#,
            r#"ctct_proxy_queue_wait_seconds_bucket{le="0.001",api_key="main",class="bulk"} 0"#,
            r#"ctct_proxy_queue_wait_seconds_bucket{le="600.0",api_key="main",class="bulk"} 1"#,
            r#"ctct_proxy_upstream_requests_total{api_key="main",status="404"} 1"#,
            r#"ctct_proxy_upstream_seconds_bucket{le="0.1",api_key="main"} 1"#,
            r#"ctct_proxy_upstream_seconds_bucket{le="60.0",api_key="main"} 1"#,
            r#"ctct_proxy_upstream_throttled_total{api_key="main",scope="day"} 1"#,
            r#"ctct_proxy_upstream_throttled_total{api_key="main",scope="second"} 0"#,
            r#"ctct_proxy_upstream_throttled_total{api_key="main",scope="other"} 0"#,
            r#"ctct_proxy_slots_granted_total{api_key="main"} 1"#,
            r#"ctct_proxy_guard_seconds{api_key="main"} 0.04"#,
            r#"ctct_proxy_day_used{api_key="main"} 12"#,
            r#"ctct_proxy_day_limit{api_key="main"} 10000"#,
            r#"ctct_proxy_foreign_use_calls{api_key="main"} 300"#,
            r#"ctct_proxy_token_refreshes_total{api_key="main",outcome="ok"} 1"#,
            r#"ctct_proxy_token_lane_depth{api_key="main"} 2"#,
            r#"ctct_proxy_tenants{api_key="main",state="ready"} 5"#,
            r#"ctct_proxy_store_seconds_bucket{le="0.0001",op="reserve"} 1"#,
            r#"ctct_proxy_store_seconds_bucket{le="+Inf",op="reserve"} 2"#,
            r#"ctct_proxy_store_errors_total{op="reserve"} 1"#,
            r#"ctct_proxy_certificate_end_time_seconds{listener="server"} 1900000000"#,
            r#"ctct_proxy_build_info{version="1.2.3"} 1"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn the_process_is_on_the_page() {
        let page = full_page();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
            "process_threads",
        ] {
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value: f64 = value.expect(name).parse().expect(name);
            assert!(value.is_finite() && value >= 0.0, "{name} {value}");
        }
    }

    #[test]
    fn no_name_has_its_suffix_twice_and_none_is_declared_twice() {
        let page = full_page();
        for twice in ["_total_total", "_seconds_seconds", "_bytes_bytes", "_info_info"] {
            assert!(!page.contains(twice), "{twice}");
        }
        let mut declared: Vec<&str> =
            page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let count = declared.len();
        declared.sort_unstable();
        declared.dedup();
        assert_eq!(declared.len(), count);
    }

    #[test]
    fn a_removed_api_key_leaves_the_page_and_does_not_come_back_by_an_old_handle() {
        let metrics = Metrics::new("1");
        let old = metrics.api_key(&name("old"));
        metrics.api_key(&name("kept")).request(200);
        metrics.remove_api_key(&name("old"));
        old.request(200);
        old.token_refresh("ok");
        let page = metrics.encode().unwrap();
        assert!(!page.contains(r#"api_key="old""#), "{page}");
        assert!(page.contains(r#"api_key="kept",status="200"} 1"#), "{page}");
    }

    #[test]
    fn handles_of_one_api_key_share_its_series() {
        let metrics = Metrics::new("1");
        metrics.api_key(&name("main")).request(200);
        metrics.api_key(&name("main")).request(200);
        metrics.api_key(&name("main")).request(999);
        let page = metrics.encode().unwrap();
        assert!(page.contains(r#"requests_total{api_key="main",status="200"} 2"#), "{page}");
        assert!(page.contains(r#"requests_total{api_key="main",status="other"} 1"#), "{page}");
    }

    #[test]
    fn the_plain_page_names_metrics_as_their_samples() {
        let metrics = Metrics::new("9.9");
        metrics.api_key(&name("main")).slot_granted();
        let page = metrics.encode_text().unwrap();
        for line in [
            "# TYPE ctct_proxy_slots_granted_total counter",
            r#"ctct_proxy_slots_granted_total{api_key="main"} 1"#,
            "# TYPE ctct_proxy_build_info gauge",
            "# TYPE ctct_proxy_queue_wait_seconds histogram",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
        }
        assert!(!page.contains("# EOF") && !page.contains("# UNIT"));
    }
}
