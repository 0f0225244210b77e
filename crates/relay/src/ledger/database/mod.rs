//! The two databases that a ledger can lie in, behind one trait that says what they promise.
//!
//! SQL is written once, for both, and stands beside the rows that it is about. What differs is here: how a transaction
//! begins and becomes durable, which errors mean *again*, how rows are locked, and the words of the tables ([`Kind`]).

mod postgres;
mod query;
mod sqlite;

use futures_util::future::BoxFuture;
use pouch_statement::{BundleId, Sha256Digest};
use sqlx::pool::PoolConnection;
use sqlx::{Postgres, Sqlite, Transaction};

pub(super) use postgres::{PostgresDatabase, may_retry};
pub(super) use query::{Row, query};
pub(super) use sqlite::SqliteDatabase;

use super::{LedgerOpenError, Result};

/// Where a ledger lies.
///
/// **Durability.** When [`write`](Self::write) returns `Ok`, everything its work wrote is on stable storage, and outlives
/// a crash of the process, of the machine, and of the database server. When it returns an error, nothing of it is there;
/// but when the connection broke while the database was committing, one or the other is true, and the error is
/// [`LedgerError::Unsure`](super::LedgerError::Unsure). The settings that this rests on are read back from the database
/// before the first transaction, and on each connection; a database that cannot give them is refused.
///
/// **Atomicity.** A work is one transaction: all of it or nothing. Works may be grouped into one commit; an error in one
/// undoes that one alone.
///
/// **Isolation.** Each statement of a work sees everything that was committed before it. What a work has locked
/// ([`Conn::lock`]), claimed ([`Query::claiming`](query::Query::claiming)) or changed nobody else changes until it ends. So a
/// work that reads something and decides by it locks it first; a counter is checked and changed in one statement; and what may
/// exist once has a unique key. Locks are taken in the order of [`Lock`]'s variants, and several of one kind in ascending
/// order; nothing is locked after the counters of accounts and of the relay but these, account before relay. What deadlocks
/// nonetheless, or meets a row that appeared under its unique key at the same time, is run again.
///
/// **Repetition.** A work may run more than once, each time on what is there by then, and has no effects but on the ledger.
/// It is never run again after a commit whose outcome is not known.
///
/// **Reading.** [`read`](Self::read) gives one consistent state, for several statements; [`look`](Self::look) gives a
/// connection for a single one. Both see everything that was committed before, by any node.
pub(super) trait Database: Send + Sync {
    /// Runs a work as a durable transaction.
    fn write(&self, work: Box<dyn Work>) -> BoxFuture<'_, Result<()>>;

    /// A transaction that only reads, of one state; dropped at its end.
    fn read(&self) -> BoxFuture<'_, Result<Conn>>;

    /// A connection for one statement that only reads.
    fn look(&self) -> BoxFuture<'_, Result<Conn>>;

    /// Whether nobody else can have this ledger open, so that what is under way is this process's alone.
    fn is_exclusive(&self) -> bool;

    /// Of how many works at once one account may be, so that others find the database free.
    fn share(&self) -> usize;

    /// Whether works can be written: not where the database is the standby of another one, which only reads.
    fn is_writable(&self) -> BoxFuture<'_, Result<bool>>;

    /// Waits for the works under way and lets the database go.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What runs as one transaction.
pub(super) trait Work: Send + Sync {
    /// Runs it; any error undoes it.
    fn run<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>>;
}

/// A connection, in a transaction or not. Dropping it undoes what is not committed.
pub(super) struct Conn(Inner);

enum Inner {
    Sqlite(Held<Sqlite>),
    Postgres(Held<Postgres>),
}

enum Held<DB: sqlx::Database> {
    Idle(PoolConnection<DB>),
    Begun(Transaction<'static, DB>),
}

impl<DB: sqlx::Database> Held<DB> {
    fn connection(&mut self) -> &mut DB::Connection {
        match self {
            Self::Idle(connection) => connection,
            Self::Begun(transaction) => transaction,
        }
    }
}

/// Rows that a work locks before it reads what they are about, in the order in which it may lock them.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    /// A bundle with its objects, envelopes and deliveries.
    Bundle(BundleId),
    /// A link, by the hash of its secret's.
    Link(Sha256Digest),
    /// An account, with its number of links.
    Account(i64),
    /// What the relay has one of: its owner, its counter of bytes.
    Relay,
}

impl Conn {
    /// Locks rows until the transaction ends. SQLite has one writer, so that it has nothing to lock.
    pub(super) async fn lock(&mut self, lock: Lock) -> Result<()> {
        if self.kind() == Kind::Sqlite {
            return Ok(());
        }
        let locked = match &lock {
            Lock::Bundle(id) => query("SELECT 1 FROM bundle WHERE id = $1 FOR UPDATE").bind(id.as_bytes().as_slice()),
            Lock::Link(admit) => {
                query("SELECT 1 FROM link WHERE admit_sha256 = $1 FOR UPDATE").bind(admit.as_bytes().as_slice())
            }
            Lock::Account(seq) => query("SELECT 1 FROM account WHERE seq = $1 FOR NO KEY UPDATE").bind(*seq),
            Lock::Relay => query("SELECT 1 FROM space WHERE id = 1 FOR UPDATE"),
        };
        locked.fetch_optional(self).await?;
        Ok(())
    }

    /// Which database this is.
    pub(super) fn kind(&self) -> Kind {
        match self.0 {
            Inner::Sqlite(_) => Kind::Sqlite,
            Inner::Postgres(_) => Kind::Postgres,
        }
    }

    /// Makes what was done durable.
    pub(super) async fn commit(self) -> std::result::Result<(), sqlx::Error> {
        match self.0 {
            Inner::Sqlite(Held::Begun(transaction)) => transaction.commit().await,
            Inner::Postgres(Held::Begun(transaction)) => transaction.commit().await,
            Inner::Sqlite(Held::Idle(_)) | Inner::Postgres(Held::Idle(_)) => Ok(()),
        }
    }
}

/// The words in which the databases differ where tables are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    /// A statement of the schema: `{SEQ}` is a number that the database counts up and never gives twice, `{INT}` an
    /// integer of 64 bits, `{BYTES}` bytes, `{STRICT}` that types are kept to, `{RANDOM}` 16 bytes that nobody else has.
    pub(super) fn statement(self, text: &str) -> String {
        let words = match self {
            Self::Sqlite => [
                ("{SEQ}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
                ("{INT}", "INTEGER"),
                ("{BYTES}", "BLOB"),
                ("{STRICT}", "STRICT"),
                ("{RANDOM}", "randomblob(16)"),
            ],
            Self::Postgres => [
                ("{SEQ}", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
                ("{INT}", "BIGINT"),
                ("{BYTES}", "BYTEA"),
                ("{STRICT}", ""),
                ("{RANDOM}", "uuid_send(gen_random_uuid())"),
            ],
        };
        words.iter().fold(text.to_owned(), |text, (word, with)| text.replace(word, with))
    }
}

impl Conn {
    /// A statement of the schema.
    pub(super) async fn define(&mut self, text: &str) -> std::result::Result<(), LedgerOpenError> {
        let statement = sqlx::AssertSqlSafe(self.kind().statement(text));
        match &mut self.0 {
            Inner::Sqlite(held) => sqlx::query(statement).execute(held.connection()).await.map(|_| ())?,
            Inner::Postgres(held) => sqlx::query(statement).execute(held.connection()).await.map(|_| ())?,
        }
        Ok(())
    }
}
