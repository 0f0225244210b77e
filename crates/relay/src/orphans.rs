//! Blobs and unfinished uploads that no row of the ledger names: left by a process that died, by a request to S3 that took
//! effect after it was given up, or by a ledger that was restored from a backup.
//!
//! They are searched for while the relay serves: a bucket of millions takes long. What cannot be deleted is logged and left to
//! the next search.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::blob::{BlobStore, Listed, StoreError, Unfinished};
use crate::config::Config;
use crate::ledger::LedgerError;
use crate::server::App;

/// How often they are searched for; the first time at once.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// In a store that others use too, what is younger is left alone, in seconds; and everywhere what is younger than the time for
/// which backups of the ledger are kept. A row is written before its blob, so a name in no row is an orphan whatever its age;
/// the time is for clocks, and for an operator who has restored a ledger.
const AGE: u64 = 24 * 3600;
/// Looked at and deleted at once.
const PARALLEL: usize = 16;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Blobs(#[from] StoreError),
    /// Somebody has taken them over since the relay started: nothing in them is this one's to delete.
    #[error("the blobs are not this relay's any more")]
    Foreign,
}

/// What came of a search.
#[derive(Clone, Copy, Debug, Default)]
struct Collected {
    deleted: u64,
    failed: u64,
}

impl Collected {
    fn count(&mut self, outcome: Result<bool, StoreError>) {
        match outcome {
            Ok(deleted) => self.deleted += u64::from(deleted),
            Err(error) => {
                self.failed += 1;
                tracing::warn!(%error, "what no row names cannot be deleted; the next search tries again");
            }
        }
    }
}

/// Searches until the relay stops.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        match collect(&app).await {
            Ok(Collected { deleted: 0, failed: 0 }) => tracing::debug!("nothing is there that no row names"),
            Ok(Collected { deleted, failed }) => tracing::info!(deleted, failed, "collected what no row names"),
            Err(error) => tracing::error!(%error, "the search for orphans broke off; the next one tries again"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Before anything is under way: what lies half written in a store that is this process's alone is of no use to anybody, not
/// even to a ledger from a backup, for which a blob is there whole or not at all.
pub(crate) async fn discard_unfinished(app: &App) {
    if !app.blobs.is_mine() {
        return;
    }
    let mut collected = Collected::default();
    match app.blobs.unfinished().await {
        Ok(all) => {
            for unfinished in all {
                collected.count(app.blobs.discard(&unfinished).await.map(|()| true));
            }
        }
        Err(error) => tracing::warn!(%error, "what an interrupted run left half written cannot be listed"),
    }
    if collected.deleted > 0 {
        tracing::info!(uploads = collected.deleted, "deleted what an interrupted run left half written");
    }
}

async fn collect(app: &App) -> Result<Collected, Error> {
    let mut collected = Collected::default();
    still_ours(app).await?;
    for unfinished in app.blobs.unfinished().await? {
        collected.count(discard(app, &unfinished).await?);
    }
    let mut next = None;
    loop {
        // A folder of this process is locked by it; what others reach too may change hands while this lasts.
        if !app.blobs.is_mine() {
            still_ours(app).await?;
        }
        let page = app.blobs.list(next).await?;
        let mut looked =
            futures_util::stream::iter(page.blobs).map(|blob| remove(app, blob)).buffer_unordered(PARALLEL);
        while let Some(outcome) = looked.next().await {
            collected.count(outcome?);
        }
        match page.next {
            Some(mark) => next = Some(mark),
            None => return Ok(collected),
        }
    }
}

async fn still_ours(app: &App) -> Result<(), Error> {
    if app.blobs.id().await? == Some(app.store) { Ok(()) } else { Err(Error::Foreign) }
}

/// Gives up an upload that nobody goes on with. One whose row is pending may be under way, however long it takes.
async fn discard(app: &App, unfinished: &Unfinished) -> Result<Result<bool, StoreError>, LedgerError> {
    if app.clock.now().since(unfinished.begun) < least_age(&app.config, &*app.blobs)
        || app.ledger.is_pending(unfinished.name).await?
    {
        return Ok(Ok(false));
    }
    Ok(app.blobs.discard(unfinished).await.map(|()| true))
}

async fn remove(app: &App, blob: Listed) -> Result<Result<bool, StoreError>, LedgerError> {
    if app.clock.now().since(blob.modified) < least_age(&app.config, &*app.blobs)
        || app.ledger.has_blob(blob.name).await?
    {
        return Ok(Ok(false));
    }
    Ok(app.blobs.remove(blob.name).await.map(|()| true))
}

/// How old a blob is at least before it counts as an orphan, in seconds.
pub(crate) fn least_age(config: &Config, blobs: &dyn BlobStore) -> u64 {
    if blobs.is_mine() { config.backup_seconds } else { AGE.max(config.backup_seconds) }
}
