//! One send to several people: one upload, an envelope and a manifest for each, all of them or nobody.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use pouch_tests::hostile::{Answer, World};
use pouch_tests::{Pair, noise, text};

#[test]
fn several_get_the_same_bundle() {
    let pair = Pair::new();
    let cy = pair.third("cy");
    let file = pair.ada.file("f", noise("f", 9 << 20));
    let ran = pair.ada.run(&["send", text(&file), "--to", "bo", "--to", "cy", "--json"]).ok();
    let sent = ran.object("sent");
    assert_eq!(sent["to"], serde_json::json!(["bo", "cy"]));
    let id = sent["bundle"].as_str().unwrap();
    // One upload: two parts, padded, and an index.
    assert_eq!(pair.relay.blobs().len(), 3);
    for party in [&pair.bo, &cy] {
        assert_eq!(std::fs::read(party.receive(id).join("f")).unwrap(), std::fs::read(&file).unwrap());
    }
    // A record for each, with the manifest that is theirs.
    let events: Vec<_> = pair.ada.events().into_iter().filter(|e| e["action"] == "sent").collect();
    let peers: Vec<_> = events.iter().map(|e| e["peer"].as_str().unwrap()).collect();
    assert_eq!(peers, ["bo", "cy"]);
    assert_ne!(events[0]["statement_sha256"], events[1]["statement_sha256"]);
    let shown = pair.ada.run(&["outbox", id, "--json"]).ok().object("bundle");
    for (number, event) in events.iter().enumerate() {
        assert_eq!(shown["recipients"][number]["outcome"], "verified");
        assert_eq!(shown["recipients"][number]["manifest_sha256"], event["statement_sha256"]);
    }
    // Numbers go on for each by themselves: nobody is told of a gap.
    for to in ["bo", "bo,cy", "cy", "cy,bo"] {
        let id = pair.ada.send(&[text(&file), "--to", to]);
        for (party, name) in [(&pair.bo, "bo"), (&cy, "cy")] {
            if to.contains(name) {
                let ran = party.run(&["receive", &id, "-o", text(&party.fresh())]).ok();
                assert!(!ran.err.contains("warning"), "{ran}");
            }
        }
    }
    // What was sent to several can be extended and addressed further.
    let dee = pair.third("dee");
    let id = pair.ada.send(&[text(&file), "--to", "bo,cy", "--note", "for all"]);
    pair.ada.run(&["outbox", "extend", &id, "--until", "30d"]).ok().says("by bo, cy");
    pair.ada.run(&["outbox", "add", &id, "--to", "dee"]).ok();
    for party in [&pair.bo, &cy, &dee] {
        party.run(&["receive", &id, "-o", text(&party.fresh())]).ok().says("for all");
    }
}

#[test]
fn all_of_them_or_nobody() {
    let world = World::of_two();
    world.befriend("cy");
    let file = world.file("f", "f");
    let sends = |to: &[&str]| {
        let to: Vec<&str> = to.iter().flat_map(|to| ["--to", to]).collect();
        world.run("ada", &[&["send", text(&file)], &to[..]].concat())
    };
    sends(&["bo", "nobody"]).fails(3, "nobody");
    sends(&["bo", "cy", "bo"]).fails(2, "bo is named twice");
    world
        .run("ada", &["send", text(&file), "--to", "bo,cy", "--out", text(&world.root().join("x.pouch"))])
        .fails(2, "one");
    assert!(!world.root().join("x.pouch").exists());
    // The second envelope is refused: the first one is not delivered either.
    let count = std::sync::atomic::AtomicU32::new(0);
    world.hostile.on("PUT", "/v1/bundles/*/envelopes/*", move |seen| {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => seen.pass().into(),
            _ => Answer::problem(403, "forbidden", "no").into(),
        }
    });
    sends(&["bo", "cy"]).ends(5);
    world.hostile.behave();
    // Bo's envelope was out of the house, so the numbers are used up, and the relay has been asked to forget it.
    world.run("ada", &["outbox"]).ok().says("was not delivered");
    let failed = world.party("ada").events().into_iter().filter(|e| e["action"] == "sent" && e["outcome"] == "failed");
    assert_eq!(failed.count(), 2, "a record for each of them");
    for who in ["bo", "cy"] {
        assert_eq!(world.run(who, &["inbox", "-q"]).ok().text(), "");
    }
    sends(&["bo", "cy"]).ok();
    for who in ["bo", "cy"] {
        let id = world.run(who, &["inbox", "-q"]).ok().word();
        world.receive_as(who, &id).0.ok().says("1 bundle");
    }
}
