//! Objects of a bundle that is being uploaded: parts and index as blobs, envelopes in the ledger itself.
//!
//! Upload of a blob: [`Ledger::begin_object`] takes the room and writes the pending row; the file is made durable;
//! [`Ledger::finish_object`] makes it the bundle's, if both are still pending, or [`Ledger::abandon_object`] gives
//! the room back.

use pouch_protocol::limits::{MAX_RECEIPT, MAX_RECIPIENTS};
use pouch_protocol::{BundleState, ProblemKind};
use pouch_statement::{BundleId, MailboxId, Sha256Digest, Timestamp};
use sqlx::{Row as _, SqliteConnection};

use super::row::{BundleRow, Limits, bytes, give_space, take_space, uint};
use super::{Ledger, Result, int, refuse};
use crate::blob::BlobName;

/// The number under which the sealed index stands beside the parts.
pub(super) const INDEX: i64 = -1;

/// Which object of a bundle, and what it must be.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) bundle: BundleId,
    /// `None`: the index.
    pub(crate) part: Option<u32>,
    pub(crate) length: u64,
    /// BLAKE3 of a part, SHA-256 of the index.
    pub(crate) digest: [u8; 32],
}

/// What became of the wish to upload.
pub(crate) enum Begun {
    /// It is here, byte for byte.
    Same,
    /// Room is taken and the name written down.
    Pending,
}

/// A stored object.
#[derive(Clone, Copy)]
pub(crate) struct ObjectRow {
    pub(crate) blob: BlobName,
    pub(crate) length: u64,
    pub(crate) digest: [u8; 32],
}

fn number(part: Option<u32>) -> i64 {
    part.map_or(INDEX, i64::from)
}

async fn find(conn: &mut SqliteConnection, bundle: i64, number: i64) -> Result<Option<ObjectRow>> {
    let row = sqlx::query("SELECT blob, length, digest FROM object WHERE bundle = $1 AND number = $2")
        .bind(bundle)
        .bind(number)
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(ObjectRow {
            blob: BlobName::from_bytes(bytes(&row, "blob")?),
            length: uint(&row, "length")?,
            digest: bytes(&row, "digest")?,
        })
    })
    .transpose()
}

async fn is_same(conn: &mut SqliteConnection, bundle: &BundleRow, slot: &Slot) -> Result<bool> {
    let found = find(conn, bundle.seq, number(slot.part)).await?;
    Ok(found.is_some_and(|row| row.length == slot.length && row.digest == slot.digest))
}

async fn grow(conn: &mut SqliteConnection, bundle: i64, more: u64, less: u64, now: Timestamp) -> Result<()> {
    sqlx::query("UPDATE bundle SET size = size + $1 - $2, touched = $3 WHERE seq = $4")
        .bind(int(more))
        .bind(int(less))
        .bind(int(now.unix()))
        .bind(bundle)
        .execute(conn)
        .await?;
    Ok(())
}

impl Ledger {
    /// Takes room for an object under a fresh blob name; nothing is written when the object is here already.
    pub(crate) async fn begin_object(
        &self,
        account: i64,
        slot: &Slot,
        name: BlobName,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Begun> {
        let mut tx = self.read().await?;
        let bundle = BundleRow::open_for(&mut tx, slot.bundle, account, now).await?;
        if is_same(&mut tx, &bundle, slot).await? {
            return Ok(Begun::Same);
        }
        drop(tx);
        let mut tx = self.begin().await?;
        let bundle = BundleRow::open_for(&mut tx, slot.bundle, account, now).await?;
        take_space(&mut tx, account, slot.length, limits).await?;
        sqlx::query("INSERT INTO blob (name, account, bundle, length, state) VALUES ($1, $2, $3, $4, 'pending')")
            .bind(name.as_bytes().as_slice())
            .bind(account)
            .bind(bundle.seq)
            .bind(int(slot.length))
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE bundle SET touched = $1 WHERE seq = $2")
            .bind(int(now.unix()))
            .bind(bundle.seq)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Begun::Pending)
    }

