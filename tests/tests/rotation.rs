//! Keys change: what was sealed, signed and counted before goes on, and nobody else changes them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "rotation/refused.rs"]
mod refused;

use std::fs;

use pouch_tests::{Pair, Party, Runner, have, snapshot, text};

fn words(party: &Party) -> String {
    party.run(&["card", "--words"]).ok().word()
}

/// Takes the new keys of `name` from the relay, with the words that `theirs` are.
fn take(by: &Party, name: &str, theirs: &Party) {
    by.run(&["contact", "rotate", name, "--words", &words(theirs)]).ok().says("has new keys");
}

fn contact(by: &Party, name: &str) -> serde_json::Value {
    by.run(&["contact", "show", name, "--json"]).ok().object("contact")
}

#[test]
fn keys_change_and_what_waits_what_was_sent_and_what_is_written_down_goes_on() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "from before");
    let theirs = pair.bo.file("g", "from before, too");
    let (waiting, sent) = (pair.ada.send(&[text(&file), "--to", "bo"]), pair.bo.send(&[text(&theirs), "--to", "ada"]));
    let before = words(&pair.bo);
    pair.bo.run(&["card", "rotate"]).fails(2, "no terminal").says("--yes");
    let rotated = pair.bo.run(&["card", "rotate", "--yes", "--json"]).ok().object("card-rotated");
    assert_eq!((rotated["serial"].as_u64(), rotated["post_quantum"].as_bool()), (Some(2), Some(true)));
    let after = words(&pair.bo);
    assert!(after != before && rotated["words"] == after);
    // What waited for the old key opens, and its receipt is the old key's, which Ada still has alone.
    let got = pair.bo.receive(&waiting);
    assert_eq!(fs::read_to_string(got.join("f")).unwrap(), "from before");
    pair.ada.run(&["outbox", &waiting]).ok().says("received and verified");
    // What he signs now is by somebody whom Ada does not know, until she takes the new keys.
    let early = pair.bo.send(&[text(&theirs), "--to", "ada"]);
    pair.ada.run(&["receive", &early]).fails(5, "not in your address book").says("contact rotate");
    pair.ada.run(&["contact", "rotate", "bo"]).fails(2, "no terminal").says("--words");
    pair.ada.run(&["contact", "rotate", "bo", "--words", &before]).fails(4, "another card's");
    assert_eq!(contact(&pair.ada, "bo")["words"], before);
    take(&pair.ada, "bo", &pair.bo);
    let pinned = contact(&pair.ada, "bo");
    assert_eq!((&pinned["words"], &pinned["verified"]), (&serde_json::json!(after), &serde_json::json!("words")));
    assert_eq!(pinned["former"].as_array().unwrap().len(), 1);
    pair.ada.run(&["contact", "rotate", "bo"]).fails(3, "no rotation that leads on");
    // Both what the old key signed before and what the new one did; the order is one.
    for id in [&sent, &early] {
        pair.ada.run(&["receive", id, "-o", text(&pair.ada.fresh())]).ok().in_order();
        pair.bo.run(&["outbox", id]).ok().says("received and verified");
    }
    // On it goes, in both directions, and the numbers with it.
    let next = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.run(&["receive", &next, "-o", text(&pair.bo.fresh())]).ok().in_order();
    let book: serde_json::Value =
        serde_json::from_slice(&fs::read(pair.ada.home().join("contacts.json")).unwrap()).unwrap();
    assert_eq!((&book[0]["sent"]["sequence"], &book[0]["received"]["sequence"]), (&2.into(), &2.into()));
    // The journal is one, whichever key a record was sealed for; what was sent can still be addressed again.
    let did = |party: &Party, action: &str| party.events().iter().filter(|e| e["action"] == action).count();
    assert_eq!((did(&pair.bo, "joined"), did(&pair.bo, "card-rotated"), did(&pair.bo, "received")), (1, 1, 2));
    assert_eq!(did(&pair.ada, "contact-rotated"), 1);
    pair.bo.run(&["log", "verify"]).ok();
    let open = pair.bo.send(&[text(&theirs), "--to", "ada"]);
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    pair.bo.run(&["outbox", "extend", &open, "--until", "9d"]).ok();
    take(&pair.ada, "bo", &pair.bo);
    pair.ada.receive(&open);
    pair.bo.run(&["outbox", &open]).ok().says("received and verified");
    pair.bo.run(&["invite", "cy"]).ends(5);
    pair.ada.run(&["card", "rotate", "--yes"]).ok();
    pair.ada.run(&["invite", "cy"]).ok();
}

