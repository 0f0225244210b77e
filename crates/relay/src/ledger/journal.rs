//! The journal that an account keeps on the relay: one sealed object, replaced only by whoever knows the one before.

use super::database::{Conn, Lock, query};
use super::objects::Sealed;
use super::row::{Limits, bytes, give_space, take_space, uint};
use super::{Ledger, Once, Result, refuse};
use pouch_protocol::ProblemKind;
use pouch_statement::Sha256Digest;
use pouch_statement::Timestamp;

impl Ledger {
    /// The account's journal and its digest.
    pub(crate) async fn journal(&self, account: i64) -> Result<(Sha256Digest, Vec<u8>)> {
        let mut conn = self.look().await?;
        let row = query("SELECT sha256, sealed FROM journal WHERE account = $1").bind(account);
        match row.fetch_optional(&mut conn).await? {
            Some(row) => Ok((Sha256Digest::from_bytes(bytes(&row, "sha256")?), row.get("sealed")?)),
            None => refuse(ProblemKind::NotFound, ""),
        }
    }

    /// Stores the account's journal in place of the one with the digest `before`, or as the first one. The same again has no
    /// effect.
    pub(crate) async fn put_journal(
        &self,
        once: Once,
        before: Option<Sha256Digest>,
        sealed: Sealed,
        limits: Limits,
        now: Timestamp,
    ) -> Result<()> {
        self.write_once(once, now, sealed, move |conn, sealed| {
            Box::pin(put(conn, once.account, before, sealed, limits))
        })
        .await
    }
}

async fn put(
    conn: &mut Conn,
    account: i64,
    before: Option<Sha256Digest>,
    Sealed { bytes: sealed, sha256 }: &Sealed,
    limits: Limits,
) -> Result<()> {
    // Of two that know the same one before, the second finds the first one's.
    conn.lock(Lock::Account(account)).await?;
    let row = query("SELECT sha256, CAST(length(sealed) AS BIGINT) AS length FROM journal WHERE account = $1");
    let row = row.bind(account).fetch_optional(conn).await?;
    let (found, length) = match &row {
        Some(row) => (Some(Sha256Digest::from_bytes(bytes(row, "sha256")?)), uint(row, "length")?),
        None => (None, 0),
    };
    if found == Some(*sha256) {
        return Ok(());
    }
    if found != before {
        return refuse(ProblemKind::Conflict, "there is another journal than the one that this follows");
    }
    query(
        "INSERT INTO journal (account, sha256, sealed) VALUES ($1, $2, $3)
         ON CONFLICT (account) DO UPDATE SET sha256 = excluded.sha256, sealed = excluded.sealed",
    )
    .bind(account)
    .bind(sha256.as_bytes().as_slice())
    .bind(sealed.as_ref())
    .execute(conn)
    .await?;
    let new = sealed.len() as u64;
    if new >= length {
        take_space(conn, account, new - length, limits).await
    } else {
        give_space(conn, account, length - new).await
    }
}

/// Deletes the journal of an account that is locked, and gives its room back.
pub(super) async fn forget(conn: &mut Conn, account: i64) -> Result<()> {
    let row = query("DELETE FROM journal WHERE account = $1 RETURNING CAST(length(sealed) AS BIGINT) AS length");
    match row.bind(account).fetch_optional(conn).await? {
        Some(row) => give_space(conn, account, uint(&row, "length")?).await,
        None => Ok(()),
    }
}
