//! Objects of a bundle that is being uploaded: parts and index as blobs, envelopes in the ledger itself.
//!
//! Upload of a blob: [`Ledger::begin_object`] takes the room and writes the pending row; the file is made durable;
//! [`Ledger::finish_object`] makes it the bundle's, if both are still pending, or [`Ledger::abandon_object`] gives
//! the room back.

use super::database::{Conn, Lock, query};
use super::roles::{self, Reach};
use super::row::{BundleRow, Limits, bytes, give_space, take_space, uint};
use super::{Ledger, Once, Result, amend, commit, int, refuse};
use crate::blob::BlobName;
use bytes::Bytes;
use pouch_protocol::limits::{MAX_RECEIPT, MAX_RECIPIENTS};
use pouch_protocol::{BundleState, ProblemKind};
use pouch_statement::{BundleId, MailboxId, Sha256Digest, Timestamp};

/// How long an upload may go without a word ([`Ledger::keep_object`]) before its blob is given up: its node is gone.
pub(crate) const LEASE_SECONDS: u64 = 600;

/// What an object costs at least, in bytes: a row, a file, and the block that the smallest file takes. So many small ones do not
/// get past a quota (attacks.md 44). No object that pouch seals is shorter (docs/format.md, "Padding").
const LEAST_CHARGE: u64 = 4096;

/// Bytes of its sender's room that an object takes.
fn charge(length: u64) -> u64 {
    length.max(LEAST_CHARGE)
}

/// The number under which the sealed index stands beside the parts.
pub(super) const INDEX: i64 = -1;

/// What an object takes of its sender's room: nothing less than its length, though the column says so where the code before
/// stored it.
macro_rules! charged {
    () => {
        "CASE WHEN o.charged > o.length THEN o.charged ELSE o.length END"
    };
}
pub(super) use charged;

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

/// What an upload that was finished has made of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// There was none under its number.
    First,
    /// It took the place of one, whose blob is doomed, and which takes room until that is deleted.
    Replaced,
}

/// A stored object.
#[derive(Clone, Copy)]
pub(crate) struct ObjectRow {
    pub(crate) blob: BlobName,
    pub(crate) length: u64,
    pub(crate) digest: [u8; 32],
    /// What it took of its sender's room.
    charged: u64,
}

/// An envelope or a journal on its way in.
pub(crate) struct Sealed {
    pub(crate) bytes: Bytes,
    pub(crate) sha256: Sha256Digest,
}

fn number(part: Option<u32>) -> i64 {
    part.map_or(INDEX, i64::from)
}

async fn find(conn: &mut Conn, bundle: i64, number: i64) -> Result<Option<ObjectRow>> {
    let row = query(concat!(
        "SELECT o.blob, o.length, o.digest, ",
        charged!(),
        " AS charged FROM object o WHERE o.bundle = $1 AND o.number = $2"
    ))
    .bind(bundle)
    .bind(number)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(ObjectRow {
            blob: BlobName::from_bytes(bytes(&row, "blob")?),
            length: uint(&row, "length")?,
            digest: bytes(&row, "digest")?,
            charged: uint(&row, "charged")?,
        })
    })
    .transpose()
}

async fn is_same(conn: &mut Conn, bundle: &BundleRow, slot: &Slot) -> Result<bool> {
    let found = find(conn, bundle.seq, number(slot.part)).await?;
    Ok(found.is_some_and(|row| row.length == slot.length && row.digest == slot.digest))
}

