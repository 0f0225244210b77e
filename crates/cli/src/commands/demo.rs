//! The demo is made of the commands that people type: it runs this very program as a relay and as two parties.

mod attack;
mod stage;

use std::path::PathBuf;

use clap::Args;

use self::stage::{Stage, check, fail};
use crate::run::{Context, Failure, Outcome};
use crate::show::{many, size};
use crate::signals;

/// The most that the demo sends when no path is given, in bytes.
const MAX_BYTES: u64 = 256 << 20;
/// What the demo never sends of a working folder.
const LEFT_OUT: [&str; 2] = [".git", "target"];

/// Show the whole exchange on this machine, then attack it
///
/// A relay and two parties with state of their own in a temporary folder; nothing leaves this machine. Without PATH, the
/// current folder is sent, without .git and target, at most 256 MiB of it.
#[derive(Args)]
pub(crate) struct Demo {
    /// What to send
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Leave everything there to look at
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) fn run(self, _: &Context) -> Outcome {
        // A signal ends the demo between two of its steps, so that nothing of it stays behind.
        signals::note();
        let folder = tempfile::Builder::new().prefix("pouch-demo-").tempdir().map_err(Failure::other)?;
        let mut stage = Stage::new(folder.path())?;
        let result = self.play(&mut stage);
        stage.stop();
        if self.keep {
            let kept = folder.keep();
            stage::say(format_args!("\nkept in {}: POUCH_HOME={0}/ada pouch outbox", kept.display()));
        }
        result?;
        stage::say("\nall of it held");
        Ok(())
    }

    fn play(&self, stage: &mut Stage) -> Outcome {
        stage::title("a relay, and two people who meet through it");
        stage.start_relay()?;
        stage.introduce()?;
        let sources = self.sources(stage)?;
        let canary = exchange(stage, &sources)?;
        credential(stage)?;
        deliverable(stage)?;
        stage::title("the record of it");
        check(stage.ada(&["log", "verify"])?.succeeded(), "ada's journal is sound")?;
        check(stage.bo(&["log", "verify"])?.succeeded(), "bo's journal is sound")?;
        stage::title("now attack it");
        attack::all(stage, &canary)
    }

    /// What to send: the path given, or what is in the current folder, up to the limit.
    fn sources(&self, stage: &Stage) -> Result<Vec<PathBuf>, Failure> {
        if let Some(path) = &self.path {
            return Ok(vec![std::path::absolute(path).map_err(Failure::other)?]);
        }
        let here = std::env::current_dir().map_err(Failure::other)?;
        let mut names: Vec<PathBuf> = std::fs::read_dir(&here)
            .map_err(Failure::other)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| !path.is_symlink() && !LEFT_OUT.iter().any(|name| path.ends_with(name)))
            .filter(|path| path != stage.root())
            .collect();
        names.sort();
        let (mut left, mut skipped) = (MAX_BYTES, 0);
        names.retain(|path| match stage::weigh(path, left) {
            Some(bytes) => {
                left -= bytes;
                true
            }
            None => {
                skipped += 1;
                false
            }
        });
        if skipped > 0 {
            stage::say(format_args!("({} left out: more than {} in all)", many(skipped, "path"), size(MAX_BYTES)));
        }
        if names.is_empty() {
            Err(fail("there is nothing here to send; name a path: pouch demo PATH"))
        } else {
            Ok(names)
        }
    }
}

/// The main job: send, receive, compare, receipt. Gives the canary that was among the files.
fn exchange(stage: &mut Stage, sources: &[PathBuf]) -> Result<String, Failure> {
    stage::title("ada sends files, bo receives them");
    let canary = format!("canary-{}", pouch_statement::BundleId::random().map_err(Failure::other)?);
    let canary_file = stage.root().join(format!("{canary}.txt"));
    std::fs::write(&canary_file, &canary).map_err(Failure::other)?;
    let mut command = vec!["send".to_owned()];
    command.extend(sources.iter().map(|p| p.display().to_string()));
    command.push(canary_file.display().to_string());
    command.extend(["--to", "bo", "--skip-special", "--note", "the first delivery"].map(str::to_owned));
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let id = stage.send(&words, None)?;
    check(stage.bo(&["inbox"])?.succeeded(), "bo sees that something waits")?;
    let into = stage.root().join("from-ada");
    let received = stage.bo(&["receive", &id, "-o", &into.display().to_string()])?;
    check(received.succeeded(), "bo received and verified it")?;
    let mut all = sources.to_vec();
    all.push(canary_file);
    let compared = stage::compare(&all, &into)?;
    stage::say(format_args!("  compared: {}, byte for byte the same", many(compared, "file")));
    let outbox = stage.ada(&["outbox", &id])?;
    check(outbox.succeeded() && outbox.said("received and verified"), "ada has bo's signed receipt")?;
    Ok(canary)
}

fn credential(stage: &mut Stage) -> Outcome {
    stage::title("ada sends a credential, bo's program gets it in its environment");
    // Made up anew each time: this program's own sources may be among the files that are sent.
    let password = pouch_statement::BundleId::random().map_err(Failure::other)?;
    let secret = format!("postgres://bo:{password}@db.acme.example/x");
    let id = stage.send(&["send", "--secret", "DB_URL", "--to", "bo", "--burn"], Some(&secret))?;
    let script = "echo \"the program has ${#DB_URL} characters of DB_URL\"";
    let ran = stage.bo(&["receive", &id, "--env", "DB_URL", "--", "sh", "-c", script])?;
    check(ran.said(&format!("has {} characters", secret.len())), "it arrived, and touched no disk")?;
    check(!stage::found(stage.root(), secret.as_bytes(), &[])?, "the credential is in no file of relay, ada or bo")
}

fn deliverable(stage: &mut Stage) -> Outcome {
    stage::title("bo sends a result back");
    let report = stage.root().join("report.txt");
    std::fs::write(&report, "rows checked: 20,412; rows wrong: 0\n").map_err(Failure::other)?;
    let into = stage.root().join("from-bo");
    stage.send_as_bo(&["send", &report.display().to_string(), "--to", "ada", "--kind", "deliverable"])?;
    let received = stage.ada(&["receive", "--next", "--from", "bo", "-o", &into.display().to_string()])?;
    check(received.succeeded(), "ada received it, from bo and nobody else")?;
    stage::compare(&[report], &into).map(|_| ())
}
