//! Deliveries as their recipient sees them: waiting, released, received.

use super::bundles::{charge_receipts, delivery_state, end, outcome, revision};
use super::database::{Conn, Lock, Row, query};
use super::row::{BundleRow, bytes, mailbox, maybe_time, select_bundle, uint};
use super::{Ledger, LedgerError, Once, Result, int, refuse};
use pouch_protocol::limits::MAX_PAGE;
use pouch_protocol::{BundleState, Inbox, InboxItem, ProblemKind};
use pouch_statement::{BundleId, Outcome, Sha256Digest, Timestamp};

macro_rules! select_delivery {
    ($tail:literal) => {
        select_bundle!(
            ", d.seq AS delivery, d.released, d.received, d.revision, d.outcome, d.commitment, d.sealed, \
             COALESCE((SELECT m.mailbox FROM pipeline p JOIN account m ON m.seq = p.maker WHERE p.account = s.seq), s.mailbox) \
             AS sender_mailbox",
            "delivery d JOIN bundle b ON b.seq = d.bundle JOIN account s ON s.seq = b.sender ",
            $tail
        )
    };
}

struct DeliveryRow {
    seq: i64,
    bundle: BundleRow,
    item: InboxItem,
    receipt: Option<Receipt>,
}

/// A receipt as it is stored.
#[derive(PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) outcome: Outcome,
    pub(crate) commitment: Sha256Digest,
    pub(crate) sealed: Vec<u8>,
}

fn read(row: &Row) -> Result<DeliveryRow> {
    let bundle = BundleRow::read(row)?;
    let committed = bundle.committed.ok_or(LedgerError::Damaged("committed"))?;
    let item = InboxItem {
        bundle: bundle.id,
        sender: mailbox(row, "sender_mailbox")?,
        state: delivery_state(maybe_time(row, "released")?, maybe_time(row, "received")?),
        committed,
        expires: bundle.expires,
        size: bundle.content,
        parts: u32::try_from(bundle.parts).map_err(|_| LedgerError::Damaged("parts"))?,
        revision: revision(row)?,
    };
    let receipt = match outcome(row)? {
        Some(outcome) => Some(Receipt {
            outcome,
            commitment: Sha256Digest::from_bytes(bytes(row, "commitment")?),
            sealed: row.get("sealed")?,
        }),
        None => None,
    };
    Ok(DeliveryRow { seq: row.get("delivery")?, bundle, item, receipt })
}

/// The delivery of a bundle to an account, whatever became of the bundle.
async fn find(conn: &mut Conn, account: i64, id: BundleId) -> Result<DeliveryRow> {
    let row = query(select_delivery!("WHERE d.account = $1 AND b.id = $2"))
        .bind(account)
        .bind(id.as_bytes().as_slice())
        .fetch_optional(conn)
        .await?;
    match row {
        Some(row) => read(&row),
        None => refuse(ProblemKind::NotFound, ""),
    }
}

fn alive(delivery: &DeliveryRow, now: Timestamp) -> Result<()> {
    if delivery.bundle.state(now) == BundleState::Committed { Ok(()) } else { delivery.bundle.gone() }
}

impl Ledger {
    /// One page of what waits, oldest first.
    pub(crate) async fn inbox(&self, account: i64, after: u64, now: Timestamp) -> Result<Inbox> {
        let mut conn = self.look().await?;
        let rows = query(select_delivery!(
            "WHERE d.account = $1 AND d.seq > $2 AND d.received IS NULL AND b.state = 'committed' AND b.expires > $3 \
             ORDER BY d.seq LIMIT $4"
        ))
        .bind(account)
        .bind(int(after))
        .bind(int(now.unix()))
        .bind(i64::from(MAX_PAGE))
        .fetch_all(&mut conn)
        .await?;
        let mut page = Inbox { items: Vec::with_capacity(rows.len()), next: None };
        for row in &rows {
            let delivery = read(row)?;
            if alive(&delivery, now).is_ok() {
                page.items.push(delivery.item);
            }
        }
        if rows.len() == MAX_PAGE as usize {
            page.next = rows.last().map(|row| uint(row, "delivery")).transpose()?;
        }
        Ok(page)
    }

