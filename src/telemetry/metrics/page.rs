//! Each metric of the proxy, declared once: its name, help, unit and labels.
//!
//! A unit is appended to the name, `_total` to a counter, `_bucket`, `_count` and `_sum` to a
//! histogram; the registry puts the prefix in front. A metric is declared on every page, also while
//! it has no series.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

use super::series::{ByStatus, KeySeries, Series};
use crate::engine::ApiKeyName;

impl Collector for Series {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let keys = self.api_keys();
        let keys: Vec<(&str, &KeySeries)> =
            keys.iter().map(|(name, series)| (ApiKeyName::as_str(name), &**series)).collect();
        let mut page = Page(&mut encoder);
        self.put_requests(&mut page, &keys)?;
        put_queue(&mut page, &keys)?;
        put_upstream(&mut page, &keys)?;
        put_budget(&mut page, &keys)?;
        put_tokens(&mut page, &keys)?;
        self.put_store(&mut page)?;
        self.put_certificates(&mut page)
    }
}

type Keys<'a> = [(&'a str, &'a KeySeries)];

impl Series {
    fn put_requests(&self, page: &mut Page<'_, '_>, keys: &Keys<'_>) -> fmt::Result {
        let mut requests = page.counter("requests", "Answers to callers.")?;
        requests.put_statuses("", &self.requests_without_key)?;
        for (name, key) in keys {
            requests.put_statuses(name, &key.requests)?;
        }
        let mut refusals =
            page.counter("refusals", "Answers that the proxy made itself, by their reason.")?;
        for (reason, count) in self.refusals.iter() {
            refusals.put([("reason", reason)], count)?;
        }
        Ok(())
    }

    fn put_store(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let mut seconds = page.seconds("store", "Time of one operation of the store.")?;
        self.store.try_each(|op, store| seconds.put([("op", op)], &store.seconds))?;
        let mut errors = page.counter("store_errors", "Operations of the store that failed.")?;
        self.store.try_each(|op, store| errors.put([("op", op)], &store.errors))?;
        let help = "1 while the store that instances share does not answer.";
        page.gauge("store_lost", help)?.put_alone(&self.store_lost)?;
        let mut instances = page.gauge("instances", "Instances that share the store.")?;
        self.instances.try_each(|state, gauge| instances.put([("state", state)], gauge))
    }

