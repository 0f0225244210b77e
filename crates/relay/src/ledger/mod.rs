//! The ledger: what exists, whose it is, and what was done. Its commit is what makes an object exist.
//!
//! Contract, for the callers and for whatever replaces SQLite:
//! - one writer at a time; every method is one transaction, all or nothing, durable when it returns `Ok`;
//! - quota is taken in the transaction of the row that needs it, so a race cannot overdraw;
//! - a nonce ([`Once`]) is spent in the transaction of its request's effect, also when that is refused;
//! - nothing here touches blobs: a name is written as *pending* before its file, as *doomed* before its deletion.

mod access;
mod accounts;
mod bundles;
mod commit;
mod deliveries;
mod links;
mod objects;
mod row;
mod schema;
mod sweep;

use std::path::PathBuf;
use std::time::Duration;

use pouch_protocol::ProblemKind;
use pouch_statement::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, Sqlite, SqliteConnection, Transaction};

use crate::config::Config;
use crate::disk::{self, Disk};

pub(crate) use access::{AccessRow, MANY};
pub(crate) use accounts::Joiner;
pub(crate) use deliveries::Receipt;
pub(crate) use objects::{Begun, Slot};
pub(crate) use row::Limits;

const FILE: &str = "ledger.sqlite";
const READERS: u32 = 4;
/// How long a spent nonce is kept: twice the clock window, so that no signature outlives its nonce.
const NONCE_SECONDS: u64 = 2 * pouch_protocol::limits::CLOCK_WINDOW;

/// Why the ledger is not opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerOpenError {
    /// Its files.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// From a newer relay.
    #[error("the ledger has version {found}, this relay knows up to {known}; install the newer one again")]
    Newer {
        /// Of the file.
        found: i64,
        /// Of this code.
        known: i64,
    },
    /// SQLite cannot give the durability that the relay promises.
    #[error("the ledger's setting {name} is {found}, it must be {must}")]
    Setting {
        /// The pragma.
        name: &'static str,
        /// What SQLite says.
        found: String,
        /// What it must say.
        must: &'static str,
    },
    /// Locks and fsync cannot be trusted there.
    #[error("{} lies on a network file system; the ledger needs a local one", .0.display())]
    Network(PathBuf),
    /// SQLite.
    #[error("ledger: {0}")]
    Sql(#[from] sqlx::Error),
    /// A row that this code never wrote.
    #[error("the ledger is damaged: {0}")]
    Damaged(&'static str),
}

/// Why a transaction had no effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The answer is no.
    #[error("refused: {}", .0.word())]
    Refused(ProblemKind, &'static str),
    /// SQLite.
    #[error("ledger: {0}")]
    Sql(#[from] sqlx::Error),
    /// A row that this code never wrote.
    #[error("the ledger is damaged: {0}")]
    Damaged(&'static str),
}

impl From<LedgerError> for LedgerOpenError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Sql(error) => Self::Sql(error),
            LedgerError::Damaged(what) => Self::Damaged(what),
            LedgerError::Refused(_, what) => Self::Damaged(what),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, LedgerError>;

fn refuse<T>(kind: ProblemKind, detail: &'static str) -> Result<T> {
    Err(LedgerError::Refused(kind, detail))
}

/// A request that is accepted once.
#[derive(Clone, Copy)]
pub(crate) struct Once {
    /// Whose.
    pub(crate) account: i64,
    /// From its signature.
    pub(crate) nonce: [u8; 16],
}

/// SQLite in WAL mode: one connection that writes, a few that read.
pub(crate) struct Ledger {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Ledger {
    /// A new ledger in the data folder.
    pub(crate) async fn create(config: &Config) -> std::result::Result<Self, LedgerOpenError> {
        let path = config.data.join(FILE);
        // Made here and not by SQLite: its mode passes on to WAL and index files (attacks.md 60).
        Disk::default().write_new(&path, b"").map_err(|source| LedgerOpenError::File { path, source })?;
        Self::open(config).await
    }

    /// The ledger of the data folder; the caller holds the folder's lock.
    pub(crate) async fn open(config: &Config) -> std::result::Result<Self, LedgerOpenError> {
        let path = config.data.join(FILE);
        let on_network = disk::is_on_network(&config.data)
            .map_err(|source| LedgerOpenError::File { path: config.data.clone(), source })?;
        if on_network {
            return Err(LedgerOpenError::Network(config.data.clone()));
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            // What was revoked, burnt or expired is overwritten, not only unlinked from the tree.
            .pragma("secure_delete", "ON");
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        let mut conn = writer.acquire().await?;
        check_settings(&mut conn).await?;
        schema::migrate(&mut conn).await?;
        drop(conn);
        Ok(Self { writer, readers })
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.readers.begin().await?)
    }

    /// Begins the transaction of a request that is accepted once; [`Ledger::settle`] ends it.
    async fn begin_once(&self, once: Once, now: Timestamp) -> Result<Transaction<'static, Sqlite>> {
        let mut tx = self.begin().await?;
        let fresh =
            sqlx::query("INSERT INTO nonce (account, nonce, expires) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                .bind(once.account)
                .bind(once.nonce.as_slice())
                .bind(int(now.plus(NONCE_SECONDS).unix()))
                .execute(&mut *tx)
                .await?
                .rows_affected();
        if fresh == 0 {
            return refuse(ProblemKind::Replay, "");
        }
        sqlx::query("SAVEPOINT effect").execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Commits effect and nonce; or, when the effect was refused, the nonce alone.
    async fn settle<T>(&self, mut tx: Transaction<'static, Sqlite>, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => {}
            Err(LedgerError::Refused(..)) => {
                sqlx::query("ROLLBACK TO effect").execute(&mut *tx).await?;
            }
            Err(_) => {
                tx.rollback().await?;
                return outcome;
            }
        }
        tx.commit().await?;
        outcome
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

/// Into the ledger's signed integers; the protocol's limits lie far below.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_newer_ledger_is_refused_with_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let ledger = Ledger::create(&config).await.unwrap();
        sqlx::query("INSERT INTO schema_version (version) VALUES (99)").execute(&ledger.writer).await.unwrap();
        ledger.close().await;
        let error = Ledger::open(&config).await.err().unwrap();
        assert!(matches!(error, LedgerOpenError::Newer { found: 99, known: schema::VERSION }));
    }

    #[tokio::test]
    async fn settings_that_were_not_taken_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let ledger = Ledger::create(&config).await.unwrap();
        let mut conn = ledger.writer.acquire().await.unwrap();
        sqlx::query("PRAGMA synchronous = OFF").execute(&mut *conn).await.unwrap();
        let error = check_settings(&mut conn).await.err().unwrap();
        assert!(matches!(error, LedgerOpenError::Setting { name: "synchronous", .. }));
    }
}
