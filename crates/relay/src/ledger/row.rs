//! Rows as types: bundles with their state at a given second, and quota.

use super::database::{Conn, Row, query};
use super::{LedgerError, Result, int, refuse};
use crate::clock::at;
use pouch_protocol::limits::BURN_LEASE;
use pouch_protocol::{BundleState, ProblemKind};
use pouch_statement::{BundleId, MailboxId, Note, PublicKey, Timestamp};

/// What the configuration allows, as the ledger's checks need it.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) account_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) account_bundles: u64,
    pub(crate) account_ended: u64,
    pub(crate) lifetime: u64,
}

impl Limits {
    /// Refuses an end in the past or too far away from now.
    pub(super) fn check_end(&self, expires: Timestamp, now: Timestamp) -> Result<()> {
        if expires <= now || expires.since(now) > self.lifetime {
            return refuse(ProblemKind::BadRequest, "the bundle's end is in the past or beyond the relay's limit");
        }
        Ok(())
    }
}

pub(super) fn uint(row: &Row, column: &'static str) -> Result<u64> {
    u64::try_from(row.get::<i64>(column)?).map_err(|_| LedgerError::Damaged(column))
}

pub(super) fn time(row: &Row, column: &'static str) -> Result<Timestamp> {
    Ok(at(uint(row, column)?))
}

pub(super) fn maybe_time(row: &Row, column: &'static str) -> Result<Option<Timestamp>> {
    let value: Option<i64> = row.get(column)?;
    value.map(|v| u64::try_from(v).map(at).map_err(|_| LedgerError::Damaged(column))).transpose()
}

pub(super) fn bytes<const N: usize>(row: &Row, column: &'static str) -> Result<[u8; N]> {
    let value: &[u8] = row.get(column)?;
    value.try_into().map_err(|_| LedgerError::Damaged(column))
}

pub(super) fn parsed<T: std::str::FromStr>(row: &Row, column: &'static str) -> Result<T> {
    let value: &str = row.get(column)?;
    value.parse().map_err(|_| LedgerError::Damaged(column))
}

pub(super) fn public_key(row: &Row, column: &'static str) -> Result<PublicKey> {
    PublicKey::from_bytes(&bytes(row, column)?).map_err(|_| LedgerError::Damaged(column))
}

pub(super) fn mailbox(row: &Row, column: &'static str) -> Result<MailboxId> {
    Ok(MailboxId::from_bytes(bytes(row, column)?))
}

const DAMAGED: &str = "the relay lost an object of this bundle; its sender has to send it again";

/// One bundle.
pub(super) struct BundleRow {
    pub(super) seq: i64,
    pub(super) id: BundleId,
    pub(super) sender: i64,
    state: BundleState,
    pub(super) created: Timestamp,
    pub(super) committed: Option<Timestamp>,
    pub(super) expires: Timestamp,
    pub(super) burn: bool,
    first_release: Option<Timestamp>,
    pub(super) size: u64,
    pub(super) content: u64,
    pub(super) parts: u64,
    pub(super) commit_sha256: Option<Vec<u8>>,
    damaged: bool,
    /// Why the relay's owner ended it.
    pub(super) taken_down: Option<Note>,
}

/// What [`BundleRow::read`] reads of a bundle `b`, then what a query adds, from where, and which.
macro_rules! select_bundle {
    ($tail:literal) => {
        select_bundle!("", "bundle b ", $tail)
    };
    ($more:literal, $from:literal, $tail:literal) => {
        concat!(
            "SELECT b.seq, b.id, b.sender, b.state, b.created, b.committed, b.expires, b.burn, b.first_release, \
             b.size, b.content, b.parts, b.commit_sha256, b.damaged, b.taken_down",
            $more,
            " FROM ",
            $from,
            $tail
        )
    };
}
pub(super) use select_bundle;

impl BundleRow {
    pub(super) fn read(row: &Row) -> Result<Self> {
        let taken_down: Option<&str> = row.get("taken_down")?;
        let taken_down: Option<Note> =
            taken_down.map(|text| text.parse().map_err(|_| LedgerError::Damaged("taken_down"))).transpose()?;
        Ok(Self {
            seq: row.get("seq")?,
            id: BundleId::from_bytes(bytes(row, "id")?),
            sender: row.get("sender")?,
            state: match row.get::<&str>("state")? {
                "pending" => BundleState::Pending,
                "committed" => BundleState::Committed,
                "expired" => BundleState::Expired,
                "burnt" => BundleState::Burnt,
                "revoked" if taken_down.is_some() => BundleState::TakenDown,
                "revoked" => BundleState::Revoked,
                _ => return Err(LedgerError::Damaged("state")),
            },
            created: time(row, "created")?,
            committed: maybe_time(row, "committed")?,
            expires: time(row, "expires")?,
            burn: uint(row, "burn")? != 0,
            first_release: maybe_time(row, "first_release")?,
            size: uint(row, "size")?,
            content: uint(row, "content")?,
            parts: uint(row, "parts")?,
            commit_sha256: row.get("commit_sha256")?,
            damaged: maybe_time(row, "damaged")?.is_some(),
            taken_down,
        })
    }