#[test]
fn rotations_are_carried_as_text_and_several_are_taken_at_once() {
    let pair = Pair::new();
    let file = pair.bo.desk().join("rotation");
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    pair.bo.run(&["card", "rotate", "--yes", "--out", text(&file)]).ok();
    pair.bo.run(&["card", "rotate", "--yes", "--out", text(&file)]).fails(5, "exists already");
    let shown = pair.bo.run(&["card", "--rotation"]).ok().text();
    assert_eq!(shown, fs::read_to_string(&file).unwrap());
    // Mail turns line feeds into two characters.
    let mailed = shown.replace('\n', "\r\n");
    pair.ada.pouch(["contact", "rotate", "bo", "-", "--yes"]).input(mailed).end().ok().says(&words(&pair.bo));
    let pinned = contact(&pair.ada, "bo");
    assert_eq!((pinned["serial"].as_u64(), pinned["former"].as_array().unwrap().len()), (Some(3), 2));
    // Nobody has compared anything: nothing is sent to them until somebody does.
    assert_eq!((&pinned["verified"], pinned["verified_at"].is_null()), (&"no".into(), true));
    let plain = pair.ada.file("f", "f");
    pair.ada.run(&["send", text(&plain), "--to", "bo"]).fails(5, "never verified").says("contact verify bo");
    pair.ada.run(&["contact", "verify", "bo", "--words", &words(&pair.bo)]).ok();
    assert_eq!(contact(&pair.ada, "bo")["verified"], "words");
    pair.ada.send(&[text(&plain), "--to", "bo"]);
    pair.ada.run(&["contact", "rotate", "bo", text(&file)]).fails(3, "no rotation that leads on");
    // Whoever pins the card of now has no use for those of before.
    let cy = pair.stranger("cy");
    cy.join(&pair.ada.invite_as("cy", "member"));
    cy.pins(&pair.bo, "bo");
    cy.run(&["contact", "rotate", "bo"]).fails(3, "no rotation that leads on");
    assert!(!cy.home().join("evidence").exists());
}

#[test]
fn what_waits_for_an_old_key_is_sealed_for_the_new_one_and_no_part_moves() {
    let (pair, proxy) = Pair::proxied();
    let cy = pair.third("cy");
    let file = pair.ada.file("f", vec![7; 3 << 20]);
    let [both, done, mine] = [&["bo", "cy"][..], &["bo"], &["bo"]].map(|to| {
        let to = to.join(",");
        pair.ada.send(&[text(&file), "--to", &to])
    });
    pair.bo.receive(&done);
    pair.ada.run(&["outbox", "reseal"]).ok().says("nothing waits for a key that was replaced");
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    take(&pair.ada, "bo", &pair.bo);
    let moved = proxy.moved();
    let resealed = pair.ada.run(&["outbox", "reseal", "-q"]).ok().text();
    assert!(proxy.moved() - moved < 1 << 20, "no part moved");
    let mut ids: Vec<_> = resealed.lines().map(str::to_owned).collect();
    ids.sort();
    let mut expected = vec![both.clone(), mine.clone()];
    expected.sort();
    assert_eq!(ids, expected, "what was received stays as it is");
    pair.ada.run(&["outbox", "reseal"]).ok().says("nothing waits");
    pair.ada.run(&["outbox", "reseal", &done]).ok().says("nobody who waits for it has new keys");
    // The envelope is for the new key alone now: without the old one it opens.
    let home = pair.bo.home().join("identity");
    let all = fs::read_to_string(&home).unwrap();
    let lines: Vec<_> = all.lines().collect();
    assert_eq!(lines.len(), 5);
    let only_new = [lines[0], lines[3], lines[4]].join("\n") + "\n";
    fs::write(&home, only_new).unwrap();
    pair.bo.receive(&mine);
    fs::write(&home, all).unwrap();
    pair.bo.receive(&both);
    cy.receive(&both);
    for id in [&both, &mine] {
        let told = pair.ada.run(&["outbox", id]).ok();
        assert!(!told.text().contains("has not fetched it"), "{told}");
    }
    let resealed = pair.ada.events().into_iter().filter(|e| e["action"] == "resealed");
    assert_eq!(resealed.filter(|e| e["peer"] == "bo" && e["outcome"] == "done").count(), 2);
    // The number and what it follows are those of before.
    let next = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.run(&["receive", &next, "-o", text(&pair.bo.fresh())]).ok().in_order();
}

