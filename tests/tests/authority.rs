//! Who may what: roles, links, device keys; and what a sender changes about a bundle that is delivered.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pouch_tests::hostile::{Answer, World};
use pouch_tests::{Pair, text};

#[test]
fn a_contractor_receives_and_replies_and_sends_to_nobody_else() {
    let pair = Pair::new();
    let (cy, dee) = (pair.third_as("cy", "member"), pair.third_as("dee", "contractor"));
    let roles = |expected: [&str; 4]| {
        let listed = pair.ada.run(&["relay", "accounts", "--json"]).ok().objects();
        assert_eq!(listed.iter().map(|o| o["role"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    };
    // Whom Ada invites without a word about it is a contractor.
    roles(["owner", "contractor", "member", "contractor"]);
    let file = pair.bo.file("report", "done");
    let id = pair.bo.send(&[text(&file), "--to", "ada"]);
    pair.ada.receive(&id);
    pair.bo.pins(&dee, "dee");
    dee.pins(&pair.bo, "bo");
    let refused = pair.bo.run(&["send", text(&file), "--to", "dee"]).fails(5, "may not do that");
    refused.says("a contractor's account sends to whoever invited it").says("pouch relay role");
    pair.bo.run(&["invite", "eve"]).fails(5, "may not do that");
    cy.run(&["invite", "eve", "--role", "member"]).fails(5, "may not do that");
    // Once Dee has sent something, Bo may answer. Dee may not begin, but the owner may say otherwise.
    let theirs = dee.file("question", "?");
    dee.run(&["send", text(&theirs), "--to", "bo"]).fails(5, "may not do that");
    pair.bo.run(&["relay", "role", "dee", "member"]).fails(5, "may not do that");
    pair.ada.run(&["relay", "role", "nobody", "member"]).ends(3);
    pair.ada.run(&["relay", "role", "ada", "member"]).fails(5, "an owner stays an owner");
    pair.ada.run(&["relay", "role", "dee", "member"]).ok().says("dee is a member from now on");
    roles(["owner", "contractor", "member", "member"]);
    let id = dee.send(&[text(&theirs), "--to", "bo"]);
    pair.bo.receive(&id);
    let id = pair.bo.send(&[text(&file), "--to", "dee"]);
    dee.receive(&id);
    // What was refused is journaled, and nothing of it is in the outbox.
    let sent: Vec<_> = pair.bo.events().into_iter().filter(|e| e["action"] == "sent").collect();
    assert_eq!(sent.iter().map(|e| e["outcome"].as_str().unwrap()).collect::<Vec<_>>(), ["done", "failed", "done"]);
    assert_eq!(pair.bo.run(&["outbox", "-q"]).ok().text().lines().count(), 2);
}

#[test]
fn links_are_listed_with_their_role_and_withdrawn() {
    let pair = Pair::new();
    pair.ada.run(&["invite", "--list"]).ok().says("there is no open invitation");
    let link = pair.ada.invite("cy");
    pair.ada.run(&["invite", "dee", "--role", "member"]).ok();
    let listed = pair.ada.run(&["invite", "--list", "--json"]).ok().objects();
    let seen: Vec<_> = listed.iter().map(|o| (o["name"].as_str().unwrap(), o["role"].as_str().unwrap())).collect();
    assert_eq!(seen, [("cy", "contractor"), ("dee", "member")]);
    assert!(listed.iter().all(|o| o["used"] == false && o["expires"].is_string()));
    pair.ada.run(&["invite", "withdraw", "cy"]).ok().says("good for nothing");
    pair.ada.run(&["invite", "withdraw", "cy"]).fails(3, "no open invitation");
    pair.stranger("cy").pouch(["join", "--name", "cy", "--no-passphrase"]).input(link).end().fails(6, "link");
    assert_eq!(pair.ada.run(&["invite", "--list", "-q"]).ok().text().lines().count(), 1);
    assert!(pair.ada.events().iter().any(|e| e["action"] == "invitation-withdrawn" && e["peer"] == "cy"));
    pair.ada.run(&["invite"]).ends(2);
}

#[test]
fn a_device_key_is_rotated_and_the_old_one_is_good_for_nothing() {
    let pair = Pair::new();
    let list = || pair.bo.run(&["device", "list", "--json"]).ok().objects();
    let before = list();
    assert_eq!((before.len(), before[0]["here"].as_bool()), (1, Some(true)));
    let old = pair.bo.home().join("device.key");
    let stolen = fs::read(&old).unwrap();
    let ran = pair.bo.run(&["device", "rotate", "--json"]).ok().object("device");
    assert_eq!(ran["revoked"], before[0]["key"]);
    let after = list();
    assert_eq!((after.len(), &after[0]["key"], after[0]["here"].as_bool()), (1, &ran["key"], Some(true)));
    assert!(!pair.bo.home().join("device.next").exists());
    // Everything goes on with the new one, and nothing with the old one.
    let file = pair.ada.file("f", "f");
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.receive(&id);
    let new = fs::read(&old).unwrap();
    assert_ne!(new, stolen);
    fs::write(&old, &stolen).unwrap();
    pair.bo.run(&["inbox"]).fails(5, "not signed as it must be").says("not enrolled");
    pair.bo.run(&["inbox"]).says("pouch device rotate");
    // The identity's word brings such a home back.
    pair.bo.run(&["device", "rotate"]).ok();
    pair.bo.run(&["inbox"]).ok();
    fs::write(&old, &new).unwrap();
    let mut listed = list();
    assert_eq!(listed.len(), 2);
    listed.retain(|o| o["here"] == false);
    let other = listed[0]["key"].as_str().unwrap().to_owned();
    pair.bo.run(&["device", "revoke", ran["key"].as_str().unwrap()]).fails(2, "cannot revoke itself");
    pair.bo.run(&["device", "revoke", &other[..10]]).ok().says("is revoked");
    pair.bo.run(&["device", "revoke", &other[..10]]).ends(3);
    assert_eq!(list().len(), 1);
    let events: Vec<_> = pair.bo.events();
    let did = |action: &str| events.iter().filter(|e| e["action"] == action && e["outcome"] == "done").count();
    // The second rotation revoked what was revoked.
    assert_eq!((did("device-enrolled"), did("device-revoked")), (2, 3));
}

#[test]
fn a_rotation_that_was_cut_off_goes_on_with_the_same_key() {
    let mut pair = Pair::new();
    pair.relay.stop().ok();
    pair.bo.run(&["device", "rotate"]).ends(7);
    let next = fs::read(pair.bo.home().join("device.next")).unwrap();
    pair.bo.run(&["device", "rotate"]).ends(7);
    assert_eq!(fs::read(pair.bo.home().join("device.next")).unwrap(), next);
    pair.relay.serve();
    // Until then the old one is in use.
    pair.bo.run(&["inbox"]).ok();
    let (key, file) = (pair.bo.home().join("device.key"), pair.bo.home().join("device.next"));
    let old = fs::read(&key).unwrap();
    pair.bo.run(&["device", "rotate"]).ok();
    assert_eq!(fs::read(&key).unwrap(), next);
    pair.bo.run(&["inbox"]).ok();
    // As if it had been cut off after the relay's answer: the relay has the new key, the home still the old one.
    fs::write(&key, &old).unwrap();
    fs::write(&file, &next).unwrap();
    pair.bo.run(&["device", "rotate"]).ok();
    assert!(fs::read(&key).unwrap() == next && !file.exists());
    assert_eq!(pair.bo.run(&["device", "list", "-q"]).ok().text().lines().count(), 1);
}

#[test]
fn a_bundle_is_extended_and_received_after_its_first_end() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "long lived");
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--until", "6s", "--note", "first cut"]);
    // Bo has looked, and so has the first envelope.
    pair.bo.run(&["receive", &id, "--list"]).ok();
    let ran = pair.ada.run(&["outbox", "extend", &id, "--until", "1h", "--json"]).ok().object("bundle");
    pair.ada.run(&["outbox", "extend", &id, "--until", "2h"]).ok().says("may be fetched until");
    std::thread::sleep(Duration::from_secs(6));
    let waiting = pair.bo.run(&["inbox", "--json"]).ok().object("waiting");
    assert_eq!(waiting["revision"], 3);
    let into = pair.bo.receive(&id);
    assert_eq!(fs::read(into.join("f")).unwrap(), b"long lived");
    let end = |o: &serde_json::Value| o["expires"].as_str().unwrap().to_owned();
    let shown = pair.ada.run(&["outbox", &id, "--json"]).ok().object("bundle");
    assert_eq!((&shown["recipients"][0]["outcome"], &shown["relay"]), (&"verified".into(), &"committed".into()));
    assert!(end(&shown) > end(&ran), "{shown}");
    pair.ada.run(&["outbox", "extend", &id, "--until", "1h"]).fails(5, "have received and verified it");
    // The next bundle follows without a warning.
    let next = pair.ada.send(&[text(&file), "--to", "bo"]);
    let into = pair.bo.fresh();
    let ran = pair.bo.run(&["receive", &next, "-o", text(&into)]).ok();
    assert!(!ran.err.contains("warning"), "{ran}");
    let events = pair.ada.events();
    assert_eq!(events.iter().filter(|e| e["action"] == "extended" && e["outcome"] == "done").count(), 2);
}

#[test]
fn a_bundle_is_ended_earlier_and_not_extended_beyond_the_relay() {
    let pair = Pair::configured("lifetime_seconds = 86400\n");
    let file = pair.ada.file("f", "f");
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--until", "20h"]);
    pair.ada.run(&["outbox", "extend", &id, "--until", "25h"]).fails(2, "keeps a bundle for 1d at most");
    pair.ada.run(&["outbox", "extend", &id, "--until", "2s"]).ok();
    std::thread::sleep(Duration::from_millis(3100));
    let into = pair.bo.fresh();
    pair.bo.run(&["receive", &id, "-o", text(&into)]).ends(6);
    // It is over, and nothing is kept that opens it.
    pair.ada.run(&["outbox"]).ok();
    let kept = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(pair.ada.home().join(format!("outbox/{id}.json"))).unwrap()).unwrap()
    };
    assert!(kept()["private"].is_null(), "{}", kept());
    pair.ada.run(&["outbox", "extend", &id, "--until", "1h"]).fails(5, "key is not kept any more");
    // So is what was withdrawn, and what never was on the relay.
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--until", "20h"]);
    pair.ada.run(&["outbox", "revoke", &id]).ok();
    pair.ada.run(&["outbox", "extend", &id, "--until", "1h"]).fails(5, "it is revoked");
    let carried = pair.ada.desk().join("f.pouch");
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--out", text(&carried)]);
    pair.ada.run(&["outbox", "extend", &id, "--until", "1h"]).fails(5, "not on the relay");
}

