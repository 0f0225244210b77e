//! The stage: a relay and two parties, each a real process of this program with a home of its own.

use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::run::{Failure, Outcome};
use crate::signals;

/// What a command printed, and how it ended.
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ran {
    pub(super) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    pub(super) fn said(&self, text: &str) -> bool {
        self.out.contains(text) || self.err.contains(text)
    }
}

/// Relay, ada and bo in one temporary folder.
pub(super) struct Stage {
    root: PathBuf,
    program: PathBuf,
    relay: Option<Child>,
}

/// A line for whoever watches.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A heading.
pub(super) fn title(text: &str) {
    say(format_args!("\n— {text} —"));
}

/// An expectation that did not hold.
pub(super) fn fail(text: impl Display) -> Failure {
    Failure::other(format_args!("the demo failed: {text}"))
}

/// States what is expected; a demo in which anything does not hold fails.
pub(super) fn check(held: bool, expectation: &str) -> Outcome {
    if held {
        say(format_args!("  ✓ {expectation}"));
        Ok(())
    } else {
        Err(fail(format_args!("not so: {expectation}")))
    }
}

impl Stage {
    pub(super) fn new(root: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::other)?;
        Ok(Self { root: root.to_owned(), program, relay: None })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn home(&self, who: &str) -> PathBuf {
        self.root.join(who)
    }

