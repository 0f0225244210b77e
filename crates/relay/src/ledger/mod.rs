//! The ledger: what exists, whose it is, and what was done. Its commit is what makes an object exist.
//!
//! Contract, for the callers; what the databases beneath owe is written on [`Database`](database::Database):
//! - every method that changes something is one transaction, all or nothing, durable when it returns `Ok`, whatever other
//!   nodes do at the same time;
//! - quota is taken in the transaction of the row that needs it, so a race cannot overdraw;
//! - a nonce ([`Once`]) is spent in the transaction of its request's effect, also when that is refused;
//! - nothing here touches blobs: a name is written as *pending* before its file, as *doomed* before its deletion.

mod access;
mod accounts;
mod amend;
mod bundles;
mod check;
mod commit;
mod database;
mod deliveries;
mod devices;
mod health;
mod journal;
mod links;
mod objects;
mod pipelines;
mod roles;
mod rotations;
mod row;
mod schema;
mod store;
mod sweep;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use pouch_protocol::ProblemKind;
use pouch_statement::{PublicKey, Timestamp};

use self::database::{Conn, Database, PostgresDatabase, SqliteDatabase, Work, query};
use crate::config::Config;
use crate::disk::{self, Disk};

pub(crate) use access::{AccessRow, MANY};
pub(crate) use accounts::{DeviceAccount, Joiner, Until};
pub(crate) use check::{Mended, StoredObject, Summed};
pub(crate) use deliveries::Receipt;
pub(crate) use devices::NOT_OURS;
pub(crate) use objects::{Begun, Finished, LEASE_SECONDS, Sealed, Slot};
pub(crate) use pipelines::Wanted;
pub(crate) use rotations::Rotating;
pub(crate) use row::Limits;
pub(crate) use store::CLAIM_SECONDS;

