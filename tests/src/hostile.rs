//! A relay that answers as it likes, in front of an honest one; and bundles that nobody honest would make.
//!
//! [`World`] is an honest relay process, a [`Hostile`] server that stands where clients look for it (it has the relay's own
//! key, as whoever runs a relay does), and parties whose every step is a real `pouch` process. Without rules
//! [`Hostile`] passes everything on, so that each test first sees the exchange work.

pub mod forge;
mod server;
mod trap;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pouch_client::transport::{Https, Network};
use pouch_protocol::Link;
use pouch_statement::{BundleId, hazardous};
use serde_json::Value;
use tempfile::TempDir;

pub use server::{Answer, Hostile, Reply, Seen, tls_1_2_of, tls_of, tls_of_a_stranger};
pub use trap::Trap;

use crate::{Party, Ran, Run, Running, text, until};

const START: Duration = Duration::from_secs(30);

/// What must never reach a terminal: ESC, an OSC, an eight-bit CSI, right-to-left override, zero width, a faked line.
pub const NASTY: &str = "\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\u{202e}exe.\u{2066}\u{200b}\r\nfaked: line";

/// Relay, hostile relay and parties. Everything stops when it is dropped.
pub struct World {
    pub hostile: Hostile,
    pub owner_link: String,
    // Dropped before the folder.
    _relay: Running,
    folder: TempDir,
    counter: AtomicU32,
}

/// What holds for every command, whatever it met: it ended by itself, without a panic, and nothing that could act on a
/// terminal was printed (attacks.md 9, 28).
#[track_caller]
fn audited(ran: Ran) -> Ran {
    assert!(ran.code >= 0 && !ran.err.contains("panicked"), "{ran}");
    let printed = format!("{}{}", ran.text(), ran.err);
    if let Some(bad) = printed.chars().find(|c| hazardous(*c) && *c != '\n') {
        panic!("printed U+{:04X} raw: {}", bad as u32, printed.escape_debug());
    }
    ran
}

impl World {
    /// A relay with nobody on it.
    pub fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("pouch-hostile-").tempdir().unwrap();
        let operator = Party::new(folder.path(), "operator");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
        let data = folder.path().join("relay");
        let init = ["relay", "init", "-q", "--host", "127.0.0.1", "--port", &port, "--listen", &behind, "--data"];
        let owner_link = operator.pouch(init).args([&data]).end().ok().word();
        let told = folder.path().join("ready");
        let output = std::fs::File::create(&told).unwrap();
        let serve = operator.pouch(["relay", "serve", "--data", text(&data)]).env("POUCH_LOG", "error");
        let mut relay = serve.output_to(output).start();
        until("the relay is ready", START, || {
            assert!(relay.is_running(), "the relay ended");
            std::fs::read_to_string(&told).is_ok_and(|said| said.contains("relay ready")).then_some(())
        });
        let link: Link = owner_link.parse().unwrap();
        let honest = Https::new(format!("https://{behind}").parse().unwrap(), &link.pins, &Network::default()).unwrap();
        let tls = tls_of(&data.join("keys/relay.crt"), &data.join("keys/relay.key"));
        let hostile = Hostile::start(listener, tls, honest, &link.relay);
        Self { hostile, owner_link, _relay: relay, folder, counter: AtomicU32::new(0) }
    }

    /// Ada runs the relay, and Bo has joined by her invitation; each has pinned the other.
    pub fn of_two() -> Self {
        let world = Self::empty();
        world.join("ada", &world.owner_link).ok();
        world.befriend("bo");
        world
    }

    /// Somebody more joins by Ada's invitation, and is pinned.
    pub fn befriend(&self, name: &str) {
        self.join(name, &self.invite(name)).ok().says("ada pinned");
        self.run("ada", &["contact", "list"]).ok().says("joined and is pinned");
    }

    /// Ada's link for somebody.
    pub fn invite(&self, name: &str) -> String {
        self.run("ada", &["invite", name, "-q"]).ok().word()
    }

    #[track_caller]
    pub fn join(&self, who: &str, link: &str) -> Ran {
        self.run_with(who, &["join", "--name", who, "--no-passphrase"], link.as_bytes())
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Somebody, whether they joined or not.
    pub fn party(&self, who: &str) -> Party {
        Party::new(self.root(), who)
    }

    /// The relay's certificate and key.
    pub fn keys(&self) -> (PathBuf, PathBuf) {
        let keys = self.root().join("relay/keys");
        (keys.join("relay.crt"), keys.join("relay.key"))
    }

    /// Runs `pouch` as somebody.
    #[track_caller]
    pub fn run(&self, who: &str, words: &[&str]) -> Ran {
        self.run_with(who, words, b"")
    }

    /// Runs `pouch` as somebody with this on standard input.
    #[track_caller]
    pub fn run_with(&self, who: &str, words: &[&str], input: &[u8]) -> Ran {
        audited(self.pouch(who, words).input(input).end())
    }

    /// `pouch` as somebody, in the folder of everything.
    pub fn pouch(&self, who: &str, words: &[&str]) -> Run {
        self.party(who).pouch(words).dir(self.root())
    }

    /// A path that does not exist, in a new folder of its own.
    pub fn fresh(&self) -> Fresh {
        let folder = self.root().join(format!("into-{}", self.counter.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&folder).unwrap();
        Fresh { path: folder.join("it"), folder }
    }

    /// A file to send.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Ada sends a file to Bo; gives the bundle.
    #[track_caller]
    pub fn send(&self, path: &Path) -> BundleId {
        self.run("ada", &["send", text(path), "--to", "bo", "-q"]).ok().word().parse().unwrap()
    }

    /// Bo receives a bundle, or a `.pouch` file, into a fresh place.
    #[track_caller]
    pub fn receive(&self, what: &str) -> (Ran, Fresh) {
        self.receive_as("bo", what)
    }

    #[track_caller]
    pub fn receive_as(&self, who: &str, what: &str) -> (Ran, Fresh) {
        let fresh = self.fresh();
        (self.run(who, &["receive", what, "-o", text(&fresh.path)]), fresh)
    }

    /// Bo receives and it is refused as evidence: code 4, and nothing anywhere.
    #[track_caller]
    pub fn refuses(&self, what: &str) -> Ran {
        let (ran, fresh) = self.receive(what);
        let ran = ran.ends(4);
        fresh.is_untouched();
        let event = self.last_event("bo", "received");
        assert_eq!(event["outcome"], "failed", "not in the journal: {event}\n{ran}");
        ran
    }

    /// The last event of this kind in somebody's journal.
    #[track_caller]
    pub fn last_event(&self, who: &str, action: &str) -> Value {
        self.party(who).events().into_iter().rfind(|e| e["action"] == action).unwrap_or_default()
    }

    /// What Ada's outbox knows of the one recipient of a bundle, after asking the relay.
    #[track_caller]
    pub fn outbox(&self, bundle: BundleId) -> Value {
        let shown = self.run("ada", &["outbox", &bundle.to_string(), "--json"]).ok().object("bundle");
        shown["recipients"][0].clone()
    }
}

/// A place to receive into.
pub struct Fresh {
    pub path: PathBuf,
    folder: PathBuf,
}

impl Fresh {
    /// Nothing was left there, not even something hidden.
    #[track_caller]
    pub fn is_untouched(&self) {
        let there: Vec<_> = std::fs::read_dir(&self.folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(there.is_empty(), "left behind: {there:?}");
    }

    /// The bytes of a file that was received.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path.join(name)).unwrap()
    }
}