    pub(crate) async fn delivery(&self, account: i64, id: BundleId, now: Timestamp) -> Result<InboxItem> {
        let mut conn = self.look().await?;
        let delivery = find(&mut conn, account, id).await?;
        alive(&delivery, now)?;
        Ok(delivery.item)
    }

    /// Hands out the envelope and records that; the first one starts a burning bundle's lease.
    pub(crate) async fn release(&self, once: Once, id: BundleId, now: Timestamp) -> Result<Vec<u8>> {
        self.write_once(once, now, id, move |conn, id| Box::pin(release(conn, once.account, *id, now))).await
    }

    /// Stores a receipt; `true` if the bundle burnt with it. It counts also after the bundle's end: whoever has the
    /// envelope has done the work.
    pub(crate) async fn receive(&self, once: Once, id: BundleId, receipt: Receipt, now: Timestamp) -> Result<bool> {
        self.write_once(once, now, receipt, move |conn, receipt| {
            Box::pin(receive(conn, once.account, id, receipt, now))
        })
        .await
    }
}

async fn release(conn: &mut Conn, account: i64, id: BundleId, now: Timestamp) -> Result<Vec<u8>> {
    conn.lock(Lock::Bundle(id)).await?;
    let delivery = find(conn, account, id).await?;
    alive(&delivery, now)?;
    delivery.bundle.check_whole()?;
    let row = query("SELECT sealed FROM envelope WHERE bundle = $1 AND account = $2")
        .bind(delivery.bundle.seq)
        .bind(account)
        .fetch_optional(conn)
        .await?
        .ok_or(LedgerError::Damaged("envelope"))?;
    query("UPDATE delivery SET released = $1 WHERE seq = $2 AND released IS NULL")
        .bind(int(now.unix()))
        .bind(delivery.seq)
        .execute(conn)
        .await?;
    query("UPDATE bundle SET first_release = $1 WHERE seq = $2 AND first_release IS NULL")
        .bind(int(now.unix()))
        .bind(delivery.bundle.seq)
        .execute(conn)
        .await?;
    row.get("sealed")
}

async fn receive(conn: &mut Conn, account: i64, id: BundleId, receipt: &Receipt, now: Timestamp) -> Result<bool> {
    conn.lock(Lock::Bundle(id)).await?;
    let delivery = find(conn, account, id).await?;
    if delivery.item.state == pouch_protocol::DeliveryState::Waiting {
        alive(&delivery, now)?;
        return refuse(ProblemKind::Conflict, "the envelope was not released");
    }
    match delivery.receipt {
        Some(before) if before == *receipt => return Ok(false),
        Some(before) if before.outcome == Outcome::Verified => {
            return refuse(ProblemKind::Conflict, "a receipt that says verified is final");
        }
        _ => {}
    }
    query("UPDATE delivery SET received = $1, outcome = $2, commitment = $3, sealed = $4 WHERE seq = $5")
        .bind(int(now.unix()))
        .bind(match receipt.outcome {
            Outcome::Verified => "verified",
            Outcome::Failed => "failed",
        })
        .bind(receipt.commitment.as_bytes().as_slice())
        .bind(receipt.sealed.as_slice())
        .bind(delivery.seq)
        .execute(conn)
        .await?;
    let bundle = &delivery.bundle;
    charge_receipts(conn, bundle).await?;
    if !bundle.burn || bundle.stored_state() != BundleState::Committed {
        return Ok(false);
    }
    let open = query("SELECT 1 FROM delivery WHERE bundle = $1 AND outcome IS DISTINCT FROM 'verified'")
        .bind(bundle.seq)
        .fetch_optional(conn)
        .await?;
    if open.is_some() {
        return Ok(false);
    }
    end(conn, bundle, BundleState::Burnt, now).await?;
    Ok(true)
}
