//! The ledger's tables and their migrations.
//!
//! Each step leads from one version to the next and says which version of the code can still work with what it leaves:
//! its `min_reader`. Nodes of the release before run on while the first node of the next one migrates, so a step may only
//! add (tables, columns with defaults, indexes), and its `min_reader` is the version of the release before. What takes
//! something away comes a release later than the code that needs it no more. A node that finds a ledger whose
//! `min_reader` lies beyond its own version refuses it.
//!
//! All steps that are due run in one transaction, of which there is one at a time: many nodes that start at once migrate
//! once.

use super::LedgerOpenError;
use super::database::{Conn, Kind, query};

/// The version that this code reads and writes.
pub(super) const VERSION: i64 = 10;

/// A step of the schema: the oldest code that can work with what it leaves, and its statements.
type Step = (i64, &'static [&'static str]);

/// Step n leads from version n to n + 1. Versions before 3 knew no `min_reader` and refuse everything newer themselves.
const STEPS: [Step; VERSION as usize] = [
    (1, FIRST),
    (2, CHARGES),
    (3, NODES),
    (3, AUTHORITY),
    (3, TAKEDOWN),
    (3, STORE_ID),
    (3, ROLES),
    (3, OWED),
    (3, ROTATIONS),
    (3, PIPELINES),
];

