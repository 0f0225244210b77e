//! SQLite in WAL mode: one connection that writes, a few that read, in a folder that one process has locked.
//!
//! **Group commit.** Works wait in a bounded queue for the one task that writes. It begins a transaction, runs what waits,
//! each work within a savepoint, commits, and only then answers; what came meanwhile is the next group. So the works of a
//! group pay for one `fsync` together, and nothing is answered before that. A work that fails is rolled back to its
//! savepoint and answered like the others, after the commit.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Conn, Database, Held, Inner, Work, query};
use crate::ledger::{LedgerError, LedgerOpenError, Result};

const READERS: u32 = 4;
/// Works that wait; whoever comes when it is full waits for a place, so that memory is bounded.
const QUEUE: usize = 1024;
/// Works in one commit: bounds how long the first of them waits for the last.
const GROUP: usize = 128;
/// How long a place in the queue is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ledger's file, opened.
pub(in crate::ledger) struct SqliteDatabase {
    readers: SqlitePool,
    writer: SqlitePool,
    /// `None` once it is closed.
    queue: Mutex<Option<(mpsc::Sender<Queued>, JoinHandle<()>)>>,
}

/// A work and who waits for it.
struct Queued {
    work: Box<dyn Work>,
    answer: oneshot::Sender<Result<()>>,
}

impl SqliteDatabase {
    /// Opens a file that is there; the caller holds the folder's lock.
    pub(in crate::ledger) async fn open(path: &Path) -> std::result::Result<Self, LedgerOpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            // What was revoked, burnt or expired is overwritten, not only unlinked from the tree.
            .pragma("secure_delete", "ON");
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            // After errors that end a transaction by themselves (a full disk) the driver believes that it still runs, and
            // would begin no other: such a connection is replaced.
            .before_acquire(|conn, _| Box::pin(async move { Ok(!conn.is_in_transaction()) }))
            .connect_with(options.clone())
            .await?;
        check_settings(&mut *writer.acquire().await?).await?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        let (sender, receiver) = mpsc::channel(QUEUE);
        let task = tokio::spawn(write_groups(writer.clone(), receiver));
        Ok(Self { readers, writer, queue: Mutex::new(Some((sender, task))) })
    }

    /// The one connection that writes, in a transaction: for migrations, before anything else runs.
    pub(in crate::ledger) async fn migrating(&self) -> Result<Conn> {
        Ok(Conn(Inner::Sqlite(Held::Begun(self.writer.begin_with("BEGIN IMMEDIATE").await?))))
    }
}

impl Database for SqliteDatabase {
    fn write(&self, work: Box<dyn Work>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let sender = self.queue.lock().await.as_ref().map(|(sender, _)| sender.clone());
            let sender = sender.ok_or(LedgerError::Busy)?;
            sender.send_timeout(Queued { work, answer }, PATIENCE).await.map_err(|_| LedgerError::Busy)?;
            // The task that writes ends only when the queue is closed and empty.
            answered.await.unwrap_or(Err(LedgerError::Busy))
        })
    }

    fn read(&self) -> BoxFuture<'_, Result<Conn>> {
        Box::pin(async move { Ok(Conn(Inner::Sqlite(Held::Begun(self.readers.begin().await?)))) })
    }

    fn look(&self) -> BoxFuture<'_, Result<Conn>> {
        Box::pin(async move { Ok(Conn(Inner::Sqlite(Held::Idle(self.readers.acquire().await?)))) })
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    /// All of a commit: whatever waits for it is done at once.
    fn share(&self) -> usize {
        GROUP
    }

    fn is_writable(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async { Ok(true) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some((sender, task)) = self.queue.lock().await.take() {
                drop(sender);
                let _ = task.await;
            }
            self.readers.close().await;
            self.writer.close().await;
        })
    }
}

/// Commits group after group until the queue is closed and empty.
async fn write_groups(writer: SqlitePool, mut queue: mpsc::Receiver<Queued>) {
    while let Some(first) = queue.recv().await {
        let mut done = Vec::new();
        let outcome = write_group(&writer, &mut queue, first, &mut done).await;
        let outcome = outcome.map_err(std::sync::Arc::new);
        for (answer, result) in done {
            let result = match &outcome {
                Ok(()) => result,
                Err(error) => Err(LedgerError::Group(std::sync::Arc::clone(error))),
            };
            let _ = answer.send(result);
        }
    }
}

