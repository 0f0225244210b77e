//! The ledger's tables and their migrations. Each step runs once, in a transaction with the version it leads to.

use sqlx::{Row as _, SqliteConnection};

use super::LedgerOpenError;

/// The version that this code reads and writes.
pub(super) const VERSION: i64 = 2;

/// Step n leads from version n to n + 1.
const STEPS: [&[&str]; VERSION as usize] = [FIRST, CHARGES];

const FIRST: &[&str] = &[
    "CREATE TABLE account (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        mailbox BLOB NOT NULL UNIQUE,
        fingerprint BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('owner', 'member')),
        card_statement TEXT NOT NULL,
        card_signature TEXT NOT NULL,
        created INTEGER NOT NULL,
        used INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0),
        bundles INTEGER NOT NULL DEFAULT 0 CHECK (bundles >= 0)
    ) STRICT",
    "CREATE TABLE device (
        device_key BLOB PRIMARY KEY,
        account INTEGER NOT NULL REFERENCES account (seq),
        statement TEXT NOT NULL,
        signature TEXT NOT NULL,
        created INTEGER NOT NULL
    ) STRICT",
    // The bytes that all accounts hold together: one row, so that the check and the change are one statement.
    "CREATE TABLE space (id INTEGER PRIMARY KEY CHECK (id = 1), used INTEGER NOT NULL CHECK (used >= 0)) STRICT",
    "INSERT INTO space (id, used) VALUES (1, 0)",
    "CREATE TABLE nonce (
        account INTEGER NOT NULL,
        nonce BLOB NOT NULL,
        expires INTEGER NOT NULL,
        PRIMARY KEY (account, nonce)
    ) STRICT",
    "CREATE INDEX nonce_expires ON nonce (expires)",
    // inviter NULL: the owner's link. request: SHA-256 of the body that redeemed it.
    "CREATE TABLE link (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        inviter INTEGER REFERENCES account (seq),
        admit_sha256 BLOB NOT NULL UNIQUE,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        card_statement TEXT,
        card_signature TEXT,
        card_mac TEXT,
        request_sha256 BLOB,
        joiner INTEGER REFERENCES account (seq),
        joiner_mac TEXT
    ) STRICT",
    "CREATE INDEX link_inviter ON link (inviter)",
    "CREATE TABLE bundle (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        sender INTEGER NOT NULL REFERENCES account (seq),
        state TEXT NOT NULL CHECK (state IN ('pending', 'committed', 'expired', 'burnt', 'revoked')),
        created INTEGER NOT NULL,
        touched INTEGER NOT NULL,
        committed INTEGER,
        expires INTEGER NOT NULL,
        burn INTEGER NOT NULL CHECK (burn IN (0, 1)),
        first_release INTEGER,
        ended INTEGER,
        size INTEGER NOT NULL DEFAULT 0 CHECK (size >= 0),
        content INTEGER NOT NULL DEFAULT 0,
        parts INTEGER NOT NULL DEFAULT 0,
        commit_sha256 BLOB
    ) STRICT",
    "CREATE INDEX bundle_sender ON bundle (sender, seq)",
    "CREATE INDEX bundle_live ON bundle (expires) WHERE ended IS NULL",
    "CREATE INDEX bundle_ended ON bundle (ended) WHERE ended IS NOT NULL",
    // Written as pending before the file is; stored with the row that points at it; doomed before the file is deleted.
    "CREATE TABLE blob (
        name BLOB PRIMARY KEY,
        account INTEGER NOT NULL,
        bundle INTEGER NOT NULL,
        length INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'stored', 'doomed'))
    ) STRICT",
    "CREATE INDEX blob_bundle ON blob (bundle)",
    "CREATE INDEX blob_unsettled ON blob (state) WHERE state <> 'stored'",
    // number -1: the sealed index, whose digest is SHA-256; all others are parts, with BLAKE3.
    "CREATE TABLE object (
        bundle INTEGER NOT NULL REFERENCES bundle (seq),
        number INTEGER NOT NULL,
        length INTEGER NOT NULL,
        digest BLOB NOT NULL,
        blob BLOB NOT NULL UNIQUE REFERENCES blob (name),
        PRIMARY KEY (bundle, number)
    ) STRICT",
    "CREATE TABLE envelope (
        bundle INTEGER NOT NULL REFERENCES bundle (seq),
        account INTEGER NOT NULL REFERENCES account (seq),
        sha256 BLOB NOT NULL,
        sealed BLOB NOT NULL,
        PRIMARY KEY (bundle, account)
    ) STRICT",
    "CREATE TABLE delivery (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        bundle INTEGER NOT NULL REFERENCES bundle (seq),
        account INTEGER NOT NULL REFERENCES account (seq),
        released INTEGER,
        received INTEGER,
        outcome TEXT CHECK (outcome IN ('verified', 'failed')),
        commitment BLOB,
        sealed BLOB,
        UNIQUE (bundle, account)
    ) STRICT",
    "CREATE INDEX delivery_account ON delivery (account, seq)",
    // address '*': anonymous ones, counted together. sender: whose bundle it was about.
    "CREATE TABLE access (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        account BLOB,
        address TEXT NOT NULL,
        method TEXT NOT NULL,
        route TEXT NOT NULL,
        bundle BLOB,
        sender INTEGER,
        status INTEGER NOT NULL,
        problem TEXT NOT NULL,
        count INTEGER NOT NULL
    ) STRICT",
    "CREATE INDEX access_account ON access (account, seq)",
    "CREATE INDEX access_sender ON access (sender, seq)",
    "CREATE INDEX access_time ON access (time)",
    "CREATE UNIQUE INDEX access_counted ON access (time, method, route, status, problem) WHERE address = '*'",
];