const FIRST: &[&str] = &[
    "CREATE TABLE account (
        seq {SEQ},
        mailbox {BYTES} NOT NULL UNIQUE,
        fingerprint {BYTES} NOT NULL UNIQUE,
        name TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('owner', 'member')),
        card_statement TEXT NOT NULL,
        card_signature TEXT NOT NULL,
        created {INT} NOT NULL,
        used {INT} NOT NULL DEFAULT 0 CHECK (used >= 0),
        bundles {INT} NOT NULL DEFAULT 0 CHECK (bundles >= 0)
    ) {STRICT}",
    "CREATE TABLE device (
        device_key {BYTES} PRIMARY KEY,
        account {INT} NOT NULL REFERENCES account (seq),
        statement TEXT NOT NULL,
        signature TEXT NOT NULL,
        created {INT} NOT NULL
    ) {STRICT}",
    // The bytes that all accounts hold together: one row, so that the check and the change are one statement.
    "CREATE TABLE space (id {INT} PRIMARY KEY CHECK (id = 1), used {INT} NOT NULL CHECK (used >= 0)) {STRICT}",
    "INSERT INTO space (id, used) VALUES (1, 0)",
    "CREATE TABLE nonce (
        account {INT} NOT NULL,
        nonce {BYTES} NOT NULL,
        expires {INT} NOT NULL,
        PRIMARY KEY (account, nonce)
    ) {STRICT}",
    "CREATE INDEX nonce_expires ON nonce (expires)",
    // inviter NULL: the owner's link. request: SHA-256 of the body that redeemed it.
    "CREATE TABLE link (
        seq {SEQ},
        id {BYTES} NOT NULL UNIQUE,
        inviter {INT} REFERENCES account (seq),
        admit_sha256 {BYTES} NOT NULL UNIQUE,
        created {INT} NOT NULL,
        expires {INT} NOT NULL,
        card_statement TEXT,
        card_signature TEXT,
        card_mac TEXT,
        request_sha256 {BYTES},
        joiner {INT} REFERENCES account (seq),
        joiner_mac TEXT
    ) {STRICT}",
    "CREATE INDEX link_inviter ON link (inviter)",
    "CREATE TABLE bundle (
        seq {SEQ},
        id {BYTES} NOT NULL UNIQUE,
        sender {INT} NOT NULL REFERENCES account (seq),
        state TEXT NOT NULL CHECK (state IN ('pending', 'committed', 'expired', 'burnt', 'revoked')),
        created {INT} NOT NULL,
        touched {INT} NOT NULL,
        committed {INT},
        expires {INT} NOT NULL,
        burn {INT} NOT NULL CHECK (burn IN (0, 1)),
        first_release {INT},
        ended {INT},
        size {INT} NOT NULL DEFAULT 0 CHECK (size >= 0),
        content {INT} NOT NULL DEFAULT 0,
        parts {INT} NOT NULL DEFAULT 0,
        commit_sha256 {BYTES}
    ) {STRICT}",
    "CREATE INDEX bundle_sender ON bundle (sender, seq)",
    "CREATE INDEX bundle_live ON bundle (expires) WHERE ended IS NULL",
    "CREATE INDEX bundle_ended ON bundle (ended) WHERE ended IS NOT NULL",
    // Written as pending before the file is; stored with the row that points at it; doomed before the file is deleted.
    "CREATE TABLE blob (
        name {BYTES} PRIMARY KEY,
        account {INT} NOT NULL,
        bundle {INT} NOT NULL,
        length {INT} NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'stored', 'doomed'))
    ) {STRICT}",
    "CREATE INDEX blob_bundle ON blob (bundle)",
    "CREATE INDEX blob_unsettled ON blob (state) WHERE state <> 'stored'",
    // number -1: the sealed index, whose digest is SHA-256; all others are parts, with BLAKE3.
    "CREATE TABLE object (
        bundle {INT} NOT NULL REFERENCES bundle (seq),
        number {INT} NOT NULL,
        length {INT} NOT NULL,
        digest {BYTES} NOT NULL,
        blob {BYTES} NOT NULL UNIQUE REFERENCES blob (name),
        PRIMARY KEY (bundle, number)
    ) {STRICT}",
    "CREATE TABLE envelope (
        bundle {INT} NOT NULL REFERENCES bundle (seq),
        account {INT} NOT NULL REFERENCES account (seq),
        sha256 {BYTES} NOT NULL,
        sealed {BYTES} NOT NULL,
        PRIMARY KEY (bundle, account)
    ) {STRICT}",
    "CREATE TABLE delivery (
        seq {SEQ},
        bundle {INT} NOT NULL REFERENCES bundle (seq),
        account {INT} NOT NULL REFERENCES account (seq),
        released {INT},
        received {INT},
        outcome TEXT CHECK (outcome IN ('verified', 'failed')),
        commitment {BYTES},
        sealed {BYTES},
        UNIQUE (bundle, account)
    ) {STRICT}",
    "CREATE INDEX delivery_account ON delivery (account, seq)",
    // address '*': anonymous ones, counted together. sender: whose bundle it was about.
    "CREATE TABLE access (
        seq {SEQ},
        time {INT} NOT NULL,
        account {BYTES},
        address TEXT NOT NULL,
        method TEXT NOT NULL,
        route TEXT NOT NULL,
        bundle {BYTES},
        sender {INT},
        status {INT} NOT NULL,
        problem TEXT NOT NULL,
        count {INT} NOT NULL
    ) {STRICT}",
    "CREATE INDEX access_account ON access (account, seq)",
    "CREATE INDEX access_sender ON access (sender, seq)",
    "CREATE INDEX access_time ON access (time)",
    "CREATE UNIQUE INDEX access_counted ON access (time, method, route, status, problem) WHERE address = '*'",
];

