//! PostgreSQL, from the programs in the folder that `POUCH_POSTGRES` names.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{is_root, missing};

/// For a start or a stop.
const LIMIT: Duration = Duration::from_secs(60);

/// A cluster of its own, reached through a socket in its folder.
pub struct Postgres {
    programs: PathBuf,
    settings: Vec<String>,
    process: Option<Child>,
    folder: TempDir,
}

impl Postgres {
    /// A running cluster with these settings (`name=value`); `None`, and said, where there is no PostgreSQL.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(settings: &[&str]) -> Option<Self> {
        let Some(programs) = std::env::var_os("POUCH_POSTGRES").filter(|folder| !folder.is_empty()) else {
            missing("POUCH_POSTGRES names no folder with PostgreSQL's programs");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("pouch-pg-").tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut postgres = Self { programs: programs.into(), settings, process: None, folder };
        if is_root() {
            let id = Command::new("id").args(["-u", "postgres"]).output().unwrap();
            let id = String::from_utf8_lossy(&id.stdout).trim().parse().unwrap();
            chown(postgres.folder.path(), Some(id), None).unwrap();
            fs::set_permissions(postgres.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let words = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-D"];
        done(postgres.server("initdb").args(words).arg(postgres.data()).output().unwrap());
        postgres.serve();
        Some(postgres)
    }

    /// The folder of its programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The folder of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// How a program on this machine reaches a database of it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=postgres", self.folder.path().display())
    }

    /// One of the programs that must not be root's. It ends with the thread that starts it, however that ends.
    fn server(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.arg("--").arg(self.programs.join(name)).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Starts it, also again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn serve(&mut self) {
        let mut command = self.server("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.socket()).args(["-c", "listen_addresses="]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        self.process = Some(command.stderr(log).stdout(Stdio::null()).spawn().unwrap());
        let begun = Instant::now();
        loop {
            let words = ["-q", "-d", "postgres", "-U", "postgres", "-h"];
            let ready = Command::new(self.programs.join("pg_isready")).args(words).arg(self.socket()).status().unwrap();
            if ready.success() {
                return;
            }
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < LIMIT, "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Another setting (`name=value`), from the next start on.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Makes it a standby, or a primary again, from the next start on.
    ///
    /// # Panics
    /// When its folder cannot be written.
    pub fn standby(&self, standby: bool) {
        let signal = self.data().join("standby.signal");
        if standby { fs::write(signal, b"").unwrap() } else { fs::remove_file(signal).unwrap() }
    }

    /// What the server said since it was started last.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends it at once, like a crash of the server; it recovers when it is started again.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Takes its shared memory along, which a kill would leave behind.
        let _ = kill_process(Pid::from_child(&process), Signal::QUIT);
        let begun = Instant::now();
        while process.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < LIMIT, "PostgreSQL does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs SQL; what it prints, without decoration.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, database: &str, text: &str) -> String {
        let words = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"];
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(words).arg(self.socket()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut psql = psql.spawn().unwrap();
        psql.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        done(psql.wait_with_output().unwrap())
    }

    /// A new database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn create(&self, database: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {database};"));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.stop();
        }
        if let Some(mut process) = self.process.take() {
            let _ = kill_process(Pid::from_child(&process), Signal::QUIT);
            let _ = process.wait();
        }
    }
}

/// What a program printed that succeeded.
#[track_caller]
fn done(output: Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