    fn put_certificates(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let help = "When the certificate in use ends, since the Unix epoch.";
        let name = "certificate_end_time";
        let mut ends = page.declare(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        self.certificate_ends.try_each(|listener, gauge| ends.put([("listener", listener)], gauge))
    }
}

fn put_queue(page: &mut Page<'_, '_>, keys: &Keys<'_>) -> fmt::Result {
    let mut depth = page.gauge("queue_depth", "Calls that wait for a slot.")?;
    for (name, key) in keys {
        for (class, gauge) in key.queue_depth.iter() {
            depth.put([("api_key", name), ("class", class)], gauge)?;
        }
    }
    let mut wait = page.seconds("queue_wait", "Time in the queue, served or not.")?;
    for (name, key) in keys {
        for (class, histogram) in key.queue_wait.iter() {
            wait.put([("api_key", name), ("class", class)], histogram)?;
        }
    }
    Ok(())
}

fn put_upstream(page: &mut Page<'_, '_>, keys: &Keys<'_>) -> fmt::Result {
    let mut requests = page.counter("upstream_requests", "Answers of the upstream.")?;
    for (name, key) in keys {
        requests.put_statuses(name, &key.upstream_requests)?;
    }
    let mut seconds = page.seconds("upstream", "Time from sending a call to the answer's head.")?;
    for (name, key) in keys {
        seconds.put([("api_key", name)], &key.upstream_seconds)?;
    }
    let mut throttled = page.counter(
        "upstream_throttled",
        "429 answers of the upstream, by the limit that it named.",
    )?;
    for (name, key) in keys {
        for (scope, count) in key.throttled.iter() {
            throttled.put([("api_key", name), ("scope", scope)], count)?;
        }
    }
    Ok(())
}

fn put_budget(page: &mut Page<'_, '_>, keys: &Keys<'_>) -> fmt::Result {
    let mut slots = page.counter("slots_granted", "Slots given to waiting calls.")?;
    for (name, key) in keys {
        slots.put([("api_key", name)], &key.slots_granted)?;
    }
    let help = "Margin on the upstream's window against jitter.";
    let mut guard = page.declare("guard", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    for (name, key) in keys {
        guard.put([("api_key", name)], &key.guard)?;
    }
    let mut used = page.gauge("day_used", "Calls counted in this quota day.")?;
    for (name, key) in keys {
        used.put([("api_key", name)], &key.day_used)?;
    }
    let mut limit = page.gauge("day_limit", "Calls that a quota day holds.")?;
    for (name, key) in keys {
        limit.put([("api_key", name)], &key.day_limit)?;
    }
    let mut foreign =
        page.gauge("foreign_use_calls", "Calls of this quota day that others seem to have made.")?;
    for (name, key) in keys {
        foreign.put([("api_key", name)], &key.foreign_use_calls)?;
    }
    Ok(())
}

fn put_tokens(page: &mut Page<'_, '_>, keys: &Keys<'_>) -> fmt::Result {
    let mut refreshes = page.counter("token_refreshes", "Token requests, by how they ended.")?;
    for (name, key) in keys {
        key.token_refreshes.try_each(|outcome, count| {
            refreshes.put([("api_key", name), ("outcome", outcome)], count)
        })?;
    }
    let help = "What somebody should look at, by what it is.";
    let mut alarms = page.counter("token_alarms", help)?;
    for (name, key) in keys {
        key.token_alarms
            .try_each(|reason, count| alarms.put([("api_key", name), ("reason", reason)], count))?;
    }
    let help = "Tenants whose refresh token dies within 30 days if it is not used.";
    let mut ageing = page.gauge("refresh_tokens_ageing", help)?;
    for (name, key) in keys {
        ageing.put([("api_key", name)], &key.refresh_tokens_ageing)?;
    }
    let mut depth = page.gauge("token_lane_depth", "Tenants that wait for a token request.")?;
    for (name, key) in keys {
        depth.put([("api_key", name)], &key.token_lane_depth)?;
    }
    let mut tenants = page.gauge("tenants", "Tenants, by their state.")?;
    for (name, key) in keys {
        key.tenants
            .try_each(|state, gauge| tenants.put([("api_key", name), ("state", state)], gauge))?;
    }
    Ok(())
}

/// The page being written.
struct Page<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Page<'_, '_> {
    fn counter<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Metric<'s>, fmt::Error> {
        self.declare(name, help, None, MetricType::Counter)
    }

    fn gauge<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Metric<'s>, fmt::Error> {
        self.declare(name, help, None, MetricType::Gauge)
    }

    /// A histogram of durations.
    fn seconds<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Metric<'s>, fmt::Error> {
        self.declare(name, help, Some(&Unit::Seconds), MetricType::Histogram)
    }

    fn declare<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        metric_type: MetricType,
    ) -> Result<Metric<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, metric_type).map(Metric)
    }
}

/// A declared metric, to be followed by its series.
struct Metric<'a>(MetricEncoder<'a>);

impl Metric<'_> {
    fn put<const N: usize>(
        &mut self,
        labels: [(&str, &str); N],
        value: &impl EncodeMetric,
    ) -> fmt::Result {
        value.encode(self.0.encode_family(&labels)?)
    }

    /// The only series of a metric without labels.
    fn put_alone(self, value: &impl EncodeMetric) -> fmt::Result {
        value.encode(self.0)
    }

    fn put_statuses(&mut self, api_key: &str, counts: &ByStatus) -> fmt::Result {
        for (status, count) in counts.counted() {
            let labels = [("api_key", api_key), ("status", status.as_str())];
            self.put(labels, &ConstCounter::new(count))?;
        }
        Ok(())
    }
}
