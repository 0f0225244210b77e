//! Accounts and devices: who may, and how they came to be.

use super::database::{Conn, Lock, Row, query};
use super::devices;
use super::roles::{link_role, member_kind, role, role_word};
use super::row::{mailbox, maybe_time, parsed, time, uint};
use super::{Ledger, LedgerError, Once, Result, int, refuse};
use pouch_protocol::limits::MAX_PAGE;
use pouch_protocol::{Account, AccountRole, Accounts, CardMac, JoinResponse, MacedCard, ProblemKind};
use pouch_statement::{Detached, Device, MailboxId, PublicKey, Sha256Digest, Signed, SignedCard, Timestamp};

/// The account behind an enrolled device key.
#[derive(Clone, Copy)]
pub(crate) struct DeviceAccount {
    pub(crate) account: i64,
    pub(crate) mailbox: MailboxId,
    pub(crate) role: AccountRole,
    /// Its requests are refused.
    pub(crate) suspended: bool,
    /// Of a pipeline: until when it may do what one may. `None` where that is not known.
    pub(crate) until: Option<Until>,
}

/// How long a pipeline lasts.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    expires: Timestamp,
    revoked: bool,
}

impl Until {
    /// From the columns `expires` and `revoked`; `None` where they are of no pipeline.
    pub(super) fn read(row: &Row) -> Result<Option<Self>> {
        let revoked = maybe_time(row, "revoked")?.is_some();
        Ok(maybe_time(row, "expires")?.map(|expires| Self { expires, revoked }))
    }

    /// Whether it does nothing any more.
    pub(crate) fn is_over(self, now: Timestamp) -> bool {
        self.revoked || self.expires <= now
    }
}

/// Somebody who holds a link; everything in it is verified but for the link.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Joiner {
    pub(crate) admit_sha256: Sha256Digest,
    /// SHA-256 of the request's body: the same body again gets the same answer.
    pub(crate) request_sha256: Sha256Digest,
    pub(crate) card: SignedCard,
    pub(crate) mac: Option<CardMac>,
    pub(crate) device: Signed<Device>,
}

pub(super) fn mac(row: &Row, column: &'static str) -> Result<CardMac> {
    let text: &str = row.get(column)?;
    serde_json::from_value(text.into()).map_err(|_| LedgerError::Damaged(column))
}

pub(super) fn mac_text(mac: &CardMac) -> Result<String> {
    match serde_json::to_value(mac) {
        Ok(serde_json::Value::String(text)) => Ok(text),
        _ => Err(LedgerError::Damaged("mac")),
    }
}

/// The columns of an account as [`account`] reads them.
const ACCOUNT: &str =
    "SELECT seq, mailbox, name, role, contractor, created, used, bundles, suspended FROM account WHERE seq = $1";
const ACCOUNTS: &str = "SELECT seq, mailbox, name, role, contractor, created, used, bundles, suspended FROM account
     WHERE seq > $1 ORDER BY seq LIMIT $2";

/// From the columns `seq`, `mailbox`, `role`, `contractor` and `suspended`.
pub(super) fn device_account(row: &Row) -> Result<DeviceAccount> {
    Ok(DeviceAccount {
        account: row.get("seq")?,
        mailbox: mailbox(row, "mailbox")?,
        role: role(row)?,
        suspended: maybe_time(row, "suspended")?.is_some(),
        until: None,
    })
}

fn account(row: &Row, quota: u64) -> Result<Account> {
    Ok(Account {
        mailbox: mailbox(row, "mailbox")?,
        name: parsed(row, "name")?,
        role: role(row)?,
        created: time(row, "created")?,
        used: uint(row, "used")?,
        quota,
        bundles: uint(row, "bundles")?,
        suspended: maybe_time(row, "suspended")?,
    })
}

