//! Bundles as their sender sees them: begun, looked at, revoked.

use super::database::{Conn, Lock, Row, query};
use super::pipelines;
use super::roles::{self, Reach};
use super::row::{BundleRow, Limits, bytes, give_space, mailbox, maybe_time, select_bundle, state_word, uint};
use super::{Ledger, LedgerError, Once, Result, int, refuse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_protocol::limits::{MAX_LISTING, MAX_PAGE, MAX_RECEIPT, MAX_RECIPIENTS};
use pouch_protocol::{
    BundleState, BundleStatus, Delivery, DeliveryState, NewBundle, Outbox, ProblemKind, ReceiptMessage,
};
use pouch_statement::{BundleId, Note, Outcome, Sha256Digest, Timestamp};

/// Room that a listing takes for rows, below [`MAX_LISTING`] so that the JSON around them fits too.
const LISTING_ROOM: usize = MAX_LISTING - MAX_LISTING / 4;
/// What the JSON of a bundle or of a delivery takes at most, without a receipt.
const ROW_ROOM: usize = 512;

impl Ledger {
    /// Begins a bundle. The same values again have no effect.
    pub(crate) async fn begin_bundle(&self, once: Once, new: NewBundle, limits: Limits, now: Timestamp) -> Result<()> {
        self.write_once(once, now, new, move |conn, new| Box::pin(begin(conn, once.account, new, limits, now))).await
    }

    pub(crate) async fn bundle(&self, account: i64, id: BundleId, now: Timestamp) -> Result<BundleStatus> {
        let mut tx = self.read().await?;
        let bundle = BundleRow::of_sender(&mut tx, id, account).await?;
        let mut room = LISTING_ROOM;
        status(&mut tx, &bundle, now, &mut room).await
    }

    /// One page of what this account sent, newest first.
    pub(crate) async fn outbox(&self, account: i64, after: Option<u64>, now: Timestamp) -> Result<Outbox> {
        let mut tx = self.read().await?;
        let rows = query(select_bundle!("WHERE b.sender = $1 AND b.seq < $2 ORDER BY b.seq DESC LIMIT $3"))
            .bind(account)
            .bind(after.map_or(i64::MAX, int))
            .bind(i64::from(MAX_PAGE) + 1)
            .fetch_all(&mut tx)
            .await?;
        let mut page = Outbox { bundles: Vec::new(), next: None };
        let (mut room, mut last) = (LISTING_ROOM, None);
        for row in &rows {
            let bundle = BundleRow::read(row)?;
            let mut left = LISTING_ROOM;
            let status = status(&mut tx, &bundle, now, &mut left).await?;
            let cost = LISTING_ROOM - left;
            if page.bundles.len() == MAX_PAGE as usize || (cost > room && last.is_some()) {
                page.next = last;
                break;
            }
            room = room.saturating_sub(cost);
            page.bundles.push(status);
            last = u64::try_from(bundle.seq).ok();
        }
        Ok(page)
    }

    /// Revokes a committed bundle, forgets a pending one.
    pub(crate) async fn delete_bundle(&self, once: Once, id: BundleId, now: Timestamp) -> Result<()> {
        self.write_once(once, now, id, move |conn, id| Box::pin(delete(conn, once.account, *id, now))).await
    }

    /// Ends whosesoever bundle that is pending or committed; sender and recipients are told why. Again has no effect.
    pub(crate) async fn take_down(&self, once: Once, id: BundleId, reason: Note, now: Timestamp) -> Result<()> {
        self.write_once(once, now, reason, move |conn, reason| Box::pin(take_down(conn, id, reason, now))).await
    }
}

async fn delete(conn: &mut Conn, account: i64, id: BundleId, now: Timestamp) -> Result<()> {
    conn.lock(Lock::Bundle(id)).await?;
    let bundle = BundleRow::of_sender(conn, id, account).await?;
    match bundle.state(now) {
        BundleState::Pending => forget(conn, &bundle, now).await.map(drop),
        BundleState::Committed => end(conn, &bundle, BundleState::Revoked, now).await.map(drop),
        BundleState::Revoked => Ok(()),
        _ => bundle.gone(),
    }
}

async fn take_down(conn: &mut Conn, id: BundleId, reason: &Note, now: Timestamp) -> Result<()> {
    conn.lock(Lock::Bundle(id)).await?;
    let Some(bundle) = BundleRow::find(conn, id).await? else {
        return refuse(ProblemKind::NotFound, "");
    };
    match bundle.state(now) {
        BundleState::Pending | BundleState::Committed => {}
        BundleState::TakenDown => return Ok(()),
        _ => return bundle.gone(),
    }
    query("UPDATE bundle SET taken_down = $1 WHERE seq = $2")
        .bind(reason.as_str())
        .bind(bundle.seq)
        .execute(conn)
        .await?;
    end(conn, &bundle, BundleState::TakenDown, now).await.map(drop)
}

async fn begin(conn: &mut Conn, account: i64, new: &NewBundle, limits: Limits, now: Timestamp) -> Result<()> {
    if let Some(bundle) = BundleRow::find(conn, new.bundle).await? {
        if bundle.sender != account || bundle.expires != new.expires || bundle.burn != new.burn {
            return refuse(ProblemKind::Conflict, "there is another bundle of this id");
        }
        return match bundle.state(now) {
            BundleState::Pending | BundleState::Committed => Ok(()),
            _ => bundle.gone(),
        };
    }
    limits.check_end(new.expires, now)?;
    if new.recipients.len() > MAX_RECIPIENTS {
        return refuse(ProblemKind::BadRequest, "more recipients than a bundle may have");
    }
    let reach = Reach::of(conn, account).await?;
    if reach == Reach::Named {
        pipelines::check_end(conn, account, new.expires).await?;
    }
    for recipient in &new.recipients {
        roles::recipient(conn, account, reach, *recipient).await?;
    }
    count_one(conn, account, limits).await?;
    query("INSERT INTO bundle (id, sender, state, created, touched, expires, burn) VALUES ($1, $2, 'pending', $3, $3, $4, $5)")
        .bind(new.bundle.as_bytes().as_slice())
        .bind(account)
        .bind(int(now.unix()))
        .bind(int(new.expires.unix()))
        .bind(i64::from(new.burn))
        .execute(conn)
        .await?;
    Ok(())
}

/// Counts one more bundle of an account, if it may have it. Ended ones count until they are pruned, so that what an account
/// leaves in the ledger is bounded: by what it may have at once and may have ended, together. Only beginning is ever refused
/// for that, ending never.
async fn count_one(conn: &mut Conn, account: i64, limits: Limits) -> Result<()> {
    let counted = query("UPDATE account SET bundles = bundles + 1 WHERE seq = $1 AND bundles < $2 AND ended < $3")
        .bind(account)
        .bind(int(limits.account_bundles))
        .bind(int(limits.account_ended))
        .execute(conn)
        .await?;
    if counted > 0 {
        return Ok(());
    }
    let row = query("SELECT ended FROM account WHERE seq = $1").bind(account).fetch_one(conn).await?;
    if uint(&row, "ended")? < limits.account_ended {
        return refuse(ProblemKind::Quota, "too many bundles at once");
    }
    refuse(ProblemKind::Quota, "too many bundles that ended; the relay forgets them when they were kept long enough")
}

/// A bundle with its deliveries. `room` bounds the receipts of one answer; those beyond it are left out, not cut.
async fn status(conn: &mut Conn, bundle: &BundleRow, now: Timestamp, room: &mut usize) -> Result<BundleStatus> {
    let rows = query(
        "SELECT a.mailbox, d.released, d.received, d.revision, d.outcome, d.commitment, d.sealed
         FROM delivery d JOIN account a ON a.seq = d.account WHERE d.bundle = $1 ORDER BY a.mailbox",
    )
    .bind(bundle.seq)
    .fetch_all(conn)
    .await?;
    // In JSON a character takes at most twice its bytes: no control characters are in it.
    let reason = bundle.taken_down.as_ref().map_or(0, |reason| 2 * reason.as_str().len());
    *room = room.saturating_sub(ROW_ROOM + reason);
    let deliveries = rows.iter().map(|row| delivery(row, room)).collect::<Result<_>>()?;
    Ok(BundleStatus {
        bundle: bundle.id,
        state: bundle.state(now),
        created: bundle.created,
        committed: bundle.committed,
        expires: bundle.expires,
        size: bundle.size,
        burn: bundle.burn,
        reason: bundle.taken_down.clone(),
        deliveries,
    })
}

fn delivery(row: &Row, room: &mut usize) -> Result<Delivery> {
    *room = room.saturating_sub(ROW_ROOM);
    let (released, received) = (maybe_time(row, "released")?, maybe_time(row, "received")?);
    let receipt = match outcome(row)? {
        Some(outcome) => {
            let sealed: &[u8] = row.get("sealed")?;
            let commitment = Sha256Digest::from_bytes(bytes(row, "commitment")?);
            let left = room.checked_sub(sealed.len().div_ceil(3) * 4);
            *room = left.unwrap_or(*room);
            left.map(|_| ReceiptMessage { outcome, commitment, sealed: STANDARD.encode(sealed) })
        }
        None => None,
    };
    Ok(Delivery {
        mailbox: mailbox(row, "mailbox")?,
        state: delivery_state(released, received),
        released,
        received,
        revision: revision(row)?,
        receipt,
    })
}

pub(super) fn outcome(row: &Row) -> Result<Option<Outcome>> {
    match row.get::<Option<&str>>("outcome")? {
        None => Ok(None),
        Some("verified") => Ok(Some(Outcome::Verified)),
        Some("failed") => Ok(Some(Outcome::Failed)),
        Some(_) => Err(LedgerError::Damaged("outcome")),
    }
}

pub(super) fn revision(row: &Row) -> Result<u32> {
    u32::try_from(uint(row, "revision")?).map_err(|_| LedgerError::Damaged("revision"))
}

pub(super) fn delivery_state(released: Option<Timestamp>, received: Option<Timestamp>) -> DeliveryState {
    match (released, received) {
        (_, Some(_)) => DeliveryState::Received,
        (Some(_), None) => DeliveryState::Released,
        (None, None) => DeliveryState::Waiting,
    }
}

/// Takes a bundle's objects away: their rows now, their files when the sweeper finds them doomed, and until then they take
/// their room ([`doom`](super::objects::doom)). How many they were. Uploads in flight stay pending; they settle themselves
/// when they find the bundle closed.
async fn clear(conn: &mut Conn, bundle: &BundleRow, now: Timestamp) -> Result<u64> {
    let objects = query("DELETE FROM object WHERE bundle = $1").bind(bundle.seq).execute(conn).await?;
    query("DELETE FROM envelope WHERE bundle = $1").bind(bundle.seq).execute(conn).await?;
    let stored = query(
        "SELECT CAST(COALESCE(SUM(length), 0) AS BIGINT) AS length FROM blob WHERE bundle = $1 AND state = 'stored'",
    );
    let stored = uint(&stored.bind(bundle.seq).fetch_one(conn).await?, "length")?;
    query("UPDATE blob SET state = 'doomed', due = $1, owed = length WHERE bundle = $2 AND state = 'stored'")
        .bind(int(now.unix()))
        .bind(bundle.seq)
        .execute(conn)
        .await?;
    give_space(conn, bundle.sender, bundle.size.saturating_sub(stored)).await?;
    query("UPDATE account SET bundles = bundles - 1 WHERE seq = $1").bind(bundle.sender).execute(conn).await?;
    Ok(objects)
}

/// Gives back the room that the receipts of a bundle need no more: of a final one the rest beyond its length, and all of
/// what can come no more, because the bundle ended before the recipient had the envelope, or before there were deliveries.
pub(super) async fn charge_receipts(conn: &mut Conn, bundle: &BundleRow) -> Result<()> {
    let row = query(
        "SELECT b.receipts, CAST(COALESCE((
             SELECT SUM(CASE WHEN d.outcome = 'verified' THEN length(d.sealed)
                             WHEN b.ended IS NOT NULL AND d.released IS NULL THEN 0
                             ELSE $2 END)
             FROM delivery d WHERE d.bundle = b.seq), 0) AS BIGINT) AS due
         FROM bundle b WHERE b.seq = $1",
    )
    .bind(bundle.seq)
    .bind(int(MAX_RECEIPT))
    .fetch_one(conn)
    .await?;
    let (held, due) = (uint(&row, "receipts")?, uint(&row, "due")?);
    query("UPDATE bundle SET receipts = $1 WHERE seq = $2")
        .bind(int(due.min(held)))
        .bind(bundle.seq)
        .execute(conn)
        .await?;
    give_space(conn, bundle.sender, held.saturating_sub(due)).await
}

/// Ends a bundle that is pending or committed; its state stays for the retention time. How many objects it had.
pub(super) async fn end(conn: &mut Conn, bundle: &BundleRow, state: BundleState, now: Timestamp) -> Result<u64> {
    let objects = clear(conn, bundle, now).await?;
    query("UPDATE bundle SET state = $1, ended = $2 WHERE seq = $3")
        .bind(state_word(state))
        .bind(int(now.unix()))
        .bind(bundle.seq)
        .execute(conn)
        .await?;
    query("UPDATE account SET ended = ended + 1 WHERE seq = $1").bind(bundle.sender).execute(conn).await?;
    charge_receipts(conn, bundle).await?;
    Ok(objects)
}

/// Forgets a pending bundle as if it had never been begun. How many objects it had.
pub(super) async fn forget(conn: &mut Conn, bundle: &BundleRow, now: Timestamp) -> Result<u64> {
    let objects = clear(conn, bundle, now).await?;
    charge_receipts(conn, bundle).await?;
    query("DELETE FROM bundle WHERE seq = $1").bind(bundle.seq).execute(conn).await?;
    Ok(objects)
}