/// What outlives a bundle is charged to its sender: room for receipts, and the number of ended bundles. 16384 is
/// `MAX_RECEIPT`, as it was when this step was written.
const CHARGES: &[&str] = &[
    // receipts: bytes of the sender's room that this bundle's receipts take or may still take.
    "ALTER TABLE bundle ADD COLUMN receipts INTEGER NOT NULL DEFAULT 0 CHECK (receipts >= 0)",
    // ended: how many of the account's bundles have ended and are not pruned yet.
    "ALTER TABLE account ADD COLUMN ended INTEGER NOT NULL DEFAULT 0 CHECK (ended >= 0)",
    "UPDATE bundle SET receipts = 16384 * (SELECT COUNT(*) FROM envelope WHERE envelope.bundle = bundle.seq)
     WHERE state = 'pending' AND ended IS NULL",
    "UPDATE bundle SET receipts = COALESCE((
         SELECT SUM(CASE WHEN outcome = 'verified' THEN length(sealed)
                         WHEN bundle.ended IS NOT NULL AND released IS NULL THEN 0
                         ELSE 16384 END)
         FROM delivery WHERE delivery.bundle = bundle.seq), 0)
     WHERE committed IS NOT NULL",
    "UPDATE account SET
         used = used + COALESCE((SELECT SUM(receipts) FROM bundle WHERE sender = account.seq), 0),
         ended = (SELECT COUNT(*) FROM bundle WHERE sender = account.seq AND bundle.ended IS NOT NULL)",
    "UPDATE space SET used = used + COALESCE((SELECT SUM(receipts) FROM bundle), 0)",
];

/// Brings the ledger to [`VERSION`], or refuses one from a newer relay.
pub(super) async fn migrate(conn: &mut SqliteConnection) -> Result<(), LedgerOpenError> {
    migrate_to(conn, VERSION).await
}

/// Goes no further than to `target`.
pub(super) async fn migrate_to(conn: &mut SqliteConnection, target: i64) -> Result<(), LedgerOpenError> {
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL) STRICT")
        .execute(&mut *conn)
        .await?;
    let row =
        sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM schema_version").fetch_one(&mut *conn).await?;
    let found: i64 = row.try_get("version")?;
    if found > VERSION {
        return Err(LedgerOpenError::Newer { found, known: VERSION });
    }
    for (step, statements) in STEPS.iter().enumerate() {
        let leads_to = step as i64 + 1;
        if leads_to <= found || leads_to > target {
            continue;
        }
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
        for statement in *statements {
            sqlx::query(*statement).execute(&mut *conn).await?;
        }
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)").bind(leads_to).execute(&mut *conn).await?;
        sqlx::query("COMMIT").execute(&mut *conn).await?;
    }
    Ok(())
}