async fn grow(conn: &mut Conn, bundle: i64, more: u64, less: u64, now: Timestamp) -> Result<()> {
    query("UPDATE bundle SET size = size + $1 - $2, touched = $3 WHERE seq = $4")
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
        let slot = *slot;
        self.write((), move |conn, ()| Box::pin(begin(conn, account, slot, name, limits, now))).await?;
        Ok(Begun::Pending)
    }

    /// An upload that goes on: whoever sweeps leaves its blob alone for another [`LEASE_SECONDS`]. `false` if it was given
    /// up already.
    pub(crate) async fn keep_object(&self, name: BlobName, now: Timestamp) -> Result<bool> {
        self.write((), move |conn, ()| Box::pin(keep(conn, name, now))).await
    }

    /// Makes a durable blob the bundle's object; an earlier one under the same number is doomed.
    pub(crate) async fn finish_object(
        &self,
        account: i64,
        slot: &Slot,
        name: BlobName,
        now: Timestamp,
    ) -> Result<Finished> {
        let slot = *slot;
        self.write((), move |conn, ()| Box::pin(finish(conn, account, slot, name, now))).await
    }

    /// Gives up a blob that is still pending: its room is free, its file the sweeper's. A blob that was stored after
    /// all (a commit whose answer got lost) stays.
    pub(crate) async fn abandon_object(&self, name: BlobName) -> Result<()> {
        self.write((), move |conn, ()| Box::pin(abandon(conn, name))).await
    }

    /// Stores one recipient's envelope, and keeps room for the receipt that this recipient may send. After the commit it is in
    /// place of an earlier one, or for a new recipient, who has the delivery with it. Whether there is something to look at
    /// now.
    ///
    /// The sender pays for receipts, and beforehand: they chose the recipients and are who a receipt is for. Charged when it
    /// comes, it could be refused for want of room, or fill up an account that did nothing; charged to recipients, whoever
    /// sends them much could use up their room.
    pub(crate) async fn put_envelope(
        &self,
        once: Once,
        id: BundleId,
        recipient: MailboxId,
        sealed: Sealed,
        limits: Limits,
        now: Timestamp,
    ) -> Result<bool> {
        // Once, unlike parts: a request that is sent again must not bring back an envelope that was replaced since.
        self.write_once(once, now, sealed, move |conn, sealed| {
            Box::pin(put(conn, once.account, id, recipient, sealed, limits, now))
        })
        .await
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
            let delivered = query("SELECT 1 FROM delivery WHERE bundle = $1 AND account = $2")
                .bind(bundle.seq)
                .bind(account)
                .fetch_optional(&mut tx)
                .await?;
            if delivered.is_none() {
                return refuse(ProblemKind::NotFound, "");
            }
        }
        if !matches!(bundle.state(now), BundleState::Pending | BundleState::Committed) {
            return bundle.gone();
        }
        bundle.check_whole()?;
        match find(&mut tx, bundle.seq, number(part)).await? {
            Some(object) => Ok(object),
            None => refuse(ProblemKind::NotFound, ""),
        }
    }
}

async fn begin(
    conn: &mut Conn,
    account: i64,
    slot: Slot,
    name: BlobName,
    limits: Limits,
    now: Timestamp,
) -> Result<()> {
    conn.lock(Lock::Bundle(slot.bundle)).await?;
    let bundle = BundleRow::open_for(conn, slot.bundle, account, now).await?;
    query("INSERT INTO blob (name, account, bundle, length, state, due) VALUES ($1, $2, $3, $4, 'pending', $5)")
        .bind(name.as_bytes().as_slice())
        .bind(account)
        .bind(bundle.seq)
        .bind(int(charge(slot.length)))
        .bind(int(now.plus(LEASE_SECONDS).unix()))
        .execute(conn)
        .await?;
    query("UPDATE bundle SET touched = $1 WHERE seq = $2").bind(int(now.unix())).bind(bundle.seq).execute(conn).await?;
    take_space(conn, account, charge(slot.length), limits).await
}

async fn keep(conn: &mut Conn, name: BlobName, now: Timestamp) -> Result<bool> {
    let kept = query("UPDATE blob SET due = $1 WHERE name = $2 AND state = 'pending'")
        .bind(int(now.plus(LEASE_SECONDS).unix()))
        .bind(name.as_bytes().as_slice())
        .execute(conn)
        .await?;
    Ok(kept > 0)
}

