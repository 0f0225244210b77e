//! Pipelines: accounts that send in another account's name, to those whom it named, until a certain time.

use super::accounts::enroll;
use super::database::{Conn, Lock, query};
use super::roles::{self, Reach};
use super::row::{mailbox, maybe_time, parsed, time, uint};
use super::{Ledger, Once, Result, int, refuse};
use pouch_protocol::limits::{MAX_PIPELINES, MAX_RECIPIENTS};
use pouch_protocol::{AccountRole, PipelineStatus, Pipelines, ProblemKind};
use pouch_statement::{Device, MailboxId, Signed, SignedCard, Timestamp};

/// Pipelines of one account in all. Their accounts stay, so their number is bounded.
const MAX_EVER: u64 = 1000;

/// A pipeline that is wished for; card and device statement are verified.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Wanted {
    pub(crate) card: SignedCard,
    pub(crate) device: Signed<Device>,
    pub(crate) recipients: Vec<MailboxId>,
    pub(crate) expires: Timestamp,
}

impl Ledger {
    /// Makes a pipeline. The same card and device key again have no effect.
    pub(crate) async fn new_pipeline(&self, once: Once, wanted: Wanted, now: Timestamp) -> Result<()> {
        self.write_once(once, now, wanted, move |conn, wanted| Box::pin(make(conn, once.account, wanted, now))).await
    }

    /// Those that an account made, oldest first.
    pub(crate) async fn pipelines(&self, maker: i64) -> Result<Pipelines> {
        let mut tx = self.read().await?;
        let rows = query(
            "SELECT a.seq, a.mailbox, a.name, a.created, p.expires, p.revoked
             FROM pipeline p JOIN account a ON a.seq = p.account WHERE p.maker = $1 ORDER BY a.seq",
        )
        .bind(maker)
        .fetch_all(&mut tx)
        .await?;
        let mut pipelines = Vec::with_capacity(rows.len());
        for row in &rows {
            let named = query(
                "SELECT a.mailbox FROM pipeline_recipient r JOIN account a ON a.seq = r.account
                 WHERE r.pipeline = $1 ORDER BY a.mailbox",
            );
            let named = named.bind(row.get::<i64>("seq")?).fetch_all(&mut tx).await?;
            pipelines.push(PipelineStatus {
                mailbox: mailbox(row, "mailbox")?,
                name: parsed(row, "name")?,
                created: time(row, "created")?,
                expires: time(row, "expires")?,
                revoked: maybe_time(row, "revoked")?,
                recipients: named.iter().map(|row| mailbox(row, "mailbox")).collect::<Result<_>>()?,
            });
        }
        Ok(Pipelines { pipelines })
    }

    /// Refuses the requests of a pipeline for good. Again has no effect.
    pub(crate) async fn revoke_pipeline(&self, once: Once, pipeline: MailboxId, now: Timestamp) -> Result<()> {
        self.write_once(once, now, pipeline, move |conn, mailbox| Box::pin(revoke(conn, once.account, *mailbox, now)))
            .await
    }
}

async fn make(conn: &mut Conn, maker: i64, wanted: &Wanted, now: Timestamp) -> Result<()> {
    // Its role is read and its pipelines are counted below.
    let reach = Reach::of(conn, maker).await?;
    if reach != Reach::All {
        return refuse(ProblemKind::Forbidden, "the owner and members make pipelines");
    }
    if is_made(conn, maker, wanted).await? {
        return Ok(());
    }
    let mut recipients = Vec::with_capacity(wanted.recipients.len());
    for named in &wanted.recipients {
        recipients.push(roles::recipient(conn, maker, reach, *named).await?);
    }
    recipients.sort_unstable();
    recipients.dedup();
    if recipients.is_empty() || recipients.len() != wanted.recipients.len() || recipients.len() > MAX_RECIPIENTS {
        return refuse(ProblemKind::BadRequest, "a pipeline is for one recipient or more, each named once");
    }
    let made = query(
        "SELECT COUNT(*) AS ever, COUNT(CASE WHEN revoked IS NULL AND expires > $2 THEN 1 END) AS live
         FROM pipeline WHERE maker = $1",
    );
    let made = made.bind(maker).bind(int(now.unix())).fetch_one(conn).await?;
    if uint(&made, "ever")? >= MAX_EVER {
        return refuse(ProblemKind::Quota, "too many pipelines were made");
    }
    if uint(&made, "live")? >= u64::from(MAX_PIPELINES) {
        return refuse(ProblemKind::Quota, "too many pipelines; revoke some");
    }
    let account = enroll(conn, (&wanted.card, &wanted.device), AccountRole::Pipeline, Some(maker), now).await?;
    query("INSERT INTO pipeline (account, maker, expires) VALUES ($1, $2, $3)")
        .bind(account)
        .bind(maker)
        .bind(int(wanted.expires.unix()))
        .execute(conn)
        .await?;
    for recipient in recipients {
        query("INSERT INTO pipeline_recipient (pipeline, account) VALUES ($1, $2)")
            .bind(account)
            .bind(recipient)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Whether an answer was lost and the same is asked for again.
async fn is_made(conn: &mut Conn, maker: i64, wanted: &Wanted) -> Result<bool> {
    let row = query(
        "SELECT 1 FROM account a JOIN pipeline p ON p.account = a.seq JOIN device d ON d.account = a.seq
         WHERE a.mailbox = $1 AND a.fingerprint = $2 AND d.device_key = $3 AND p.maker = $4 AND p.expires = $5",
    )
    .bind(wanted.card.card().mailbox.as_bytes().as_slice())
    .bind(wanted.card.fingerprint().as_bytes().as_slice())
    .bind(wanted.device.body().device_key.as_bytes().as_slice())
    .bind(maker)
    .bind(int(wanted.expires.unix()))
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

async fn revoke(conn: &mut Conn, maker: i64, pipeline: MailboxId, now: Timestamp) -> Result<()> {
    let row = query(
        "SELECT p.account FROM pipeline p JOIN account a ON a.seq = p.account WHERE a.mailbox = $1 AND p.maker = $2",
    );
    let row = row.bind(pipeline.as_bytes().as_slice()).bind(maker).fetch_optional(conn).await?;
    let Some(row) = row else {
        return refuse(ProblemKind::NotFound, "");
    };
    let account: i64 = row.get("account")?;
    // Who commits for it at the same time reads its reach under this lock, too.
    conn.lock(Lock::Account(account)).await?;
    query("UPDATE pipeline SET revoked = $1 WHERE account = $2 AND revoked IS NULL")
        .bind(int(now.unix()))
        .bind(account)
        .execute(conn)
        .await?;
    Ok(())
}

/// Revokes all that an account made. It is locked.
pub(super) async fn revoke_all(conn: &mut Conn, maker: i64, now: Timestamp) -> Result<()> {
    query("UPDATE pipeline SET revoked = $1 WHERE maker = $2 AND revoked IS NULL")
        .bind(int(now.unix()))
        .bind(maker)
        .execute(conn)
        .await?;
    Ok(())
}

/// Refuses an end of a bundle after that of the pipeline that sends it.
pub(super) async fn check_end(conn: &mut Conn, account: i64, expires: Timestamp) -> Result<()> {
    let row = query("SELECT expires FROM pipeline WHERE account = $1").bind(account).fetch_one(conn).await?;
    if time(&row, "expires")? < expires {
        return refuse(ProblemKind::Forbidden, "the pipeline ends before the bundle would");
    }
    Ok(())
}
