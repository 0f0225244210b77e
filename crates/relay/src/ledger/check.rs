//! What `relay check` asks of the ledger: its own sums, its objects by page, and the repairs.
//!
//! All of it may run while nodes serve. A counter and the rows that it counts change in one transaction, the counter under
//! its lock; so whoever holds that lock and adds up what is committed gets the number that the counter must have.

use pouch_statement::{BundleId, Timestamp};

use super::database::{Conn, Lock, Row, query};
use super::objects::INDEX;
use super::row::{bytes, give_space, uint};
use super::{Ledger, Result, int};
use crate::blob::BlobName;

/// Rows of one page.
const PAGE: i64 = 500;

/// A counter that is not the sum of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongSum {
    /// Of what: an account's or bundle's number, or the relay's.
    pub(crate) of: String,
    /// Which counter.
    pub(crate) counter: &'static str,
    /// What it says.
    pub(crate) says: i64,
    /// What its rows say.
    pub(crate) must: i64,
}

/// A stored object and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredObject {
    pub(crate) bundle: BundleId,
    /// `None`: the index.
    pub(crate) part: Option<u32>,
    pub(crate) blob: BlobName,
    pub(crate) length: u64,
    pub(crate) digest: [u8; 32],
    /// Where the next page begins.
    place: (i64, i64),
}

/// What is done about an object whose blob is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mended {
    /// Its bundle is pending: the object is forgotten, and its sender puts it again.
    Forgotten,
    /// Its bundle is delivered: it is marked, and answers that it is damaged.
    Marked,
    /// It is over, or not there any more.
    Over,
}

const ACCOUNTS: &str = "SELECT a.seq, a.used, a.bundles, a.ended,
         CAST(COALESCE((SELECT SUM(b.receipts + CASE WHEN b.ended IS NULL THEN b.size ELSE 0 END)
                        FROM bundle b WHERE b.sender = a.seq), 0)
            + COALESCE((SELECT SUM(p.length) FROM blob p WHERE p.account = a.seq AND p.state = 'pending'), 0)
            AS BIGINT) AS held,
         (SELECT COUNT(*) FROM bundle b WHERE b.sender = a.seq AND b.ended IS NULL) AS live,
         (SELECT COUNT(*) FROM bundle b WHERE b.sender = a.seq AND b.ended IS NOT NULL) AS over
     FROM account a WHERE a.seq >= $1 AND a.seq <= $2 ORDER BY a.seq";

const BUNDLES: &str = "SELECT b.seq, b.size,
         CAST(COALESCE((SELECT SUM(o.length) FROM object o WHERE o.bundle = b.seq), 0)
            + COALESCE((SELECT SUM(length(e.sealed)) FROM envelope e WHERE e.bundle = b.seq), 0) AS BIGINT) AS held
     FROM bundle b WHERE b.ended IS NULL ORDER BY b.seq";

/// What [`object`] reads.
macro_rules! select_object {
    ($tail:literal) => {
        concat!(
            "SELECT o.bundle, o.number, o.length, o.digest, o.blob, b.id \
             FROM object o JOIN bundle b ON b.seq = o.bundle ",
            $tail
        )
    };
}

fn object(row: &Row) -> Result<StoredObject> {
    let place: (i64, i64) = (row.get("bundle")?, row.get("number")?);
    Ok(StoredObject {
        bundle: BundleId::from_bytes(bytes(row, "id")?),
        part: u32::try_from(place.1).ok().filter(|_| place.1 != INDEX),
        blob: BlobName::from_bytes(bytes(row, "blob")?),
        length: uint(row, "length")?,
        digest: bytes(row, "digest")?,
        place,
    })
}

fn differs(of: impl FnOnce() -> String, counter: &'static str, says: i64, must: i64) -> Option<WrongSum> {
    (says != must).then(|| WrongSum { of: of(), counter, says, must })
}

fn account_sums(row: &Row) -> Result<Vec<WrongSum>> {
    let seq: i64 = row.get("seq")?;
    let mut wrong = Vec::new();
    for (counter, rows) in [("used", "held"), ("bundles", "live"), ("ended", "over")] {
        wrong.extend(differs(|| format!("account {seq}"), counter, row.get(counter)?, row.get(rows)?));
    }
    Ok(wrong)
}

