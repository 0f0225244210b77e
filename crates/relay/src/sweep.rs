//! The sweeper: ends what is over, deletes what is doomed, prunes what was kept long enough.

use std::sync::Arc;
use std::time::Duration;

use pouch_statement::Timestamp;

use crate::ledger::LedgerError;
use crate::metrics::Swept;
use crate::orphans;
use crate::server::App;

/// Between two rounds, at the latest.
const ROUND: Duration = Duration::from_secs(30);

/// Sweeps until the relay stops.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        round(&app).await;
        let _ = tokio::time::timeout(ROUND, app.sweep.notified()).await;
    }
}

/// One round; what fails is logged and tried again in the next.
pub(crate) async fn round(app: &App) {
    let now = app.clock.now();
    // Each by itself: neither a bad row nor blobs that do not answer keep the others from their turn. Blobs come last, as they
    // may take longest.
    let steps = [
        ("ending bundles", end(app, now).await),
        ("giving up uploads", give_up(app, now).await),
        ("pruning", prune(app, now).await),
        ("deleting blobs", delete_doomed(app).await),
    ];
    for (step, outcome) in steps {
        if let Err(error) = outcome {
            app.metrics.swept(Swept::Failed, 1);
            tracing::error!(%error, step, "sweeping failed; it goes on with the next round");
        }
    }
    app.metrics.swept(Swept::Round, 1);
}

async fn end(app: &App, now: Timestamp) -> Result<(), LedgerError> {
    loop {
        let ended = app.ledger.end_overdue(now).await?;
        if ended == 0 {
            return Ok(());
        }
        app.metrics.swept(Swept::Ended, ended as u64);
        tokio::task::yield_now().await;
    }
}

async fn give_up(app: &App, now: Timestamp) -> Result<(), LedgerError> {
    while app.ledger.give_up(now).await? > 0 {}
    Ok(())
}

async fn prune(app: &App, now: Timestamp) -> Result<(), LedgerError> {
    while app.ledger.prune(app.config.retention_seconds, now).await? > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn delete_doomed(app: &App) -> Result<(), LedgerError> {
    loop {
        let names = app.ledger.claim_doomed(app.config.backup_seconds, app.clock.now()).await?;
        if names.is_empty() {
            return Ok(());
        }
        let mut removed = Vec::with_capacity(names.len());
        for name in names {
            match app.blobs.remove(name).await {
                Ok(()) => removed.push(name),
                // Its turn comes again; the rest of the round does not wait for it.
                Err(error) => tracing::warn!(%error, "a blob cannot be deleted"),
            }
        }
        app.metrics.swept(Swept::Blobs, removed.len() as u64);
        app.ledger.forget_blobs(removed).await?;
    }
}

/// At start, before anything is under way: what was under way when an earlier run ended is given up. With other nodes on the
/// same ledger and blobs it may be theirs; their leases end it. The rest is the sweeper's, while the relay serves.
pub(crate) async fn recover(app: &App) -> Result<(), LedgerError> {
    if app.ledger.is_exclusive() || app.blobs.is_mine() {
        let pending = app.ledger.give_up_all(app.clock.now()).await?;
        if pending > 0 {
            tracing::info!(pending, "gave up the uploads that an interrupted run left");
        }
    }
    orphans::discard_unfinished(app).await;
    Ok(())
}
