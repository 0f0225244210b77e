//! A relay that answers as it likes, in front of an honest one; and bundles that nobody honest would make.
//!
//! [`World`] is an honest relay process, a [`Hostile`] server that stands where clients look for it (it has the relay's own
//! key, as whoever runs a relay does), and parties, each with a home of its own and each step of theirs a real `pouch`
//! process. Without rules [`Hostile`] passes everything on, so that each test first sees the exchange work.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::missing_panics_doc, missing_docs)]

pub mod forge;
mod server;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pouch_client::identity::Identity;
use pouch_client::transport::Https;
use pouch_client::{Home, Party};
use pouch_protocol::Link;
use pouch_statement::BundleId;
use tempfile::TempDir;

pub use server::{Answer, Hostile, Reply, Seen, Trap, tls_1_2_of, tls_of, tls_of_a_stranger};

/// No command of a test may take longer.
const LIMIT: Duration = Duration::from_secs(90);

/// How a command ended.
pub struct Ran {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
    /// The most memory that it had at once, in KiB.
    pub peak: u64,
    what: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\nstdout: {}\nstderr: {}", self.what, self.text(), self.err);
        self
    }

    /// Asserts that it told this, on either stream.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let said = self.err.contains(text) || self.text().contains(text);
        assert!(said, "{}: not said: {text:?}\nstdout: {}\nstderr: {}", self.what, self.text(), self.err);
        self
    }

    /// The objects of `--json`.
    pub fn objects(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What holds for every command, whatever it met: it ended by itself, without a panic, and nothing that could act
    /// on a terminal was printed (attacks.md 9, 28).
    #[track_caller]
    fn audited(self) -> Self {
        assert!(!self.err.contains("panicked"), "{}: {}", self.what, self.err);
        let printed = format!("{}{}", self.text(), self.err);
        if let Some(bad) = printed.chars().find(|c| acts(*c)) {
            panic!("{}: printed U+{:04X} raw: {}", self.what, bad as u32, printed.escape_debug());
        }
        self
    }
}

/// Whether a character does something else than stand where it was printed.
fn acts(c: char) -> bool {
    let invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    invisible || (c.is_control() && c != '\n' && c != '\t')
}

/// Characters that must never reach a terminal: ESC, an OSC, an eight-bit CSI, right-to-left override, zero width.
pub const NASTY: &str = "\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\u{202e}exe.\u{2066}\u{200b}\r\nfaked: line";

/// Relay, hostile relay and parties. Everything stops when it is dropped.
pub struct World {
    pub hostile: Hostile,
    folder: TempDir,
    relay: Child,
    counter: AtomicU32,
    pub owner_link: String,
}

/// The binary under test.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("pouch");
    assert!(program.exists(), "{} is not there: run `cargo build` first", program.display());
    program
}

impl World {
    /// A relay with nobody on it.
    pub fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("pouch-hostile-").tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let data = folder.path().join("relay");
        let home = folder.path().join("operator");
        let data_text = data.to_str().unwrap();
        let init = ["relay", "init", "-q", "--host", "127.0.0.1", "--port", &port, "--listen", &behind.to_string()];
        let made = finish(command(&home, folder.path(), &[&init[..], &["--data", data_text]].concat()), b"");
        let owner_link = made.ends(0).text().trim().to_owned();
        let link: Link = owner_link.parse().unwrap();
        let mut relay = command(&home, folder.path(), &["relay", "serve", "--data", data_text])
            .env("POUCH_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(relay.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("relay ready"), "{first}");
        let honest = Https::new(format!("https://{behind}").parse().unwrap(), &link.pins).unwrap();
        let tls = tls_of(&data.join("keys/relay.crt"), &data.join("keys/relay.key"));
        let hostile = Hostile::start(listener, tls, honest, &link.relay);
        Self { hostile, folder, relay, counter: AtomicU32::new(0), owner_link }
    }

    /// Ada runs the relay, and Bo has joined by her invitation; each has pinned the other.
    pub fn of_two() -> Self {
        let world = Self::empty();
        world.join("ada", &world.owner_link).ends(0);
        let link = world.invite("bo");
        world.join("bo", &link).ends(0).says("ada pinned");
        world.run("ada", &["contact", "list"]).ends(0).says("bo joined and is pinned");
        world
    }

