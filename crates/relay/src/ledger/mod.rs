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
mod health;
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
    async fn what_was_there_before_it_was_charged_is_charged_by_the_migration() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let path = config.data.join(FILE);
        Disk::default().write_new(&path, b"").unwrap();
        let options = SqliteConnectOptions::new().filename(&path).foreign_keys(false);
        let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
        schema::migrate_to(&mut conn, 1).await.unwrap();
        // One account; pending with two envelopes, delivered to two of whom one has sent a receipt, revoked before and
        // after the release.
        let receipt = "'verified', x'00', zeroblob(300)";
        for statement in [
            "INSERT INTO account (mailbox, fingerprint, name, role, card_statement, card_signature, created, used, bundles)
             VALUES (x'01', x'01', 'ada', 'owner', '', '', 1, 1000, 2)".to_owned(),
            "UPDATE space SET used = 1000".to_owned(),
            "INSERT INTO bundle (seq, id, sender, state, created, touched, committed, expires, burn, ended) VALUES
             (1, x'01', 1, 'pending', 1, 1, NULL, 9, 0, NULL), (2, x'02', 1, 'committed', 1, 1, 1, 9, 0, NULL),
             (3, x'03', 1, 'revoked', 1, 1, 1, 9, 0, 2), (4, x'04', 1, 'revoked', 1, 1, 1, 9, 0, 2)".to_owned(),
            "INSERT INTO envelope (bundle, account, sha256, sealed) VALUES (1, 1, x'', x''), (1, 2, x'', x'')".to_owned(),
            format!("INSERT INTO delivery (bundle, account, released, received, outcome, commitment, sealed) VALUES
             (2, 1, 1, 1, {receipt}), (2, 2, NULL, NULL, NULL, NULL, NULL),
             (3, 1, NULL, NULL, NULL, NULL, NULL), (4, 1, 1, NULL, NULL, NULL, NULL)"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut conn).await.unwrap();
        }
        conn.close().await.unwrap();
        let ledger = Ledger::open(&config).await.unwrap();
        let row = sqlx::query("SELECT used, ended, (SELECT used FROM space) AS space FROM account");
        let row = row.fetch_one(&ledger.readers).await.unwrap();
        let number = |column| row.get::<i64, _>(column);
        let room = pouch_protocol::limits::MAX_RECEIPT as i64;
        // Two that may come for the pending one, one that came and one that may, none, one that may.
        let used = 1000 + 2 * room + (300 + room) + room;
        assert_eq!((number("used"), number("space"), number("ended")), (used, used, 2));
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