// The relay has one end for all: for one who is revoked there is no later one, and so for nobody; an earlier one leaves them
// out.
#[test]
fn attack_37_an_extension_gives_no_time_to_who_is_revoked() {
    let pair = Pair::new();
    let cy = pair.third("cy");
    let file = pair.ada.file("f", "for both");
    let id = pair.ada.send(&[text(&file), "--to", "bo,cy"]);
    let manifests = || {
        let shown = pair.ada.run(&["outbox", &id, "--json"]).ok().object("bundle");
        let of = |who: &str| {
            let all = shown["recipients"].as_array().unwrap();
            all.iter().find(|r| r["name"] == who).unwrap()["manifest_sha256"].clone()
        };
        (of("bo"), of("cy"))
    };
    let end = || cy.run(&["inbox", "--json"]).ok().object("waiting")["expires"].clone();
    let (before, ends) = (manifests(), end());
    pair.ada.run(&["contact", "revoke", "bo"]).ok().says("to others, too");
    pair.ada.run(&["outbox", "extend", &id, "--until", "30d"]).fails(5, "bo may not be sent to: bo is revoked");
    assert_eq!((manifests(), end()), (before.clone(), ends));
    let ran = pair.ada.run(&["outbox", "extend", &id, "--until", "1d"]).ok();
    ran.says("bo gets no new envelope: bo is revoked").says("by cy");
    let after = manifests();
    assert_eq!(after.0, before.0);
    assert_ne!(after.1, before.1);
    assert_eq!(fs::read(cy.receive(&id).join("f")).unwrap(), b"for both");
    // With nobody else there is nothing to extend it for.
    pair.ada.run(&["outbox", "extend", &id, "--until", "20d"]).fails(6, "is revoked");
    assert_eq!(manifests(), after);
}