impl Ledger {
    /// Whose device key this is.
    pub(crate) async fn device(&self, key: &PublicKey) -> Result<Option<DeviceAccount>> {
        let mut conn = self.look().await?;
        let row = query(
            "SELECT a.seq, a.mailbox, a.role, a.contractor, COALESCE(a.suspended, m.suspended) AS suspended, p.expires, p.revoked
             FROM device d JOIN account a ON a.seq = d.account
             LEFT JOIN pipeline p ON p.account = a.seq LEFT JOIN account m ON m.seq = p.maker
             WHERE d.device_key = $1",
        )
        .bind(key.as_bytes().as_slice())
        .fetch_optional(&mut conn)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(DeviceAccount { until: Until::read(&row)?, ..device_account(&row)? }))
    }

    pub(crate) async fn account(&self, seq: i64, quota: u64) -> Result<Account> {
        let mut conn = self.look().await?;
        let row = query(ACCOUNT).bind(seq).fetch_one(&mut conn).await?;
        account(&row, quota)
    }

    pub(crate) async fn accounts(&self, after: u64, quota: u64) -> Result<Accounts> {
        let mut conn = self.look().await?;
        let rows = query(ACCOUNTS).bind(int(after)).bind(i64::from(MAX_PAGE)).fetch_all(&mut conn).await?;
        let next = match rows.last() {
            Some(last) if rows.len() == MAX_PAGE as usize => Some(uint(last, "seq")?),
            _ => None,
        };
        let accounts = rows.iter().map(|row| account(row, quota)).collect::<Result<_>>()?;
        Ok(Accounts { accounts, next })
    }

    /// Has the requests of an account refused from now on; but never those of the owner, who alone could restore it.
    pub(crate) async fn suspend(&self, once: Once, mailbox: MailboxId, now: Timestamp) -> Result<()> {
        self.write_once(once, now, mailbox, move |conn, mailbox| Box::pin(suspend(conn, *mailbox, now))).await
    }

    /// Takes the requests of an account again.
    pub(crate) async fn restore(&self, once: Once, mailbox: MailboxId, now: Timestamp) -> Result<()> {
        self.write_once(once, now, mailbox, move |conn, mailbox| Box::pin(restore(conn, *mailbox))).await
    }

    /// Account, device and the link's redemption, at once or not at all. Of two who race for a link one wins.
    pub(crate) async fn join(&self, joiner: Joiner, now: Timestamp) -> Result<JoinResponse> {
        self.write(joiner, move |conn, joiner| Box::pin(join(conn, joiner, now))).await
    }
}

/// The account of a mailbox, for an owner who changes it: locked, with its role.
pub(super) async fn locked(conn: &mut Conn, mailbox: MailboxId) -> Result<(i64, AccountRole)> {
    let row = query("SELECT seq, role, contractor FROM account WHERE mailbox = $1")
        .bind(mailbox.as_bytes().as_slice())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else {
        return refuse(ProblemKind::NotFound, "");
    };
    let seq = row.get("seq")?;
    conn.lock(Lock::Account(seq)).await?;
    Ok((seq, role(&row)?))
}

async fn suspend(conn: &mut Conn, mailbox: MailboxId, now: Timestamp) -> Result<()> {
    let (seq, role) = locked(conn, mailbox).await?;
    // There is one.
    if role == AccountRole::Owner {
        return refuse(ProblemKind::Conflict, "the relay's owner cannot be suspended");
    }
    query("UPDATE account SET suspended = $1 WHERE seq = $2 AND suspended IS NULL")
        .bind(int(now.unix()))
        .bind(seq)
        .execute(conn)
        .await?;
    Ok(())
}

async fn restore(conn: &mut Conn, mailbox: MailboxId) -> Result<()> {
    let restored = query("UPDATE account SET suspended = NULL WHERE mailbox = $1")
        .bind(mailbox.as_bytes().as_slice())
        .execute(conn)
        .await?;
    if restored == 0 { refuse(ProblemKind::NotFound, "") } else { Ok(()) }
}

