//! Blobs and unfinished uploads that no row of the ledger names: left by a process that died, by a request to S3 that took
//! effect after it was given up, or by a ledger that was restored from a backup.

use std::time::Duration;

use futures_util::StreamExt as _;

use crate::blob::{BlobName, BlobStore};
use crate::config::Config;
use crate::server::App;

/// How often they are searched for, after the search at start.
pub(crate) const EVERY: Duration = Duration::from_secs(24 * 3600);
/// In a store that others use too, what is younger is left alone, in seconds; and everywhere what is younger than the time for
/// which backups of the ledger are kept. A row is written before its blob, so a name in no row is an orphan whatever its age;
/// the time is for clocks, and for an operator who has restored a ledger.
const AGE: u64 = 24 * 3600;
/// Deleted at once.
const PARALLEL: usize = 16;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One search; what fails is logged and done the next time.
pub(crate) async fn round(app: &App) {
    match collect(app).await {
        Ok(0) => {}
        Ok(orphans) => tracing::info!(orphans, "collected what no row names"),
        Err(error) => tracing::error!(%error, "orphans cannot be collected; the next search tries again"),
    }
}

/// Deletes them; how many there were.
pub(crate) async fn collect(app: &App) -> Result<u64, Error> {
    let now = app.clock.now();
    let least = least_age(&app.config, &*app.blobs);
    let mut count = 0;
    for unfinished in app.blobs.unfinished().await? {
        // One whose row is there may be under way, however long it takes.
        if now.since(unfinished.begun) >= least && is_orphan(app, unfinished.name).await? {
            app.blobs.discard(&unfinished).await?;
            count += 1;
        }
    }
    let mut next = None;
    loop {
        let page = app.blobs.list(next).await?;
        let mut orphans = Vec::new();
        for blob in page.blobs {
            if now.since(blob.modified) >= least && is_orphan(app, blob.name).await? {
                orphans.push(blob.name);
            }
        }
        count += orphans.len() as u64;
        let mut removed = futures_util::stream::iter(orphans)
            .map(|name| async move { app.blobs.remove(name).await })
            .buffer_unordered(PARALLEL);
        while let Some(outcome) = removed.next().await {
            outcome?;
        }
        match page.next {
            Some(mark) => next = Some(mark),
            None => return Ok(count),
        }
    }
}

/// How old a blob is at least before it counts as an orphan, in seconds.
pub(crate) fn least_age(config: &Config, blobs: &dyn BlobStore) -> u64 {
    if blobs.is_mine() { config.backup_seconds } else { AGE.max(config.backup_seconds) }
}

async fn is_orphan(app: &App, name: BlobName) -> Result<bool, Error> {
    Ok(!app.ledger.has_blob(name).await?)
}
