//! Requests for files: asked for, standing in the contractor's inbox, answered, late, withdrawn.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use pouch_tests::hostile::World;
use pouch_tests::hostile::forge::{Draft, Forger};
use pouch_tests::{Pair, Ran, have, text};
use serde_json::Value;

fn ask(pair: &Pair, words: &[&str]) -> String {
    pair.ada.run(&[&["request", "--from", "bo", "-q"], words].concat()).ok().word()
}

fn row(ran: Ran, kind: &str, bundle: &str) -> Option<Value> {
    ran.ok().objects().into_iter().find(|object| object["type"] == kind && object["bundle"] == bundle)
}

#[test]
fn a_request_is_asked_received_answered_and_done() {
    let pair = Pair::new();
    let request = ask(&pair, &["--note", "week 12", "--until", "3d"]);
    let listed = row(pair.ada.run(&["outbox", "--json"]), "bundle", &request).unwrap();
    assert_eq!((&listed["kind"], &listed["recipients"][0]["request"]), (&"request".into(), &"open".into()));
    pair.ada.run(&["outbox"]).ok().says("asked for by");
    // In the mailbox it is a bundle as any other; nothing of it is told to the relay.
    pair.bo.run(&["inbox"]).ok().says("from ada");
    let listing = pair.bo.run(&["receive", "--list", "--json"]).ok().object("contents");
    assert_eq!((listing["kind"].as_str(), listing["note"].as_str()), (Some("request"), Some("week 12")));
    pair.bo.run(&["receive", "--stdout"]).fails(2, "holds none");
    let ran = pair.bo.run(&["receive"]).ok();
    ran.says("ada asks for files by").says("week 12").says(&format!("--request {}", &request[..6]));
    let folders = std::fs::read_dir(pair.bo.desk())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(&request[..4]));
    assert_eq!(folders.count(), 0, "no folder for what has no files");
    // It stands in the inbox, and no script takes it for a bundle.
    pair.bo.run(&["inbox"]).ok().says("asks for files by").says("week 12");
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text(), "");
    let standing = row(pair.bo.run(&["inbox", "--json"]), "request", &request).unwrap();
    assert_eq!(
        (&standing["from"], &standing["state"], &standing["note"]),
        (&"ada".into(), &"open".into(), &"week 12".into())
    );
    pair.bo.run(&["receive"]).ends(3);
    // Sealed at rest.
    let file = std::fs::read_to_string(pair.bo.home().join(format!("requests/{request}.json"))).unwrap();
    assert!(!file.contains("week 12"));
    // What a kill in the middle of a write left beside it is no request.
    std::fs::write(pair.bo.home().join(format!("requests/{request}.json.{request}.tmp")), "{").unwrap();
    let seen = row(pair.ada.run(&["outbox", &request, "--json"]), "bundle", &request).unwrap();
    assert_eq!(seen["recipients"][0]["outcome"], "verified", "Ada knows that Bo has seen it");

    let files = pair.bo.file("week12", "done");
    pair.bo.run(&["send", text(&files), "--to", "ada", "--request", &request[..8]]).ends(2);
    pair.bo.run(&["send", text(&files), "--request", "zzzz"]).fails(3, "no request");
    let answer = pair.bo.run(&["send", text(&files), "--request", &request[..8], "-q"]).ok().word();
    assert!(row(pair.bo.run(&["inbox", "--json"]), "request", &request).is_none());
    let ran = pair.ada.run(&["receive", &answer, "--json"]).ok();
    let received = ran.object("received");
    assert_eq!(received["answers"], request.as_str());
    assert_eq!(std::fs::read(pair.ada.desk().join(&answer[..6]).join("week12")).ok().as_deref(), Some(&b"done"[..]));
    let listed = row(pair.ada.run(&["outbox", "--json"]), "bundle", &request).unwrap();
    assert_eq!(
        (&listed["recipients"][0]["request"], &listed["recipients"][0]["answer"]),
        (&"done".into(), &answer.as_str().into())
    );
    pair.ada.run(&["outbox"]).ok().says("answered");
    // One answer more is said to be one more, and changes nothing.
    pair.bo.run(&["send", text(&files), "--request", &request]).ok().says("answered already");
}

#[test]
fn a_request_becomes_late_and_is_still_answered() {
    let pair = Pair::new();
    let request = ask(&pair, &["--note", "soon", "--until", "2s"]);
    pair.bo.run(&["receive", &request]).ok();
    std::thread::sleep(Duration::from_millis(3100));
    pair.ada.run(&["outbox"]).ok().says("LATE since");
    let standing = row(pair.bo.run(&["inbox", "--json"]), "request", &request).unwrap();
    assert_eq!(standing["state"], "late");
    let files = pair.bo.file("late", "better than never");
    let answer = pair.bo.run(&["send", text(&files), "--request", &request, "-q"]).ok().says("was asked for by").word();
    pair.ada.run(&["receive", &answer]).ok();
    pair.ada.run(&["outbox"]).ok().says("answered");
    // Longer than the relay keeps anything.
    pair.ada
        .run(&["request", "--from", "bo", "--note", "x", "--until", "5000w"])
        .fails(2, "the relay keeps a bundle for");
}

