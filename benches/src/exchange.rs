//! `pouch send` and `receive` through a relay on this machine, against what age alone needs to write the same file
//! sealed and to open it again: the price of signing, TLS, a relay and two journals.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::encrypt::{decryption, encryption, make_key};
use crate::options::Options;
use crate::process::{Cost, make_file, printed, timed};
use crate::rounds::{Contender, run};
use crate::tools::{Tool, Tools};
use crate::{Failure, say, table};

pub(crate) fn measure(options: &Options, tools: &Tools) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("pouch-benches-").tempdir_in(&options.dir)?;
    let root = folder.path();
    let (plain, sealed, opened) = (root.join("plain"), root.join("sealed"), root.join("opened"));
    let (key, received) = (root.join("key"), root.join("received"));
    make_file(&plain, options.size)?;
    let relay = Relay::start(&tools.pouch, root)?;

    let mut send = relay.as_party("ada", &["send", "--to", "bo", "--burn", "--quiet"]);
    send.arg(&plain);
    let mut receive = relay.as_party("bo", &["receive", "--next", "--quiet", "--out"]);
    receive.arg(&received);
    let mut sending = vec![Contender::new("pouch send", || timed(&send, tools, root))];
    let mut receiving = vec![Contender::new("pouch receive", || {
        let cost = timed(&receive, tools, root)?;
        std::fs::remove_dir_all(&received)?;
        Ok(cost)
    })];
    if let (Some(age), Some(keygen)) = (&tools.age, &tools.age_keygen) {
        let recipient = make_key(keygen, &key)?;
        let seal = encryption(age, &recipient, &plain, Some(&sealed));
        let open = decryption(age, &key, &sealed, Some(&opened));
        sending.push(Contender::new("age to a file, fsync", move || durable(&seal, &root.join("sealed"), tools, root)));
        receiving.push(Contender::new("age -d to a file, fsync", move || {
            let cost = durable(&open, &root.join("opened"), tools, root)?;
            std::fs::remove_file(root.join("sealed"))?;
            std::fs::remove_file(root.join("opened"))?;
            Ok(cost)
        }));
    }
    let sent = sending.len();
    let mut all: Vec<_> = sending.into_iter().chain(receiving).collect();
    run(&mut all, options.rounds)?;
    let (sending, receiving) = all.split_at(sent);
    table::print(&format!("send {} MiB", options.size >> 20), options.size, sending);
    table::print(&format!("receive {} MiB", options.size >> 20), options.size, receiving);
    if let Some(kib) = relay.peak() {
        say(format_args!("peak RSS of the relay over all rounds: {} MiB\n", kib.div_ceil(1024)));
    }
    Ok(())
}

/// As durable as what pouch does: the file counts when it is on the disk.
fn durable(command: &Command, file: &Path, tools: &Tools, scratch: &Path) -> Result<Cost, Failure> {
    let cost = timed(command, tools, scratch)?;
    let start = Instant::now();
    File::open(file)?.sync_all()?;
    Ok(Cost { wall: cost.wall + start.elapsed(), ..cost })
}

/// A relay on a loopback port, with ada and bo who know each other.
struct Relay {
    program: PathBuf,
    root: PathBuf,
    process: Child,
}

impl Relay {
    fn start(pouch: &Tool, root: &Path) -> Result<Self, Failure> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
        let listen = format!("127.0.0.1:{port}");
        let as_relay = |words: &[&str]| command(&pouch.path, root, "relay", words);
        let mut init = as_relay(&["relay", "init", "--quiet", "--host", "127.0.0.1", "--port", &port]);
        let link = printed(init.args(["--listen", &listen]), "")?;
        let mut serve = as_relay(&["relay", "serve", "--json"]);
        let mut process = serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut ready = String::new();
        if let Some(out) = process.stdout.take() {
            BufReader::new(out).read_line(&mut ready)?;
        }
        let relay = Self { program: pouch.path.clone(), root: root.to_owned(), process };
        if !ready.contains("ready") {
            return Err("the relay does not start".into());
        }
        let join = |name| relay.as_party(name, &["join", "--quiet", "--no-passphrase", "--name", name]);
        printed(&mut join("ada"), &link)?;
        let link = printed(&mut relay.as_party("ada", &["invite", "--quiet", "bo"]), "")?;
        printed(&mut join("bo"), &link)?;
        // The first command after bo has joined pins bo.
        printed(&mut relay.as_party("ada", &["contact", "list"]), "")?;
        Ok(relay)
    }

    fn as_party(&self, name: &str, words: &[&str]) -> Command {
        command(&self.program, &self.root, name, words)
    }

    /// Peak resident memory so far, in KiB.
    fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches("kB").trim_end().parse().ok()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// pouch with a state of its own: no setting of the user, and no proxy, has a part in it.
fn command(program: &Path, root: &Path, who: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("POUCH_") || text.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.args(words).env("POUCH_HOME", root.join(who));
    command
}
