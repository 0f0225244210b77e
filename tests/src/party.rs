//! Parties: each with a home, a desk to work at and a temporary folder of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use pouch_client::Home;
use pouch_client::identity::Identity;
use pouch_client::send::{Purpose, Request};
use pouch_core::bundle::{Content, Kind, Scan, ScanOptions};
use pouch_services::Postgres;
use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::faults::Faults;
use crate::program::program;
use crate::relay::{Relay, free_listener};
use crate::run::{Ran, Run};
use crate::text;

/// Somebody who runs `pouch`.
pub struct Party {
    name: String,
    root: PathBuf,
    counter: AtomicU32,
}

impl Party {
    /// Somebody whose folders are in `root`. Nobody has joined yet.
    #[must_use]
    pub fn new(root: &Path, name: &str) -> Self {
        let party = Self { name: name.to_owned(), root: root.to_owned(), counter: AtomicU32::new(0) };
        for folder in [party.desk(), party.temporary()] {
            std::fs::create_dir_all(folder).unwrap();
        }
        party
    }

    /// `POUCH_HOME`.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join(format!("{}.home", self.name))
    }

    /// The folder in which commands run.
    #[must_use]
    pub fn desk(&self) -> PathBuf {
        self.root.join(format!("{}.desk", self.name))
    }

    /// `TMPDIR`.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.root.join(format!("{}.tmp", self.name))
    }

    /// `pouch` with these words, and nothing of the user's own settings.
    pub fn pouch<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(&self, words: I) -> Run {
        let mut run = Run::of(program());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let lower = name.to_ascii_lowercase();
            if lower.starts_with("pouch_") || lower.starts_with("xdg_") || lower.ends_with("_proxy") {
                run = run.without_env(&name);
            }
        }
        run.args(words)
            .env("POUCH_HOME", self.home())
            .env("HOME", self.desk())
            .env("TMPDIR", self.temporary())
            .env("TZ", "UTC")
            // Where a relay goes away for good, nobody waits for it.
            .env("POUCH_RETRY_FOR", "3s")
            .dir(&self.desk())
    }

    /// Runs `pouch` with these words.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Ran {
        self.pouch(words).end()
    }

    /// Joins without a passphrase.
    #[track_caller]
    pub fn join(&self, link: &str) -> Ran {
        self.pouch(["join", "--name", &self.name, "--no-passphrase"]).input(link).end().ok()
    }

    /// Joins without a passphrase and with a classic key, which older tools know.
    #[track_caller]
    pub fn join_classic(&self, link: &str) -> Ran {
        self.pouch(["join", "--name", &self.name, "--no-passphrase", "--classic"]).input(link).end().ok()
    }

    /// A link for somebody.
    #[track_caller]
    pub fn invite(&self, name: &str) -> String {
        self.run(&["invite", name, "-q"]).ok().word()
    }

    /// A link for somebody in this role.
    #[track_caller]
    pub fn invite_as(&self, name: &str, role: &str) -> String {
        self.run(&["invite", name, "--role", role, "-q"]).ok().word()
    }

    /// Pins somebody by their card and words.
    #[track_caller]
    pub fn pins(&self, other: &Self, name: &str) {
        let card = self.file(&format!("{name}.card"), other.run(&["card", "-q"]).ok().out);
        let words = other.run(&["card", "--words"]).ok().word();
        self.run(&["contact", "add", text(&card), "--name", name, "--words", &words]).ok();
    }

    /// Sends and gives the bundle's id.
    #[track_caller]
    pub fn send(&self, words: &[&str]) -> String {
        self.run(&[&["send", "-q"], words].concat()).ok().word()
    }

    /// Receives a bundle or file into a fresh folder.
    #[track_caller]
    pub fn receive(&self, what: &str) -> PathBuf {
        let fresh = self.fresh();
        self.run(&["receive", what, "-o", text(&fresh)]).ok();
        fresh
    }

    /// A path on the desk that does not exist.
    #[must_use]
    pub fn fresh(&self) -> PathBuf {
        self.desk().join(format!("new-{}", self.counter.fetch_add(1, Ordering::Relaxed)))
    }

    /// A file on the desk.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.desk().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// What lies on the desk and in the temporary folder, hidden or not, sorted.
    #[must_use]
    pub fn lying_around(&self) -> Vec<String> {
        let list = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
        let names = list(self.desk()).chain(list(self.temporary()));
        let mut names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Hidden folders and files on the desk: what is not published.
    #[must_use]
    pub fn hidden(&self) -> Vec<String> {
        self.lying_around().into_iter().filter(|name| name.starts_with(".pouch-")).collect()
    }

    /// The stretches that the record of a hidden folder notes as verified and written.
    #[must_use]
    pub fn noted(&self, hidden: &str) -> Vec<u32> {
        let record = std::fs::read_to_string(self.desk().join(hidden).join(hidden)).unwrap_or_default();
        record.split_inclusive('\n').skip(1).filter_map(|line| line.split_once(' ')?.0.parse().ok()).collect()
    }

    /// The journal's events.
    #[track_caller]
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.run(&["log", "show", "--json"]).ok().objects()
    }

    /// This party as the client library sees it, and its keys, which have no passphrase.
    #[must_use]
    pub fn client(&self) -> (pouch_client::Party, Identity) {
        let party = pouch_client::Party::open(&Home::open(Some(&self.home())).unwrap()).unwrap();
        let identity = party.unlock(|| unreachable!("no passphrase")).unwrap();
        (party, identity)
    }
}

