//! Whole exchanges, each from the first command to the last byte on the disk: `pouch send` and `receive` through a relay,
//! with signatures, receipt and journals, against what people use instead.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use pouch_tests::{Party, Relay};

use crate::encrypt::make_key;
use crate::nginx::Nginx;
use crate::options::Options;
use crate::peers::{Ssh, Wormhole};
use crate::process::{Cost, make_file, timed};
use crate::rounds::{Contender, run};
use crate::site::as_operated;
use crate::tools::{Tool, Tools};
use crate::{Failure, say, table, tree};

/// What a credential weighs, in bytes.
const CREDENTIAL: usize = 60;

pub(crate) fn measure(options: &Options, tools: &Tools) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("pouch-benches-").tempdir_in(&options.dir)?;
    let root = folder.path();
    let site = Site::start(tools, root)?;
    make_file(&root.join("plain"), options.size)?;
    let mut all = site.files(root.join("plain"))?;
    run(&mut all, options.rounds)?;
    table::print(&format!("send and receive {} MiB", options.size >> 20), options.size, &all);
    std::fs::remove_file(root.join("plain"))?;
    drop(all);

    tree::plant(&root.join("tree"))?;
    let mut all = site.trees(root.join("tree"));
    run(&mut all, options.rounds)?;
    table::print(&format!("send and receive {}", tree::title()), tree::BYTES, &all);
    drop(all);

    std::fs::write(root.join("credential"), "s".repeat(CREDENTIAL))?;
    let mut all = site.credential();
    run(&mut all, options.rounds)?;
    table::print_times(&format!("a credential of {CREDENTIAL} bytes, to its receipt"), &all);
    drop(all);
    let kib = site.relay.process().peak();
    say(format_args!("peak RSS of the relay over all rounds: {} MiB\n", kib.div_ceil(1024)));
    Ok(())
}

/// pouch's relay, ada and bo who know each other, and the servers of those peers that are installed.
struct Site<'a> {
    tools: &'a Tools,
    root: &'a Path,
    relay: Relay,
    ada: Party,
    bo: Party,
    nginx: Option<Nginx>,
    wormhole: Option<Wormhole>,
    ssh: Option<Ssh>,
    round: Cell<u32>,
}

impl<'a> Site<'a> {
    fn start(tools: &'a Tools, root: &'a Path) -> Result<Self, Failure> {
        let both = |one: &'a Option<Tool>, two: &'a Option<Tool>| Some((one.as_ref()?, two.as_ref()?));
        let mut relay = Relay::start(root);
        as_operated(&mut relay);
        let [ada, bo] = ["ada", "bo"].map(|name| Party::new(root, name));
        ada.join(relay.owner_link());
        bo.join(&ada.invite("bo"));
        // The first command after bo has joined pins bo.
        ada.run(&["contact", "list"]).ok();
        Ok(Self {
            tools,
            root,
            relay,
            ada,
            bo,
            nginx: tools.nginx.as_ref().map(|nginx| Nginx::start(nginx, root)).transpose()?,
            wormhole: both(&tools.wormhole, &tools.twistd).map(|(w, t)| Wormhole::start(w, t, root)).transpose()?,
            ssh: tools.sshd.as_ref().map(|sshd| Ssh::start(sshd, root)).transpose()?,
            round: Cell::new(0),
        })
    }

    fn timed(&self, command: &Command) -> Result<Cost, Failure> {
        timed(command, self.tools, self.root)
    }

    /// A command that brings something to `received`, which is not there before and after it.
    fn brought(&self, command: &Command) -> Result<Cost, Failure> {
        let cost = self.timed(command)?;
        let out = self.received();
        if out.is_dir() {
            std::fs::remove_dir_all(out)?
        } else {
            std::fs::remove_file(out)?
        }
        Ok(cost)
    }

    fn received(&self) -> PathBuf {
        self.root.join("received")
    }