// Wherever an answer is cut off: what is known to be delivered answers its request.
#[test]
fn an_answer_that_is_killed_at_any_rename_is_answered_once_it_is_known_to_be_delivered() {
    if !have(&["strace"]) {
        return;
    }
    let pair = Pair::new();
    let files = pair.bo.file("f", "f");
    let state = |id: &str| row(pair.bo.run(&["outbox", "--json"]), "bundle", id).unwrap()["progress"].clone();
    let (mut before, mut settled) = (Vec::new(), 0);
    for at in 1.. {
        let request = ask(&pair, &["--note", "x"]);
        pair.bo.run(&["receive", &request]).ok();
        let send = ["send", text(&files), "--request", &request, "-q"];
        let ran = pair.bo.pouch(send).killed_at("rename", at).end();
        assert!(ran.code == 0 || ran.code == -9, "{ran}");
        let listed = pair.bo.run(&["outbox", "-q"]).ok().text();
        let new = listed.lines().find(|id| !before.iter().any(|old| old == id)).map(str::to_owned);
        let Some(id) = new else { continue };
        let open = state(&id) == "committing";
        if open {
            // This learns what came of it.
            pair.bo.run(&["outbox", &id]).ok();
        }
        let delivered = state(&id) == "sent";
        settled += u32::from(open && delivered);
        let standing = row(pair.bo.run(&["inbox", "--json"]), "request", &request);
        assert_eq!(standing.is_none(), delivered, "at {at}: {standing:?}");
        before.push(id);
        if ran.code == 0 {
            break;
        }
    }
    assert!(settled > 0, "none was delivered and cut off before that was known");
}

// Nothing is piped in for a request.
#[test]
fn a_request_that_does_not_reach_the_relay_speaks_of_no_input() {
    let mut pair = Pair::new();
    pair.relay.stop().ok();
    let ran = pair.ada.run(&["request", "--from", "bo", "--note", "x"]).ends(7);
    assert!(!ran.err.contains("standard input"), "{ran}");
}

#[test]
fn a_request_is_withdrawn() {
    let pair = Pair::new();
    let request = ask(&pair, &["--note", "never mind"]);
    pair.bo.run(&["receive"]).ok();
    pair.ada.run(&["outbox", "revoke", &request]).ok();
    let standing = row(pair.bo.run(&["inbox", "--json"]), "request", &request).unwrap();
    assert_eq!(standing["state"], "withdrawn");
    pair.bo.run(&["inbox"]).ok().says("withdrawn, the relay says");
}

// A handler is for files: a request is noted, and what comes behind it is handled.
#[test]
fn a_handler_is_not_run_for_a_request() {
    let pair = Pair::new();
    let request = ask(&pair, &["--note", "for a person"]);
    let files = pair.ada.file("data", "data");
    pair.ada.run(&["send", text(&files), "--to", "bo"]).ok();
    let words = ["receive", "--next", "--timeout", "20s", "--from", "ada", "--exec", "cat \"$POUCH_PATH/data\""];
    let ran = pair.bo.run(&words).ok();
    assert!(ran.text().ends_with("data"), "{ran}");
    assert!(row(pair.bo.run(&["inbox", "--json"]), "request", &request).is_some());
    let other = ask(&pair, &["--note", "another"]);
    pair.ada.run(&["send", text(&files), "--to", "bo"]).ok();
    pair.bo.run(&["receive", "--all", "-o", text(&pair.bo.desk().join("all"))]).ok();
    assert_eq!(std::fs::read_dir(pair.bo.desk().join("all")).unwrap().count(), 1);
    assert!(row(pair.bo.run(&["inbox", "--json"]), "request", &other).is_some());
}

// Somebody who was not asked, or who names a bundle that is no request, is told of and believed nothing.
#[test]
fn an_answer_to_nothing_is_said_to_be_one() {
    let world = World::of_two();
    let request = world.run("ada", &["request", "--from", "bo", "--note", "x", "-q"]).ok().word();
    let file = world.file("file", "no request");
    let plain = world.run("ada", &["send", text(&file), "--to", "bo", "-q"]).ok().word();
    for (claimed, mine) in [(plain.as_str(), false), (request.as_str(), true)] {
        let forger = Forger::new(&world, "bo", "ada");
        let carried =
            forger.carry_as(Draft::stream(b"x"), |manifest| manifest.answers = Some(claimed.parse().unwrap()));
        let (file, fresh) = (world.root().join(format!("{claimed}.pouch")), world.root().join(claimed));
        carried.write(&file);
        let ran = world.run("ada", &["receive", text(&file), "-o", text(&fresh)]).ok();
        let said = if mine { "this answers your request" } else { "none of yours" };
        ran.says(said);
    }
    let listed = world.run("ada", &["outbox", "--json"]).ok().objects();
    let answered = |id: &str| {
        let bundle = listed.iter().find(|object| object["bundle"] == id).unwrap();
        !bundle["recipients"][0]["answer"].is_null()
    };
    assert!(answered(&request) && !answered(&plain));
}
