//! Roles: what an account may do, and to whom a contractor's may send (docs/decisions/0015-roles.md).

use super::accounts::locked;
use super::database::{Conn, Lock, Row, query};
use super::{Ledger, LedgerError, Once, Result, refuse};
use pouch_protocol::{AccountRole, ProblemKind};
use pouch_statement::{MailboxId, Timestamp};

/// Whether the account `a` may get what the contractor `$1` sends: it invited them, or has a delivery to them here.
macro_rules! may_reply_to {
    () => {
        "(a.seq = (SELECT me.inviter FROM account me WHERE me.seq = $1) OR EXISTS ( \
             SELECT 1 FROM delivery d JOIN bundle b ON b.seq = d.bundle WHERE d.account = $1 AND b.sender = a.seq))"
    };
}

const NOT_THEIRS: &str = "a contractor's account sends to whoever invited it and to its senders, and to nobody else";

/// The role of an account, from its columns `role` and `contractor`.
pub(super) fn role(row: &Row) -> Result<AccountRole> {
    match (row.get::<&str>("role")?, row.get::<i64>("contractor")?) {
        ("owner", 0) => Ok(AccountRole::Owner),
        ("member", 0) => Ok(AccountRole::Member),
        ("member", 1) => Ok(AccountRole::Contractor),
        _ => Err(LedgerError::Damaged("role")),
    }
}

/// The role that a link gives, from its column `contractor`.
pub(super) fn link_role(row: &Row) -> Result<AccountRole> {
    match row.get::<i64>("contractor")? {
        0 => Ok(AccountRole::Member),
        1 => Ok(AccountRole::Contractor),
        _ => Err(LedgerError::Damaged("contractor")),
    }
}

/// What the column `role` holds; the column `contractor` tells the two kinds of `member` apart.
pub(super) fn role_word(role: AccountRole) -> &'static str {
    match role {
        AccountRole::Owner => "owner",
        AccountRole::Member | AccountRole::Contractor => "member",
    }
}

/// What the column `contractor` holds.
pub(super) fn is_contractor(role: AccountRole) -> i64 {
    i64::from(role == AccountRole::Contractor)
}

impl Ledger {
    /// Changes what an account may do from now on; never that of an owner.
    pub(crate) async fn set_role(
        &self,
        once: Once,
        mailbox: MailboxId,
        new: AccountRole,
        now: Timestamp,
    ) -> Result<()> {
        self.write_once(once, now, mailbox, move |conn, mailbox| Box::pin(set(conn, *mailbox, new))).await
    }
}

async fn set(conn: &mut Conn, mailbox: MailboxId, new: AccountRole) -> Result<()> {
    // Who commits at the same time reads the role under this lock, too.
    let (seq, role) = locked(conn, mailbox).await?;
    if role == AccountRole::Owner {
        return refuse(ProblemKind::Conflict, "an owner stays an owner");
    }
    let change = query("UPDATE account SET contractor = $1 WHERE seq = $2");
    change.bind(is_contractor(new)).bind(seq).execute(conn).await?;
    Ok(())
}

/// Whether the account's recipients are limited. Locks its role until the transaction ends.
pub(super) async fn is_limited(conn: &mut Conn, account: i64) -> Result<bool> {
    conn.lock(Lock::Account(account)).await?;
    let row = query("SELECT role, contractor FROM account WHERE seq = $1").bind(account).fetch_one(conn).await?;
    Ok(role(&row)? == AccountRole::Contractor)
}

/// The account of a mailbox to which `sender` may send, who is `limited` or not. A contractor is not told whether any other
/// exists.
pub(super) async fn recipient(conn: &mut Conn, sender: i64, limited: bool, mailbox: MailboxId) -> Result<i64> {
    let mailbox = mailbox.as_bytes().as_slice();
    let found = match limited {
        true => query(concat!("SELECT a.seq FROM account a WHERE a.mailbox = $2 AND ", may_reply_to!()))
            .bind(sender)
            .bind(mailbox),
        false => query("SELECT seq FROM account WHERE mailbox = $1").bind(mailbox),
    };
    match found.fetch_optional(conn).await? {
        Some(row) => row.get("seq"),
        None if limited => refuse(ProblemKind::Forbidden, NOT_THEIRS),
        None => refuse(ProblemKind::NotFound, ""),
    }
}

/// Checks again that `sender` may send to all who have an envelope in this bundle: its role may have changed.
pub(super) async fn check_recipients(conn: &mut Conn, sender: i64, bundle: i64) -> Result<()> {
    if !is_limited(conn, sender).await? {
        return Ok(());
    }
    let sql = concat!(
        "SELECT 1 FROM envelope e JOIN account a ON a.seq = e.account WHERE e.bundle = $2 AND NOT ",
        may_reply_to!(),
        " LIMIT 1"
    );
    match query(sql).bind(sender).bind(bundle).fetch_optional(conn).await? {
        Some(_) => refuse(ProblemKind::Forbidden, NOT_THEIRS),
        None => Ok(()),
    }
}