/// What `pouch send FILE --to bo` asks the client for.
#[must_use]
pub fn request(file: &Path) -> Request {
    Request {
        content: Content::Tree(Scan::new(&[file.to_owned()], ScanOptions::default()).unwrap()),
        source: None,
        spool: false,
        compression: None,
        to: vec!["bo".parse().unwrap()],
        purpose: Purpose { kind: Kind::Dataset, note: None, due: None, answers: None },
        lifetime: 3600,
        burn: false,
        resume: None,
        readdressed: false,
        once: None,
    }
}

/// A relay, Ada who owns it, and Bo whom she invited; each has pinned the other.
pub struct Pair {
    pub relay: Relay,
    pub ada: Party,
    pub bo: Party,
    // Last, so that the relay is stopped before its folder goes.
    folder: TempDir,
}

impl Pair {
    #[track_caller]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pouch-tests-").tempdir().unwrap();
        let relay = Relay::start(folder.path());
        Self::introduce(folder, relay, Party::join)
    }

    /// With lines added to the relay's configuration.
    #[track_caller]
    pub fn configured(lines: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("pouch-tests-").tempdir().unwrap();
        let relay = Relay::start_configured(folder.path(), lines);
        Self::introduce(folder, relay, Party::join)
    }

    /// On a relay whose ledger lies in a new database of that cluster.
    #[track_caller]
    pub fn over(postgres: &Postgres, database: &str) -> Self {
        postgres.create(database);
        let folder = tempfile::Builder::new().prefix("pouch-tests-").tempdir().unwrap();
        let relay = Relay::start_over(folder.path(), &postgres.url(database));
        Self::introduce(folder, relay, Party::join)
    }

    /// On a relay behind a proxy that counts what passes.
    #[track_caller]
    pub fn proxied() -> (Self, Balancer) {
        let folder = tempfile::Builder::new().prefix("pouch-tests-").tempdir().unwrap();
        let front = free_listener();
        let relay = Relay::start_proxied(folder.path(), front.local_addr().unwrap().port());
        let proxy = Balancer::start(front, &[relay.port()]);
        (Self::introduce(folder, relay, Party::join), proxy)
    }

    /// On a relay behind a network with faults.
    #[track_caller]
    pub fn faulty() -> (Self, Faults) {
        let folder = tempfile::Builder::new().prefix("pouch-tests-").tempdir().unwrap();
        let front = free_listener();
        let relay = Relay::start_proxied(folder.path(), front.local_addr().unwrap().port());
        let faults = Faults::start(front, relay.port());
        (Self::introduce(folder, relay, Party::join), faults)
    }

    /// Both with classic keys.
    #[track_caller]
    pub fn classic() -> Self {
        let folder = tempfile::Builder::new().prefix("pouch-tests-").tempdir().unwrap();
        let relay = Relay::start(folder.path());
        Self::introduce(folder, relay, Party::join_classic)
    }

    #[track_caller]
    fn introduce(folder: TempDir, relay: Relay, join: impl Fn(&Party, &str) -> Ran) -> Self {
        let (ada, bo) = (Party::new(folder.path(), "ada"), Party::new(folder.path(), "bo"));
        introduce(&ada, &bo, &relay, join);
        Self { relay, ada, bo, folder }
    }

    /// The folder of everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Somebody new, in the same folder.
    #[must_use]
    pub fn stranger(&self, name: &str) -> Party {
        Party::new(self.root(), name)
    }

    /// Somebody more whom Ada invited, each pinned at the other's.
    #[track_caller]
    pub fn third(&self, name: &str) -> Party {
        self.third_as(name, "contractor")
    }

    /// Likewise, in this role.
    #[track_caller]
    pub fn third_as(&self, name: &str, role: &str) -> Party {
        let third = self.stranger(name);
        third.join(&self.ada.invite_as(name, role));
        self.ada.run(&["contact", "list"]).ok().says(&format!("{name} joined and is pinned"));
        third
    }
}

/// Ada and Bo on a relay of several nodes, each over the same database and the same blobs.
pub struct Cluster {
    pub nodes: Vec<Relay>,
    pub balancer: Balancer,
    pub ada: Party,
    pub bo: Party,
    // Last, so that the nodes are stopped before their folders go.
    _folder: TempDir,
}

impl Cluster {
    /// With so many nodes; `blobs` is the line of the configuration that says where blobs are.
    #[track_caller]
    #[must_use]
    pub fn start(count: usize, ledger: &str, blobs: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("pouch-tests-").tempdir().unwrap();
        let front = free_listener();
        let first = Relay::start_behind(folder.path(), front.local_addr().unwrap().port(), ledger, blobs);
        let others =
            (1..count).map(|number| first.another(folder.path(), &format!("node{number}"))).collect::<Vec<_>>();
        let nodes: Vec<Relay> = [first].into_iter().chain(others).collect();
        let ports: Vec<u16> = nodes.iter().map(Relay::port).collect();
        let balancer = Balancer::start(front, &ports);
        let (ada, bo) = (Party::new(folder.path(), "ada"), Party::new(folder.path(), "bo"));
        introduce(&ada, &bo, &nodes[0], Party::join);
        Self { nodes, balancer, ada, bo, _folder: folder }
    }
}

#[track_caller]
fn introduce(ada: &Party, bo: &Party, relay: &Relay, join: impl Fn(&Party, &str) -> Ran) {
    join(ada, relay.owner_link());
    join(bo, &ada.invite("bo"));
    ada.run(&["contact", "list"]).ok().says("bo joined and is pinned");
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}
