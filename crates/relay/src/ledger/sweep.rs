//! What the sweeper asks of the ledger. A row is claimed (*doomed*) in one transaction, its file deleted after that,
//! the row deleted last; each step may be repeated.

use pouch_protocol::BundleState;
use pouch_protocol::limits::BURN_LEASE;
use pouch_statement::Timestamp;
use sqlx::{Row as _, SqliteConnection};

use super::bundles::{end, forget};
use super::row::{BundleRow, bytes, give_space, select_bundle, uint};
use super::{Ledger, Result, int};
use crate::blob::BlobName;

/// Bundles that one transaction ends, so that the writer is not held for long.
const GROUP: i64 = 32;
/// How long a pending bundle may lie untouched (docs/protocol.md, "Commit and durability").
const IDLE_SECONDS: u64 = 24 * 3600;

impl Ledger {
    /// Ends bundles whose time is over and forgets idle pending ones; how many.
    pub(crate) async fn end_overdue(&self, now: Timestamp) -> Result<usize> {
        let mut tx = self.begin().await?;
        let before = |seconds: u64| int(now.unix().saturating_sub(seconds));
        let rows = sqlx::query(select_bundle!(
            "WHERE b.ended IS NULL AND (b.expires <= $1 OR (b.state = 'pending' AND b.touched <= $2) \
             OR (b.burn = 1 AND b.first_release <= $3)) LIMIT $4"
        ))
        .bind(int(now.unix()))
        .bind(before(IDLE_SECONDS))
        .bind(before(BURN_LEASE))
        .bind(GROUP)
        .fetch_all(&mut *tx)
        .await?;
        for row in &rows {
            let bundle = BundleRow::read(row)?;
            match bundle.state(now) {
                BundleState::Pending => forget(&mut tx, &bundle).await?,
                BundleState::Committed => {}
                state => end(&mut tx, &bundle, state, now).await?,
            }
        }
        tx.commit().await?;
        Ok(rows.len())
    }

    /// Some blobs whose files are to be deleted.
    pub(crate) async fn doomed_blobs(&self) -> Result<Vec<BlobName>> {
        let mut conn = self.readers.acquire().await?;
        let rows = sqlx::query("SELECT name FROM blob WHERE state = 'doomed' LIMIT $1")
            .bind(GROUP * 8)
            .fetch_all(&mut *conn)
            .await?;
        rows.iter().map(|row| Ok(BlobName::from_bytes(bytes(row, "name")?))).collect()
    }

    /// Forgets blobs whose files are deleted.
    pub(crate) async fn forget_blobs(&self, names: &[BlobName]) -> Result<()> {
        let mut tx = self.begin().await?;
        for name in names {
            sqlx::query("DELETE FROM blob WHERE name = $1 AND state = 'doomed'")
                .bind(name.as_bytes().as_slice())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Prunes nonces, links, access records and what is left of ended bundles.
    pub(crate) async fn prune(&self, retention: u64, now: Timestamp) -> Result<()> {
        let limit = int(now.unix().saturating_sub(retention));
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM nonce WHERE expires <= $1").bind(int(now.unix())).execute(&mut *tx).await?;
        sqlx::query(
            "DELETE FROM link WHERE (joiner IS NULL AND inviter IS NOT NULL AND expires <= $1) OR expires <= $2",
        )
        .bind(int(now.unix()))
        .bind(limit)
        .execute(&mut *tx)
        .await?;
        give_back(&mut tx, limit).await?;
        for statement in [
            "DELETE FROM access WHERE time <= $1",
            "DELETE FROM delivery WHERE bundle IN (SELECT seq FROM bundle WHERE ended IS NOT NULL AND ended <= $1)",
            "DELETE FROM bundle WHERE ended IS NOT NULL AND ended <= $1",
        ] {
            sqlx::query(statement).bind(limit).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// At start, with the folder locked: nothing is in flight, so whatever is pending was cut off. Gives its room
    /// back and dooms it.
    pub(crate) async fn doom_pending(&self) -> Result<u64> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE account SET used = used - COALESCE(
                 (SELECT SUM(length) FROM blob WHERE state = 'pending' AND blob.account = account.seq), 0)",
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE space SET used = used - COALESCE((SELECT SUM(length) FROM blob WHERE state = 'pending'), 0)",
        )
        .execute(&mut *tx)
        .await?;
        let doomed = sqlx::query("UPDATE blob SET state = 'doomed' WHERE state = 'pending'").execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(doomed.rows_affected())
    }

    /// Whether a file's name is written down, in whatever state.
    pub(crate) async fn has_blob(&self, name: BlobName) -> Result<bool> {
        let mut conn = self.readers.acquire().await?;
        let row = sqlx::query("SELECT 1 AS one FROM blob WHERE name = $1")
            .bind(name.as_bytes().as_slice())
            .fetch_optional(&mut *conn)
            .await?;
        Ok(row.map(|row| row.try_get::<i64, _>("one")).transpose()?.is_some())
    }
}

/// What ended bundles were charged for goes back to their senders, before they are pruned.
async fn give_back(conn: &mut SqliteConnection, limit: i64) -> Result<()> {
    let rows = sqlx::query(
        "SELECT sender, COUNT(*) AS n, SUM(receipts) AS receipts FROM bundle
         WHERE ended IS NOT NULL AND ended <= $1 GROUP BY sender",
    )
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    for row in &rows {
        let sender: i64 = row.try_get("sender")?;
        sqlx::query("UPDATE account SET ended = ended - $1 WHERE seq = $2")
            .bind(int(uint(row, "n")?))
            .bind(sender)
            .execute(&mut *conn)
            .await?;
        give_space(conn, sender, uint(row, "receipts")?).await?;
    }
    Ok(())
}