    /// Makes a durable blob the bundle's object; an earlier one under the same number is doomed.
    pub(crate) async fn finish_object(&self, account: i64, slot: &Slot, name: BlobName, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let bundle = BundleRow::open_for(&mut tx, slot.bundle, account, now).await?;
        let settled =
            sqlx::query("UPDATE blob SET state = 'stored' WHERE name = $1 AND bundle = $2 AND state = 'pending'")
                .bind(name.as_bytes().as_slice())
                .bind(bundle.seq)
                .execute(&mut *tx)
                .await?;
        if settled.rows_affected() == 0 {
            return refuse(ProblemKind::Conflict, "the upload was given up");
        }
        let earlier = find(&mut tx, bundle.seq, number(slot.part)).await?;
        if let Some(earlier) = earlier {
            sqlx::query("DELETE FROM object WHERE bundle = $1 AND number = $2")
                .bind(bundle.seq)
                .bind(number(slot.part))
                .execute(&mut *tx)
                .await?;
            sqlx::query("UPDATE blob SET state = 'doomed' WHERE name = $1")
                .bind(earlier.blob.as_bytes().as_slice())
                .execute(&mut *tx)
                .await?;
            give_space(&mut tx, account, earlier.length).await?;
        }
        sqlx::query("INSERT INTO object (bundle, number, length, digest, blob) VALUES ($1, $2, $3, $4, $5)")
            .bind(bundle.seq)
            .bind(number(slot.part))
            .bind(int(slot.length))
            .bind(slot.digest.as_slice())
            .bind(name.as_bytes().as_slice())
            .execute(&mut *tx)
            .await?;
        grow(&mut tx, bundle.seq, slot.length, earlier.map_or(0, |e| e.length), now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Gives up a blob that is still pending: its room is free, its file the sweeper's. A blob that was stored after
    /// all (a commit whose answer got lost) stays.
    pub(crate) async fn abandon_object(&self, name: BlobName) -> Result<()> {
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "UPDATE blob SET state = 'doomed' WHERE name = $1 AND state = 'pending' RETURNING account, length",
        )
        .bind(name.as_bytes().as_slice())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = row {
            give_space(&mut tx, row.try_get("account")?, uint(&row, "length")?).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Stores one recipient's envelope, and keeps room for the receipt that this recipient may send.
    ///
    /// The sender pays for receipts, and beforehand: they chose the recipients and are who a receipt is for. Charged when it
    /// comes, it could be refused for want of room, or fill up an account that did nothing; charged to recipients, whoever
    /// sends them much could use up their room.
    pub(crate) async fn put_envelope(
        &self,
        account: i64,
        id: BundleId,
        recipient: MailboxId,
        sealed: &[u8],
        limits: Limits,
        now: Timestamp,
    ) -> Result<()> {
        let sha256 = Sha256Digest::of(sealed);
        let mut tx = self.read().await?;
        let bundle = BundleRow::open_for(&mut tx, id, account, now).await?;
        if let Some((_, _, digest)) = envelope(&mut tx, bundle.seq, recipient).await?
            && digest == *sha256.as_bytes()
        {
            return Ok(());
        }
        drop(tx);
        let mut tx = self.begin().await?;
        let bundle = BundleRow::open_for(&mut tx, id, account, now).await?;
        let length = sealed.len() as u64;
        let (mut less, mut receipt) = (0, 0);
        let to = match envelope(&mut tx, bundle.seq, recipient).await? {
            Some((to, earlier, _)) => {
                less = earlier;
                give_space(&mut tx, account, earlier).await?;
                to
            }
            None => {
                receipt = MAX_RECEIPT;
                new_recipient(&mut tx, &bundle, recipient).await?
            }
        };
        take_space(&mut tx, account, length + receipt, limits).await?;
        sqlx::query("UPDATE bundle SET receipts = receipts + $1 WHERE seq = $2")
            .bind(int(receipt))
            .bind(bundle.seq)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO envelope (bundle, account, sha256, sealed) VALUES ($1, $2, $3, $4)
             ON CONFLICT (bundle, account) DO UPDATE SET sha256 = excluded.sha256, sealed = excluded.sealed",
        )
        .bind(bundle.seq)
        .bind(to)
        .bind(sha256.as_bytes().as_slice())
        .bind(sealed)
        .execute(&mut *tx)
        .await?;
        grow(&mut tx, bundle.seq, length, less, now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The object for the bundle's sender or one of its recipients.
    pub(crate) async fn object(
        &self,
        account: i64,
        id: BundleId,
        part: Option<u32>,
        now: Timestamp,
    ) -> Result<ObjectRow> {
        let mut tx = self.read().await?;
        let Some(bundle) = BundleRow::find(&mut tx, id).await? else {
            return refuse(ProblemKind::NotFound, "");
        };
        if bundle.sender != account {
            let delivered = sqlx::query("SELECT 1 FROM delivery WHERE bundle = $1 AND account = $2")
                .bind(bundle.seq)
                .bind(account)
                .fetch_optional(&mut *tx)
                .await?;
            if delivered.is_none() {
                return refuse(ProblemKind::NotFound, "");
            }
        }
        if !matches!(bundle.state(now), BundleState::Pending | BundleState::Committed) {
            return refuse(ProblemKind::Gone, "");
        }
        match find(&mut tx, bundle.seq, number(part)).await? {
            Some(object) => Ok(object),
            None => refuse(ProblemKind::NotFound, ""),
        }
    }
}

/// Account, length and digest of the envelope that a mailbox has in a bundle.
async fn envelope(conn: &mut SqliteConnection, bundle: i64, to: MailboxId) -> Result<Option<(i64, u64, [u8; 32])>> {
    let row = sqlx::query(
        "SELECT e.account, length(e.sealed) AS length, e.sha256 FROM envelope e JOIN account a ON a.seq = e.account
         WHERE e.bundle = $1 AND a.mailbox = $2",
    )
    .bind(bundle)
    .bind(to.as_bytes().as_slice())
    .fetch_optional(conn)
    .await?;
    row.map(|row| Ok((row.try_get("account")?, uint(&row, "length")?, bytes(&row, "sha256")?))).transpose()
}

async fn new_recipient(conn: &mut SqliteConnection, bundle: &BundleRow, mailbox: MailboxId) -> Result<i64> {
    let account = sqlx::query("SELECT seq FROM account WHERE mailbox = $1")
        .bind(mailbox.as_bytes().as_slice())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(account) = account else {
        return refuse(ProblemKind::NotFound, "");
    };
    let row =
        sqlx::query("SELECT COUNT(*) AS n FROM envelope WHERE bundle = $1").bind(bundle.seq).fetch_one(conn).await?;
    if uint(&row, "n")? >= MAX_RECIPIENTS as u64 {
        return refuse(ProblemKind::Conflict, "the bundle has as many recipients as it may have");
    }
    Ok(account.try_get("seq")?)
}