    fn pouch(&self, what: PathBuf) -> Contender<'_> {
        Contender::new("pouch", move || {
            let mut send = command(&self.tools.pouch, &self.ada, &["send", "--to", "bo", "--burn", "--quiet"]);
            let mut receive = command(&self.tools.pouch, &self.bo, &["receive", "--next", "--quiet", "--out"]);
            let sent = self.timed(send.arg(&what))?;
            let received = self.brought(receive.arg(self.received()))?;
            Ok(both(sent, received))
        })
    }

    fn magic_wormhole(&self, what: PathBuf) -> Option<Contender<'_>> {
        let wormhole = self.wormhole.as_ref()?;
        Some(Contender::new("magic-wormhole by relay", move || {
            self.round.set(self.round.get() + 1);
            self.brought(&wormhole.carry(&what, &self.received(), self.round.get()))
        }))
    }

    fn files(&self, what: PathBuf) -> Result<Vec<Contender<'_>>, Failure> {
        let mut all = vec![self.pouch(what.clone())];
        let Tools { age, age_keygen, curl, .. } = self.tools;
        if let (Some(age), Some(keygen), Some(curl), Some(nginx)) = (age, age_keygen, curl, &self.nginx) {
            let (key, out) = (self.root.join("key"), self.received());
            let recipient = make_key(keygen, &key)?;
            let put = nginx.piped(curl, "-T -");
            let put = format!("{} -r {recipient} {} | {put}", age.path.display(), what.display());
            let get = nginx.piped(curl, "");
            let get = format!("{get} | {} -d -i {} -o {}", age.path.display(), key.display(), out.display());
            all.push(Contender::new("age \\| curl PUT, curl GET \\| age -d", move || {
                let sent = self.timed(&shell(&put))?;
                Ok(both(sent, self.brought(&shell(&get))?))
            }));
        }
        all.extend(self.magic_wormhole(what.clone()));
        if let Some(ssh) = &self.ssh {
            for (name, cipher) in [("scp, aes256-gcm", Some("aes256-gcm@openssh.com")), ("scp", None)] {
                let copy = ssh.copy(&what, &self.received(), cipher);
                all.push(Contender::new(name, move || self.brought(&copy)));
            }
        }
        Ok(all)
    }

    fn trees(&self, what: PathBuf) -> Vec<Contender<'_>> {
        let mut all = vec![self.pouch(what.clone())];
        all.extend(self.magic_wormhole(what.clone()));
        if let Some(ssh) = &self.ssh {
            let unpack = ssh.unpack(&what, &self.received());
            all.push(Contender::new("tar \\| ssh \\| tar", move || self.brought(&unpack)));
        }
        all
    }

    /// The three commands, one after the other.
    fn credential(&self) -> Vec<Contender<'_>> {
        let file = self.root.join("credential");
        let send = ["send", "--secret", "TOKEN", "--to", "bo", "--burn", "--quiet"];
        let contender = |name: &'static str, who, words: &[&str], input: Option<&Path>| {
            let mut command = command(&self.tools.pouch, who, words);
            if let Some(input) = input {
                let mut piped = Command::new("sh");
                piped.arg("-c").arg("exec \"$@\" < \"$0\"").arg(input).arg(command.get_program());
                piped.args(command.get_args());
                for (name, value) in command.get_envs() {
                    if let Some(value) = value {
                        piped.env(name, value)
                    } else {
                        piped.env_remove(name)
                    };
                }
                command = piped;
            }
            Contender::new(name, move || self.timed(&command))
        };
        vec![
            contender("pouch send --secret", &self.ada, &send, Some(&file)),
            contender("pouch receive --next --stdout", &self.bo, &["receive", "--next", "--stdout", "--quiet"], None),
            contender("pouch outbox", &self.ada, &["outbox", "--quiet"], None),
        ]
    }
}

/// One after the other.
fn both(one: Cost, two: Cost) -> Cost {
    Cost { wall: one.wall + two.wall, peak: one.peak.max(two.peak) }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

/// pouch with the state of one of the parties: no setting of the user, and no proxy, has a part in it.
fn command(pouch: &Tool, who: &Party, words: &[&str]) -> Command {
    let mut command = Command::new(&pouch.path);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("POUCH_") || text.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.args(words).env("POUCH_HOME", who.home());
    command
}
