//! What the sweepers of all nodes ask of the ledger. Rows are claimed before anything happens to their blobs: a pending one
//! becomes *doomed*, a doomed one is this sweeper's for [`CLAIM_SECONDS`]. Then its file is deleted, and its row last; each
//! step may be repeated, also by another node.

use std::collections::BTreeMap;

use pouch_protocol::BundleState;
use pouch_protocol::limits::BURN_LEASE;
use pouch_statement::Timestamp;

use super::bundles::{end, forget};
use super::database::{Conn, Lock, Row, query};
use super::objects::doom;
use super::row::{BundleRow, bytes, give_own, give_total, select_bundle, uint};
use super::{Ledger, Result, int, journal};
use crate::blob::BlobName;

/// Bundles or blobs that one transaction takes, so that nobody waits long for it.
const GROUP: i64 = 32;
const BLOBS: i64 = 256;
/// Rows that one transaction deletes.
const ROWS: i64 = 1000;
/// Objects after which one transaction ends no further bundle; that of one bundle is not parted.
const OBJECTS: u64 = 1000;
/// How long a pending bundle may lie untouched (docs/protocol.md, "Commit and durability").
const IDLE_SECONDS: u64 = 24 * 3600;
/// How long the blobs that a sweeper claimed are left to it.
const CLAIM_SECONDS: u64 = 120;

impl Ledger {
    /// Ends bundles whose time is over and forgets idle pending ones; how many.
    pub(crate) async fn end_overdue(&self, now: Timestamp) -> Result<usize> {
        self.write((), move |conn, ()| Box::pin(end_overdue(conn, now))).await
    }

    /// Gives up uploads of which nothing was heard for too long: their blobs are doomed; how many.
    pub(crate) async fn give_up(&self, now: Timestamp) -> Result<u64> {
        self.write((), move |conn, ()| Box::pin(give_up(conn, now, int(now.unix())))).await
    }

    /// Gives up all uploads. At start, where nobody else can have any under way.
    pub(crate) async fn give_up_all(&self, now: Timestamp) -> Result<u64> {
        let mut all = 0;
        loop {
            let some = self.write((), move |conn, ()| Box::pin(give_up(conn, now, i64::MAX))).await?;
            all += some;
            if some == 0 {
                return Ok(all);
            }
        }
    }

    /// Claims some blobs whose files are to be deleted now: those that were doomed `keep` seconds ago or earlier, and those
    /// whose upload failed.
    pub(crate) async fn claim_doomed(&self, keep: u64, now: Timestamp) -> Result<Vec<BlobName>> {
        self.write((), move |conn, ()| Box::pin(claim_doomed(conn, keep, now))).await
    }

    /// Forgets blobs whose files are deleted, and gives the room back that they took.
    pub(crate) async fn forget_blobs(&self, names: Vec<BlobName>) -> Result<()> {
        self.write(names, |conn, names| Box::pin(forget_blobs(conn, names))).await
    }

    /// Prunes some nonces, links, access records and what is left of ended bundles, in short transactions; how many rows. With
    /// none there is nothing left to prune.
    pub(crate) async fn prune(&self, retention: u64, now: Timestamp) -> Result<u64> {
        let limit = int(now.unix().saturating_sub(retention));
        let now = int(now.unix());
        let mut pruned = self.write((), move |conn, ()| Box::pin(prune_nonces(conn, now))).await?;
        pruned += self.write((), move |conn, ()| Box::pin(prune_links(conn, limit, now))).await?;
        pruned += self.write((), move |conn, ()| Box::pin(prune_access(conn, limit))).await?;
        pruned += self.write((), move |conn, ()| Box::pin(prune_journals(conn, limit))).await?;
        Ok(pruned + self.write((), move |conn, ()| Box::pin(prune_bundles(conn, limit))).await?)
    }