    /// Ada's link for somebody.
    pub fn invite(&self, name: &str) -> String {
        self.run("ada", &["invite", name, "-q"]).ends(0).text().trim().to_owned()
    }

    pub fn join(&self, who: &str, link: &str) -> Ran {
        self.run_with(who, &["join", "--name", who, "--no-passphrase"], link.as_bytes())
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn home(&self, who: &str) -> PathBuf {
        self.root().join(who)
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
        finish(command(&self.home(who), self.root(), words), input).audited()
    }

    /// Begins to run `pouch` as somebody.
    pub fn start(&self, who: &str, words: &[&str]) -> Child {
        let mut command = command(&self.home(who), self.root(), words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A party as the client library sees it, and its keys.
    pub fn party(&self, who: &str) -> (Party, Identity) {
        let party = Party::open(&Home::open(Some(&self.home(who))).unwrap()).unwrap();
        let identity = party.unlock(|| unreachable!("no passphrase")).unwrap();
        (party, identity)
    }

    /// A path that does not exist, in a new folder of its own.
    pub fn fresh(&self) -> Fresh {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let folder = self.root().join(format!("into-{number}"));
        std::fs::create_dir(&folder).unwrap();
        Fresh { path: folder.join("it"), folder }
    }

    /// A file of Ada's with this content.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Ada sends a file to Bo; gives the bundle.
    #[track_caller]
    pub fn send(&self, path: &Path) -> BundleId {
        let sent = self.run("ada", &["send", path.to_str().unwrap(), "--to", "bo", "-q"]).ends(0);
        sent.text().trim().parse().unwrap()
    }

    /// Bo receives a bundle, or a `.pouch` file, into a fresh place.
    #[track_caller]
    pub fn receive(&self, what: &str) -> (Ran, Fresh) {
        self.receive_as("bo", what)
    }

    #[track_caller]
    pub fn receive_as(&self, who: &str, what: &str) -> (Ran, Fresh) {
        let fresh = self.fresh();
        (self.run(who, &["receive", what, "-o", fresh.path.to_str().unwrap()]), fresh)
    }

    /// The last event in somebody's journal.
    #[track_caller]
    pub fn last_event(&self, who: &str, action: &str) -> serde_json::Value {
        let events = self.run(who, &["log", "show", "--json"]).ends(0).objects();
        events.into_iter().rfind(|e| e["action"] == action).unwrap_or_default()
    }

    /// What Ada's outbox knows of the one recipient of a bundle.
    #[track_caller]
    pub fn outbox(&self, bundle: BundleId) -> serde_json::Value {
        let shown = self.run("ada", &["outbox", &bundle.to_string(), "--json"]).ends(0);
        shown.objects()[0]["recipients"][0].clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

/// A place to receive into.
pub struct Fresh {
    pub path: PathBuf,
    folder: PathBuf,
}

impl Fresh {
    /// Asserts that nothing was left there, not even something hidden.
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

/// `pouch` with a home and nothing of the user's own settings.
fn command(home: &Path, folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_lowercase();
        if text.starts_with("pouch_") || text.ends_with("_proxy") {
            command.env_remove(&name);
        }
    }
    command.args(words).env("POUCH_HOME", home).env("TZ", "UTC").current_dir(folder);
    command
}

/// Runs to the end, within the limit.
fn finish(mut command: Command, input: &[u8]) -> Ran {
    let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // Whoever refuses early does not read to the end.
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ran = watch(child, what);
    feeding.join().unwrap();
    ran
}

/// Waits for a command that was started, within the limit.
pub fn watch(mut child: Child, what: String) -> Ran {
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes)
    });
    let listening = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    });
    let (begun, mut peak) = (Instant::now(), 0);
    let status = loop {
        peak = peak.max(peak_of(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what} did not end; it said: {}", listening.join().unwrap().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let out = reading.join().unwrap().unwrap();
    Ran { code: status.code(), out, err: listening.join().unwrap().unwrap(), peak, what }
}

fn peak_of(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}
