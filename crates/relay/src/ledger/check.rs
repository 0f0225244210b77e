//! What `relay check` asks of the ledger: its own sums, its objects by page, and the repairs.
//!
//! All of it may run while nodes serve. A counter and the rows that it counts change in one transaction, the counter under
//! its lock; so whoever holds that lock and adds up what is committed gets the number that the counter must have.

use pouch_statement::{BundleId, Timestamp};

use super::database::{Conn, Lock, Row, query};
use super::objects::{INDEX, charged, take_away};
use super::row::{bytes, maybe_time, uint};
use super::{Ledger, Result, int};
use crate::blob::BlobName;

/// Rows of one page, so that no statement runs for long and memory is bounded.
const PAGE: i64 = 500;
/// Accounts of one page, for each of which all its bundles are summed up.
const ACCOUNTS_PAGE: i64 = 16;

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
    place: Place,
}

/// Whose counter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Bundle(BundleId),
    Account(i64),
    Relay,
}

/// Up to where the counters were compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Summed {
    Bundles(i64),
    Accounts(i64),
}

impl Summed {
    /// Before the first one.
    pub(crate) const NOTHING: Self = Self::Bundles(0);
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
    /// Whether its bundle is marked.
    pub(crate) damaged: bool,
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
            + COALESCE((SELECT SUM(p.owed) FROM blob p WHERE p.account = a.seq AND p.state = 'doomed'), 0)
            + COALESCE((SELECT length(j.sealed) FROM journal j WHERE j.account = a.seq), 0)
            AS BIGINT) AS held,
         (SELECT COUNT(*) FROM bundle b WHERE b.sender = a.seq AND b.ended IS NULL) AS live,
         (SELECT COUNT(*) FROM bundle b WHERE b.sender = a.seq AND b.ended IS NOT NULL) AS over
     FROM account a WHERE a.seq >= $1 AND a.seq <= $2 ORDER BY a.seq LIMIT $3";

/// What the objects and envelopes of a bundle take of its sender's room.
macro_rules! held {
    () => {
        concat!(
            "CAST(COALESCE((SELECT SUM(",
            charged!(),
            ") FROM object o WHERE o.bundle = b.seq), 0)
            + COALESCE((SELECT SUM(length(e.sealed)) FROM envelope e WHERE e.bundle = b.seq), 0) AS BIGINT)"
        )
    };
}

const BUNDLES: &str = concat!(
    "SELECT b.seq, b.id, b.size, ",
    held!(),
    " AS held FROM bundle b WHERE b.ended IS NULL AND b.seq > $1 ORDER BY b.seq LIMIT $2"
);

/// What [`object`] reads.
macro_rules! select_object {
    ($tail:literal) => {
        concat!(
            "SELECT o.bundle, o.number, o.length, o.digest, o.blob, b.id, b.damaged \
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
        damaged: maybe_time(row, "damaged")?.is_some(),
        place,
    })
}

fn differs(of: impl FnOnce() -> String, place: Place, counter: &'static str, says: i64, must: i64) -> Option<WrongSum> {
    (says != must).then(|| WrongSum { of: of(), counter, says, must, place })
}

fn account_sums(row: &Row) -> Result<Vec<WrongSum>> {
    let seq: i64 = row.get("seq")?;
    let mut wrong = Vec::new();
    for (counter, rows) in [("used", "held"), ("bundles", "live"), ("ended", "over")] {
        let of = || format!("account {seq}");
        wrong.extend(differs(of, Place::Account(seq), counter, row.get(counter)?, row.get(rows)?));
    }
    Ok(wrong)
}

impl Ledger {
    /// One page of counters, after those: the ones that are not the sums of their rows, and how far they were compared.
    pub(crate) async fn wrong_sums(&self, after: Summed) -> Result<(Vec<WrongSum>, Option<Summed>)> {
        match after {
            Summed::Bundles(last) => self.wrong_bundles(last).await,
            Summed::Accounts(last) => self.wrong_accounts(last).await,
        }
    }

    async fn wrong_bundles(&self, last: i64) -> Result<(Vec<WrongSum>, Option<Summed>)> {
        let rows = query(BUNDLES).bind(last).bind(PAGE).fetch_all(&mut self.look().await?).await?;
        let (mut wrong, mut next) = (Vec::new(), Summed::Accounts(0));
        for row in &rows {
            let seq = row.get("seq")?;
            let place = Place::Bundle(BundleId::from_bytes(bytes(row, "id")?));
            wrong.extend(differs(|| format!("bundle {seq}"), place, "size", row.get("size")?, row.get("held")?));
            next = Summed::Bundles(seq);
        }
        Ok((wrong, Some(next)))
    }