#[test]
fn a_reseal_that_was_cut_off_goes_on() {
    let mut pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    take(&pair.ada, "bo", &pair.bo);
    // As if it had been cut off right before the envelope left: the state names the new key, the relay has the old envelope.
    let state = pair.ada.home().join(format!("outbox/{id}.json"));
    pair.ada.run(&["outbox", "reseal", &id]).ok().says("is sealed for the new keys of bo");
    let mut cut: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    assert!(cut["recipients"][0].get("resealing").is_none());
    cut["recipients"][0]["resealing"] = true.into();
    fs::write(&state, serde_json::to_vec(&cut).unwrap()).unwrap();
    pair.relay.stop().ok();
    pair.ada.run(&["outbox", "reseal"]).ends(7);
    pair.relay.serve();
    pair.ada.run(&["outbox", "reseal", "-q"]).ok().says(&id);
    pair.bo.receive(&id);
    pair.ada.run(&["outbox", &id]).ok().says("received and verified");
}

#[test]
fn one_bundle_that_cannot_be_resealed_does_not_keep_the_others() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let sent = [(); 2].map(|()| pair.ada.send(&[text(&file), "--to", "bo"]));
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    take(&pair.ada, "bo", &pair.bo);
    // The one that comes first.
    let first = pair.ada.run(&["outbox", "-q"]).ok().text().lines().next().unwrap().to_owned();
    let path = pair.ada.home().join(format!("outbox/{first}.json"));
    let mut damaged: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    damaged["private"] = "AAAA".into();
    fs::write(&path, serde_json::to_vec(&damaged).unwrap()).unwrap();
    let ran = pair.ada.run(&["outbox", "reseal", "-q"]);
    let other = sent.iter().find(|id| **id != first).unwrap();
    assert_eq!((ran.code, ran.word()), (1, other.clone()), "{ran}");
    assert!(ran.err.contains(&format!("bundle {}: ", &first[..6])), "{ran}");
    pair.bo.receive(other);
    pair.ada.run(&["outbox", other]).ok().says("received and verified");
}

#[test]
fn attack_50_a_rotation_that_is_killed_at_any_write_is_finished_by_the_same_command() {
    if !have(&["strace"]) {
        return;
    }
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let mut killed = 0;
    for call in ["rename", "unlink"] {
        for at in 1.. {
            let id = pair.ada.send(&[text(&file), "--to", "bo"]);
            let before = words(&pair.bo);
            let ran = pair.bo.pouch(["card", "rotate", "--yes"]).killed_at(call, at).end();
            let ended = ran.code == 0;
            assert!(ended || ran.code == -9, "{ran}");
            // Everything works, with the keys of before or the new ones; then the same again finishes.
            pair.bo.run(&["log", "verify"]).ok();
            assert!(!pair.bo.events().is_empty());
            pair.bo.receive(&id);
            if !ended {
                killed += 1;
                pair.bo.run(&["card", "rotate", "--yes"]).ok();
            }
            assert_ne!(words(&pair.bo), before);
            assert!(!pair.bo.home().join("rotation.next").exists());
            take(&pair.ada, "bo", &pair.bo);
            pair.ada.run(&["outbox", &id]).ok().says("received and verified");
            let theirs = pair.bo.file("g", "g");
            let back = pair.bo.send(&[text(&theirs), "--to", "ada"]);
            pair.ada.receive(&back);
            if ended {
                break;
            }
        }
    }
    assert!(killed >= 6, "only {killed} writes were cut off");
}

#[test]
fn a_rotation_without_the_relay_waits_for_it_with_the_same_keys() {
    let mut pair = Pair::new();
    pair.relay.stop().ok();
    let before = words(&pair.bo);
    pair.bo.run(&["card", "rotate", "--yes"]).ends(7);
    let next = fs::read(pair.bo.home().join("rotation.next")).unwrap();
    pair.bo.run(&["card", "rotate", "--yes"]).ends(7);
    assert_eq!(fs::read(pair.bo.home().join("rotation.next")).unwrap(), next);
    assert_eq!(words(&pair.bo), before);
    pair.relay.serve();
    // Until then the old ones are in use.
    let file = pair.ada.file("f", "f");
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.receive(&id);
    // What was begun needs no second yes.
    pair.bo.run(&["card", "rotate"]).ok();
    assert_ne!(words(&pair.bo), before);
    assert_eq!(pair.bo.run(&["card", "--rotation"]).ok().text().into_bytes(), next);
}

