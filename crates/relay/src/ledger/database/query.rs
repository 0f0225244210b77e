//! One statement for either database. Values are 64-bit integers, text, bytes, or NULL of one of these: what both know
//! under the same SQL. Statements are constants, so what comes from outside is always a value (attacks.md 51).

use sqlx::{AssertSqlSafe, Postgres, Sqlite};

use super::{Conn, Inner};
use crate::ledger::Result;

/// A value on its way in.
pub(in crate::ledger) enum Value<'v> {
    Int(Option<i64>),
    Text(Option<std::borrow::Cow<'v, str>>),
    Bytes(Option<std::borrow::Cow<'v, [u8]>>),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(value: &'v str) -> Self {
        Self::Text(Some(value.into()))
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(Some(value.into()))
    }
}

impl From<Option<String>> for Value<'_> {
    fn from(value: Option<String>) -> Self {
        Self::Text(value.map(Into::into))
    }
}

impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(value: &'v [u8]) -> Self {
        Self::Bytes(Some(value.into()))
    }
}

impl From<Option<Vec<u8>>> for Value<'_> {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Bytes(value.map(Into::into))
    }
}

/// A statement with its values.
pub(in crate::ledger) struct Query<'v> {
    sql: &'static str,
    values: Vec<Value<'v>>,
    claims: Option<&'static str>,
}

/// A statement without values yet.
pub(in crate::ledger) fn query<'v>(sql: &'static str) -> Query<'v> {
    Query { sql, values: Vec::new(), claims: None }
}

/// The statement for one of the databases, ready to run.
macro_rules! ready {
    ($database:ty, $query:expr) => {{
        let Query { sql, values, claims } = $query;
        let mut ready = match claims {
            Some(alias) if <$database as Claims>::CAN => {
                sqlx::query::<$database>(AssertSqlSafe(format!("{sql} FOR UPDATE OF {alias} SKIP LOCKED")))
            }
            _ => sqlx::query::<$database>(sql),
        };
        for value in values {
            ready = match value {
                Value::Int(value) => ready.bind(value),
                Value::Text(value) => ready.bind(value),
                Value::Bytes(value) => ready.bind(value.map(std::borrow::Cow::into_owned)),
            };
        }
        ready
    }};
}

/// Whether a database has row locks to claim with.
trait Claims {
    const CAN: bool;
}

impl Claims for Sqlite {
    const CAN: bool = false;
}

impl Claims for Postgres {
    const CAN: bool = true;
}

impl<'v> Query<'v> {
    /// The next value: `$1`, `$2`, …
    pub(in crate::ledger) fn bind(mut self, value: impl Into<Value<'v>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Locks the rows that it finds in the table `alias` until the transaction ends, and passes over those that another
    /// node has. Alone on SQLite nothing is to be locked.
    pub(in crate::ledger) fn claiming(mut self, alias: &'static str) -> Self {
        self.claims = Some(alias);
        self
    }

    /// Runs it; how many rows it changed.
    pub(in crate::ledger) async fn execute(self, conn: &mut Conn) -> Result<u64> {
        Ok(match &mut conn.0 {
            Inner::Sqlite(held) => ready!(Sqlite, self).execute(held.connection()).await?.rows_affected(),
            Inner::Postgres(held) => ready!(Postgres, self).execute(held.connection()).await?.rows_affected(),
        })
    }

    /// The first row, if there is one.
    pub(in crate::ledger) async fn fetch_optional(self, conn: &mut Conn) -> Result<Option<Row>> {
        Ok(match &mut conn.0 {
            Inner::Sqlite(held) => ready!(Sqlite, self).fetch_optional(held.connection()).await?.map(Row::Sqlite),
            Inner::Postgres(held) => ready!(Postgres, self).fetch_optional(held.connection()).await?.map(Row::Postgres),
        })
    }

    /// The row that must be there.
    pub(in crate::ledger) async fn fetch_one(self, conn: &mut Conn) -> Result<Row> {
        Ok(self.fetch_optional(conn).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    /// All rows.
    pub(in crate::ledger) async fn fetch_all(self, conn: &mut Conn) -> Result<Vec<Row>> {
        Ok(match &mut conn.0 {
            Inner::Sqlite(held) => {
                ready!(Sqlite, self).fetch_all(held.connection()).await?.into_iter().map(Row::Sqlite).collect()
            }
            Inner::Postgres(held) => {
                ready!(Postgres, self).fetch_all(held.connection()).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }
}

/// A row on its way out.
pub(in crate::ledger) enum Row {
    Sqlite(sqlx::sqlite::SqliteRow),
    Postgres(sqlx::postgres::PgRow),
}

/// What a column can be read as.
pub(in crate::ledger) trait Column<'r>:
    sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> + sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>
{
}

impl<'r, T> Column<'r> for T where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> + sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>
{
}

impl Row {
    /// A column by its name.
    pub(in crate::ledger) fn get<'r, T: Column<'r>>(&'r self, column: &str) -> Result<T> {
        Ok(match self {
            Self::Sqlite(row) => sqlx::Row::try_get(row, column)?,
            Self::Postgres(row) => sqlx::Row::try_get(row, column)?,
        })
    }
}
