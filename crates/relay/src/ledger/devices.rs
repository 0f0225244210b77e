//! Device keys of an account that is there: enrolled by its identity, revoked for good.

use super::accounts::{DeviceAccount, device_account};
use super::database::{Conn, Lock, query};
use super::row::{public_key, time, uint};
use super::{Ledger, Once, Result, int, refuse, still_good};
use pouch_protocol::limits::MAX_DEVICES;
use pouch_protocol::{DeviceKey, DeviceStatus, Devices, ProblemKind};
use pouch_statement::{Detached, Device, MailboxId, PublicKey, Signed, Timestamp};

/// Revoked keys of one account. They are kept for good, so their number is bounded.
const MAX_RETIRED: u64 = 1000;
/// Why a device statement is refused.
pub(crate) const NOT_OURS: &str = "the device statement is not by the account's identity, for the key that signs";

impl Ledger {
    /// The account of a mailbox, and the card with which it joined: as it was sent, not verified here.
    pub(crate) async fn card_of(&self, mailbox: MailboxId) -> Result<Option<(DeviceAccount, Detached)>> {
        let mut conn = self.look().await?;
        let row = query(
            "SELECT seq, mailbox, role, contractor, suspended, card_statement, card_signature FROM account
             WHERE mailbox = $1",
        )
        .bind(mailbox.as_bytes().as_slice())
        .fetch_optional(&mut conn)
        .await?;
        row.map(|row| {
            let card = Detached { statement: row.get("card_statement")?, signature: row.get("card_signature")? };
            Ok((device_account(&row)?, card))
        })
        .transpose()
    }

    /// Enrols a key, whose statement was verified for the card with the fingerprint that it names, and revokes the one that it
    /// replaces: both or neither, so that whoever holds the old one cannot come between. One that is enrolled for this account
    /// already is not enrolled again.
    pub(crate) async fn enrol(
        &self,
        once: Once,
        device: Signed<Device>,
        replaces: Option<PublicKey>,
        now: Timestamp,
    ) -> Result<()> {
        self.write_once(once, now, device, move |conn, device| {
            Box::pin(async move {
                conn.lock(Lock::Account(once.account)).await?;
                by_present_identity(conn, once.account, device).await?;
                // First, so that the place of a full number of keys is free.
                if let Some(old) = replaces.filter(|old| *old != device.body().device_key) {
                    move_to_retired(conn, once.account, old, now).await?;
                }
                enrol(conn, once.account, device, now).await
            })
        })
        .await
    }

    /// The keys that sign for an account, oldest first.
    pub(crate) async fn devices(&self, account: i64) -> Result<Devices> {
        let mut conn = self.look().await?;
        let rows = query("SELECT device_key, created FROM device WHERE account = $1 ORDER BY created, device_key")
            .bind(account)
            .fetch_all(&mut conn)
            .await?;
        let devices = rows.iter().map(|row| {
            Ok(DeviceStatus { key: DeviceKey(public_key(row, "device_key")?), created: time(row, "created")? })
        });
        Ok(Devices { devices: devices.collect::<Result<_>>()? })
    }

    /// Revokes one of the account's keys for good, on the word of another. Again has no effect.
    pub(crate) async fn retire(&self, once: Once, key: PublicKey, now: Timestamp) -> Result<()> {
        self.write_once(once, now, (), move |conn, ()| Box::pin(retire(conn, once, key, now))).await
    }
}

/// Stores a key that is known to be new.
pub(super) async fn store(conn: &mut Conn, account: i64, device: &Signed<Device>, now: Timestamp) -> Result<()> {
    let statement = device.detached();
    query("INSERT INTO device (device_key, account, statement, signature, created) VALUES ($1, $2, $3, $4, $5)")
        .bind(device.body().device_key.as_bytes().as_slice())
        .bind(account)
        .bind(statement.statement)
        .bind(statement.signature)
        .bind(int(now.unix()))
        .execute(conn)
        .await?;
    Ok(())
}

/// Refuses the word of an identity that is not the account's, or is it no more: since the statement was held against the card
/// the account may have moved to another one (attacks.md 37). The account is locked.
async fn by_present_identity(conn: &mut Conn, account: i64, device: &Signed<Device>) -> Result<()> {
    let row = query("SELECT fingerprint FROM account WHERE seq = $1").bind(account).fetch_one(conn).await?;
    if row.get::<&[u8]>("fingerprint")? == device.body().identity.as_bytes().as_slice() {
        Ok(())
    } else {
        refuse(ProblemKind::Signature, NOT_OURS)
    }
}

/// With the account locked: its keys are counted, and none of them is revoked meanwhile.
async fn enrol(conn: &mut Conn, account: i64, device: &Signed<Device>, now: Timestamp) -> Result<()> {
    let key = device.body().device_key;
    let known = query(
        "SELECT account, CAST(0 AS BIGINT) AS retired FROM device WHERE device_key = $1
         UNION ALL SELECT account, CAST(1 AS BIGINT) AS retired FROM retired_device WHERE device_key = $1",
    )
    .bind(key.as_bytes().as_slice())
    .fetch_optional(conn)
    .await?;
    if let Some(row) = known {
        let mine = row.get::<i64>("account")? == account && row.get::<i64>("retired")? == 0;
        return if mine {
            Ok(())
        } else {
            refuse(ProblemKind::Conflict, "the key was revoked, or is another account's")
        };
    }
    for (sql, most, full) in [
        (
            "SELECT COUNT(*) AS n FROM device WHERE account = $1",
            u64::from(MAX_DEVICES),
            "too many device keys; revoke some",
        ),
        ("SELECT COUNT(*) AS n FROM retired_device WHERE account = $1", MAX_RETIRED, "too many keys were revoked"),
    ] {
        if uint(&query(sql).bind(account).fetch_one(conn).await?, "n")? >= most {
            return refuse(ProblemKind::Quota, full);
        }
    }
    store(conn, account, device, now).await
}

async fn retire(conn: &mut Conn, once: Once, key: PublicKey, now: Timestamp) -> Result<()> {
    let account = once.account;
    conn.lock(Lock::Account(account)).await?;
    if once.device == Some(key) {
        return refuse(ProblemKind::Conflict, "a key does not revoke itself; another one does");
    }
    // Again, now that nobody else revokes: two that revoke each other at once would leave none.
    still_good(conn, once, now).await?;
    if move_to_retired(conn, account, key, now).await? {
        return Ok(());
    }
    let before = query("SELECT 1 FROM retired_device WHERE device_key = $1 AND account = $2");
    let before = before.bind(key.as_bytes().as_slice()).bind(account).fetch_optional(conn).await?;
    if before.is_some() { Ok(()) } else { refuse(ProblemKind::NotFound, "") }
}

/// Revokes a key, if it is one of the account's.
pub(super) async fn move_to_retired(conn: &mut Conn, account: i64, key: PublicKey, now: Timestamp) -> Result<bool> {
    let moved = query(
        "INSERT INTO retired_device (device_key, account, statement, signature, created, retired)
         SELECT device_key, account, statement, signature, created, CAST($1 AS BIGINT) FROM device
         WHERE device_key = $2 AND account = $3",
    )
    .bind(int(now.unix()))
    .bind(key.as_bytes().as_slice())
    .bind(account)
    .execute(conn)
    .await?;
    query("DELETE FROM device WHERE device_key = $1 AND account = $2")
        .bind(key.as_bytes().as_slice())
        .bind(account)
        .execute(conn)
        .await?;
    Ok(moved > 0)
}
