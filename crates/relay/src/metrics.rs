//! What is counted, for Prometheus. Labels are words of small fixed sets: routes' templates, methods, classes of status.
//! No account, address, bundle or anything else that a client chose ever becomes one (attacks.md 48, 59).

use std::fmt::Error;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The media type of what [`Metrics::text`] writes.
pub(crate) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper ends of the buckets for requests, in seconds.
const REQUEST_SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];
/// The same for what waits for a disk or a database.
const COMMIT_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
}

/// Why a connection ended early, or was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// All places are taken by those who signed.
    Full,
    /// All places of its address are.
    Address,
    /// It made room for another.
    Evicted,
    /// The TLS handshake failed, or took too long.
    Tls,
    /// What a load balancer must say before TLS was missing or wrong.
    Proxy,
}

impl Lost {
    fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
            Self::Evicted => "evicted",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
        }
    }
}

/// Which limit of requests was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The account's.
    Account,
    /// The address's.
    Address,
}

/// What the sweeper did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swept {
    /// A round.
    Round,
    /// A round that failed.
    Failed,
    /// Bundles that were over.
    Ended,
    /// Blobs deleted.
    Blobs,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Word {
    what: &'static str,
}

/// All counters of a relay process.
pub(crate) struct Metrics {
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    received: Counter,
    sent: Counter,
    lost: Family<Word, Counter>,
    limited: Family<Word, Counter>,
    swept: Family<Word, Counter>,
    certificates: Family<Word, Counter>,
    commits: Histogram,
    lost_records: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            received: Counter::default(),
            sent: Counter::default(),
            lost: Family::default(),
            limited: Family::default(),
            swept: Family::default(),
            certificates: Family::default(),
            commits: Histogram::new(COMMIT_SECONDS),
            lost_records: Counter::default(),
        }
    }
}

/// What is looked up when somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    /// Connections now.
    pub(crate) connections: usize,
    /// Requests that wait for a delivery now.
    pub(crate) waits: usize,
    /// Bytes that are free on the data folder's disk.
    pub(crate) disk_free: Option<u64>,
    /// Bytes that the ledger counts for all bundles.
    pub(crate) used: Option<u64>,
    /// Of so many.
    pub(crate) total: u64,
    /// Whether it takes requests.
    pub(crate) ready: bool,
}

impl Metrics {
    /// A request was answered.
    pub(crate) fn answered(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let status = match status {
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&Answered { method, route: route.to_owned(), status }).inc();
        self.seconds.get_or_create(&Route { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    /// Bytes came, as they are on the line.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.inc_by(bytes as u64);
    }

    /// Bytes went, as they are on the line.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }

    /// A connection ended early, or was not taken.
    pub(crate) fn lost(&self, lost: Lost) {
        self.lost.get_or_create(&Word { what: lost.word() }).inc();
    }

    /// A request was refused for its rate.
    pub(crate) fn limited(&self, by: By) {
        let what = match by {
            By::Account => "account",
            By::Address => "address",
        };
        self.limited.get_or_create(&Word { what }).inc();
    }

    /// The sweeper did something so often.
    pub(crate) fn swept(&self, swept: Swept, count: u64) {
        let what = match swept {
            Swept::Round => "rounds",
            Swept::Failed => "failed_rounds",
            Swept::Ended => "bundles",
            Swept::Blobs => "blobs",
        };
        self.swept.get_or_create(&Word { what }).inc_by(count);
    }

    /// The certificate's files were read again.
    pub(crate) fn certificate(&self, good: bool) {
        self.certificates.get_or_create(&Word { what: if good { "loaded" } else { "refused" } }).inc();
    }

    /// A commit of the ledger took so long.
    pub(crate) fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// So many rows of the access record could not be written.
    pub(crate) fn records_lost(&self, rows: usize) {
        self.lost_records.inc_by(rows as u64);
    }

    /// All of it in the text format of OpenMetrics 1.0.
    pub(crate) fn text(&self, looked: Looked) -> Result<String, Error> {
        let mut all = Registry::with_prefix("pouch_relay");
        let gauge = |value: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            gauge
        };
        let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
        build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION"))]).set(1);
        all.register("build", "The version, as a label", build);
        all.register("requests", "Requests answered", self.requests.clone());
        all.register("request_seconds", "Time until the answer's head was ready", self.seconds.clone());
        all.register("received_bytes", "Bytes received, as they are on the line", self.received.clone());
        all.register("sent_bytes", "Bytes sent, as they are on the line", self.sent.clone());
        all.register("connections", "Connections now", gauge(looked.connections as u64));
        all.register("waiting_requests", "Requests that wait for a delivery now", gauge(looked.waits as u64));
        all.register("lost_connections", "Connections refused, evicted, or broken before a request", self.lost.clone());
        all.register("rate_limited", "Requests refused for their rate", self.limited.clone());
        all.register("swept", "What the sweeper did", self.swept.clone());
        all.register("certificate_reads", "Certificate files read again", self.certificates.clone());
        all.register("ledger_commit_seconds", "Time of the access record's commits", self.commits.clone());
        all.register("lost_access_records", "Rows that the ledger did not take", self.lost_records.clone());
        if let Some(free) = looked.disk_free {
            all.register("disk_free_bytes", "Free on the data folder's disk", gauge(free));
        }
        if let Some(used) = looked.used {
            all.register("used_bytes", "Of total_bytes, what bundles and receipts take", gauge(used));
        }
        all.register("total_bytes", "What all bundles and receipts together may take", gauge(looked.total));
        all.register("ready", "1 where it takes requests", gauge(u64::from(looked.ready)));
        let mut out = String::new();
        encode(&mut out, &all)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_text_is_openmetrics() {
        let metrics = Metrics::default();
        metrics.answered("GET", "/v1/bundles/{bundle}", 200, Duration::from_millis(3));
        metrics.answered("GET", "/v1/bundles/{bundle}", 204, Duration::from_millis(3));
        metrics.answered("PUT", "unknown", 404, Duration::from_secs(3));
        metrics.received(7);
        metrics.lost(Lost::Tls);
        metrics.limited(By::Address);
        metrics.swept(Swept::Blobs, 5);
        let looked = Looked { connections: 3, waits: 2, used: Some(9), total: 10, ready: true, disk_free: None };
        let text = metrics.text(looked).unwrap();
        for line in [
            "# TYPE pouch_relay_requests counter",
            "pouch_relay_requests_total{method=\"GET\",route=\"/v1/bundles/{bundle}\",status=\"2xx\"} 2",
            "pouch_relay_requests_total{method=\"PUT\",route=\"unknown\",status=\"4xx\"} 1",
            "pouch_relay_request_seconds_bucket{le=\"0.0025\",route=\"/v1/bundles/{bundle}\"} 0",
            "pouch_relay_request_seconds_bucket{le=\"0.005\",route=\"/v1/bundles/{bundle}\"} 2",
            "pouch_relay_received_bytes_total 7",
            "pouch_relay_lost_connections_total{what=\"tls\"} 1",
            "pouch_relay_rate_limited_total{what=\"address\"} 1",
            "pouch_relay_swept_total{what=\"blobs\"} 5",
            "pouch_relay_connections 3",
            "pouch_relay_waiting_requests 2",
            "pouch_relay_used_bytes 9",
            "pouch_relay_ready 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n") && !text.contains("disk_free"), "{text}");
    }
}