/// What outlives a bundle is charged to its sender: room for receipts, and the number of ended bundles. 16384 is
/// `MAX_RECEIPT`, as it was when this step was written.
const CHARGES: &[&str] = &[
    // receipts: bytes of the sender's room that this bundle's receipts take or may still take.
    "ALTER TABLE bundle ADD COLUMN receipts {INT} NOT NULL DEFAULT 0 CHECK (receipts >= 0)",
    // ended: how many of the account's bundles have ended and are not pruned yet.
    "ALTER TABLE account ADD COLUMN ended {INT} NOT NULL DEFAULT 0 CHECK (ended >= 0)",
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

/// Many nodes, and time between the end of a row and that of its blob.
const NODES: &[&str] = &[
    // due: when the sweeper may act on a blob that is not stored. A pending one is given up then; a doomed one was doomed
    // then, and is deleted as much later as backups of the ledger are kept.
    "ALTER TABLE blob ADD COLUMN due {INT} NOT NULL DEFAULT 0",
    "CREATE INDEX blob_due ON blob (state, due) WHERE state <> 'stored'",
    // damaged: when it was found that a blob of this bundle is not what it was.
    "ALTER TABLE bundle ADD COLUMN damaged {INT}",
];

/// What the owner may do to accounts, and an index for those who wait.
const AUTHORITY: &[&str] = &[
    // suspended: since when the account's requests are refused.
    "ALTER TABLE account ADD COLUMN suspended {INT}",
    // What waits in a mailbox, which is looked for often, without what was received.
    "CREATE INDEX delivery_waiting ON delivery (account, seq) WHERE received IS NULL",
];

/// Bundles that the owner took down.
const TAKEDOWN: &[&str] = &[
    // taken_down: why. The state of such a bundle is `revoked`, which nodes of the release before know, too.
    "ALTER TABLE bundle ADD COLUMN taken_down TEXT",
];

/// Which blobs are this ledger's, and what an object costs.
const STORE_ID: &[&str] = &[
    // One row. name: what the store of this ledger's blobs has as its id. bound: whether a store has it. claimed: until when
    // somebody is giving it to one.
    "CREATE TABLE store (
        id {INT} PRIMARY KEY CHECK (id = 1),
        name {BYTES} NOT NULL,
        bound {INT} NOT NULL DEFAULT 0 CHECK (bound IN (0, 1)),
        claimed {INT} NOT NULL DEFAULT 0
    ) {STRICT}",
    "INSERT INTO store (id, name) VALUES (1, {RANDOM})",
    // charged: bytes of its sender's room that the object takes; not less than its length, though 0 says so where it was
    // stored by the code before.
    "ALTER TABLE object ADD COLUMN charged {INT} NOT NULL DEFAULT 0",
];

/// What accounts may do, which device keys count no more, and how often an envelope was replaced.
const ROLES: &[&str] = &[
    // contractor: the account may send to its inviter and its senders alone. Its `role` is `member`, which nodes of the release
    // before know, too; so is that of a link whose account is going to be one.
    "ALTER TABLE account ADD COLUMN contractor {INT} NOT NULL DEFAULT 0",
    "ALTER TABLE link ADD COLUMN contractor {INT} NOT NULL DEFAULT 0",
    // inviter: who made the link that the account joined with; the link itself may be forgotten.
    "ALTER TABLE account ADD COLUMN inviter {INT}",
    "UPDATE account SET inviter = (SELECT MIN(link.inviter) FROM link WHERE link.joiner = account.seq)",
    // A revoked key leaves `device`, so that nodes of the release before refuse it, too, and stands here for good.
    "CREATE TABLE retired_device (
        device_key {BYTES} PRIMARY KEY,
        account {INT} NOT NULL REFERENCES account (seq),
        statement TEXT NOT NULL,
        signature TEXT NOT NULL,
        created {INT} NOT NULL,
        retired {INT} NOT NULL
    ) {STRICT}",
    "CREATE INDEX retired_device_account ON retired_device (account)",
    "CREATE INDEX device_account ON device (account)",
    // revision: how many envelopes this delivery has had.
    "ALTER TABLE delivery ADD COLUMN revision {INT} NOT NULL DEFAULT 1",
];

/// Room that is given back with the file.
const OWED: &[&str] = &[
    // owed: bytes of its account's room that a doomed blob takes until its file is deleted. Where a node of the release before
    // doomed it, it gave them back then, and the column says 0; one that it deleted is put right by `relay check`.
    "ALTER TABLE blob ADD COLUMN owed {INT} NOT NULL DEFAULT 0",
];

/// Identities whose keys change.
const ROTATIONS: &[&str] = &[
    // joiner_statement, joiner_signature: the card with which somebody joined, where the account has another one by now. A node
    // of the release before shows the account's card then, which does not fit the link's MAC.
    "ALTER TABLE link ADD COLUMN joiner_statement TEXT",
    "ALTER TABLE link ADD COLUMN joiner_signature TEXT",
    // serial: the new card's.
    "CREATE TABLE rotation (
        account {INT} NOT NULL REFERENCES account (seq),
        serial {INT} NOT NULL,
        statement TEXT NOT NULL,
        signature TEXT NOT NULL,
        created {INT} NOT NULL,
        PRIMARY KEY (account, serial)
    ) {STRICT}",
];

