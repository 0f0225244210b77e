//! What the sweepers of all nodes ask of the ledger. Rows are claimed before anything happens to their blobs: a pending one
//! becomes *doomed*, a doomed one is this sweeper's for [`CLAIM_SECONDS`]. Then its file is deleted, and its row last; each
//! step may be repeated, also by another node.

use std::collections::BTreeMap;

use pouch_protocol::BundleState;
use pouch_protocol::limits::BURN_LEASE;
use pouch_statement::Timestamp;

use super::bundles::{end, forget};
use super::database::{Conn, Lock, Row, query};
use super::row::{BundleRow, bytes, give_own, give_total, select_bundle, uint};
use super::{Ledger, Result, int};
use crate::blob::BlobName;

/// Bundles or blobs that one transaction takes, so that nobody waits long for it.
const GROUP: i64 = 32;
const BLOBS: i64 = 256;
/// How long a pending bundle may lie untouched (docs/protocol.md, "Commit and durability").
const IDLE_SECONDS: u64 = 24 * 3600;
/// How long the blobs that a sweeper claimed are left to it.
const CLAIM_SECONDS: u64 = 120;

impl Ledger {
    /// Ends bundles whose time is over and forgets idle pending ones; how many.
    pub(crate) async fn end_overdue(&self, now: Timestamp) -> Result<usize> {
        self.write((), move |conn, ()| Box::pin(end_overdue(conn, now))).await
    }

    /// Gives up uploads of which nothing was heard for too long: their room is free, their blobs doomed; how many.
    pub(crate) async fn give_up(&self, now: Timestamp) -> Result<u64> {
        self.write((), move |conn, ()| Box::pin(give_up(conn, Some(now)))).await
    }

    /// Gives up all uploads. At start, where nobody else can have any under way.
    pub(crate) async fn give_up_all(&self) -> Result<u64> {
        let mut all = 0;
        loop {
            let some = self.write((), |conn, ()| Box::pin(give_up(conn, None))).await?;
            all += some;
            if some == 0 {
                return Ok(all);
            }
        }
    }

    /// Claims some blobs whose files are to be deleted now: those that were doomed `keep` seconds ago or earlier, and those
    /// that were never stored.
    pub(crate) async fn claim_doomed(&self, keep: u64, now: Timestamp) -> Result<Vec<BlobName>> {
        self.write((), move |conn, ()| Box::pin(claim_doomed(conn, keep, now))).await
    }

    /// Forgets blobs whose files are deleted.
    pub(crate) async fn forget_blobs(&self, names: Vec<BlobName>) -> Result<()> {
        self.write(names, |conn, names| {
            Box::pin(async move {
                for name in names {
                    query("DELETE FROM blob WHERE name = $1 AND state = 'doomed'")
                        .bind(name.as_bytes().as_slice())
                        .execute(conn)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Prunes nonces, links, access records and what is left of ended bundles.
    pub(crate) async fn prune(&self, retention: u64, now: Timestamp) -> Result<()> {
        let limit = int(now.unix().saturating_sub(retention));
        let now = int(now.unix());
        self.write((), move |conn, ()| Box::pin(prune_rows(conn, limit, now))).await?;
        while self.write((), move |conn, ()| Box::pin(prune_bundles(conn, limit))).await? > 0 {}
        Ok(())
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
    for bundle in &bundles {
        match bundle.state(now) {
            BundleState::Pending => forget(conn, bundle, now).await?,
            BundleState::Committed => {}
            state => end(conn, bundle, state, now).await?,
        }
    }
    Ok(bundles.len())
}

/// `now`: only those whose lease is over by then.
async fn give_up(conn: &mut Conn, now: Option<Timestamp>) -> Result<u64> {
    let rows =
        query("SELECT b.name, b.account, b.length FROM blob b WHERE b.state = 'pending' AND b.due <= $1 LIMIT $2")
            .bind(now.map_or(i64::MAX, |now| int(now.unix())))
            .bind(BLOBS)
            .claiming("b")
            .fetch_all(conn)
            .await?;
    let mut room: BTreeMap<i64, u64> = BTreeMap::new();
    for row in &rows {
        *room.entry(row.get("account")?).or_default() += uint(row, "length")?;
        query("UPDATE blob SET state = 'doomed', due = 0 WHERE name = $1")
            .bind(row.get::<&[u8]>("name")?)
            .execute(conn)
            .await?;
    }
    give_back(conn, &room).await?;
    Ok(rows.len() as u64)
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

async fn prune_rows(conn: &mut Conn, limit: i64, now: i64) -> Result<()> {
    query("DELETE FROM nonce WHERE expires <= $1").bind(now).execute(conn).await?;
    query("DELETE FROM link WHERE (joiner IS NULL AND inviter IS NOT NULL AND expires <= $1) OR expires <= $2")
        .bind(now)
        .bind(limit)
        .execute(conn)
        .await?;
    query("DELETE FROM access WHERE time <= $1").bind(limit).execute(conn).await?;
    Ok(())
}

/// Forgets ended bundles; what they were charged for goes back to their senders.
async fn prune_bundles(conn: &mut Conn, limit: i64) -> Result<usize> {
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
    Ok(rows.len())
}
