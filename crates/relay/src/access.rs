//! The access record: every attempt is noted, granted or refused; a flood of anonymous ones as counts.
//!
//! Rows go through a bounded queue to one writer that groups them, so that a download does not pay an fsync for each
//! part. The queue is written out when the relay stops; a crash loses at most what was in it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pouch_statement::{BundleId, MailboxId, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::ledger::{AccessRow, Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::rate::Standing;

/// Rows in the queue, and in one transaction.
const QUEUE: usize = 1024;
const GROUP: usize = 256;
/// How often counts are written down, at the latest.
const COUNTS: Duration = Duration::from_secs(10);
/// Failed writes in a row after which a group is given up, so that memory stays bounded.
const TRIES: u32 = 3;

/// What is learnt about a request while it is answered.
#[derive(Clone, Default)]
pub(crate) struct Attempt(Arc<Mutex<Learnt>>);

#[derive(Clone, Copy, Default)]
pub(crate) struct Learnt {
    pub(crate) account: Option<MailboxId>,
    pub(crate) bundle: Option<BundleId>,
    /// How the account's rate stands.
    pub(crate) standing: Option<Standing>,
}

impl Attempt {
    pub(crate) fn is_by(&self, account: MailboxId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).account = Some(account);
    }

    pub(crate) fn stands(&self, standing: Standing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).standing = Some(standing);
    }

    pub(crate) fn is_about(&self, bundle: BundleId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bundle = Some(bundle);
    }

    pub(crate) fn learnt(&self) -> Learnt {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happened.
pub(crate) struct Outcome {
    pub(crate) time: Timestamp,
    pub(crate) address: Option<IpAddr>,
    pub(crate) method: &'static str,
    pub(crate) route: String,
    pub(crate) learnt: Learnt,
    pub(crate) status: u16,
    pub(crate) problem: Option<&'static str>,
}

enum Entry {
    Row(AccessRow),
    Flush(oneshot::Sender<()>),
}

/// Minute, method, route, status, problem: all from small fixed sets, so the map is bounded.
type Key = (u64, &'static str, String, u16, Option<&'static str>);
type Counts = Arc<Mutex<BTreeMap<Key, u64>>>;

/// Where attempts are noted.
pub(crate) struct AccessRecord {
    entries: mpsc::Sender<Entry>,
    counts: Counts,
}

/// The other end: one task writes.
pub(crate) struct AccessWriter {
    entries: mpsc::Receiver<Entry>,
    counts: Counts,
}

pub(crate) fn channel() -> (AccessRecord, AccessWriter) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let counts = Counts::default();
    (AccessRecord { entries: sender, counts: Arc::clone(&counts) }, AccessWriter { entries: receiver, counts })
}

impl AccessRecord {
    /// Notes an attempt. What nobody signed is counted; the rest waits for a place in the queue.
    pub(crate) async fn note(&self, outcome: Outcome) {
        let Outcome { time, address, method, route, learnt, status, problem } = outcome;
        if learnt.account.is_none() {
            let key = (time.unix() / 60 * 60, method, route, status, problem);
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
            return;
        }
        let row = AccessRow {
            time,
            account: learnt.account,
            address: address.map_or_else(String::new, |ip| ip.to_canonical().to_string()),
            method,
            route,
            bundle: learnt.bundle,
            status,
            problem,
            count: 1,
        };
        // The writer ends only with the relay.
        let _ = self.entries.send(Entry::Row(row)).await;
    }

    /// Waits until everything noted before is in the ledger.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.entries.send(Entry::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}

impl AccessWriter {
    /// Writes until all senders are gone, and then what is left.
    pub(crate) async fn run(mut self, ledger: &Ledger, metrics: &Metrics) {
        let mut entries = Vec::with_capacity(GROUP);
        let mut counted = Instant::now();
        loop {
            let received = tokio::time::timeout(COUNTS, self.entries.recv_many(&mut entries, GROUP)).await;
            let asked = entries.iter().any(|entry| matches!(entry, Entry::Flush(_)));
            let mut rows = Vec::with_capacity(entries.len());
            let mut waiting = Vec::new();
            for entry in entries.drain(..) {
                match entry {
                    Entry::Row(row) => rows.push(row),
                    Entry::Flush(done) => waiting.push(done),
                }
            }
            let over = received == Ok(0);
            // Also while accounts keep the record busy.
            if asked || over || received.is_err() || counted.elapsed() >= COUNTS {
                rows.extend(self.take_counts());
                counted = Instant::now();
            }
            let (begun, any) = (Instant::now(), !rows.is_empty());
            write(ledger, metrics, rows).await;
            if any {
                metrics.committed(begun.elapsed());
            }
            for done in waiting {
                let _ = done.send(());
            }
            if over {
                return;
            }
        }
    }

    fn take_counts(&self) -> Vec<AccessRow> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        counts
            .into_iter()
            .inspect(|((_, method, route, status, problem), count)| {
                tracing::info!(method, %route, status, problem, count, "answered to nobody in particular");
            })
            .map(|((minute, method, route, status, problem), count)| AccessRow {
                time: crate::clock::at(minute),
                account: None,
                address: crate::ledger::MANY.to_owned(),
                method,
                route,
                bundle: None,
                status,
                problem,
                count,
            })
            .collect()
    }
}

async fn write(ledger: &Ledger, metrics: &Metrics, rows: Vec<AccessRow>) {
    if rows.is_empty() {
        return;
    }
    let rows = Arc::new(rows);
    for attempt in 1..=TRIES {
        match ledger.record(Arc::clone(&rows)).await {
            Ok(()) => return,
            // A row that stands there twice misleads less than one that is missing: this is not run again by the ledger,
            // which does not know whether it was committed, but it is here.
            Err(error @ LedgerError::Unsure(_)) => {
                tracing::warn!(%error, attempt, rows = rows.len(), "access records may be written twice")
            }
            Err(error) => {
                tracing::error!(%error, attempt, rows = rows.len(), "access records cannot be written")
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    metrics.records_lost(rows.len());
    tracing::error!(rows = rows.len(), "access records are lost: the ledger took them in none of {TRIES} attempts");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;
    use crate::metrics::Looked;

    #[tokio::test]
    async fn rows_that_the_ledger_does_not_take_are_counted_as_lost() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let ledger = Ledger::create(&config).await.unwrap();
        let (record, writer) = channel();
        let metrics = Metrics::default();
        let note = async |account| {
            let learnt = Learnt { account, ..Learnt::default() };
            let time = crate::clock::at(1_800_000_000);
            let (method, route) = ("GET", "/v1/inbox".to_owned());
            record.note(Outcome { time, address: None, method, route, learnt, status: 200, problem: None }).await;
        };
        let lost = || {
            let text = metrics.text(Looked::default()).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("pouch_relay_lost_access_records_total "));
            line.unwrap().to_owned()
        };
        let work = async {
            note(MailboxId::random().ok()).await;
            record.flush().await;
            assert_eq!(lost(), "0");
            ledger.close().await;
            note(MailboxId::random().ok()).await;
            note(None).await;
            record.flush().await;
            assert_eq!(lost(), "2");
        };
        tokio::select! {
            () = work => {}
            () = writer.run(&ledger, &metrics) => panic!("the writer ended"),
        }
    }
}
