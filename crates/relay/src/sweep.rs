//! The sweeper: ends what is over, deletes what is doomed, prunes what was kept long enough.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Swept;
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
    app.metrics.swept(Swept::Round, 1);
    if let Err(error) = sweep(app).await {
        app.metrics.swept(Swept::Failed, 1);
        tracing::error!(%error, "sweeping failed; it goes on with the next round");
    }
}

async fn sweep(app: &App) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let now = app.clock.now();
    loop {
        let ended = app.ledger.end_overdue(now).await?;
        if ended == 0 {
            break;
        }
        app.metrics.swept(Swept::Ended, ended as u64);
        tokio::task::yield_now().await;
    }
    delete_doomed(app).await?;
    app.ledger.prune(app.config.retention_seconds, now).await?;
    Ok(())
}

async fn delete_doomed(app: &App) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    loop {
        let names = app.ledger.doomed_blobs().await?;
        if names.is_empty() {
            return Ok(());
        }
        for name in &names {
            app.blobs.remove(*name).await?;
        }
        app.metrics.swept(Swept::Blobs, names.len() as u64);
        app.ledger.forget_blobs(&names).await?;
    }
}

/// At start, with the folder locked: what a crash left between pending row, blob and ledger is given up. A blob whose
/// name is in no row was never acknowledged, or its row went before its file did.
pub(crate) async fn recover(app: &App) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let pending = app.ledger.doom_pending().await?;
    let mut orphans = 0u64;
    for name in app.blobs.clean_and_list().await? {
        if !app.ledger.has_blob(name).await? {
            app.blobs.remove(name).await?;
            orphans += 1;
        }
    }
    if pending > 0 || orphans > 0 {
        tracing::info!(pending, orphans, "collected what an interrupted run left");
    }
    sweep(app).await
}
