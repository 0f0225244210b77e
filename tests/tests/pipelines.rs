//! Pipelines: runners that keep nothing, with a secret that reaches as far as it was made to, and no further.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use pouch_tests::{Pair, Party, Run, find_bytes, text};
use serde_json::Value;

/// A job's machine: it has a secret in a file, and is empty otherwise.
struct Runner {
    party: Party,
    secret: PathBuf,
}

impl Runner {
    /// A new one for this secret.
    fn new(pair: &Pair, name: &str, secret: &str) -> Self {
        let party = pair.stranger(name);
        let path = pair.root().join(format!("{name}.secret"));
        fs::write(&path, format!("{secret}\n")).unwrap();
        Self { party, secret: path }
    }

    fn pouch(&self, words: &[&str]) -> Run {
        self.party.pouch(words).without_env("POUCH_HOME").env("POUCH_PIPELINE_FILE", &self.secret)
    }

    /// What is left when a run is over, beside what the job itself wrote.
    fn leaves_nothing(&self) {
        assert!(fs::read_dir(self.party.temporary()).unwrap().next().is_none(), "{:?}", self.party.lying_around());
        assert!(!self.party.home().exists());
        let hidden = self.party.lying_around().into_iter().filter(|name| name.starts_with('.'));
        assert_eq!(hidden.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

fn new(party: &Party, name: &str, more: &[&str]) -> String {
    party.run(&[&["pipeline", "new", name, "-q"], more].concat()).ok().word()
}

#[test]
fn two_runs_in_empty_folders_are_one_sender() {
    let pair = Pair::new();
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    assert!(secret.starts_with("pouch-pipeline-1.") && secret.len() < 10_000, "{}", secret.len());
    for day in ["monday", "tuesday"] {
        let runner = Runner::new(&pair, day, &secret);
        let file = runner.party.file("dump.sql", day);
        let words = ["send", text(&file), "--to", "bo", "--once", day, "--json"];
        let sent = runner.pouch(&words).end().ok().object("sent");
        runner.leaves_nothing();
        let again = Runner::new(&pair, &format!("{day}-again"), &secret);
        let file = again.party.file("dump.sql", "other bytes");
        let retried = again.pouch(&["send", text(&file), "--to", "bo", "--once", day, "--json"]).end().ok();
        let retried = retried.object("sent");
        assert_eq!((&retried["bundle"], &retried["again"]), (&sent["bundle"], &Value::Bool(true)));
        let id = sent["bundle"].as_str().unwrap();
        assert_eq!(pair.bo.run(&["inbox", "--json"]).ok().object("waiting")["from"], Value::from("ada"));
        let into = pair.bo.fresh();
        let ran = pair.bo.run(&["receive", id, "-o", text(&into), "--json"]).ok();
        let received = ran.object("received");
        assert_eq!((received["from"].as_str(), received["pipeline"].as_str()), (Some("ada"), Some("nightly")));
        // The second follows the first: nothing is missing, nothing stands beside.
        assert!(ran.err.is_empty(), "{ran}");
        assert_eq!(fs::read_to_string(into.join("dump.sql")).unwrap(), day);
        let other = Runner::new(&pair, &format!("{day}-later"), &secret);
        let words = ["send", "x", "--to", "bo", "--once", day, "--wait", "receipt", "--timeout", "1m", "--json"];
        other.party.file("x", "x");
        assert_eq!(other.pouch(&words).end().ok().object("receipt")["outcome"], "verified");
        other.leaves_nothing();
    }
    let runner = Runner::new(&pair, "log", &secret);
    let events = runner.pouch(&["log", "show", "--json"]).end().ok().objects();
    let actions: Vec<_> = events.iter().map(|e| e["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(actions, ["joined", "sent", "receipt-received", "sent", "receipt-received"]);
    runner.pouch(&["log", "verify"]).end().ok().says("5 records, intact");
    assert_eq!(runner.pouch(&["outbox", "-q"]).end().ok().text().lines().count(), 2);
    pair.bo.run(&["log", "verify"]).ok();
    // People are told the same, and that a bundle is missing where one was withheld.
    let runner = Runner::new(&pair, "wednesday", &secret);
    runner.party.file("x", "x");
    let lost = runner.pouch(&["send", "x", "--to", "bo", "-q"]).end().ok().word();
    let next = runner.pouch(&["send", "x", "--to", "bo", "-q"]).end().ok().word();
    let ran = pair.bo.run(&["receive", &next, "-o", text(&pair.bo.fresh())]).ok();
    assert!(ran.err.contains("1 bundle from ada (pipeline nightly) before this one has not come"), "{ran}");
    assert!(ran.text().contains("1 file from ada (pipeline nightly)"), "{ran}");
    assert_ne!(lost, next);
    let events = pair.bo.events();
    assert!(events.iter().any(|e| e["action"] == "received" && e["pipeline"] == "nightly" && e["peer"] == "ada"));
    // The secret stands where the job has put it, and nowhere else.
    let found = find_bytes(pair.root(), secret.as_bytes());
    assert!(found.iter().all(|path| path.extension().is_some_and(|e| e == "secret")), "{found:?}");
}
