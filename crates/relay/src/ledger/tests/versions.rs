//! Migrations, and nodes of different releases.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

use super::*;
use crate::ledger::schema::{VERSION, Wanted};

/// A ledger file of an older version, with rows that `statements` make.
async fn older(config: &Config, version: i64, statements: &[String]) {
    let path = config.data.join(FILE);
    Disk::default().write_new(&path, b"").unwrap();
    let database = SqliteDatabase::open(&path).await.unwrap();
    schema::migrate_to(database.migrating().await.unwrap(), Wanted::Any, version).await.unwrap();
    database.close().await;
    let options = SqliteConnectOptions::new().filename(&path).foreign_keys(false);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    for statement in statements {
        sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(&mut conn).await.unwrap();
    }
    conn.close().await.unwrap();
}

fn config() -> (Config, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Config { data: folder.path().to_owned(), ..Config::default() }, folder)
}

/// What a release with a newer schema leaves.
fn newer(min_reader: i64) -> String {
    format!("INSERT INTO schema_version (version, min_reader) VALUES ({}, {min_reader})", VERSION + 1)
}

#[tokio::test]
async fn a_ledger_of_the_next_release_is_used_and_of_the_one_after_refused() {
    let (config, _folder) = config();
    older(&config, VERSION, &["ALTER TABLE bundle ADD COLUMN later INTEGER NOT NULL DEFAULT 0".into(), newer(VERSION)])
        .await;
    Ledger::open(&config).await.unwrap().close().await;
    let (config, _folder) = self::config();
    older(&config, VERSION, &[newer(VERSION + 1)]).await;
    let error = Ledger::open(&config).await.err().unwrap();
    assert!(matches!(error, LedgerOpenError::Newer { found, needs, known: VERSION } if found == needs), "{error}");
    assert!(error.to_string().contains("install a newer relay"), "{error}");
}

#[tokio::test]
async fn what_was_there_before_it_was_charged_is_charged_by_the_migration() {
    let (config, _folder) = config();
    // One account; pending with two envelopes, delivered to two of whom one has sent a receipt, revoked before and
    // after the release.
    let receipt = "'verified', x'00', zeroblob(300)";
    let statements = [
        "INSERT INTO account (mailbox, fingerprint, name, role, card_statement, card_signature, created, used, bundles)
         VALUES (x'01', x'01', 'ada', 'owner', '', '', 1, 1000, 2)"
            .to_owned(),
        "UPDATE space SET used = 1000".to_owned(),
        "INSERT INTO bundle (seq, id, sender, state, created, touched, committed, expires, burn, ended) VALUES
         (1, x'01', 1, 'pending', 1, 1, NULL, 9, 0, NULL), (2, x'02', 1, 'committed', 1, 1, 1, 9, 0, NULL),
         (3, x'03', 1, 'revoked', 1, 1, 1, 9, 0, 2), (4, x'04', 1, 'revoked', 1, 1, 1, 9, 0, 2)"
            .to_owned(),
        "INSERT INTO envelope (bundle, account, sha256, sealed) VALUES (1, 1, x'', x''), (1, 2, x'', x'')".to_owned(),
        format!(
            "INSERT INTO delivery (bundle, account, released, received, outcome, commitment, sealed) VALUES
         (2, 1, 1, 1, {receipt}), (2, 2, NULL, NULL, NULL, NULL, NULL),
         (3, 1, NULL, NULL, NULL, NULL, NULL), (4, 1, 1, NULL, NULL, NULL, NULL)"
        ),
    ];
    older(&config, 1, &statements).await;
    let ledger = Ledger::open(&config).await.unwrap();
    let mut conn = ledger.look().await.unwrap();
    let row = query("SELECT used, ended, (SELECT used FROM space) AS space FROM account");
    let row = row.fetch_one(&mut conn).await.unwrap();
    let number = |column| row.get::<i64>(column).unwrap();
    let room = pouch_protocol::limits::MAX_RECEIPT as i64;
    // Two that may come for the pending one, one that came and one that may, none, one that may.
    let used = 1000 + 2 * room + (300 + room) + room;
    assert_eq!((number("used"), number("space"), number("ended")), (used, used, 2));
}