#[test]
fn a_recipient_is_added_without_sending_again() {
    let pair = Pair::new();
    let cy = pair.third("cy");
    let file = pair.ada.file("f", "for both");
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--note", "first cut"]);
    pair.bo.receive(&id);
    cy.run(&["receive", &id, "-o", text(&cy.fresh())]).ends(3);
    pair.ada.run(&["outbox", "add", &id, "--to", "cy"]).ok().says("cy runs: pouch receive");
    let ran = cy.run(&["receive", &id, "--list", "--json"]).ok().object("contents");
    assert_eq!(ran["note"], "first cut");
    assert_eq!(fs::read(cy.receive(&id).join("f")).unwrap(), b"for both");
    let shown = pair.ada.run(&["outbox", &id, "--json"]).ok().object("bundle");
    let outcomes: Vec<_> = shown["recipients"].as_array().unwrap().iter().map(|r| &r["outcome"]).collect();
    assert_eq!(outcomes, ["verified", "verified"]);
    pair.ada.run(&["outbox", "add", &id, "--to", "cy"]).fails(2, "a recipient of this bundle already");
    pair.ada.run(&["outbox", "add", &id, "--to", "nobody"]).ends(3);
    // Its number counts: the next one to Cy follows it.
    let next = pair.ada.send(&[text(&file), "--to", "cy"]);
    let ran = cy.run(&["receive", &next, "-o", text(&cy.fresh())]).ok();
    assert!(!ran.err.contains("warning"), "{ran}");
}