    /// Whether a blob's upload may be under way.
    pub(crate) async fn is_pending(&self, name: BlobName) -> Result<bool> {
        let pending = query("SELECT 1 FROM blob WHERE name = $1 AND state = 'pending'");
        let row = pending.bind(name.as_bytes().as_slice()).fetch_optional(&mut self.look().await?).await?;
        Ok(row.is_some())
    }

    /// Whether a file's name is written down, in whatever state.
    pub(crate) async fn has_blob(&self, name: BlobName) -> Result<bool> {
        let mut conn = self.look().await?;
        let row = query("SELECT 1 FROM blob WHERE name = $1")
            .bind(name.as_bytes().as_slice())
            .fetch_optional(&mut conn)
            .await?;
        Ok(row.is_some())
    }
}

/// Locks the accounts of what was claimed, all of them before the relay's counter is touched, and in one order.
async fn lock_accounts(conn: &mut Conn, accounts: impl Iterator<Item = i64>) -> Result<()> {
    let mut accounts: Vec<i64> = accounts.collect();
    accounts.sort_unstable();
    accounts.dedup();
    for account in accounts {
        conn.lock(Lock::Account(account)).await?;
    }
    Ok(())
}

/// Journals of pipelines that were revoked, by whatever, or were over long ago: nobody can fetch them.
async fn prune_journals(conn: &mut Conn, limit: i64) -> Result<u64> {
    let rows = query(
        "SELECT p.account FROM pipeline p JOIN journal j ON j.account = p.account
         WHERE p.revoked IS NOT NULL OR p.expires <= $1 ORDER BY p.account LIMIT $2",
    );
    let rows = rows.bind(limit).bind(GROUP).fetch_all(conn).await?;
    let accounts = rows.iter().map(|row| row.get::<i64>("account")).collect::<Result<Vec<_>>>()?;
    lock_accounts(conn, accounts.iter().copied()).await?;
    for account in &accounts {
        journal::forget(conn, *account).await?;
    }
    Ok(accounts.len() as u64)
}

async fn end_overdue(conn: &mut Conn, now: Timestamp) -> Result<usize> {
    let before = |seconds: u64| int(now.unix().saturating_sub(seconds));
    let rows = query(select_bundle!(
        "WHERE b.ended IS NULL AND (b.expires <= $1 OR (b.state = 'pending' AND b.touched <= $2) \
         OR (b.burn = 1 AND b.first_release <= $3)) LIMIT $4"
    ))
    .bind(int(now.unix()))
    .bind(before(IDLE_SECONDS))
    .bind(before(BURN_LEASE))
    .bind(GROUP)
    .claiming("b")
    .fetch_all(conn)
    .await?;
    let bundles = rows.iter().map(BundleRow::read).collect::<Result<Vec<_>>>()?;
    lock_accounts(conn, bundles.iter().map(|bundle| bundle.sender)).await?;
    let mut ended = 0;
    let mut objects = 0;
    for bundle in &bundles {
        if objects >= OBJECTS {
            break;
        }
        ended += 1;
        objects += match bundle.state(now) {
            BundleState::Pending => forget(conn, bundle, now).await?,
            state => end(conn, bundle, state, now).await?,
        };
    }
    Ok(ended)
}

/// Those whose lease is over by `due`. They are doomed now and not at once deleted: this ledger may be an older one, restored
/// from a backup, and a later one may have them stored. Whoever restored the wrong one restores the right one, and finds them.
async fn give_up(conn: &mut Conn, now: Timestamp, due: i64) -> Result<u64> {
    let rows = query("SELECT b.name FROM blob b WHERE b.state = 'pending' AND b.due <= $1 LIMIT $2")
        .bind(due)
        .bind(BLOBS)
        .claiming("b")
        .fetch_all(conn)
        .await?;
    for row in &rows {
        doom(conn, row.get("name")?, now).await?;
    }
    Ok(rows.len() as u64)
}