type Answers = Vec<(oneshot::Sender<Result<()>>, Result<()>)>;

/// One transaction: `first` and what waits behind it. Each one's outcome goes to `done`, and holds when this returns `Ok`.
async fn write_group(
    writer: &SqlitePool,
    queue: &mut mpsc::Receiver<Queued>,
    first: Queued,
    done: &mut Answers,
) -> std::result::Result<(), sqlx::Error> {
    let mut next = Some(first);
    // As an answer first, so that whoever waits hears of whatever goes wrong from here on.
    let begun = writer.begin_with("BEGIN IMMEDIATE").await;
    let mut conn = match begun {
        Ok(transaction) => Conn(Inner::Sqlite(Held::Begun(transaction))),
        Err(error) => {
            done.extend(next.map(|queued| (queued.answer, Ok(()))));
            return Err(error);
        }
    };
    while let Some(Queued { work, answer }) = next {
        let outcome = run_within_savepoint(&mut conn, &*work).await;
        let (result, failed) = match outcome {
            Ok(result) => (result, None),
            Err(error) => (Ok(()), Some(error)),
        };
        done.push((answer, result));
        if let Some(error) = failed {
            return Err(error);
        }
        next = if done.len() < GROUP { queue.try_recv().ok() } else { None };
    }
    conn.commit().await
}

/// The work's outcome; or the error after which the group's transaction cannot go on (some of SQLite's end it by
/// themselves: lang_transaction.html, "Response To Errors Within A Transaction").
async fn run_within_savepoint(conn: &mut Conn, work: &dyn Work) -> std::result::Result<Result<()>, sqlx::Error> {
    raw(conn, "SAVEPOINT work").await?;
    let outcome = AssertUnwindSafe(work.run(conn)).catch_unwind().await;
    let outcome = outcome.unwrap_or(Err(LedgerError::Damaged("a work panicked")));
    match outcome {
        Ok(()) => raw(conn, "RELEASE work").await?,
        Err(error) => {
            let undone = async {
                raw(conn, "ROLLBACK TO work").await?;
                raw(conn, "RELEASE work").await
            };
            return match (undone.await, error) {
                (Ok(()), error) => Ok(Err(error)),
                (Err(_), LedgerError::Sql(error)) | (Err(error), _) => Err(error),
            };
        }
    }
    Ok(Ok(()))
}

async fn raw(conn: &mut Conn, statement: &'static str) -> std::result::Result<(), sqlx::Error> {
    match query(statement).execute(conn).await {
        Ok(_) => Ok(()),
        Err(LedgerError::Sql(error)) => Err(error),
        Err(other) => Err(sqlx::Error::Protocol(other.to_string())),
    }
}

/// The settings that the promise of durability rests on, as SQLite took them and not as they were asked for.
async fn check_settings(conn: &mut SqliteConnection) -> std::result::Result<(), LedgerOpenError> {
    conn.ping().await?;
    let checks = [
        ("journal_mode", "PRAGMA journal_mode", "wal"),
        ("synchronous", "PRAGMA synchronous", "2"),
        ("foreign_keys", "PRAGMA foreign_keys", "1"),
    ];
    for (name, statement, must) in checks {
        let row = sqlx::query(statement).fetch_one(&mut *conn).await?;
        let found = row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|n| n.to_string()))?;
        if found != must {
            return Err(LedgerOpenError::Setting { name, found, must });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn settings_that_were_not_taken_are_refused() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let error = check_settings(&mut conn).await.err().unwrap();
        assert!(matches!(error, LedgerOpenError::Setting { name: "journal_mode", .. }));
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = SqliteConnectOptions::new().filename(file.path()).journal_mode(SqliteJournalMode::Wal);
        let mut conn = SqliteConnection::connect_with(&options.synchronous(SqliteSynchronous::Full)).await.unwrap();
        check_settings(&mut conn).await.unwrap();
        sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut conn).await.unwrap();
        let error = check_settings(&mut conn).await.err().unwrap();
        assert!(matches!(error, LedgerOpenError::Setting { name: "synchronous", .. }));
    }
}
