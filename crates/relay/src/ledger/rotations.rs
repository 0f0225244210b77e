//! Identities whose keys change: the account moves to the new card, and its contacts can fetch the word for it.

use super::database::{Conn, Lock, query};
use super::devices::move_to_retired;
use super::pipelines;
use super::roles::recipient;
use super::row::public_key;
use super::{Ledger, Once, Result, int, refuse, still_good};
use crate::auth::Caller;
use pouch_protocol::limits::MAX_ROTATIONS;
use pouch_protocol::{ProblemKind, Rotations};
use pouch_statement::{Detached, Device, MailboxId, Signed, SignedRotation, Timestamp};

/// A rotation that was held against the account's card.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Rotating {
    /// The card, as the account has it.
    pub(crate) from: Detached,
    pub(crate) rotation: SignedRotation,
    /// The new identity's word for the device key that stays.
    pub(crate) device: Signed<Device>,
}

impl Ledger {
    /// Moves an account to the new card: from then on only the new identity enrols device keys. The key that signs stays, all
    /// others are revoked, because they were enrolled by the identity that goes.
    pub(crate) async fn rotate(&self, once: Once, rotating: Rotating, now: Timestamp) -> Result<()> {
        self.write_once(once, now, rotating, move |conn, rotating| Box::pin(rotate(conn, once, rotating, now))).await
    }

    /// Whether this very rotation was taken before.
    pub(crate) async fn has_rotated(&self, account: i64, rotation: &Detached) -> Result<bool> {
        is_kept(&mut self.look().await?, account, rotation).await
    }

    /// The rotations of a mailbox, for its own account and for those that may send there.
    pub(crate) async fn rotations(&self, caller: &Caller, mailbox: MailboxId) -> Result<Rotations> {
        let mut conn = self.read().await?;
        let account = match mailbox == caller.mailbox {
            true => caller.account,
            false => recipient(&mut conn, caller.account, caller.role.into(), mailbox).await?,
        };
        let rows = query("SELECT statement, signature FROM rotation WHERE account = $1 ORDER BY serial")
            .bind(account)
            .fetch_all(&mut conn)
            .await?;
        let rotations =
            rows.iter().map(|row| Ok(Detached { statement: row.get("statement")?, signature: row.get("signature")? }));
        Ok(Rotations { rotations: rotations.collect::<Result<_>>()? })
    }
}

async fn rotate(conn: &mut Conn, once: Once, rotating: &Rotating, now: Timestamp) -> Result<()> {
    let Rotating { from, rotation, device } = rotating;
    let account = once.account;
    conn.lock(Lock::Account(account)).await?;
    still_good(conn, once, now).await?;
    let row = query("SELECT card_statement FROM account WHERE seq = $1").bind(account).fetch_one(conn).await?;
    if row.get::<&str>("card_statement")? != from.statement {
        // The same again, while the first one was on its way: its answer was lost, not it.
        return match is_kept(conn, account, &rotation.detached()).await? {
            true => Ok(()),
            false => refuse(ProblemKind::Conflict, "the account's card changed meanwhile"),
        };
    }
    let fingerprint = rotation.card().fingerprint();
    let taken = query("SELECT 1 FROM account WHERE fingerprint = $1").bind(fingerprint.as_bytes().as_slice());
    if taken.fetch_optional(conn).await?.is_some() {
        return refuse(ProblemKind::Conflict, "the new identity has an account here already");
    }
    // Whoever invited this account may not have seen the card yet with which it joined, and checks that one.
    query(
        "UPDATE link SET joiner_statement = (SELECT card_statement FROM account WHERE seq = $1),
                         joiner_signature = (SELECT card_signature FROM account WHERE seq = $1)
         WHERE joiner = $1 AND joiner_statement IS NULL",
    )
    .bind(account)
    .execute(conn)
    .await?;
    let card = rotation.card().detached();
    query("UPDATE account SET fingerprint = $1, name = $2, card_statement = $3, card_signature = $4 WHERE seq = $5")
        .bind(fingerprint.as_bytes().as_slice())
        .bind(rotation.card().card().name.as_str())
        .bind(card.statement)
        .bind(card.signature)
        .bind(account)
        .execute(conn)
        .await?;
    keep(conn, account, rotation, now).await?;
    // What was made in the old identity's name ends with it: contacts believe no delegation of its keys any more.
    pipelines::revoke_all(conn, account, now).await?;
    query("DELETE FROM link WHERE inviter = $1 AND joiner IS NULL").bind(account).execute(conn).await?;
    only_device(conn, account, device, now).await
}

/// Whether this very rotation is one of the account's that are kept.
async fn is_kept(conn: &mut Conn, account: i64, rotation: &Detached) -> Result<bool> {
    let row = query("SELECT 1 FROM rotation WHERE account = $1 AND statement = $2 AND signature = $3")
        .bind(account)
        .bind(rotation.statement.as_str())
        .bind(rotation.signature.as_str());
    Ok(row.fetch_optional(conn).await?.is_some())
}

/// Keeps the newest rotations of the account.
async fn keep(conn: &mut Conn, account: i64, rotation: &SignedRotation, now: Timestamp) -> Result<()> {
    let Detached { statement, signature } = rotation.detached();
    query("INSERT INTO rotation (account, serial, statement, signature, created) VALUES ($1, $2, $3, $4, $5)")
        .bind(account)
        .bind(int(rotation.card().card().serial))
        .bind(statement)
        .bind(signature)
        .bind(int(now.unix()))
        .execute(conn)
        .await?;
    query(
        "DELETE FROM rotation WHERE account = $1 AND serial NOT IN
             (SELECT serial FROM rotation WHERE account = $1 ORDER BY serial DESC LIMIT $2)",
    )
    .bind(account)
    .bind(i64::from(MAX_ROTATIONS))
    .execute(conn)
    .await?;
    Ok(())
}

/// Leaves the account one device key, which the new identity vouches for.
async fn only_device(conn: &mut Conn, account: i64, device: &Signed<Device>, now: Timestamp) -> Result<()> {
    let rows = query("SELECT device_key FROM device WHERE account = $1").bind(account).fetch_all(conn).await?;
    let mut others = Vec::new();
    for row in &rows {
        others.push(public_key(row, "device_key")?);
    }
    for key in others.into_iter().filter(|key| *key != device.body().device_key) {
        move_to_retired(conn, account, key, now).await?;
    }
    let said = device.detached();
    query("UPDATE device SET statement = $1, signature = $2 WHERE account = $3")
        .bind(said.statement)
        .bind(said.signature)
        .bind(account)
        .execute(conn)
        .await?;
    Ok(())
}