    fn command(&self, who: &str, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Nothing of the user's own settings may steer the demo.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POUCH_")) {
            command.env_remove(name);
        }
        command.args(words).env("POUCH_HOME", self.home(who)).current_dir(&self.root);
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }

    /// Runs a command as `who` and shows it as it was typed, with what it said.
    fn run(&self, who: &str, words: &[&str], input: Option<&str>) -> Result<Ran, Failure> {
        say(format_args!("{who}$ pouch {}", typed(words)));
        let ran = self.run_quietly(who, words, input)?;
        for line in ran.out.lines().chain(ran.err.lines()) {
            say(format_args!("    {line}"));
        }
        Ok(ran)
    }

    fn run_quietly(&self, who: &str, words: &[&str], input: Option<&str>) -> Result<Ran, Failure> {
        if signals::came() {
            return Err(pouch_client::Error::Interrupted.into());
        }
        let mut child = self
            .command(who, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::other)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that refuses before it reads closes the pipe; its exit code tells.
            let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
        }
        let output = child.wait_with_output().map_err(Failure::other)?;
        Ok(Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub(super) fn ada(&self, words: &[&str]) -> Result<Ran, Failure> {
        self.run("ada", words, None)
    }

    pub(super) fn bo(&self, words: &[&str]) -> Result<Ran, Failure> {
        self.run("bo", words, None)
    }

    /// Sends as ada and gives the beginning of the bundle's id as people type it.
    pub(super) fn send(&self, words: &[&str], input: Option<&str>) -> Result<String, Failure> {
        self.send_as("ada", words, input)
    }

    pub(super) fn send_as_bo(&self, words: &[&str]) -> Result<String, Failure> {
        self.send_as("bo", words, None)
    }

    fn send_as(&self, who: &str, words: &[&str], input: Option<&str>) -> Result<String, Failure> {
        let ran = self.run(who, words, input)?;
        let id = ran.out.split("pouch receive ").nth(1).and_then(|rest| rest.split_whitespace().next());
        match id {
            Some(id) if ran.succeeded() => Ok(id.to_owned()),
            _ => Err(fail(format_args!("{who} could not send"))),
        }
    }

    /// Makes a relay on a free loopback port and starts it.
    pub(super) fn start_relay(&mut self) -> Outcome {
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).map_err(Failure::other)?.port();
        let listen = format!("127.0.0.1:{port}");
        let words = ["relay", "init", "--host", "127.0.0.1", "--port", &port.to_string(), "--listen", &listen];
        let made = self.run("relay", &words, None)?;
        check(made.succeeded(), "the relay is made")?;
        say("relay$ pouch relay serve &");
        let mut child = self
            .command("relay", &["relay", "serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Failure::other)?;
        let mut first = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut first).map_err(Failure::other)?;
        }
        self.relay = Some(child);
        say(format_args!("    {}", first.trim_end()));
        check(first.contains("relay ready"), "the relay serves")?;
        let link = link_in(&made.out)?;
        let joined = self.run("ada", &["join", "--name", "ada", "--no-passphrase"], Some(&link))?;
        check(joined.succeeded(), "ada joined with the owner's link")
    }

    /// Ada invites bo, bo joins, and ada's next command pins bo.
    pub(super) fn introduce(&self) -> Outcome {
        let invited = self.ada(&["invite", "bo"])?;
        let link = link_in(&invited.out)?;
        let joined = self.run("bo", &["join", "--name", "bo", "--no-passphrase"], Some(&link))?;
        check(joined.succeeded() && joined.said("ada pinned"), "bo joined and pinned ada")?;
        let contacts = self.ada(&["contact", "list"])?;
        check(contacts.said("bo joined and is pinned"), "ada pinned bo")?;
        let again = self.run_quietly("stranger", &["join", "--name", "bo", "--no-passphrase"], Some(&link))?;
        check(again.code == Some(6), "the link opens nothing a second time")
    }

    /// Stops the relay.
    pub(super) fn stop(&mut self) {
        if let Some(mut relay) = self.relay.take() {
            let _ = relay.kill();
            let _ = relay.wait();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Words as they would be typed.
fn typed(words: &[&str]) -> String {
    let plain = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_alphanumeric() || "-_./:,+=@".contains(c));
    let quoted = words.iter().map(|w| if plain(w) { (*w).to_owned() } else { format!("'{w}'") });
    quoted.collect::<Vec<_>>().join(" ")
}

fn link_in(text: &str) -> Result<String, Failure> {
    text.lines()
        .map(str::trim)
        .find(|line| line.starts_with("https://") && line.contains("/j#"))
        .map(str::to_owned)
        .ok_or_else(|| fail("no link was printed"))
}

/// Bytes beneath a path; `None` if they are more than `limit`.
pub(super) fn weigh(path: &Path, limit: u64) -> Option<u64> {
    let data = fs::symlink_metadata(path).ok()?;
    if !data.is_dir() {
        return (data.len() <= limit).then_some(data.len());
    }
    let mut sum = 0;
    for entry in fs::read_dir(path).ok()? {
        sum += weigh(&entry.ok()?.path(), limit - sum)?;
    }
    Some(sum)
}

/// Compares what was sent with what was received, file by file and byte by byte; gives the number of files.
pub(super) fn compare(sources: &[PathBuf], received: &Path) -> Result<u64, Failure> {
    let mut files = 0;
    if let [only] = sources
        && only.is_dir()
    {
        compare_one(only, received, &mut files)?;
    } else {
        for source in sources {
            let name = source.file_name().ok_or_else(|| fail("a source has no name"))?;
            compare_one(source, &received.join(name), &mut files)?;
        }
    }
    let there = count_files(received)?;
    if there == files { Ok(files) } else { Err(fail(format_args!("{there} files arrived, {files} were sent"))) }
}

fn compare_one(sent: &Path, got: &Path, files: &mut u64) -> Outcome {
    let data = fs::symlink_metadata(sent).map_err(Failure::other)?;
    if data.is_dir() {
        for entry in fs::read_dir(sent).map_err(Failure::other)? {
            let entry = entry.map_err(Failure::other)?;
            compare_one(&entry.path(), &got.join(entry.file_name()), files)?;
        }
        return Ok(());
    }
    if !data.is_file() {
        return Ok(());
    }
    *files += 1;
    let read = |path: &Path| fs::File::open(path).map(BufReader::new).map_err(Failure::other);
    let (mut left, mut right) = (read(sent)?, read(got)?);
    loop {
        let (a, b) = (left.fill_buf().map_err(Failure::other)?, right.fill_buf().map_err(Failure::other)?);
        let count = a.len().min(b.len());
        if a.get(..count) != b.get(..count) || a.is_empty() != b.is_empty() {
            return Err(fail(format_args!("{} arrived changed", sent.display())));
        }
        if count == 0 {
            return Ok(());
        }
        left.consume(count);
        right.consume(count);
    }
}

fn count_files(path: &Path) -> Result<u64, Failure> {
    let mut count = 0;
    for entry in fs::read_dir(path).map_err(Failure::other)? {
        let entry = entry.map_err(Failure::other)?;
        let kind = entry.file_type().map_err(Failure::other)?;
        count += if kind.is_dir() { count_files(&entry.path())? } else { u64::from(kind.is_file()) };
    }
    Ok(count)
}

/// Whether any file beneath `path`, but for those named, holds `needle`.
pub(super) fn found(path: &Path, needle: &[u8], but: &[&Path]) -> Result<bool, Failure> {
    for entry in fs::read_dir(path).map_err(Failure::other)? {
        let entry = entry.map_err(Failure::other)?;
        let at = entry.path();
        if but.contains(&at.as_path()) {
            continue;
        }
        let kind = entry.file_type().map_err(Failure::other)?;
        let hit = if kind.is_dir() { found(&at, needle, but)? } else { kind.is_file() && holds(&at, needle)? };
        if hit {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds(path: &Path, needle: &[u8]) -> Result<bool, Failure> {
    const STEP: usize = 1 << 20;
    let mut file = fs::File::open(path).map_err(Failure::other)?;
    let mut window = Vec::new();
    loop {
        let before = window.len();
        let read = (&mut file).take(STEP as u64).read_to_end(&mut window).map_err(Failure::other)?;
        if window.windows(needle.len()).any(|w| w == needle) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        // What was searched goes, but for what may be the beginning of the needle.
        let keep = window.len().min(needle.len());
        window.drain(..(before + read).saturating_sub(keep));
    }
}
