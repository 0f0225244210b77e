//! PostgreSQL 15 or newer, for any number of nodes.
//!
//! Transactions are READ COMMITTED and take the row locks that the contract of [`Database`] names; so a work waits for
//! another one instead of failing, also at the counters that all uploads share, where SERIALIZABLE would let all but one
//! of them begin anew (docs/decisions/0013-ledger-over-two-databases.md). PostgreSQL groups the commits of its sessions.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use url::Url;

use super::{Conn, Database, Held, Inner, Work};
use crate::ledger::{LedgerError, LedgerOpenError, Result};

/// The oldest server, as `server_version_num`.
const OLDEST: i32 = 150_000;
/// How long a connection is waited for, and how long a work is begun again when connections break.
const PATIENCE: Duration = Duration::from_secs(10);
/// Runs of a work that meets others; deadlocks and collisions end within a few.
const TRIES: u32 = 8;
/// An idle connection is tried before it is used when it was idle for so long.
const IDLE: Duration = Duration::from_secs(1);
/// What each session has, whatever the server's and the role's defaults are. A session that hangs in a transaction (its
/// node is gone) lets its locks go; nobody waits for a lock for ever.
macro_rules! settings {
    ($local:literal) => {
        concat!(
            "SELECT set_config('idle_in_transaction_session_timeout', '60s', ",
            $local,
            "), set_config('lock_timeout', '10s', ",
            $local,
            "), set_config('statement_timeout', '60s', ",
            $local,
            "), set_config('default_transaction_isolation', 'read committed', ",
            $local,
            "), set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'remote_apply'
                 THEN 'remote_apply' ELSE 'on' END, ",
            $local,
            ")"
        )
    };
}
const SESSION: &str = settings!("false");
/// The beginning of a work, in one round trip. The settings once more, for this transaction: a pooler between us and the
/// server may have given it another session than the one that [`SESSION`] was for.
const BEGIN: &str = concat!("BEGIN ISOLATION LEVEL READ COMMITTED; ", settings!("true"));

/// The ledger's database on a server.
pub(in crate::ledger) struct PostgresDatabase {
    pool: PgPool,
}

impl PostgresDatabase {
    /// Connects, and checks what durability rests on.
    pub(in crate::ledger) async fn open(
        url: &str,
        password_file: Option<&Path>,
        connections: u32,
    ) -> std::result::Result<Self, LedgerOpenError> {
        let options = options(url, password_file)?;
        // Not through the pool, which would try again and again and in the end not say why.
        let first = tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options)).await;
        let mut first = first.map_err(|_| LedgerOpenError::Silent(PATIENCE.as_secs()))??;
        sqlx::query(SESSION).execute(&mut first).await?;
        check_settings(&mut first).await?;
        first.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move { if meta.idle_for > IDLE { conn.ping().await.map(|()| true) } else { Ok(true) } })
            })
            .after_connect(|conn, _| Box::pin(async move { sqlx::query(SESSION).execute(conn).await.map(drop) }))
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// A transaction for migrations, alone among all nodes until it ends.
    pub(in crate::ledger) async fn migrating(&self) -> Result<Conn> {
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        // Nodes that start at once wait here for the one that migrates; the number is this program's own.
        for statement in [
            "SET LOCAL lock_timeout = 0",
            "SET LOCAL statement_timeout = 0",
            "SELECT pg_advisory_xact_lock(8097013316)",
        ] {
            sqlx::query(statement).execute(&mut *transaction).await?;
        }
        Ok(Conn(Inner::Postgres(Held::Begun(transaction))))
    }

    /// One run of a work.
    async fn run(&self, work: &dyn Work) -> Run {
        let transaction = match self.pool.begin_with(BEGIN).await {
            Ok(transaction) => transaction,
            Err(error) => return Run::Failed(error.into()),
        };
        let mut conn = Conn(Inner::Postgres(Held::Begun(transaction)));
        if let Err(error) = work.run(&mut conn).await {
            return Run::Failed(error);
        }
        match conn.commit().await {
            Ok(()) => Run::Done,
            // The server said that it did not commit.
            Err(error) if is_collision(&error) => Run::Failed(error.into()),
            Err(error) => Run::Unsure(error),
        }
    }
}