async fn join(conn: &mut Conn, joiner: &Joiner, now: Timestamp) -> Result<JoinResponse> {
    conn.lock(Lock::Link(joiner.admit_sha256)).await?;
    // The secret is looked up by its hash: how long that takes tells nothing about the secret (attacks.md 41).
    let link = query(
        "SELECT seq, inviter, expires, contractor, card_statement, card_signature, card_mac, request_sha256 FROM link
         WHERE admit_sha256 = $1",
    )
    .bind(joiner.admit_sha256.as_bytes().as_slice())
    .fetch_optional(conn)
    .await?;
    let Some(link) = link else {
        return refuse(ProblemKind::LinkSpent, "");
    };
    let inviter: Option<i64> = link.get("inviter")?;
    let role = if inviter.is_none() { AccountRole::Owner } else { link_role(&link)? };
    let answer = JoinResponse { role, inviter: inviter.map(|_| maced_card(&link)).transpose()? };
    if let Some(before) = link.get::<Option<&[u8]>>("request_sha256")? {
        let same = before == joiner.request_sha256.as_bytes();
        return if same { Ok(answer) } else { refuse(ProblemKind::LinkSpent, "") };
    }
    if let Some(inviter) = inviter {
        check_inviter(conn, inviter, role).await?;
    }
    if time(&link, "expires")? <= now {
        return refuse(ProblemKind::LinkSpent, "");
    }
    if joiner.mac.is_some() != inviter.is_some() {
        return refuse(ProblemKind::BadRequest, "a card's MAC belongs to an invitation, and only to one");
    }
    if role == AccountRole::Owner {
        conn.lock(Lock::Relay).await?;
        if query("SELECT 1 FROM account WHERE role = 'owner'").fetch_optional(conn).await?.is_some() {
            return refuse(ProblemKind::LinkSpent, "");
        }
    }
    let account = enroll(conn, (&joiner.card, &joiner.device), role, inviter, now).await?;
    query("UPDATE link SET request_sha256 = $1, joiner = $2, joiner_mac = $3 WHERE seq = $4")
        .bind(joiner.request_sha256.as_bytes().as_slice())
        .bind(account)
        .bind(joiner.mac.as_ref().map(mac_text).transpose()?)
        .bind(link.get::<i64>("seq")?)
        .execute(conn)
        .await?;
    Ok(answer)
}

/// Whoever made the link may still invite, and somebody of this role.
async fn check_inviter(conn: &mut Conn, inviter: i64, joins_as: AccountRole) -> Result<()> {
    conn.lock(Lock::Account(inviter)).await?;
    let row = query("SELECT role, contractor, suspended FROM account WHERE seq = $1").bind(inviter);
    let row = row.fetch_one(conn).await?;
    if maybe_time(&row, "suspended")?.is_some() {
        return refuse(ProblemKind::Suspended, "whoever made this link is suspended");
    }
    if role(&row)?.may_invite(joins_as) {
        Ok(())
    } else {
        refuse(ProblemKind::Forbidden, "whoever made this link may not invite for it any more")
    }
}

/// The inviter's card of a link.
fn maced_card(row: &Row) -> Result<MacedCard> {
    Ok(MacedCard {
        card: Detached { statement: row.get("card_statement")?, signature: row.get("card_signature")? },
        mac: mac(row, "card_mac")?,
    })
}

/// Makes an account with its first device key.
pub(super) async fn enroll(
    conn: &mut Conn,
    (signed, first): (&SignedCard, &Signed<Device>),
    role: AccountRole,
    inviter: Option<i64>,
    now: Timestamp,
) -> Result<i64> {
    let (card, fingerprint, device) = (signed.card(), signed.fingerprint(), first.body().device_key);
    let taken = query(
        "SELECT 1 FROM account WHERE mailbox = $1 OR fingerprint = $2
         UNION ALL SELECT 1 FROM device WHERE device_key = $3
         UNION ALL SELECT 1 FROM retired_device WHERE device_key = $3",
    )
    .bind(card.mailbox.as_bytes().as_slice())
    .bind(fingerprint.as_bytes().as_slice())
    .bind(device.as_bytes().as_slice())
    .fetch_optional(conn)
    .await?;
    if taken.is_some() {
        return refuse(ProblemKind::Conflict, "mailbox, identity or device key has an account here already");
    }
    let detached = signed.detached();
    let account = query(
        "INSERT INTO account (mailbox, fingerprint, name, role, contractor, inviter, card_statement, card_signature, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING seq",
    )
    .bind(card.mailbox.as_bytes().as_slice())
    .bind(fingerprint.as_bytes().as_slice())
    .bind(card.name.as_str())
    .bind(role_word(role))
    .bind(member_kind(role))
    .bind(inviter)
    .bind(detached.statement)
    .bind(detached.signature)
    .bind(int(now.unix()))
    .fetch_one(conn)
    .await?;
    let seq: i64 = account.get("seq")?;
    devices::store(conn, seq, first, now).await?;
    Ok(seq)
}
