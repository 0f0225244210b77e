//! Roles: what an account may do, and to whom a contractor's may send (docs/decisions/0015-roles.md).

use super::accounts::locked;
use super::database::{Conn, Lock, Row, query};
use super::{Ledger, LedgerError, Once, Result, refuse};
use pouch_protocol::{AccountRole, ProblemKind};
use pouch_statement::{MailboxId, Timestamp};

/// Whether the account `a` may get what the contractor `$1` sends: it invited them, or has a delivery to them here.
macro_rules! may_reply_to {
    () => {
        "(a.contractor <> 2 AND (a.seq = (SELECT me.inviter FROM account me WHERE me.seq = $1) OR EXISTS ( \
             SELECT 1 FROM delivery d JOIN bundle b ON b.seq = d.bundle WHERE d.account = $1 AND b.sender = a.seq)))"
    };
}

/// Whether the account `a` may get what the pipeline `$1` sends: its maker named them, and may still send to anybody.
macro_rules! may_be_sent_by {
    () => {
        "EXISTS (SELECT 1 FROM pipeline_recipient r JOIN pipeline p ON p.account = r.pipeline \
                 JOIN account m ON m.seq = p.maker WHERE r.pipeline = $1 AND r.account = a.seq \
                 AND p.revoked IS NULL AND m.suspended IS NULL AND m.contractor = 0)"
    };
}

const NOT_NAMED: &str = "a pipeline sends to those whom its maker named, and to nobody else";
const NOT_THEIRS: &str = "a contractor's account sends to whoever invited it and to its senders, and to nobody else";

/// The role of an account, from its columns `role` and `contractor`.
pub(super) fn role(row: &Row) -> Result<AccountRole> {
    match (row.get::<&str>("role")?, row.get::<i64>("contractor")?) {
        ("owner", 0) => Ok(AccountRole::Owner),
        ("member", 0) => Ok(AccountRole::Member),
        ("member", 1) => Ok(AccountRole::Contractor),
        ("member", 2) => Ok(AccountRole::Pipeline),
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

/// What the column `role` holds; the column `contractor` tells the three kinds of `member` apart.
pub(super) fn role_word(role: AccountRole) -> &'static str {
    match role {
        AccountRole::Owner => "owner",
        AccountRole::Member | AccountRole::Contractor | AccountRole::Pipeline => "member",
    }
}

/// What the column `contractor` holds.
pub(super) fn member_kind(role: AccountRole) -> i64 {
    match role {
        AccountRole::Owner | AccountRole::Member => 0,
        AccountRole::Contractor => 1,
        AccountRole::Pipeline => 2,
    }
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
    match role {
        AccountRole::Owner => return refuse(ProblemKind::Conflict, "an owner stays an owner"),
        AccountRole::Pipeline => return refuse(ProblemKind::Conflict, "a pipeline stays a pipeline"),
        AccountRole::Member | AccountRole::Contractor => {}
    }
    let change = query("UPDATE account SET contractor = $1 WHERE seq = $2");
    change.bind(member_kind(new)).bind(seq).execute(conn).await?;
    Ok(())
}

/// To whom an account may send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To everybody who receives.
    All,
    /// As a contractor.
    Replies,
    /// As a pipeline.
    Named,
}

impl Reach {
    /// Of an account. Locks its role until the transaction ends.
    pub(super) async fn of(conn: &mut Conn, account: i64) -> Result<Self> {
        conn.lock(Lock::Account(account)).await?;
        let row = query("SELECT role, contractor FROM account WHERE seq = $1").bind(account).fetch_one(conn).await?;
        Ok(role(&row)?.into())
    }
}

impl From<AccountRole> for Reach {
    fn from(role: AccountRole) -> Self {
        match role {
            AccountRole::Owner | AccountRole::Member => Self::All,
            AccountRole::Contractor => Self::Replies,
            AccountRole::Pipeline => Self::Named,
        }
    }
}

/// The account of a mailbox to which `sender` may send. Who may not send to all is not told whether any other exists.
pub(super) async fn recipient(conn: &mut Conn, sender: i64, reach: Reach, mailbox: MailboxId) -> Result<i64> {
    let mailbox = mailbox.as_bytes().as_slice();
    let found = match reach {
        Reach::Replies => query(concat!("SELECT a.seq FROM account a WHERE a.mailbox = $2 AND ", may_reply_to!()))
            .bind(sender)
            .bind(mailbox),
        Reach::Named => query(concat!("SELECT a.seq FROM account a WHERE a.mailbox = $2 AND ", may_be_sent_by!()))
            .bind(sender)
            .bind(mailbox),
        Reach::All => query("SELECT seq FROM account WHERE mailbox = $1 AND contractor <> 2").bind(mailbox),
    };
    match (found.fetch_optional(conn).await?, reach) {
        (Some(row), _) => row.get("seq"),
        (None, Reach::Replies) => refuse(ProblemKind::Forbidden, NOT_THEIRS),
        (None, Reach::Named) => refuse(ProblemKind::Forbidden, NOT_NAMED),
        (None, Reach::All) => refuse(ProblemKind::NotFound, ""),
    }
}

/// Checks again that `sender` may send to all who have an envelope in this bundle: its role may have changed, or what its
/// maker may.
pub(super) async fn check_recipients(conn: &mut Conn, sender: i64, bundle: i64) -> Result<()> {
    macro_rules! others {
        ($may:expr) => {
            concat!(
                "SELECT 1 FROM envelope e JOIN account a ON a.seq = e.account WHERE e.bundle = $2 AND NOT ",
                $may,
                " LIMIT 1"
            )
        };
    }
    let (sql, why) = match Reach::of(conn, sender).await? {
        Reach::All => return Ok(()),
        Reach::Replies => (others!(may_reply_to!()), NOT_THEIRS),
        Reach::Named => (others!(may_be_sent_by!()), NOT_NAMED),
    };
    match query(sql).bind(sender).bind(bundle).fetch_optional(conn).await? {
        Some(_) => refuse(ProblemKind::Forbidden, why),
        None => Ok(()),
    }
}