    /// And, after the last account, the relay's.
    async fn wrong_accounts(&self, last: i64) -> Result<(Vec<WrongSum>, Option<Summed>)> {
        let page = query(ACCOUNTS).bind(last.saturating_add(1)).bind(i64::MAX).bind(ACCOUNTS_PAGE);
        let rows = page.fetch_all(&mut self.look().await?).await?;
        let mut wrong = Vec::new();
        for row in &rows {
            wrong.extend(account_sums(row)?);
        }
        if let Some(row) = rows.last() {
            return Ok((wrong, Some(Summed::Accounts(row.get("seq")?))));
        }
        let relay =
            query("SELECT used, (SELECT CAST(COALESCE(SUM(used), 0) AS BIGINT) FROM account) AS held FROM space");
        let row = relay.fetch_one(&mut self.look().await?).await?;
        wrong.extend(differs(|| "relay".to_owned(), Place::Relay, "used", row.get("used")?, row.get("held")?));
        Ok((wrong, None))
    }

    /// Sets a counter to the sum of its rows, as they are by now.
    pub(crate) async fn repair_sum(&self, wrong: &WrongSum) -> Result<()> {
        let place = wrong.place;
        self.write((), move |conn, ()| {
            Box::pin(async move {
                match place {
                    Place::Bundle(id) => repair_bundle(conn, id).await,
                    Place::Account(seq) => repair_account(conn, seq).await,
                    Place::Relay => repair_relay(conn).await,
                }
            })
        })
        .await
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

    /// Of a page of stored blobs, in the order of their names after `last`, those that are of no object; and the page's last one.
    pub(crate) async fn unused_blobs(&self, last: Option<BlobName>) -> Result<(Vec<BlobName>, Option<BlobName>)> {
        let after = last.map_or(Vec::new(), |name| name.as_bytes().to_vec());
        let rows = query(
            "SELECT b.name, (SELECT COUNT(*) FROM object o WHERE o.blob = b.name) AS uses FROM blob b
             WHERE b.state = 'stored' AND b.name > $1 ORDER BY b.name LIMIT $2",
        )
        .bind(after.as_slice())
        .bind(PAGE)
        .fetch_all(&mut self.look().await?)
        .await?;
        let (mut unused, mut end) = (Vec::new(), None);
        for row in &rows {
            let name = BlobName::from_bytes(bytes(row, "name")?);
            if uint(row, "uses")? == 0 {
                unused.push(name);
            }
            end = Some(name);
        }
        Ok((unused, end))
    }

    /// Dooms those of these blobs that are stored and of no object.
    pub(crate) async fn doom_unused(&self, names: Vec<BlobName>, now: Timestamp) -> Result<()> {
        self.write(names, move |conn, names| {
            Box::pin(async move {
                for name in names {
                    // It owes nothing: what is of no object was counted for nobody.
                    query(
                        "UPDATE blob SET state = 'doomed', due = $1 WHERE name = $2 AND state = 'stored'
                         AND NOT EXISTS (SELECT 1 FROM object o WHERE o.blob = blob.name)",
                    )
                    .bind(int(now.unix()))
                    .bind(name.as_bytes().as_slice())
                    .execute(conn)
                    .await?;
                }
                Ok(())
            })
        })
        .await
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

async fn repair_bundle(conn: &mut Conn, id: BundleId) -> Result<()> {
    conn.lock(Lock::Bundle(id)).await?;
    query(concat!(
        "UPDATE bundle SET size = held.size FROM (SELECT b.seq, ",
        held!(),
        " AS size FROM bundle b WHERE b.id = $1 AND b.ended IS NULL) AS held WHERE bundle.seq = held.seq"
    ))
    .bind(id.as_bytes().as_slice())
    .execute(conn)
    .await
    .map(drop)
}

async fn repair_account(conn: &mut Conn, seq: i64) -> Result<()> {
    conn.lock(Lock::Account(seq)).await?;
    let Some(row) = query(ACCOUNTS).bind(seq).bind(seq).bind(1).fetch_optional(conn).await? else {
        return Ok(());
    };
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
        .await
        .map(drop)
}

async fn repair_relay(conn: &mut Conn) -> Result<()> {
    conn.lock(Lock::Relay).await?;
    let sum = "UPDATE space SET used = (SELECT CAST(COALESCE(SUM(used), 0) AS BIGINT) FROM account) WHERE id = 1";
    query(sum).execute(conn).await.map(drop)
}

async fn mend(conn: &mut Conn, object: StoredObject, now: Timestamp) -> Result<Mended> {
    conn.lock(Lock::Bundle(object.bundle)).await?;
    let (bundle, number) = object.place;
    let row = query(concat!(
        "SELECT b.state, ",
        charged!(),
        " AS charged FROM bundle b JOIN object o ON o.bundle = b.seq WHERE b.seq = $1 AND o.number = $2 AND o.blob = $3"
    ))
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
    take_away(conn, bundle, number, object.blob, now).await?;
    query("UPDATE bundle SET size = size - $1 WHERE seq = $2")
        .bind(row.get::<i64>("charged")?)
        .bind(bundle)
        .execute(conn)
        .await?;
    Ok(Mended::Forgotten)
}