impl Ledger {
    /// The counters that are not the sums of their rows, in one state of the ledger.
    pub(crate) async fn wrong_sums(&self) -> Result<Vec<WrongSum>> {
        let mut conn = self.read().await?;
        let mut wrong = Vec::new();
        for row in query(BUNDLES).fetch_all(&mut conn).await? {
            let of = || format!("bundle {}", row.get::<i64>("seq").unwrap_or_default());
            wrong.extend(differs(of, "size", row.get("size")?, row.get("held")?));
        }
        let mut all = 0;
        for row in query(ACCOUNTS).bind(0).bind(i64::MAX).fetch_all(&mut conn).await? {
            all += row.get::<i64>("used")?;
            wrong.extend(account_sums(&row)?);
        }
        let space: i64 = query("SELECT used FROM space").fetch_one(&mut conn).await?.get("used")?;
        wrong.extend(differs(|| "relay".to_owned(), "used", space, all));
        Ok(wrong)
    }

    /// Sets all counters to the sums of their rows; how many were wrong.
    pub(crate) async fn repair_sums(&self) -> Result<usize> {
        let mut count = 0;
        let bundles = query("SELECT id FROM bundle WHERE ended IS NULL").fetch_all(&mut self.look().await?).await?;
        for row in &bundles {
            let id = BundleId::from_bytes(bytes(row, "id")?);
            count += self.write((), move |conn, ()| Box::pin(repair_bundle(conn, id))).await?;
        }
        let accounts = query("SELECT seq FROM account").fetch_all(&mut self.look().await?).await?;
        for row in &accounts {
            let seq = row.get("seq")?;
            count += self.write((), move |conn, ()| Box::pin(repair_account(conn, seq))).await?;
        }
        Ok(count + self.write((), |conn, ()| Box::pin(repair_relay(conn))).await?)
    }

    /// One page of the objects that can be fetched, after `last`.
    pub(crate) async fn stored_objects(&self, last: Option<&StoredObject>) -> Result<Vec<StoredObject>> {
        let (bundle, number) = last.map_or((0, 0), |object| object.place);
        let rows = query(select_object!(
            "WHERE (o.bundle > $1 OR (o.bundle = $1 AND o.number > $2)) ORDER BY o.bundle, o.number LIMIT $3"
        ))
        .bind(bundle)
        .bind(number)
        .bind(PAGE)
        .fetch_all(&mut self.look().await?)
        .await?;
        rows.iter().map(object).collect()
    }

    /// The object that a blob is of, if it can be fetched.
    pub(crate) async fn object_of(&self, blob: BlobName) -> Result<Option<StoredObject>> {
        let row = query(select_object!("WHERE o.blob = $1")).bind(blob.as_bytes().as_slice());
        row.fetch_optional(&mut self.look().await?).await?.as_ref().map(object).transpose()
    }

    /// Blobs that are stored and of no object; with `repair` they are doomed. How many.
    pub(crate) async fn unused_blobs(&self, repair: bool, now: Timestamp) -> Result<u64> {
        if repair {
            return self
                .write((), move |conn, ()| {
                    Box::pin(
                        query(
                            "UPDATE blob SET state = 'doomed', due = $1 WHERE state = 'stored'
                             AND NOT EXISTS (SELECT 1 FROM object o WHERE o.blob = blob.name)",
                        )
                        .bind(int(now.unix()))
                        .execute(conn),
                    )
                })
                .await;
        }
        let row = query(
            "SELECT COUNT(*) AS n FROM blob WHERE state = 'stored'
             AND NOT EXISTS (SELECT 1 FROM object o WHERE o.blob = blob.name)",
        );
        uint(&row.fetch_one(&mut self.look().await?).await?, "n")
    }

    /// Whether this is still the object that can be fetched under its number.
    pub(crate) async fn is_stored(&self, object: &StoredObject) -> Result<bool> {
        let row = query("SELECT 1 FROM object WHERE bundle = $1 AND number = $2 AND blob = $3")
            .bind(object.place.0)
            .bind(object.place.1)
            .bind(object.blob.as_bytes().as_slice());
        Ok(row.fetch_optional(&mut self.look().await?).await?.is_some())
    }

    /// Does what can be done about an object whose blob is lost or is not what it was.
    pub(crate) async fn mend(&self, object: StoredObject, now: Timestamp) -> Result<Mended> {
        self.write((), move |conn, ()| Box::pin(mend(conn, object, now))).await
    }