    pub(super) async fn find(conn: &mut Conn, id: BundleId) -> Result<Option<Self>> {
        query(select_bundle!("WHERE b.id = $1"))
            .bind(id.as_bytes().as_slice())
            .fetch_optional(conn)
            .await?
            .as_ref()
            .map(Self::read)
            .transpose()
    }

    /// The state at `now`: what is over is over from its second on, whether it was swept or not.
    pub(super) fn state(&self, now: Timestamp) -> BundleState {
        let lease_over = self.burn && self.first_release.is_some_and(|first| first.plus(BURN_LEASE) <= now);
        match self.state {
            BundleState::Pending | BundleState::Committed if self.expires <= now => BundleState::Expired,
            BundleState::Committed if lease_over => BundleState::Burnt,
            state => state,
        }
    }

    /// Refuses to hand out anything of a bundle of which `relay check` found that something is lost.
    pub(super) fn check_whole(&self) -> Result<()> {
        if self.damaged { refuse(ProblemKind::Gone, DAMAGED) } else { Ok(()) }
    }

    /// Refuses what can be had of a bundle no more.
    pub(super) fn gone<T>(&self) -> Result<T> {
        match &self.taken_down {
            Some(reason) => refuse(ProblemKind::Gone, format!("taken down by the relay's owner: {reason}")),
            None => refuse(ProblemKind::Gone, ""),
        }
    }

    /// The state as the ledger has it.
    pub(super) fn stored_state(&self) -> BundleState {
        self.state
    }

    /// The bundle for its sender, who may be told that it is over.
    pub(super) async fn of_sender(conn: &mut Conn, id: BundleId, account: i64) -> Result<Self> {
        match Self::find(conn, id).await? {
            Some(bundle) if bundle.sender == account => Ok(bundle),
            _ => refuse(ProblemKind::NotFound, ""),
        }
    }

    /// The bundle for its sender, who wants to add to it.
    pub(super) async fn open_for(conn: &mut Conn, id: BundleId, account: i64, now: Timestamp) -> Result<Self> {
        let bundle = Self::of_sender(conn, id, account).await?;
        match bundle.state(now) {
            BundleState::Pending => Ok(bundle),
            BundleState::Committed => refuse(ProblemKind::Conflict, "the bundle is committed"),
            _ => bundle.gone(),
        }
    }
}

/// The word of a state in the ledger.
pub(super) fn state_word(state: BundleState) -> &'static str {
    match state {
        BundleState::Pending => "pending",
        BundleState::Committed => "committed",
        BundleState::Expired => "expired",
        BundleState::Burnt => "burnt",
        BundleState::Revoked | BundleState::TakenDown => "revoked",
    }
}

/// Takes room for `length` bytes from account and relay, or refuses; check and change are one statement each.
/// In the order account, relay, as everywhere ([`Lock`](super::database::Lock)).
pub(super) async fn take_space(conn: &mut Conn, account: i64, length: u64, limits: Limits) -> Result<()> {
    let own = query("UPDATE account SET used = used + $1 WHERE seq = $2 AND used + $1 <= $3")
        .bind(int(length))
        .bind(account)
        .bind(int(limits.account_bytes))
        .execute(conn)
        .await?;
    if own == 0 {
        return refuse(ProblemKind::Quota, "the account's quota is used up");
    }
    let all = query("UPDATE space SET used = used + $1 WHERE id = 1 AND used + $1 <= $2")
        .bind(int(length))
        .bind(int(limits.total_bytes))
        .execute(conn)
        .await?;
    if all == 0 { refuse(ProblemKind::Quota, "the relay is full") } else { Ok(()) }
}

/// Gives room back.
pub(super) async fn give_space(conn: &mut Conn, account: i64, length: u64) -> Result<()> {
    give_own(conn, account, length).await?;
    give_total(conn, length).await
}

/// Gives room back to an account alone; [`give_total`] does the rest.
pub(super) async fn give_own(conn: &mut Conn, account: i64, length: u64) -> Result<()> {
    query("UPDATE account SET used = used - $1 WHERE seq = $2").bind(int(length)).bind(account).execute(conn).await?;
    Ok(())
}

/// Gives back to the relay what was given back to accounts.
pub(super) async fn give_total(conn: &mut Conn, length: u64) -> Result<()> {
    query("UPDATE space SET used = used - $1 WHERE id = 1").bind(int(length)).execute(conn).await?;
    Ok(())
}