/// Accounts that send in another's name, and journals that are kept here.
const PIPELINES: &[&str] = &[
    // The account's `role` is `member` and its `contractor` 2, which nodes of the release before refuse as damaged: they would
    // not know its bounds.
    "CREATE TABLE pipeline (
        account {INT} PRIMARY KEY REFERENCES account (seq),
        maker {INT} NOT NULL REFERENCES account (seq),
        expires {INT} NOT NULL,
        revoked {INT}
    ) {STRICT}",
    "CREATE INDEX pipeline_maker ON pipeline (maker)",
    "CREATE TABLE pipeline_recipient (
        pipeline {INT} NOT NULL REFERENCES pipeline (account),
        account {INT} NOT NULL REFERENCES account (seq),
        PRIMARY KEY (pipeline, account)
    ) {STRICT}",
    // One for each account, whole: what comes in its place must name the digest of the one before.
    "CREATE TABLE journal (
        account {INT} PRIMARY KEY REFERENCES account (seq),
        sha256 {BYTES} NOT NULL,
        sealed {BYTES} NOT NULL
    ) {STRICT}",
];

/// What is expected to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing: the ledger is made now.
    New,
    /// A ledger of any version that this code knows.
    Any,
}

/// Brings the ledger to [`VERSION`] in this transaction, unless it is there or newer; refuses one that is too new.
pub(super) async fn migrate(conn: Conn, wanted: Wanted) -> Result<(), LedgerOpenError> {
    migrate_to(conn, wanted, VERSION).await
}

/// Goes no further than to `target`.
pub(super) async fn migrate_to(mut conn: Conn, wanted: Wanted, target: i64) -> Result<(), LedgerOpenError> {
    let found = version(&mut conn).await?;
    match (wanted, found) {
        (Wanted::New, Some(_)) => return Err(LedgerOpenError::Exists),
        (Wanted::Any, None) if conn.kind() == Kind::Postgres => return Err(LedgerOpenError::Missing),
        _ => {}
    }
    let (found, needs) = found.unwrap_or_default();
    if found > VERSION && needs > VERSION {
        return Err(LedgerOpenError::Newer { found, needs, known: VERSION });
    }
    for (leads_to, (min_reader, statements)) in (1..).zip(STEPS) {
        if leads_to <= found || leads_to > target {
            continue;
        }
        if leads_to == 1 {
            conn.define("CREATE TABLE IF NOT EXISTS schema_version (version {INT} NOT NULL) {STRICT}").await?;
        }
        if leads_to == 3 {
            conn.define("ALTER TABLE schema_version ADD COLUMN min_reader {INT} NOT NULL DEFAULT 0").await?;
        }
        for statement in statements {
            conn.define(statement).await?;
        }
        let insert = match leads_to {
            ..3 => query("INSERT INTO schema_version (version) VALUES ($1)").bind(leads_to),
            _ => query("INSERT INTO schema_version (version, min_reader) VALUES ($1, $2)")
                .bind(leads_to)
                .bind(min_reader),
        };
        insert.execute(&mut conn).await?;
    }
    Ok(conn.commit().await?)
}

/// Version and `min_reader` of what is there, if there is something.
pub(super) async fn version(conn: &mut Conn) -> Result<Option<(i64, i64)>, LedgerOpenError> {
    let columns = match conn.kind() {
        Kind::Sqlite => "SELECT name FROM pragma_table_info('schema_version')",
        Kind::Postgres => {
            "SELECT column_name::text AS name FROM information_schema.columns
             WHERE table_name = 'schema_version' AND table_schema = current_schema()"
        }
    };
    let columns = query(columns).fetch_all(conn).await?;
    let mut names = Vec::with_capacity(columns.len());
    for row in &columns {
        names.push(row.get::<String>("name")?);
    }
    if names.is_empty() {
        return Ok(None);
    }
    let newest = if names.iter().any(|name| name == "min_reader") {
        "SELECT version, min_reader FROM schema_version ORDER BY version DESC LIMIT 1"
    } else {
        // Before there was one: no code but of that very version.
        "SELECT version, version AS min_reader FROM schema_version ORDER BY version DESC LIMIT 1"
    };
    let row = query(newest).fetch_optional(conn).await?;
    Ok(match row {
        Some(row) => Some((row.get("version")?, row.get("min_reader")?)),
        None => Some((0, 0)),
    })
}