#[tokio::test]
async fn what_version_2_doomed_is_deleted_and_what_it_left_pending_given_up() {
    let (config, _folder) = config();
    let statements = [
        "INSERT INTO account (mailbox, fingerprint, name, role, card_statement, card_signature, created, used)
         VALUES (x'01', x'01', 'ada', 'owner', '', '', 1, 7)"
            .to_owned(),
        "UPDATE space SET used = 7".to_owned(),
        "INSERT INTO blob (name, account, bundle, length, state) VALUES
         (zeroblob(16), 1, 1, 5, 'doomed'), (x'01010101010101010101010101010101', 1, 1, 7, 'pending')"
            .to_owned(),
    ];
    older(&config, 2, &statements).await;
    let ledger = Ledger::open(&config).await.unwrap();
    assert_eq!(ledger.give_up_all(crate::clock::at(1_800_000_000 - 3600)).await.unwrap(), 1);
    let doomed = ledger.claim_doomed(3600, crate::clock::at(1_800_000_000)).await.unwrap();
    assert_eq!(doomed.len(), 2);
    ledger.forget_blobs(doomed).await.unwrap();
    let mut conn = ledger.look().await.unwrap();
    let row = query("SELECT used, (SELECT used FROM space) AS space FROM account").fetch_one(&mut conn).await.unwrap();
    let left = ["used", "space"].map(|column| row.get::<i64>(column).unwrap());
    assert_eq!(left, [0, 0], "what was pending is paid for no more");
    drop(conn);
    ledger.close().await;
}

#[tokio::test]
async fn accounts_of_version_6_are_members_and_know_who_invited_them() {
    let (config, _folder) = config();
    let account = |id: &str, role: &str| {
        format!(
            "INSERT INTO account (mailbox, fingerprint, name, role, card_statement, card_signature, created)
             VALUES (x'{id}', x'{id}', 'x', '{role}', '', '', 1)"
        )
    };
    let statements = [
        account(&"01".repeat(16), "owner"),
        account(&"02".repeat(16), "member"),
        account(&"03".repeat(16), "member"),
        "INSERT INTO link (id, inviter, admit_sha256, created, expires, joiner) VALUES
         (x'01', NULL, x'01', 1, 9, 1), (x'02', 1, x'02', 1, 9, 2), (zeroblob(16), 2, x'03', 1, 9, NULL)"
            .to_owned(),
    ];
    older(&config, 6, &statements).await;
    let ledger = Ledger::open(&config).await.unwrap();
    let roles = ledger.accounts(0, 0).await.unwrap().accounts.iter().map(|a| a.role).collect::<Vec<_>>();
    assert_eq!(roles, [AccountRole::Owner, AccountRole::Member, AccountRole::Member]);
    let mut conn = ledger.look().await.unwrap();
    let rows = query("SELECT inviter FROM account ORDER BY seq").fetch_all(&mut conn).await.unwrap();
    let inviters: Vec<Option<i64>> = rows.iter().map(|row| row.get("inviter").unwrap()).collect();
    assert_eq!(inviters, [None, Some(1), None]);
    let open = ledger.links(2, crate::clock::at(2)).await.unwrap().links;
    assert_eq!(open.iter().map(|link| link.role).collect::<Vec<_>>(), [AccountRole::Member]);
}

#[test]
fn postgres_versions() {
    let Some(postgres) = Postgres::start(&SETTINGS) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let config = |database: &str| {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Some(postgres.url(database));
        Config { data: folder.path().to_owned(), ledger, ledger_connections: 2, ..Config::default() }
    };
    runtime.block_on(async {
        // Nodes that start at once on a ledger of an older version migrate it once.
        postgres.create("older");
        let url = postgres.url("older");
        let database = PostgresDatabase::open(&url, None, 2).await.unwrap();
        schema::migrate_to(database.migrating().await.unwrap(), Wanted::New, 2).await.unwrap();
        let nodes = (0..8).map(|_| {
            let config = config("older");
            tokio::spawn(async move { Ledger::open(&config).await })
        });
        for node in nodes.collect::<Vec<_>>() {
            node.await.unwrap().unwrap().close().await;
        }
        let versions = "SELECT string_agg(version::text, ' ' ORDER BY version) FROM schema_version";
        let all: Vec<_> = (1..=VERSION).map(|version| version.to_string()).collect();
        assert_eq!(postgres.sql("older", versions), all.join(" "));
        // One relay for one database, made by `init` alone.
        let error = Ledger::create(&config("older")).await.err().unwrap();
        assert!(matches!(error, LedgerOpenError::Exists), "{error}");
        postgres.create("empty");
        let error = Ledger::open(&config("empty")).await.err().unwrap();
        assert!(matches!(error, LedgerOpenError::Missing), "{error}");
        // The next release's, and the one's after it.
        postgres.sql("older", "ALTER TABLE bundle ADD COLUMN later BIGINT NOT NULL DEFAULT 0");
        postgres.sql("older", &newer(VERSION));
        let _ = Ledger::open(&config("older")).await.unwrap();
        postgres.sql("older", "UPDATE schema_version SET min_reader = version");
        let error = Ledger::open(&config("older")).await.err().unwrap();
        assert!(matches!(error, LedgerOpenError::Newer { .. }), "{error}");
        database.close().await;
    });
}
