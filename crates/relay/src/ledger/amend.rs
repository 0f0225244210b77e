//! What a sender may still change about a bundle that is delivered: when it ends, the envelope of a recipient who has not
//! finally received it, and one recipient more. Parts and index stay as they were committed.

use super::database::{Conn, Lock, query};
use super::roles;
use super::row::{BundleRow, Limits};
use super::{Ledger, Once, Result, int, refuse};
use pouch_protocol::{BundleState, ProblemKind};
use pouch_statement::{BundleId, Timestamp};

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

async fn extend(
    conn: &mut Conn,
    account: i64,
    id: BundleId,
    expires: Timestamp,
    limits: Limits,
    now: Timestamp,
) -> Result<()> {
    conn.lock(Lock::Bundle(id)).await?;
    let bundle = BundleRow::of_sender(conn, id, account).await?;
    match bundle.state(now) {
        BundleState::Committed => {}
        BundleState::Pending => return refuse(ProblemKind::Conflict, "the bundle is not committed"),
        _ => return bundle.gone(),
    }
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

/// Another envelope for a recipient of a delivered bundle, who has not finally received it.
pub(super) async fn deliver_again(conn: &mut Conn, bundle: &BundleRow, to: i64) -> Result<()> {
    roles::check_recipients(conn, bundle.sender, bundle.seq).await?;
    // After a receipt that says failed it waits for the recipient again.
    let replaced = query(
        "UPDATE delivery SET revision = revision + 1, received = NULL
         WHERE bundle = $1 AND account = $2 AND outcome IS DISTINCT FROM 'verified'",
    );
    if replaced.bind(bundle.seq).bind(to).execute(conn).await? == 0 {
        return refuse(ProblemKind::Conflict, "that recipient's receipt says verified, which is final");
    }
    Ok(())
}
