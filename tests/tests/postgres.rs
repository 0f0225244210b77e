//! A database dumped, piped, sent, received and loaded inside a transaction that commits only on success: the scripts of
//! docs/pipelines.md, with a real PostgreSQL in a temporary folder. Runs where `POUCH_POSTGRES` names its programs' folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pouch_tests::{LIMIT, Pair, Party, Ran, Run, Running, files_beneath, program, skip, text, until, workspace};
use rustix::process::Signal;
use tempfile::TempDir;

/// A cluster of its own, reached through a socket in its folder. Stopped when it is dropped.
struct Postgres {
    programs: PathBuf,
    running: Option<Running>,
    folder: TempDir,
}

impl Postgres {
    fn start() -> Option<Self> {
        let Some(programs) = std::env::var_os("POUCH_POSTGRES") else {
            skip("POUCH_POSTGRES names no folder with PostgreSQL's programs");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("pouch-pg-").tempdir().unwrap();
        let mut postgres = Self { programs: programs.into(), running: None, folder };
        if is_root() {
            // PostgreSQL refuses to run as root.
            let id = Run::of("id").args(["-u", "postgres"]).end().ok().word().parse().unwrap();
            chown(postgres.folder.path(), Some(id), None).unwrap();
            fs::set_permissions(postgres.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (data, socket) = (postgres.folder.path().join("data"), postgres.folder.path().to_owned());
        let (data, socket) = (text(&data), text(&socket));
        postgres
            .server("initdb", &["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"])
            .end()
            .ok();
        let serve =
            postgres.server("postgres", &["-D", data, "-k", socket, "-c", "listen_addresses=", "-c", "fsync=off"]);
        postgres.running = Some(serve.start());
        until("PostgreSQL is ready", LIMIT, || {
            let ready = Run::of(postgres.programs.join("pg_isready")).args(["-q", "-h", socket]).end();
            (ready.code == 0).then_some(())
        });
        Some(postgres)
    }

    /// One of the programs that must not be root's. It ends with the test, however that ends.
    fn server(&self, name: &str, words: &[&str]) -> Run {
        let run = Run::of("setpriv").args(["--pdeathsig", "QUIT"]);
        let whose = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
        let run = if is_root() { run.args(whose) } else { run };
        run.args(["--", text(&self.programs.join(name))]).args(words).dir(self.folder.path())
    }

    /// The environment in which `psql` and `pg_dump` find this cluster, and scripts find `pouch`.
    fn reach(&self, run: Run) -> Run {
        let before = [self.programs.clone(), program().parent().unwrap().to_owned()];
        let path = std::env::var_os("PATH").unwrap();
        let path: OsString = std::env::join_paths(before.into_iter().chain(std::env::split_paths(&path))).unwrap();
        run.env("PATH", path).env("PGHOST", self.folder.path()).env("PGUSER", "postgres")
    }

    fn sql(&self, database: &str, text: &str) -> String {
        let words = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database];
        self.reach(Run::of(self.programs.join("psql")).args(words)).input(text).end().ok().word()
    }

    /// A dump, without the lines that are different each time.
    fn dump(&self, database: &str) -> String {
        let dumped =
            self.reach(Run::of(self.programs.join("pg_dump")).args(["--no-owner", database])).end().ok().text();
        dumped.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        // Shuts down at once, and takes its shared memory along, which a kill would leave behind.
        running.signal(Signal::QUIT);
        let begun = std::time::Instant::now();
        while running.is_running() && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
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
    postgres.reach(run).env("POUCH_HOME", party.home()).end()
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
    let mut blobs: Vec<PathBuf> =
        files_beneath(&pair.relay.data().join("blobs")).into_iter().filter(|p| size(p) > 100_000).collect();
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
    let Some(postgres) = Postgres::start() else { return };
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
        assert!(postgres.dump(database) == postgres.dump(&copy), "{database} arrived changed");
        assert_eq!(postgres.sql(&copy, "SELECT count(*) FROM people"), (rows + 2).to_string());
        pair.ada.run(&["outbox", "revoke", &id]).ok();

        // The relay damages the end of it.
        let folder = pair.relay.data().join("blobs");
        until("the first one is deleted", LIMIT, || files_beneath(&folder).is_empty().then_some(()));
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
        until("the second one is deleted", LIMIT, || files_beneath(&folder).is_empty().then_some(()));
    }
    // A dump that fails in the middle is taken back.
    let ran = script(&postgres, &pair.ada, &sending, &["no_such_database"]);
    assert_ne!(ran.code, 0, "{ran}");
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text(), "");
}