enum Run {
    Done,
    Failed(LedgerError),
    Unsure(sqlx::Error),
}

impl Database for PostgresDatabase {
    fn write(&self, work: Box<dyn Work>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let begun = Instant::now();
            let (mut tries, mut pause) = (0, Duration::from_millis(2));
            loop {
                let error = match self.run(&*work).await {
                    Run::Done => return Ok(()),
                    Run::Failed(LedgerError::Sql(error)) => error,
                    Run::Failed(error) => return Err(error),
                    Run::Unsure(error) => return Err(LedgerError::Unsure(error)),
                };
                tries += 1;
                let again =
                    if is_collision(&error) { tries < TRIES } else { is_broken(&error) && begun.elapsed() < PATIENCE };
                if !again {
                    return Err(error.into());
                }
                tracing::debug!(%error, tries, "a transaction is run again");
                tokio::time::sleep(pause.mul_f64(jitter())).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
        })
    }

    fn read(&self) -> BoxFuture<'_, Result<Conn>> {
        Box::pin(async move {
            let transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            Ok(Conn(Inner::Postgres(Held::Begun(transaction))))
        })
    }

    fn look(&self) -> BoxFuture<'_, Result<Conn>> {
        Box::pin(async move { Ok(Conn(Inner::Postgres(Held::Idle(self.pool.acquire().await?)))) })
    }

    fn is_exclusive(&self) -> bool {
        false
    }

    /// A quarter of the connections. The writes of one account wait for each other at its counters anyway.
    fn share(&self) -> usize {
        (self.pool.options().get_max_connections() as usize / 4).max(1)
    }

    fn is_writable(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT NOT pg_is_in_recovery()").fetch_one(&self.pool).await?;
            Ok(row.try_get(0)?)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.pool.close())
    }
}

/// Between a half and one and a half, so that works that collided do not collide again.
fn jitter() -> f64 {
    let random = pouch_statement::random::<2>().map_or(u16::MAX / 2, u16::from_le_bytes);
    0.5 + f64::from(random) / f64::from(u16::MAX)
}

/// Nothing was done, and another run may find another state: serialization failure, deadlock, and a key that another
/// transaction took meanwhile (PostgreSQL, "Appendix A. PostgreSQL Error Codes").
fn is_collision(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(&*code, "40001" | "40P01" | "23505"))
}

/// The connection or the server went away, or is on its way up.
fn is_broken(error: &sqlx::Error) -> bool {
    match code(error) {
        Some(code) => code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03" | "53300"),
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_)),
    }
}

fn code(error: &sqlx::Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

/// Whether asking again later may help.
pub(in crate::ledger) fn may_retry(error: &sqlx::Error) -> bool {
    // 55P03: a lock was not to be had in time. 57014: the statement took too long. 25006: the server is a standby, until it
    // is promoted or another one is found under its name.
    is_collision(error)
        || is_broken(error)
        || code(error).is_some_and(|code| matches!(&*code, "55P03" | "57014" | "25006"))
}

/// What a ledger's URL may say. A password is not among it: configurations are shown, copied and kept in places where a
/// password should not be.
const KEYS: [&str; 9] =
    ["host", "port", "dbname", "user", "sslmode", "sslrootcert", "sslcert", "sslkey", "application_name"];

/// How to connect. Off this machine the server must prove its name (`verify-full`) or at least that it has a certificate
/// of the authority in `sslrootcert` (`verify-ca`).
fn options(url: &str, password_file: Option<&Path>) -> std::result::Result<PgConnectOptions, LedgerOpenError> {
    let bad = LedgerOpenError::Url;
    let parsed = Url::parse(url).map_err(|_| bad("it must be postgres://USER@HOST/DATABASE"))?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(bad("it must begin with postgres://"));
    }
    if parsed.password().is_some() {
        return Err(bad("a password does not belong into it; `ledger_password_file` names a file that holds it"));
    }
    if parsed.query_pairs().any(|(key, _)| !KEYS.contains(&&*key)) {
        return Err(bad(
            "it has a parameter other than host, port, dbname, user, sslmode, sslrootcert, sslcert, sslkey",
        ));
    }
    // The parser's errors may repeat what it was given; the parts that can be wrong here are known.
    let options = PgConnectOptions::from_url(&parsed).map_err(|_| bad("a value in it cannot be read"))?;
    let mode = if parsed.query_pairs().any(|(key, _)| key == "sslmode") { Some(options.get_ssl_mode()) } else { None };
    let local = options.get_socket().is_some() || is_local(options.get_host());
    let mode = match mode {
        Some(mode @ (PgSslMode::VerifyFull | PgSslMode::VerifyCa)) => mode,
        Some(mode) if local => mode,
        None if local => PgSslMode::Prefer,
        None => PgSslMode::VerifyFull,
        Some(_) => return Err(bad("off this machine its sslmode must be verify-full or verify-ca")),
    };
    let options = options.ssl_mode(mode);
    let options =
        if options.get_application_name().is_none() { options.application_name("pouch-relay") } else { options };
    let Some(path) = password_file else { return Ok(options) };
    let file = |source| LedgerOpenError::File { path: path.to_owned(), source };
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(file)?);
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains(['\r', '\n']) {
        return Err(file(std::io::Error::other("a password is one line of text")));
    }
    Ok(options.password(password))
}

fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.starts_with('/') || host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Version, encoding and the settings that the promise of durability rests on, as the server has them for this session.
async fn check_settings(conn: &mut PgConnection) -> std::result::Result<(), LedgerOpenError> {
    let row = sqlx::query("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
        .fetch_one(&mut *conn)
        .await?;
    if row.try_get::<i32, _>(0)? < OLDEST {
        return Err(LedgerOpenError::Server(row.try_get(1)?));
    }
    let checks: [(&str, &str, &[&str]); 6] = [
        ("fsync", "on", &["on"]),
        ("full_page_writes", "on", &["on"]),
        ("synchronous_commit", "on", &["on", "remote_apply"]),
        ("server_encoding", "UTF8", &["UTF8"]),
        // A standby, or one that was told to keep still.
        ("transaction_read_only", "off", &["off"]),
        ("transaction_isolation", "read committed", &["read committed"]),
    ];
    for (name, must, good) in checks {
        let row = sqlx::query("SELECT current_setting($1)").bind(name).fetch_one(&mut *conn).await?;
        let found: String = row.try_get(0)?;
        if !good.contains(&&*found) {
            return Err(LedgerOpenError::Setting { name, found, must });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn off_this_machine_the_server_proves_who_it_is() {
        let mode = |url: &str| options(url, None).map(|options| format!("{:?}", options.get_ssl_mode()));
        for (url, expected) in [
            ("postgres://pouch@db.example/pouch", "VerifyFull"),
            ("postgres://pouch@db.example/pouch?sslmode=verify-ca&sslrootcert=/ca.pem", "VerifyCa"),
            ("postgres://pouch@10.0.0.7/pouch", "VerifyFull"),
            ("postgresql://pouch@127.0.0.1:5433/pouch", "Prefer"),
            ("postgres://pouch@localhost/pouch?sslmode=disable", "Disable"),
            ("postgres:///pouch?host=/run/postgresql&user=pouch", "Prefer"),
        ] {
            assert_eq!(mode(url).unwrap(), expected, "{url}");
        }
        for bad in [
            "postgres://pouch@db.example/pouch?sslmode=require",
            "postgres://pouch@db.example/pouch?sslmode=disable",
            "postgres://pouch@localhost/pouch?sslmode=nonsense",
            "postgres://pouch@localhost/pouch?options=-cfsync%3Doff",
            "postgres://pouch:secret@localhost/pouch",
            "postgres://pouch@localhost/pouch?password=secret",
            "mysql://pouch@localhost/pouch",
            "not a url",
        ] {
            let error = mode(bad).unwrap_err();
            assert!(matches!(error, LedgerOpenError::Url(_)), "{bad}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_password_comes_from_a_file_of_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            options("postgres://pouch@localhost/pouch", Some(file.path()))
        };
        assert_eq!(read("se cret\n").unwrap().to_url_lossy().password(), Some("se%20cret"));
        for bad in ["", "\n", "two\nlines\n"] {
            assert!(matches!(read(bad), Err(LedgerOpenError::File { .. })), "{bad:?}");
        }
    }
}
