//! Commit: everything is there, so the bundle lies in the mailboxes; at once or not at all.

use super::database::{Conn, Lock, query};
use super::objects::INDEX;
use super::roles;
use super::row::{BundleRow, bytes, uint};
use super::{Ledger, Once, Result, int, refuse};
use pouch_protocol::limits::{MAX_PARTS, MAX_RECIPIENTS};
use pouch_protocol::{BundleState, Commit, ProblemKind, parts_digest};
use pouch_statement::{Blake3Digest, BundleId, Sha256Digest, Timestamp};

impl Ledger {
    /// Delivers a bundle. `request_sha256` is the digest of the message: the same again has no effect.
    pub(crate) async fn commit(
        &self,
        once: Once,
        id: BundleId,
        commit: Commit,
        request_sha256: Sha256Digest,
        now: Timestamp,
    ) -> Result<()> {
        self.write_once(once, now, commit, move |conn, commit| {
            Box::pin(deliver(conn, once.account, id, commit, request_sha256, now))
        })
        .await
    }
}

async fn deliver(
    conn: &mut Conn,
    account: i64,
    id: BundleId,
    commit: &Commit,
    request_sha256: Sha256Digest,
    now: Timestamp,
) -> Result<()> {
    conn.lock(Lock::Bundle(id)).await?;
    let bundle = BundleRow::of_sender(conn, id, account).await?;
    match bundle.state(now) {
        BundleState::Pending => {}
        // An answer was lost and the sender asks again.
        BundleState::Committed if bundle.commit_sha256.as_deref() == Some(request_sha256.as_bytes()) => return Ok(()),
        BundleState::Committed => return refuse(ProblemKind::Conflict, "the bundle is committed"),
        _ => return bundle.gone(),
    }
    let content = check_objects(conn, &bundle, commit).await?;
    let recipients = check_recipients(conn, &bundle, commit).await?;
    roles::check_recipients(conn, account, bundle.seq).await?;
    for recipient in recipients {
        deliver_to(conn, bundle.seq, recipient).await?;
    }
    query(
        "UPDATE bundle SET state = 'committed', committed = $1, content = $2, parts = $3, commit_sha256 = $4
         WHERE seq = $5",
    )
    .bind(int(now.unix()))
    .bind(int(content))
    .bind(i64::from(commit.parts))
    .bind(request_sha256.as_bytes().as_slice())
    .bind(bundle.seq)
    .execute(conn)
    .await?;
    Ok(())
}

/// Lays a bundle into one mailbox.
pub(super) async fn deliver_to(conn: &mut Conn, bundle: i64, account: i64) -> Result<()> {
    query("INSERT INTO delivery (bundle, account) VALUES ($1, $2)").bind(bundle).bind(account).execute(conn).await?;
    Ok(())
}

/// All parts 0…N−1 and the index are there and are what the sender says; the bytes of all parts.
async fn check_objects(conn: &mut Conn, bundle: &BundleRow, commit: &Commit) -> Result<u64> {
    let rows = query("SELECT number, length, digest FROM object WHERE bundle = $1 ORDER BY number")
        .bind(bundle.seq)
        .fetch_all(conn)
        .await?;
    let index = rows.first().filter(|row| row.get::<i64>("number").is_ok_and(|n| n == INDEX));
    let Some(index) = index else {
        return refuse(ProblemKind::Conflict, "the index is missing");
    };
    if bytes::<32>(index, "digest")? != *commit.index_sha256.as_bytes() {
        return refuse(ProblemKind::Conflict, "the index is another one");
    }
    let mut parts = Vec::with_capacity(rows.len());
    for (expected, row) in rows.iter().skip(1).enumerate() {
        if uint(row, "number")? != expected as u64 {
            return refuse(ProblemKind::Conflict, "a part is missing");
        }
        parts.push((uint(row, "length")?, Blake3Digest::from_bytes(bytes(row, "digest")?)));
    }
    if parts.is_empty() || commit.parts > MAX_PARTS || parts.len() != commit.parts as usize {
        return refuse(ProblemKind::Conflict, "the number of parts is another one");
    }
    if parts_digest(parts.iter().map(|(length, digest)| (*length, digest))) != commit.parts_sha256 {
        return refuse(ProblemKind::Conflict, "the parts are other ones");
    }
    Ok(parts.iter().map(|(length, _)| length).sum())
}

/// The envelopes are for exactly the named mailboxes; their accounts.
async fn check_recipients(conn: &mut Conn, bundle: &BundleRow, commit: &Commit) -> Result<Vec<i64>> {
    let rows = query(
        "SELECT a.seq, a.mailbox FROM envelope e JOIN account a ON a.seq = e.account
         WHERE e.bundle = $1 ORDER BY a.mailbox",
    )
    .bind(bundle.seq)
    .fetch_all(conn)
    .await?;
    let named = commit.recipients.iter().map(|mailbox| *mailbox.as_bytes());
    let put = rows.iter().map(|row| bytes::<16>(row, "mailbox")).collect::<Result<Vec<_>>>()?;
    // Both ascending and, since the table's are unique, without doubles.
    if put.is_empty() || put.len() > MAX_RECIPIENTS || !named.eq(put) {
        return refuse(ProblemKind::Conflict, "the recipients are not those whose envelopes are here");
    }
    rows.iter().map(|row| row.get("seq")).collect()
}