const FILE: &str = "ledger.sqlite";
/// How long a spent nonce is kept: twice as long as its signature can be valid, for clocks of nodes that differ; and longer than
/// a message of 256 KiB can take to come in, 16 KiB in each `progress_seconds`.
const NONCE_SECONDS: u64 = 4 * pouch_protocol::limits::CLOCK_WINDOW;

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
    /// From a newer relay, by more than one release.
    #[error(
        "the ledger has version {found}, which relays from version {needs} on can use; this one has {known}: install a newer relay"
    )]
    Newer {
        /// Of the ledger.
        found: i64,
        /// That code must at least have.
        needs: i64,
        /// Of this code.
        known: i64,
    },
    /// A database that holds one already, or something else.
    #[error(
        "the database holds a relay's ledger already; a further node gets a copy of `relay.toml` and `keys/`, \
             and what an interrupted `init` left is to be dropped"
    )]
    Exists,
    /// A database without one.
    #[error("the database holds no relay's ledger; `pouch relay init` makes one")]
    Missing,
    /// The address of the database.
    #[error("the configuration's `ledger` cannot be used: {0}")]
    Url(&'static str),
    /// The server says nothing.
    #[error("the ledger's database server did not answer within {0} seconds")]
    Silent(u64),
    /// The server is too old.
    #[error("the ledger's database server is PostgreSQL {0}; it must be 15 or newer")]
    Server(String),
    /// The database cannot give the durability that the relay promises.
    #[error("the ledger's setting {name} is {found}, it must be {must}")]
    Setting {
        /// Which.
        name: &'static str,
        /// What the database says.
        found: String,
        /// What it must say.
        must: &'static str,
    },
    /// Locks and fsync cannot be trusted there.
    #[error("{} lies on a network file system; the ledger needs a local one", .0.display())]
    Network(PathBuf),
    /// The database.
    #[error("ledger: {0}")]
    Sql(#[from] sqlx::Error),
    /// Too much to do.
    #[error("the ledger is busy")]
    Busy,
    /// A row that this code never wrote.
    #[error("the ledger is damaged: {0}")]
    Damaged(&'static str),
}

/// Why a transaction had no effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The answer is no.
    #[error("refused: {}", .0.word())]
    Refused(ProblemKind, Cow<'static, str>),
    /// The database.
    #[error("ledger: {0}")]
    Sql(#[from] sqlx::Error),
    /// The database, at the commit of a group of works.
    #[error("ledger: {0}")]
    Group(Arc<sqlx::Error>),
    /// The connection broke during the commit: it took effect, or not.
    #[error("ledger: it is not known whether a transaction was committed: {0}")]
    Unsure(sqlx::Error),
    /// More waits than may.
    #[error("the ledger is busy")]
    Busy,
    /// A row that this code never wrote.
    #[error("the ledger is damaged: {0}")]
    Damaged(&'static str),
}

/// What an error means to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The disk is full.
    Full,
    /// Asking again may help.
    Passing,
    /// The operator has to look.
    Broken,
}

impl LedgerError {
    /// What it means.
    pub(crate) fn cause(&self) -> Cause {
        let error = match self {
            Self::Busy | Self::Unsure(_) => return Cause::Passing,
            Self::Refused(..) | Self::Damaged(_) => return Cause::Broken,
            Self::Sql(error) => error,
            Self::Group(error) => &**error,
        };
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref().and_then(cause_of) {
            Some(cause) => cause,
            None if matches!(error, sqlx::Error::PoolTimedOut) || database::may_retry(error) => Cause::Passing,
            None => Cause::Broken,
        }
    }
}

/// What a database's code says by itself: an SQLSTATE of five characters (PostgreSQL, Appendix A), or a number of SQLite,
/// which has four digits at most (sqlite.org/rescode.html).
fn cause_of(code: &str) -> Option<Cause> {
    if code.len() == 5 {
        // disk_full
        return (code == "53100").then_some(Cause::Full);
    }
    // Extended codes have the primary one in the low byte.
    match code.parse::<u32>().ok()? & 0xff {
        // SQLITE_FULL, SQLITE_BUSY
        13 => Some(Cause::Full),
        5 => Some(Cause::Passing),
        _ => None,
    }
}

impl From<LedgerError> for LedgerOpenError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Sql(error) | LedgerError::Unsure(error) => Self::Sql(error),
            LedgerError::Group(error) => Self::Sql(sqlx::Error::Protocol(error.to_string())),
            LedgerError::Busy => Self::Busy,
            LedgerError::Damaged(what) => Self::Damaged(what),
            LedgerError::Refused(_, Cow::Borrowed(what)) => Self::Damaged(what),
            LedgerError::Refused(..) => Self::Damaged("a refusal where nobody asked"),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, LedgerError>;

fn refuse<T>(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Result<T> {
    Err(LedgerError::Refused(kind, detail.into()))
}

/// A request that is accepted once.
#[derive(Clone, Copy)]
pub(crate) struct Once {
    /// Whose.
    pub(crate) account: i64,
    /// From its signature.
    pub(crate) nonce: [u8; 16],
    /// The device key that signed, which must still be enrolled when the effect comes; none where it is about to be.
    pub(crate) device: Option<PublicKey>,
}

/// The ledger, in one database or the other.
pub(crate) struct Ledger {
    database: Box<dyn Database>,
}

/// A work as a closure over what it needs; where its value goes.
struct Step<S, F, T> {
    state: S,
    work: F,
    value: Arc<Mutex<Option<T>>>,
}

impl<S, F, T> Work for Step<S, F, T>
where
    S: Send + Sync,
    F: for<'a> Fn(&'a mut Conn, &'a S) -> BoxFuture<'a, Result<T>> + Send + Sync,
    T: Send,
{
    fn run<'a>(&'a self, conn: &'a mut Conn) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let value = (self.work)(conn, &self.state).await?;
            *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            Ok(())
        })
    }
}

impl Ledger {
    /// A new ledger: a file in the data folder, or tables in a database that has none.
    pub(crate) async fn create(config: &Config) -> std::result::Result<Self, LedgerOpenError> {
        if config.ledger.is_none() {
            let path = config.data.join(FILE);
            // Made here and not by SQLite: its mode passes on to WAL and index files (attacks.md 60).
            Disk::default().write_new(&path, b"").map_err(|source| LedgerOpenError::File { path, source })?;
        }
        Self::open_as(config, schema::Wanted::New).await
    }

    /// Whether [`Ledger::create`] would find a database that it can use; nothing is made.
    pub(crate) async fn can_create(config: &Config) -> std::result::Result<(), LedgerOpenError> {
        let Some(url) = &config.ledger else { return Ok(()) };
        let database = PostgresDatabase::open(url, config.ledger_password_file.as_deref(), 1).await?;
        let found = schema::version(&mut database.look().await?).await;
        database.close().await;
        if found?.is_some() { Err(LedgerOpenError::Exists) } else { Ok(()) }
    }

    /// The ledger of the configuration; the caller holds the data folder's lock.
    pub(crate) async fn open(config: &Config) -> std::result::Result<Self, LedgerOpenError> {
        Self::open_as(config, schema::Wanted::Any).await
    }

    async fn open_as(config: &Config, wanted: schema::Wanted) -> std::result::Result<Self, LedgerOpenError> {
        let database: Box<dyn Database> = match &config.ledger {
            None => {
                let folder = || config.data.clone();
                let on_network = disk::is_on_network(&config.data);
                if on_network.map_err(|source| LedgerOpenError::File { path: folder(), source })? {
                    return Err(LedgerOpenError::Network(folder()));
                }
                let database = SqliteDatabase::open(&config.data.join(FILE)).await?;
                schema::migrate(database.migrating().await?, wanted).await?;
                Box::new(database)
            }
            Some(url) => {
                let password = config.ledger_password_file.as_deref();
                let database = PostgresDatabase::open(url, password, config.ledger_connections).await?;
                schema::migrate(database.migrating().await?, wanted).await?;
                Box::new(database)
            }
        };
        Ok(Self { database })
    }

    pub(crate) async fn close(&self) {
        self.database.close().await;
    }

    /// Whether no other node can be at work on this ledger.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.database.is_exclusive()
    }

    /// Of how many works at once one account may be.
    pub(crate) fn share(&self) -> usize {
        self.database.share()
    }

    /// Whether works can be written.
    pub(crate) async fn is_writable(&self) -> Result<bool> {
        self.database.is_writable().await
    }

    /// A consistent state for several statements.
    async fn read(&self) -> Result<Conn> {
        self.database.read().await
    }

    /// A connection for one statement.
    async fn look(&self) -> Result<Conn> {
        self.database.look().await
    }

    /// Runs `work` as one durable transaction. It may run more than once, and gets what it needs as `state`.
    async fn write<S, T, F>(&self, state: S, work: F) -> Result<T>
    where
        S: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Conn, &'a S) -> BoxFuture<'a, Result<T>> + Send + Sync + 'static,
    {
        let value = Arc::new(Mutex::new(None));
        self.database.write(Box::new(Step { state, work, value: Arc::clone(&value) })).await?;
        let value = value.lock().unwrap_or_else(PoisonError::into_inner).take();
        value.ok_or(LedgerError::Damaged("a work without an outcome"))
    }

    /// [`Ledger::write`] for a request that is accepted once: its nonce is spent with the effect, and also when the effect
    /// is refused, which then is undone alone.
    async fn write_once<S, T, F>(&self, once: Once, now: Timestamp, state: S, work: F) -> Result<T>
    where
        S: Send + Sync + 'static,
        T: Send + 'static,
        F: for<'a> Fn(&'a mut Conn, &'a S) -> BoxFuture<'a, Result<T>> + Send + Sync + 'static,
    {
        let outcome = self.write((state, work), move |conn, (state, work)| {
            Box::pin(async move {
                spend(conn, once, now).await?;
                within_savepoint(conn, state, work).await
            })
        });
        outcome.await?
    }
}

