//! `send --once KEY`: the same send twice delivers once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use pouch_tests::{Pair, Party, text};
use serde_json::Value;

fn once(party: &Party, words: &[&str], key: &str) -> Value {
    party.run(&[&["send", "--json", "--once", key], words].concat()).ok().object("sent")
}

/// Bundle and whether it was delivered before.
fn told(sent: &Value) -> (String, bool) {
    (sent["bundle"].as_str().unwrap().to_owned(), sent["again"].as_bool().unwrap())
}

fn waiting(pair: &Pair) -> usize {
    pair.bo.run(&["inbox", "-q"]).ok().text().lines().count()
}

#[test]
fn a_key_delivers_once_whatever_the_bytes_are() {
    let pair = Pair::new();
    let file = pair.ada.file("dump", "monday");
    let words = [text(&file), "--to", "bo"];
    let (id, again) = told(&once(&pair.ada, &words, "pipeline 41"));
    assert!(!again);
    fs::write(&file, "monday, dumped again").unwrap();
    assert_eq!(told(&once(&pair.ada, &words, "pipeline 41")), (id.clone(), true));
    // The whole of it is read, so that whoever writes into the pipe ends well.
    let stream = ["send", "-", "--to", "bo", "--once", "pipeline 41", "-q"];
    let ran = pair.ada.pouch(stream).input(vec![7; 3 << 20]).end().ok();
    assert_eq!(ran.word(), id);
    assert_eq!(waiting(&pair), 1);
    let (other, again) = told(&once(&pair.ada, &words, "pipeline 42"));
    assert!(!again && other != id);
    // Without a key nothing is looked up.
    pair.ada.send(&words);
    assert_eq!(waiting(&pair), 3);
    let into = pair.bo.receive(&id);
    assert_eq!(fs::read(into.join("dump")).unwrap(), b"monday");
    // Received or not, and with the receipt of then.
    let ran = pair.ada.run(&[&["send", "--json", "--once", "pipeline 41", "--wait", "receipt"], &words[..]].concat());
    assert_eq!(ran.ok().object("receipt")["bundle"], Value::from(id));
}

#[test]
fn a_key_is_for_its_recipients() {
    let pair = Pair::new();
    pair.third("cy");
    let file = text(&pair.ada.file("a", "a")).to_owned();
    let (bo, _) = told(&once(&pair.ada, &[&file, "--to", "bo"], "k"));
    let (both, again) = told(&once(&pair.ada, &[&file, "--to", "bo,cy"], "k"));
    assert!(!again && both != bo);
    assert_eq!(told(&once(&pair.ada, &[&file, "--to", "cy,bo"], "k")), (both, true));
    assert_eq!(told(&once(&pair.ada, &[&file, "--to", "bo"], "k")), (bo.clone(), true));
    // Somebody who was added later changes nothing about what the key was for.
    pair.ada.run(&["outbox", "add", &bo, "--to", "cy"]).ok();
    assert_eq!(told(&once(&pair.ada, &[&file, "--to", "bo"], "k")), (bo, true));
}

#[test]
fn what_was_taken_back_or_never_arrived_makes_room() {
    let mut pair = Pair::new();
    let file = text(&pair.ada.file("a", "a")).to_owned();
    let words = [file.as_str(), "--to", "bo"];
    let (first, _) = told(&once(&pair.ada, &words, "k"));
    pair.ada.run(&["outbox", "revoke", &first]).ok();
    let (second, again) = told(&once(&pair.ada, &words, "k"));
    assert!(!again && second != first);
    // Nobody is there: it is not delivered, and the next run delivers it.
    let Pair { relay, ada, .. } = &mut pair;
    relay.stop();
    ada.run(&["send", &file, "--to", "bo", "--once", "later"]).ends(7);
    // What was delivered is known without a relay.
    assert_eq!(told(&once(ada, &words, "k")), (second, true));
    pair.relay.serve();
    let (third, again) = told(&once(&pair.ada, &words, "later"));
    assert!(!again);
    assert_eq!(told(&once(&pair.ada, &words, "later")), (third, true));
}

#[test]
fn of_two_at_once_one_delivers() {
    let pair = Pair::new();
    let file = text(&pair.ada.file("large", vec![3; 20 << 20])).to_owned();
    let run = || pair.ada.pouch(["send", &file, "--to", "bo", "--once", "k", "--json"]).end().ok().object("sent");
    let told: Vec<(String, bool)> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        runs.into_iter().map(|run| told(&run.join().unwrap())).collect()
    });
    assert!(told.iter().all(|(id, _)| *id == told[0].0), "{told:?}");
    assert_eq!(told.iter().filter(|(_, again)| !again).count(), 1, "{told:?}");
    assert_eq!(waiting(&pair), 1);
    let left = pair.ada.run(&["outbox", "-q"]).ok().text().lines().count();
    assert_eq!(left, 1, "what the others began is gone");
}

#[test]
fn a_key_that_is_not_there_is_refused() {
    let pair = Pair::new();
    let file = text(&pair.ada.file("a", "a")).to_owned();
    for key in ["", "  ", "a\nb"] {
        pair.ada.run(&["send", &file, "--to", "bo", "--once", key]).ends(2);
    }
    pair.ada.pouch(["send", &file, "--to", "bo"]).env("POUCH_SEND_ONCE", "").end().ends(2);
    pair.ada.run(&["send", &file, "--to", "bo", "--once", "k", "--out", "x.pouch"]).ends(2);
}

/// docs/format.md, "Once".
#[test]
fn the_mark_is_what_the_format_says() {
    let pair = Pair::new();
    let file = text(&pair.ada.file("a", "a")).to_owned();
    let (id, _) = told(&once(&pair.ada, &[&file, "--to", "bo"], "nightly №7"));
    let state = fs::read(pair.ada.home().join(format!("outbox/{id}.json"))).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    let ((_, keys), (bo, _)) = (pair.ada.client(), pair.bo.client());
    let seed = [b"pouch.once.v1\n", keys.signing.to_seed().as_slice()].concat();
    let secret = *pouch_statement::Sha256Digest::of(&seed).as_bytes();
    let key = blake3::keyed_hash(&secret, "other\nnightly №7".as_bytes());
    let mark = blake3::keyed_hash(key.as_bytes(), &[b"other\n", bo.fingerprint().as_bytes().as_slice()].concat());
    assert_eq!(state["once"], Value::from(mark.to_string()));
}

#[test]
fn a_key_is_written_nowhere() {
    let pair = Pair::new();
    let key = "nightly-backup-of-the-payroll";
    let file = text(&pair.ada.file("a", "a")).to_owned();
    once(&pair.ada, &[&file, "--to", "bo"], key);
    assert!(pouch_tests::files_beneath(pair.root()).len() > 10);
    assert!(pouch_tests::find_bytes(pair.root(), key.as_bytes()).is_empty());
}