/// From now on every release is answered with the envelope of the first one.
fn the_first_envelope_is_kept(world: &World) -> Arc<Mutex<Vec<u8>>> {
    let first = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&first);
    world.hostile.on("POST", "/v1/inbox/*/release", move |seen| {
        let mut kept = keep.lock().unwrap();
        if kept.is_empty() {
            kept.clone_from(&seen.pass().body);
        }
        Answer::object(kept.clone()).into()
    });
    first
}

// attacks.md 31: a relay that hands out the envelope from before an extension is found out by whoever has seen the new one.
#[test]
fn attack_31_the_envelope_from_before_an_extension_is_refused() {
    let world = World::of_two();
    let file = world.party("ada").file("f", "f");
    let id = world.run("ada", &["send", text(&file), "--to", "bo", "-q"]).ok().word();
    let first = the_first_envelope_is_kept(&world);
    world.run("bo", &["receive", &id, "--list"]).ok();
    world.hostile.behave();
    world.run("ada", &["outbox", "extend", &id, "--until", "30d"]).ok();
    let bo = world.party("bo");
    world.run("bo", &["receive", &id, "-o", text(&bo.desk().join("new"))]).ok();
    let old = first.lock().unwrap().clone();
    assert!(!old.is_empty());
    world.hostile.on("POST", "/v1/inbox/*/release", move |_| Answer::object(old.clone()).into());
    let again = bo.desk().join("again");
    world.run("bo", &["receive", &id, "-o", text(&again)]).fails(4, "received before with another manifest");
    assert!(!again.exists());
}

// A receipt for the envelope that was replaced meanwhile is a receipt.
#[test]
fn a_receipt_may_be_for_the_envelope_from_before() {
    let world = World::of_two();
    let file = world.party("ada").file("f", "f");
    let id = world.run("ada", &["send", text(&file), "--to", "bo", "-q"]).ok().word();
    the_first_envelope_is_kept(&world);
    world.run("bo", &["receive", &id, "--list"]).ok();
    world.run("ada", &["outbox", "extend", &id, "--until", "30d"]).ok();
    // As if Bo had fetched it before.
    world.run("bo", &["receive", &id, "-o", text(&world.party("bo").desk().join("f"))]).ok();
    world.run("ada", &["outbox", &id]).ok().says("received and verified");
}
