//! An honest relay process on loopback.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::party::Party;
use crate::run::{Ran, Run, Running, until};
use crate::{files_beneath, text};

const START: Duration = Duration::from_secs(30);

/// A relay and its folder. Killed when it is dropped.
pub struct Relay {
    operator: Party,
    port: u16,
    before: String,
    owner_link: String,
    variables: Vec<(String, String)>,
    running: Option<Running>,
}

/// A port below those that the system gives to outgoing connections, so that a restarted relay finds it free.
fn free_port() -> u16 {
    free_listener().local_addr().unwrap().port()
}

/// A listener on such a port.
pub(crate) fn free_listener() -> TcpListener {
    until("a free port", START, || {
        let port = 20_000 + u16::from_le_bytes(pouch_statement::random().unwrap()) % 12_000;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
    })
}

impl Relay {
    /// Makes one in `root` and starts it.
    pub fn start(root: &Path) -> Self {
        Self::start_configured(root, "")
    }

    /// Makes one in `root`, adds lines to its configuration, and starts it.
    pub fn start_configured(root: &Path, lines: &str) -> Self {
        Self::make(root, &[], lines, "exec", None)
    }

    /// Makes and starts one behind a piece of shell that ends in `exec`, such as an `umask`.
    pub fn start_under(root: &Path, before: &str) -> Self {
        Self::start_configured_under(root, "", before)
    }

    /// Adds lines to its configuration, and starts it behind a piece of shell.
    pub fn start_configured_under(root: &Path, lines: &str, before: &str) -> Self {
        Self::make(root, &[], lines, before, None)
    }

    /// Makes one in `root` whose ledger lies in that database, and starts it.
    pub fn start_over(root: &Path, ledger: &str) -> Self {
        Self::make(root, &["--ledger", ledger], "", "exec", None)
    }

    /// Makes one in `root` with this certificate and key, for which clients have no pins, and starts it.
    #[must_use]
    pub fn start_certified(root: &Path, certificate: &Path, key: &Path) -> Self {
        Self::make(root, &["--certificate", text(certificate), "--key", text(key)], "", "exec", None)
    }

    /// Makes one in `root` over that database, with lines added to its configuration, that everybody reaches by another
    /// port, and starts it.
    pub(crate) fn start_behind(root: &Path, front: u16, ledger: &str, lines: &str) -> Self {
        Self::make(root, &["--ledger", ledger], lines, "exec", Some(front))
    }

    /// Makes one in `root` that everybody reaches by another port, and starts it.
    pub(crate) fn start_proxied(root: &Path, front: u16) -> Self {
        Self::make(root, &[], "", "exec", Some(front))
    }

    /// Starts another node of the same relay: configuration and keys are copied, all else is shared.
    pub(crate) fn another(&self, root: &Path, name: &str) -> Self {
        let port = free_port();
        let mut node = Self {
            operator: Party::new(root, name),
            port,
            before: self.before.clone(),
            owner_link: String::new(),
            variables: vec![("POUCH_RELAY_LISTEN".to_owned(), format!("127.0.0.1:{port}"))],
            running: None,
        };
        Run::of("cp").args(["-a", text(&self.operator.home()), text(&node.operator.home())]).end().ok();
        node.serve();
        node
    }

    fn make(root: &Path, words: &[&str], lines: &str, before: &str, front: Option<u16>) -> Self {
        let operator = Party::new(root, "relay");
        let port = free_port();
        let mut relay = Self {
            operator,
            port,
            before: before.to_owned(),
            owner_link: String::new(),
            variables: vec![],
            running: None,
        };
        let (front, listen, data) = (front.unwrap_or(port).to_string(), format!("127.0.0.1:{port}"), relay.data());
        let init = ["relay", "init", "-q", "--host", "127.0.0.1", "--port", &front, "--listen", &listen, "--data"];
        let made = relay.operator.pouch(init).args([text(&data)]).args(words).behind(before).end().ok();
        relay.owner_link = made.word();
        let file = data.join("relay.toml");
        let config = std::fs::read_to_string(&file).unwrap();
        // In place: the file keeps its mode.
        std::fs::write(&file, format!("{lines}\n{config}")).unwrap();
        relay.serve();
        relay
    }

    /// Its folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.operator.home().join("relay")
    }

    /// The files of its blobs; the one with the id of their store is none.
    #[must_use]
    pub fn blobs(&self) -> Vec<PathBuf> {
        let mut files = files_beneath(&self.data().join("blobs"));
        files.retain(|path| !path.ends_with("blobs/store"));
        files
    }

    /// `pouch relay check` with these words.
    #[track_caller]
    pub fn check(&self, words: &[&str]) -> Ran {
        self.command(&[&["check", "--json"], words].concat())
    }

    /// Gives it a variable from its next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// `pouch relay` with these words, on its folder.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> Ran {
        let data = self.data();
        let words = [&["relay"], words, &["--data", text(&data)]].concat();
        let mut run = self.operator.pouch(words);
        for (name, value) in &self.variables {
            run = run.env(name, value);
        }
        run.end()
    }

    /// What it logged, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.operator.home().with_extension("log")).unwrap_or_default()
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The owner's one-time link.
    #[must_use]
    pub fn owner_link(&self) -> &str {
        &self.owner_link
    }

    /// The process.
    ///
    /// # Panics
    /// When it was stopped.
    #[must_use]
    pub fn process(&self) -> &Running {
        self.running.as_ref().expect("the relay runs")
    }

    /// Starts it, on the same port as before.
    #[track_caller]
    pub fn serve(&mut self) {
        let told = self.operator.home().with_extension("ready");
        let log = self.operator.home().with_extension("log");
        let words = ["relay", "serve", "--data", text(&self.data())].map(str::to_owned);
        let mut run = self.operator.pouch(words).env("POUCH_LOG", "debug");
        for (name, value) in &self.variables {
            run = run.env(name, value);
        }
        let mut running = run
            .env("RELAY_LOG_FILE", &log)
            .output_to(File::create(&told).unwrap())
            .behind(&format!("exec 2>>\"$RELAY_LOG_FILE\"; {}", self.before))
            .start();
        until("the relay is ready", START, || {
            assert!(running.is_running(), "the relay ended: {}", self.log());
            std::fs::read_to_string(&told).is_ok_and(|said| said.contains("relay ready")).then_some(())
        });
        self.running = Some(running);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> Ran {
        let running = self.running.take().expect("the relay runs");
        running.signal(Signal::TERM);
        running.end()
    }
}
