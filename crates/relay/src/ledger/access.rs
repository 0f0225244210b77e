//! The access record: appended in groups, read by page, pruned at the retention limit.

use std::sync::Arc;

use super::database::{Conn, query};
use super::row::{bytes, time, uint};
use super::{Ledger, LedgerError, Result, int};
use pouch_protocol::limits::MAX_PAGE;
use pouch_protocol::{Access, AccessPage};
use pouch_statement::{BundleId, MailboxId, Timestamp};

/// The address of rows that stand for many.
pub(crate) const MANY: &str = "*";

/// One attempt, or many alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessRow {
    pub(crate) time: Timestamp,
    pub(crate) account: Option<MailboxId>,
    pub(crate) address: String,
    pub(crate) method: &'static str,
    pub(crate) route: String,
    pub(crate) bundle: Option<BundleId>,
    pub(crate) status: u16,
    pub(crate) problem: Option<&'static str>,
    pub(crate) count: u64,
}

impl Ledger {
    /// Appends rows in one transaction. Counted rows of one minute are added up.
    pub(crate) async fn record(&self, rows: Arc<Vec<AccessRow>>) -> Result<()> {
        self.write(rows, |conn, rows| Box::pin(record(conn, rows))).await
    }

    /// One page, newest first: everything, or what `only` did and what was done to bundles that they sent.
    pub(crate) async fn access(&self, only: Option<(i64, MailboxId)>, after: Option<u64>) -> Result<AccessPage> {
        let before = int(after.unwrap_or(u64::MAX));
        let mut conn = self.look().await?;
        let rows =
            match only {
                None => {
                    query("SELECT * FROM access WHERE seq < $1 ORDER BY seq DESC LIMIT $2")
                        .bind(before)
                        .bind(i64::from(MAX_PAGE))
                        .fetch_all(&mut conn)
                        .await?
                }
                Some((account, mailbox)) => query(
                    // Each half from the end of its own index; with OR it would be the whole record, or all of one of them.
                    "SELECT * FROM (
                         SELECT * FROM (SELECT * FROM access WHERE account = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2) AS own
                         UNION
                         SELECT * FROM (SELECT * FROM access WHERE sender = $4 AND seq < $1 ORDER BY seq DESC LIMIT $2) AS of_mine
                     ) AS seen ORDER BY seq DESC LIMIT $2",
                )
                .bind(before)
                .bind(i64::from(MAX_PAGE))
                .bind(mailbox.as_bytes().as_slice())
                .bind(account)
                .fetch_all(&mut conn)
                .await?,
            };
        let mut page = AccessPage { records: Vec::with_capacity(rows.len()), next: None };
        for row in &rows {
            let problem: String = row.get("problem")?;
            let account: Option<Vec<u8>> = row.get("account")?;
            let bundle: Option<Vec<u8>> = row.get("bundle")?;
            page.records.push(Access {
                seq: uint(row, "seq")?,
                time: time(row, "time")?,
                account: account.map(|_| bytes(row, "account").map(MailboxId::from_bytes)).transpose()?,
                address: row.get("address")?,
                method: row.get("method")?,
                route: row.get("route")?,
                bundle: bundle.map(|_| bytes(row, "bundle").map(BundleId::from_bytes)).transpose()?,
                status: u16::try_from(uint(row, "status")?).map_err(|_| LedgerError::Damaged("status"))?,
                problem: Some(problem).filter(|p| !p.is_empty()),
                count: uint(row, "count")?,
            });
        }
        if rows.len() == MAX_PAGE as usize {
            page.next = page.records.last().map(|record| record.seq);
        }
        Ok(page)
    }
}

async fn record(conn: &mut Conn, rows: &[AccessRow]) -> Result<()> {
    for row in rows {
        query(
            "INSERT INTO access (time, account, address, method, route, bundle, sender, status, problem, count)
             VALUES ($1, $2, $3, $4, $5, $6, (SELECT sender FROM bundle WHERE id = $6), $7, $8, $9)
             ON CONFLICT (time, method, route, status, problem) WHERE address = '*'
             DO UPDATE SET count = access.count + excluded.count",
        )
        .bind(int(row.time.unix()))
        .bind(row.account.map(|a| a.as_bytes().to_vec()))
        .bind(row.address.as_str())
        .bind(row.method)
        .bind(row.route.as_str())
        .bind(row.bundle.map(|b| b.as_bytes().to_vec()))
        .bind(i64::from(row.status))
        .bind(row.problem.unwrap_or(""))
        .bind(int(row.count))
        .execute(conn)
        .await?;
    }
    Ok(())
}
