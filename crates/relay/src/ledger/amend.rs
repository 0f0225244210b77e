//! What a sender may still change about a bundle that is delivered: when it ends, the envelope of a recipient who has not
//! finally received it, and one recipient more. Parts and index stay as they were committed.

use super::database::{Conn, Lock, query};
use super::objects::{self, Envelope, Sealed, new_recipient, store_envelope};
use super::roles;
use super::row::{BundleRow, Limits};
use super::{Ledger, Once, Result, int, refuse};
use pouch_protocol::{BundleState, ProblemKind};
use pouch_statement::{BundleId, MailboxId, Timestamp};

impl Ledger {
    /// Another end of a committed bundle, later or earlier. The same again has no effect.
    pub(crate) async fn extend(
        &self,
        once: Once,
        id: BundleId,
        expires: Timestamp,
        limits: Limits,
        now: Timestamp,
    ) -> Result<()> {
        self.write_once(once, now, (), move |conn, ()| Box::pin(extend(conn, once.account, id, expires, limits, now)))
            .await
    }
}

/// A bundle of this sender's that lies in mailboxes.
async fn delivered(conn: &mut Conn, account: i64, id: BundleId, now: Timestamp) -> Result<BundleRow> {
    conn.lock(Lock::Bundle(id)).await?;
    let bundle = BundleRow::of_sender(conn, id, account).await?;
    match bundle.state(now) {
        BundleState::Committed => Ok(bundle),
        BundleState::Pending => refuse(ProblemKind::Conflict, "the bundle is not committed"),
        _ => bundle.gone(),
    }
}

async fn extend(
    conn: &mut Conn,
    account: i64,
    id: BundleId,
    expires: Timestamp,
    limits: Limits,
    now: Timestamp,
) -> Result<()> {
    let bundle = delivered(conn, account, id, now).await?;
    limits.check_end(expires, now)?;
    if expires > bundle.expires {
        roles::check_recipients(conn, account, bundle.seq).await?;
    }
    query("UPDATE bundle SET expires = $1 WHERE seq = $2")
        .bind(int(expires.unix()))
        .bind(bundle.seq)
        .execute(conn)
        .await?;
    Ok(())
}

/// An envelope after the commit: in place of an earlier one, or for a new recipient, who has the delivery with it; whether
/// there is something to look at now.
pub(super) async fn envelope(
    conn: &mut Conn,
    account: i64,
    id: BundleId,
    recipient: MailboxId,
    sealed: &Sealed,
    limits: Limits,
    now: Timestamp,
) -> Result<bool> {
    let bundle = delivered(conn, account, id, now).await?;
    let before = objects::envelope(conn, bundle.seq, recipient).await?;
    let to = match &before {
        Some(Envelope { sha256, .. }) if *sha256 == sealed.sha256 => return Ok(false),
        Some(Envelope { account: to, .. }) => {
            roles::check_recipients(conn, account, bundle.seq).await?;
            // After a receipt that says failed it waits for the recipient again.
            let replaced = query(
                "UPDATE delivery SET revision = revision + 1, received = NULL
                 WHERE bundle = $1 AND account = $2 AND outcome IS DISTINCT FROM 'verified'",
            );
            if replaced.bind(bundle.seq).bind(*to).execute(conn).await? == 0 {
                return refuse(ProblemKind::Conflict, "that recipient's receipt says verified, which is final");
            }
            *to
        }
        None => {
            let to = new_recipient(conn, &bundle, recipient).await?;
            query("INSERT INTO delivery (bundle, account) VALUES ($1, $2)")
                .bind(bundle.seq)
                .bind(to)
                .execute(conn)
                .await?;
            to
        }
    };
    store_envelope(conn, &bundle, to, before.as_ref(), sealed, limits, now).await?;
    Ok(true)
}