    /// Bundles that are marked as damaged.
    pub(crate) async fn damaged(&self) -> Result<Vec<BundleId>> {
        let rows = query("SELECT id FROM bundle WHERE damaged IS NOT NULL AND ended IS NULL ORDER BY seq");
        let rows = rows.fetch_all(&mut self.look().await?).await?;
        rows.iter().map(|row| Ok(BundleId::from_bytes(bytes(row, "id")?))).collect()
    }

    /// Takes the mark from a bundle whose objects are all there again.
    pub(crate) async fn unmark(&self, bundle: BundleId) -> Result<()> {
        self.write((), move |conn, ()| {
            Box::pin(async move {
                let unmark = query("UPDATE bundle SET damaged = NULL WHERE id = $1");
                unmark.bind(bundle.as_bytes().as_slice()).execute(conn).await.map(drop)
            })
        })
        .await
    }
}

async fn repair_bundle(conn: &mut Conn, id: BundleId) -> Result<usize> {
    conn.lock(Lock::Bundle(id)).await?;
    let changed = query(
        "UPDATE bundle SET size = held.size FROM (
             SELECT b.seq, CAST(COALESCE((SELECT SUM(o.length) FROM object o WHERE o.bundle = b.seq), 0)
                 + COALESCE((SELECT SUM(length(e.sealed)) FROM envelope e WHERE e.bundle = b.seq), 0) AS BIGINT) AS size
             FROM bundle b WHERE b.id = $1 AND b.ended IS NULL) AS held
         WHERE bundle.seq = held.seq AND bundle.size <> held.size",
    )
    .bind(id.as_bytes().as_slice())
    .execute(conn)
    .await?;
    Ok(usize::from(changed > 0))
}

async fn repair_account(conn: &mut Conn, seq: i64) -> Result<usize> {
    conn.lock(Lock::Account(seq)).await?;
    let Some(row) = query(ACCOUNTS).bind(seq).bind(seq).fetch_optional(conn).await? else {
        return Ok(0);
    };
    let wrong = account_sums(&row)?.len();
    if wrong > 0 {
        query("UPDATE account SET used = $1, bundles = $2, ended = $3 WHERE seq = $4")
            .bind(row.get::<i64>("held")?)
            .bind(row.get::<i64>("live")?)
            .bind(row.get::<i64>("over")?)
            .bind(seq)
            .execute(conn)
            .await?;
        // The relay's counter moves along, so that it is as right or wrong as before.
        query("UPDATE space SET used = used + $1 WHERE id = 1")
            .bind(row.get::<i64>("held")? - row.get::<i64>("used")?)
            .execute(conn)
            .await?;
    }
    Ok(wrong)
}

async fn repair_relay(conn: &mut Conn) -> Result<usize> {
    conn.lock(Lock::Relay).await?;
    let changed = query(
        "UPDATE space SET used = (SELECT CAST(COALESCE(SUM(used), 0) AS BIGINT) FROM account)
         WHERE id = 1 AND used <> (SELECT COALESCE(SUM(used), 0) FROM account)",
    )
    .execute(conn)
    .await?;
    Ok(usize::from(changed > 0))
}

async fn mend(conn: &mut Conn, object: StoredObject, now: Timestamp) -> Result<Mended> {
    conn.lock(Lock::Bundle(object.bundle)).await?;
    let (bundle, number) = object.place;
    let row = query(
        "SELECT b.state, b.sender FROM bundle b JOIN object o ON o.bundle = b.seq
         WHERE b.seq = $1 AND o.number = $2 AND o.blob = $3",
    )
    .bind(bundle)
    .bind(number)
    .bind(object.blob.as_bytes().as_slice())
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else {
        return Ok(Mended::Over);
    };
    if row.get::<&str>("state")? != "pending" {
        query("UPDATE bundle SET damaged = $1 WHERE seq = $2 AND damaged IS NULL")
            .bind(int(now.unix()))
            .bind(bundle)
            .execute(conn)
            .await?;
        return Ok(Mended::Marked);
    }
    query("DELETE FROM object WHERE bundle = $1 AND number = $2").bind(bundle).bind(number).execute(conn).await?;
    query("UPDATE blob SET state = 'doomed', due = $1 WHERE name = $2")
        .bind(int(now.unix()))
        .bind(object.blob.as_bytes().as_slice())
        .execute(conn)
        .await?;
    query("UPDATE bundle SET size = size - $1 WHERE seq = $2")
        .bind(int(object.length))
        .bind(bundle)
        .execute(conn)
        .await?;
    give_space(conn, row.get("sender")?, object.length).await?;
    Ok(Mended::Forgotten)
}