async fn forget_blobs(conn: &mut Conn, names: &[BlobName]) -> Result<()> {
    let mut room: BTreeMap<i64, u64> = BTreeMap::new();
    for name in names {
        let row = query("DELETE FROM blob WHERE name = $1 AND state = 'doomed' RETURNING account, owed")
            .bind(name.as_bytes().as_slice())
            .fetch_optional(conn)
            .await?;
        if let Some(row) = row {
            *room.entry(row.get("account")?).or_default() += uint(&row, "owed")?;
        }
    }
    room.retain(|_, owed| *owed > 0);
    give_back(conn, &room).await
}

/// Gives room back to many accounts, in one order, and then to the relay.
async fn give_back(conn: &mut Conn, room: &BTreeMap<i64, u64>) -> Result<()> {
    for (account, length) in room {
        give_own(conn, *account, *length).await?;
    }
    if room.is_empty() { Ok(()) } else { give_total(conn, room.values().sum()).await }
}

async fn claim_doomed(conn: &mut Conn, keep: u64, now: Timestamp) -> Result<Vec<BlobName>> {
    let due = now.unix().saturating_sub(keep);
    let rows = query("SELECT b.name FROM blob b WHERE b.state = 'doomed' AND b.due <= $1 LIMIT $2")
        .bind(int(due))
        .bind(BLOBS)
        .claiming("b")
        .fetch_all(conn)
        .await?;
    for row in &rows {
        query("UPDATE blob SET due = $1 WHERE name = $2")
            .bind(int(due.saturating_add(CLAIM_SECONDS)))
            .bind(row.get::<&[u8]>("name")?)
            .execute(conn)
            .await?;
    }
    rows.iter().map(|row| Ok(BlobName::from_bytes(bytes(row, "name")?))).collect()
}

async fn prune_nonces(conn: &mut Conn, now: i64) -> Result<u64> {
    let some = "DELETE FROM nonce WHERE (account, nonce) IN (
        SELECT account, nonce FROM nonce WHERE expires <= $1 ORDER BY expires LIMIT $2)";
    query(some).bind(now).bind(ROWS).execute(conn).await
}

async fn prune_links(conn: &mut Conn, limit: i64, now: i64) -> Result<u64> {
    let some = "DELETE FROM link WHERE seq IN (
        SELECT seq FROM link WHERE (joiner IS NULL AND inviter IS NOT NULL AND expires <= $1) OR expires <= $2
        ORDER BY seq LIMIT $3)";
    query(some).bind(now).bind(limit).bind(ROWS).execute(conn).await
}

async fn prune_access(conn: &mut Conn, limit: i64) -> Result<u64> {
    let some = "DELETE FROM access WHERE seq IN (SELECT seq FROM access WHERE time <= $1 ORDER BY time LIMIT $2)";
    query(some).bind(limit).bind(ROWS).execute(conn).await
}

/// Forgets ended bundles; what they were charged for goes back to their senders.
async fn prune_bundles(conn: &mut Conn, limit: i64) -> Result<u64> {
    let rows: Vec<Row> =
        query("SELECT b.seq, b.sender, b.receipts FROM bundle b WHERE b.ended IS NOT NULL AND b.ended <= $1 LIMIT $2")
            .bind(limit)
            .bind(GROUP)
            .claiming("b")
            .fetch_all(conn)
            .await?;
    let (mut room, mut ended) = (BTreeMap::<i64, u64>::new(), BTreeMap::<i64, i64>::new());
    for row in &rows {
        let (seq, sender): (i64, i64) = (row.get("seq")?, row.get("sender")?);
        *room.entry(sender).or_default() += uint(row, "receipts")?;
        *ended.entry(sender).or_default() += 1;
        for statement in ["DELETE FROM delivery WHERE bundle = $1", "DELETE FROM bundle WHERE seq = $1"] {
            query(statement).bind(seq).execute(conn).await?;
        }
    }
    for (sender, count) in &ended {
        query("UPDATE account SET ended = ended - $1 WHERE seq = $2").bind(*count).bind(*sender).execute(conn).await?;
    }
    give_back(conn, &room).await?;
    Ok(rows.len() as u64)
}