async fn finish(conn: &mut Conn, account: i64, slot: Slot, name: BlobName, now: Timestamp) -> Result<Finished> {
    conn.lock(Lock::Bundle(slot.bundle)).await?;
    let bundle = BundleRow::open_for(conn, slot.bundle, account, now).await?;
    let settled = query(
        "UPDATE blob SET state = 'stored' WHERE name = $1 AND bundle = $2 AND state = 'pending' RETURNING length",
    )
    .bind(name.as_bytes().as_slice())
    .bind(bundle.seq)
    .fetch_optional(conn)
    .await?;
    let Some(settled) = settled else {
        return refuse(ProblemKind::Conflict, "the upload was given up");
    };
    // What was taken when it began, also by a node of the release before.
    let charged = uint(&settled, "length")?;
    let earlier = find(conn, bundle.seq, number(slot.part)).await?;
    if let Some(earlier) = earlier {
        take_away(conn, bundle.seq, number(slot.part), earlier.blob, now).await?;
    }
    query("INSERT INTO object (bundle, number, length, digest, blob, charged) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(bundle.seq)
        .bind(number(slot.part))
        .bind(int(slot.length))
        .bind(slot.digest.as_slice())
        .bind(name.as_bytes().as_slice())
        .bind(int(charged))
        .execute(conn)
        .await?;
    grow(conn, bundle.seq, charged, earlier.map_or(0, |e| e.charged), now).await?;
    Ok(if earlier.is_some() { Finished::Replaced } else { Finished::First })
}

/// Takes an object from its bundle and dooms its blob; the bundle's size is the caller's to change.
pub(super) async fn take_away(conn: &mut Conn, bundle: i64, number: i64, blob: BlobName, now: Timestamp) -> Result<()> {
    query("DELETE FROM object WHERE bundle = $1 AND number = $2").bind(bundle).bind(number).execute(conn).await?;
    doom(conn, blob.as_bytes(), now).await
}

/// Has a blob's file deleted, once backups of the ledger that have it as stored are of no use any more. As long as it lies
/// there it takes its account's room: no quota would bound the disk otherwise.
pub(super) async fn doom(conn: &mut Conn, blob: &[u8], now: Timestamp) -> Result<()> {
    query("UPDATE blob SET state = 'doomed', due = $1, owed = length WHERE name = $2")
        .bind(int(now.unix()))
        .bind(blob)
        .execute(conn)
        .await?;
    Ok(())
}

async fn abandon(conn: &mut Conn, name: BlobName) -> Result<()> {
    // Whoever calls this had the upload in hand, and no ledger was restored since: no backup has the blob as stored, so it
    // need not outlive its row.
    let row = query(
        "UPDATE blob SET state = 'doomed', due = 0 WHERE name = $1 AND state = 'pending' RETURNING account, length",
    )
    .bind(name.as_bytes().as_slice())
    .fetch_optional(conn)
    .await?;
    match row {
        Some(row) => give_space(conn, row.get("account")?, uint(&row, "length")?).await,
        None => Ok(()),
    }
}

async fn put(
    conn: &mut Conn,
    account: i64,
    id: BundleId,
    recipient: MailboxId,
    sealed: &Sealed,
    limits: Limits,
    now: Timestamp,
) -> Result<bool> {
    conn.lock(Lock::Bundle(id)).await?;
    let bundle = BundleRow::of_sender(conn, id, account).await?;
    let delivered = match bundle.state(now) {
        BundleState::Pending => false,
        BundleState::Committed => true,
        _ => return bundle.gone(),
    };
    let before = envelope(conn, bundle.seq, recipient).await?;
    if before.as_ref().is_some_and(|before| before.sha256 == sealed.sha256) {
        return Ok(false);
    }
    let to = match &before {
        Some(before) => before.account,
        None => new_recipient(conn, &bundle, recipient).await?,
    };
    match before {
        Some(_) if delivered => amend::deliver_again(conn, &bundle, to).await?,
        None if delivered => commit::deliver_to(conn, bundle.seq, to).await?,
        _ => {}
    }
    store_envelope(conn, &bundle, to, before.as_ref(), sealed, limits, now).await?;
    Ok(delivered)
}

/// Stores an envelope, in place of the one before if there is one, and takes the room for it.
async fn store_envelope(
    conn: &mut Conn,
    bundle: &BundleRow,
    to: i64,
    before: Option<&Envelope>,
    sealed: &Sealed,
    limits: Limits,
    now: Timestamp,
) -> Result<()> {
    let length = sealed.bytes.len() as u64;
    let (less, receipt) = before.map_or((0, MAX_RECEIPT), |before| (before.length, 0));
    query("UPDATE bundle SET receipts = receipts + $1 WHERE seq = $2")
        .bind(int(receipt))
        .bind(bundle.seq)
        .execute(conn)
        .await?;
    query(
        "INSERT INTO envelope (bundle, account, sha256, sealed) VALUES ($1, $2, $3, $4)
         ON CONFLICT (bundle, account) DO UPDATE SET sha256 = excluded.sha256, sealed = excluded.sealed",
    )
    .bind(bundle.seq)
    .bind(to)
    .bind(sealed.sha256.as_bytes().as_slice())
    .bind(&*sealed.bytes)
    .execute(conn)
    .await?;
    grow(conn, bundle.seq, length, less, now).await?;
    if less > 0 {
        give_space(conn, bundle.sender, less).await?;
    }
    take_space(conn, bundle.sender, length + receipt, limits).await
}

/// An envelope that is there.
struct Envelope {
    /// Its recipient's.
    account: i64,
    length: u64,
    sha256: Sha256Digest,
}

/// The envelope that a mailbox has in a bundle.
async fn envelope(conn: &mut Conn, bundle: i64, to: MailboxId) -> Result<Option<Envelope>> {
    let row = query(
        "SELECT e.account, CAST(length(e.sealed) AS BIGINT) AS length, e.sha256 FROM envelope e JOIN account a ON a.seq = e.account
         WHERE e.bundle = $1 AND a.mailbox = $2",
    )
    .bind(bundle)
    .bind(to.as_bytes().as_slice())
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let sha256 = Sha256Digest::from_bytes(bytes(&row, "sha256")?);
        Ok(Envelope { account: row.get("account")?, length: uint(&row, "length")?, sha256 })
    })
    .transpose()
}

async fn new_recipient(conn: &mut Conn, bundle: &BundleRow, mailbox: MailboxId) -> Result<i64> {
    let reach = Reach::of(conn, bundle.sender).await?;
    let account = roles::recipient(conn, bundle.sender, reach, mailbox).await?;
    let row = query("SELECT COUNT(*) AS n FROM envelope WHERE bundle = $1").bind(bundle.seq).fetch_one(conn).await?;
    if uint(&row, "n")? >= MAX_RECIPIENTS as u64 {
        return refuse(ProblemKind::Conflict, "the bundle has as many recipients as it may have");
    }
    Ok(account)
}
