//! A database dumped, piped, sent, received and loaded inside a transaction that commits only on success: the scripts of
//! docs/pipelines.md, with a real PostgreSQL in a temporary folder. Runs where `POUCH_POSTGRES` names its programs' folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use pouch_tests::{LIMIT, Pair, Party, Postgres, Ran, Run, program, until, workspace};

/// The environment in which `psql` and `pg_dump` find this cluster, and scripts find `pouch`.
fn reach(postgres: &Postgres, run: Run) -> Run {
    let before = [postgres.programs().to_owned(), program().parent().unwrap().to_owned()];
    let path = std::env::var_os("PATH").unwrap();
    let path: OsString = std::env::join_paths(before.into_iter().chain(std::env::split_paths(&path))).unwrap();
    run.env("PATH", path).env("PGHOST", postgres.socket()).env("PGUSER", "postgres")
}

/// A dump, without the lines that are different each time.
fn dump(postgres: &Postgres, database: &str) -> String {
    let run = Run::of(postgres.programs().join("pg_dump")).args(["--no-owner", database]);
    let dumped = reach(postgres, run).end().ok().text();
    dumped.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
}

/// The scripts of the page: the sender's and the recipient's.
fn scripts() -> [String; 2] {
    let page = fs::read_to_string(workspace().join("docs/pipelines.md")).unwrap();
    let (_, section) = page.split_once("\n## A database, end to end\n").unwrap();
    let mut blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    [blocks.next().unwrap(), blocks.next().unwrap()]
}

fn script(postgres: &Postgres, party: &Party, script: &str, words: &[&str]) -> Ran {
    let run = Run::of("bash").args([&["-c", script, "script"], words].concat()).dir(&party.desk());
    reach(postgres, run).env("POUCH_HOME", party.home()).end()
}

const TABLES: &str = "
    CREATE TABLE people (id serial PRIMARY KEY, name text NOT NULL, born date, photo bytea, note text UNIQUE);
    INSERT INTO people (name, born, photo, note)
        SELECT 'Zoë ☃ ' || n, date '1970-01-01' + n % 20000, decode(md5(n::text), 'hex'), repeat(md5(n::text), 4) || n
        FROM generate_series(1, ROWS) n;
    INSERT INTO people (name) VALUES (E'tab\\t, new\\nline, back\\\\slash'), ('');
    CREATE VIEW old AS SELECT * FROM people WHERE born < '1980-01-01';
    CREATE INDEX ON people (born);
";

/// The sealed object on the relay's disk that holds the end of a large dump.
fn last_part(pair: &Pair) -> PathBuf {
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let mut blobs: Vec<PathBuf> = pair.relay.blobs().into_iter().filter(|p| size(p) > 100_000).collect();
    blobs.sort_by_key(size);
    assert!(blobs.len() == 1 || size(&blobs[0]) < size(&blobs[1]), "the last part is not the smallest");
    blobs.remove(0)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn attack_64_a_database_is_loaded_whole_or_not_at_all() {
    let Some(postgres) = Postgres::start(&["fsync=off"]) else { return };
    let pair = Pair::new();
    let [sending, receiving] = scripts();
    // Below 32 MiB nothing is released before all is verified; beyond, a prefix is.
    for (database, rows) in [("small", 20_000), ("large", 220_000)] {
        postgres.sql("postgres", &format!("CREATE DATABASE {database};"));
        postgres.sql("postgres", &format!("CREATE DATABASE {database}_copy;"));
        let copy = format!("{database}_copy");
        postgres.sql(database, &TABLES.replace("ROWS", &rows.to_string()));
        let id = script(&postgres, &pair.ada, &sending, &[database]).ok().word();
        script(&postgres, &pair.bo, &receiving, &[&id, &copy]).ok();
        assert!(dump(&postgres, database) == dump(&postgres, &copy), "{database} arrived changed");
        assert_eq!(postgres.sql(&copy, "SELECT count(*) FROM people"), (rows + 2).to_string());
        pair.ada.run(&["outbox", "revoke", &id]).ok();

        // The relay damages the end of it.
        until("the first one is deleted", LIMIT, || pair.relay.blobs().is_empty().then_some(()));
        let id = script(&postgres, &pair.ada, &sending, &[database]).ok().word();
        flip(&last_part(&pair));
        let empty = format!("{database}_empty");
        postgres.sql("postgres", &format!("CREATE DATABASE {empty};"));
        let ran = script(&postgres, &pair.bo, &receiving, &[&id, &empty]);
        assert_eq!(ran.code, 4, "{ran}");
        let tables =
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public'";
        assert_eq!(postgres.sql(&empty, tables), "0", "nothing was loaded");
        pair.ada.run(&["outbox", &id]).ok().says("FAILED at the part");
        pair.ada.run(&["outbox", "revoke", &id]).ok();
        until("the second one is deleted", LIMIT, || pair.relay.blobs().is_empty().then_some(()));
    }
    // A dump that fails in the middle is taken back.
    let ran = script(&postgres, &pair.ada, &sending, &["no_such_database"]);
    assert_ne!(ran.code, 0, "{ran}");
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text(), "");
}