// What is begun is gone on with, or refused: not passed over.
#[test]
fn a_classic_key_is_not_what_a_begun_rotation_to_a_hybrid_one_leads_to() {
    let mut pair = Pair::classic();
    pair.relay.stop().ok();
    pair.bo.run(&["card", "rotate", "--yes"]).ends(7);
    let next = fs::read(pair.bo.home().join("rotation.next")).unwrap();
    pair.bo.run(&["card", "rotate", "--yes", "--classic"]).fails(2, "hybrid").says("without --classic");
    assert_eq!(fs::read(pair.bo.home().join("rotation.next")).unwrap(), next);
    pair.relay.serve();
    let rotated = pair.bo.run(&["card", "rotate", "--json"]).ok().object("card-rotated");
    assert_eq!(rotated["post_quantum"], true);
}

// attacks.md 38
#[test]
fn attack_38_a_wrong_passphrase_changes_nothing_and_the_right_one_keeps_all_keys() {
    let pair = Pair::new();
    let cy = pair.stranger("cy");
    let right = text(&cy.file("right", "correct horse")).to_owned();
    let wrong = text(&cy.file("wrong", "incorrect horse")).to_owned();
    cy.pouch(["join", "--name", "cy", "--passphrase-file", &right]).input(pair.ada.invite("cy")).end().ok();
    pair.ada.run(&["contact", "list"]).ok();
    let file = pair.ada.file("f", "f");
    let id = pair.ada.send(&[text(&file), "--to", "cy"]);
    let before = snapshot(&cy.home());
    cy.run(&["card", "rotate", "--yes", "--passphrase-file", &wrong]).fails(5, "does not open the identity");
    assert!(snapshot(&cy.home()) == before, "something was written");
    // An agent that keeps the old keys is no help, and none afterwards.
    cy.run(&["unlock", "--passphrase-file", &right]).ok();
    cy.run(&["card", "rotate", "--yes"]).fails(2, "a passphrase is needed");
    cy.run(&["card", "rotate", "--yes", "--passphrase-file", &right]).ok();
    cy.run(&["log", "show"]).fails(2, "a passphrase is needed");
    cy.run(&["log", "show", "--passphrase-file", &wrong]).ends(5);
    assert!(cy.home().join("identity.age").exists() && !cy.home().join("identity").exists());
    cy.run(&["receive", &id, "-o", text(&cy.fresh()), "--passphrase-file", &right]).ok();
    pair.ada.run(&["outbox", &id]).ok().says("received and verified");
}

// Of two at once the second does not write over the keys of the first.
#[test]
fn two_rotations_at_once_lose_no_key() {
    let pair = Pair::new();
    let mut done = 0;
    for _ in 0..3 {
        let both = [(); 2].map(|()| pair.bo.pouch(["card", "rotate", "--yes", "-q"]).start());
        let ended = both.map(|running| running.end());
        for ran in &ended {
            assert!(ran.code == 0 || (ran.code == 5 && ran.err.contains("keys changed in the meantime")), "{ran}");
        }
        done += ended.iter().filter(|ran| ran.code == 0).count();
        // Whose card it is has its keys here, on the relay and, once taken, at Ada's.
        let card = pair.bo.client();
        assert_eq!(card.1.signing.public().as_bytes(), card.0.card().card().signing_key.as_bytes());
        take(&pair.ada, "bo", &pair.bo);
        let file = pair.ada.file("f", "f");
        let id = pair.ada.send(&[text(&file), "--to", "bo"]);
        pair.bo.receive(&id);
    }
    assert_eq!(pair.bo.run(&["card", "--rotation", "--json"]).ok().objects().len(), done);
    assert!(done >= 3);
}

// What was made in the old identity's name ends with it.
#[test]
fn a_rotation_ends_pipelines_and_invitations() {
    let pair = Pair::new();
    let secret = pair.ada.run(&["pipeline", "new", "nightly", "--to", "bo", "-q"]).ok().word();
    let link = pair.ada.invite("cy");
    let runner = Runner::new(&pair, "job", &secret);
    runner.party.file("x", "x");
    let [early, late] = [(); 2].map(|()| runner.pouch(&["send", "x", "--to", "bo", "-q"]).end().ok().word());
    pair.ada.run(&["card", "rotate", "--yes"]).ok();
    let listed = pair.ada.run(&["pipeline", "list", "--json"]).ok().object("pipeline");
    assert!(listed["revoked"].is_string(), "{listed}");
    runner.pouch(&["send", "x", "--to", "bo"]).end().ends(6);
    let cy = pair.stranger("cy");
    cy.pouch(["join", "--no-passphrase", "--name", "cy"]).input(link).end().ends(6);
    // Who has not taken the new keys cannot know. From then on, whoever has the old ones delegates in vain, whatever the date.
    pair.bo.receive(&early);
    take(&pair.bo, "ada", &pair.ada);
    pair.bo.run(&["receive", &late]).fails(4, "by a pipeline that is from before");
}