/// Runs `work`; a refusal is undone and becomes the value, so that what came before it is kept.
async fn within_savepoint<S, T, F>(conn: &mut Conn, state: &S, work: &F) -> Result<Result<T>>
where
    F: for<'a> Fn(&'a mut Conn, &'a S) -> BoxFuture<'a, Result<T>>,
{
    query("SAVEPOINT effect").execute(conn).await?;
    match work(conn, state).await {
        Ok(value) => {
            query("RELEASE SAVEPOINT effect").execute(conn).await?;
            Ok(Ok(value))
        }
        Err(refused @ LedgerError::Refused(..)) => {
            query("ROLLBACK TO SAVEPOINT effect").execute(conn).await?;
            query("RELEASE SAVEPOINT effect").execute(conn).await?;
            Ok(Err(refused))
        }
        Err(error) => Err(error),
    }
}

async fn spend(conn: &mut Conn, once: Once, now: Timestamp) -> Result<()> {
    still_good(conn, once, now).await?;
    let fresh = query("INSERT INTO nonce (account, nonce, expires) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(once.account)
        .bind(once.nonce.as_slice())
        .bind(int(now.plus(NONCE_SECONDS).unix()))
        .execute(conn)
        .await?;
    if fresh == 0 { refuse(ProblemKind::Replay, "") } else { Ok(()) }
}

/// A body may take long after its head was judged: what was revoked or suspended, or came to its end, meanwhile has no effect.
async fn still_good(conn: &mut Conn, once: Once, now: Timestamp) -> Result<()> {
    let row = query(
        "SELECT d.device_key, COALESCE(a.suspended, m.suspended) AS suspended, p.expires, p.revoked
         FROM account a LEFT JOIN device d ON d.account = a.seq AND d.device_key = $2
         LEFT JOIN pipeline p ON p.account = a.seq LEFT JOIN account m ON m.seq = p.maker
         WHERE a.seq = $1",
    );
    let row = row.bind(once.account).bind(once.device.map(|key| key.as_bytes().to_vec()));
    let row = row.fetch_one(conn).await?;
    // Without a key that is enrolled the account was judged as the request came.
    if once.device.is_some() {
        if row.get::<Option<&[u8]>>("device_key")?.is_none() {
            return refuse(ProblemKind::Signature, "the key is not enrolled here");
        }
        if row::maybe_time(&row, "suspended")?.is_some() {
            return refuse(ProblemKind::Suspended, "");
        }
    }
    match Until::read(&row)? {
        Some(until) if until.is_over(now) => refuse(ProblemKind::PipelineOver, ""),
        _ => Ok(()),
    }
}

/// Into the ledger's signed integers; the protocol's limits lie far below.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
