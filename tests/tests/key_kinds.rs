//! Hybrid and classic keys side by side: who gets which, what is said of them, and that nobody slides from one to the other.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use pouch_tests::{Pair, Party, Run, sample_tree, snapshot, text};
use serde_json::Value;

/// Ada with a hybrid key, Bo with a classic one.
fn mixed() -> Pair {
    let mut pair = Pair::new();
    let bo = pair.stranger("classic");
    bo.join_classic(&pair.ada.invite("classic"));
    pair.ada.run(&["contact", "list"]).ok().says("classic joined and is pinned");
    pair.bo = bo;
    pair
}

fn is_post_quantum(party: &Party) -> bool {
    let card = party.run(&["card", "--json"]).ok().object("card");
    let statement: Value = serde_json::from_str(card["card"]["statement"].as_str().unwrap()).unwrap();
    let hybrid = statement["age_recipient"].as_str().unwrap().starts_with("age1pq1");
    assert_eq!(card["post_quantum"], hybrid);
    hybrid
}

/// The envelope in a `.pouch` file.
fn envelope(file: &Path, folder: &Path) -> Vec<u8> {
    Run::of("tar").args(["-xf", text(file), "envelope"]).dir(folder).end().ok();
    fs::read(folder.join("envelope")).unwrap()
}

#[test]
fn keys_are_hybrid_unless_asked_otherwise() {
    let pair = Pair::new();
    assert!(is_post_quantum(&pair.ada) && is_post_quantum(&pair.bo));
    let shown = pair.ada.run(&["contact", "show", "bo"]).ok();
    assert!(shown.text().contains("hybrid, for quantum computers too"), "{shown}");
    assert!(
        shown.text().lines().all(|line| line.chars().count() < 200),
        "two thousand characters are no line: {shown}"
    );
    let cy = pair.stranger("cy");
    let words = ["join", "--name", "cy", "--no-passphrase"];
    let joined = cy.pouch(words).env("POUCH_JOIN_CLASSIC", "true").input(pair.ada.invite("cy")).end().ok();
    assert!(joined.text().contains("classic (X25519), not for quantum computers"), "{joined}");
    assert!(!is_post_quantum(&cy));
}

#[test]
fn a_classic_contact_gets_classic_envelopes_and_no_claim() {
    let pair = mixed();
    assert!(is_post_quantum(&pair.ada) && !is_post_quantum(&pair.bo));
    let shown = pair.ada.run(&["contact", "show", "classic"]).ok();
    assert!(shown.text().contains("classic (X25519), not for quantum computers"), "{shown}");
    let contact = pair.ada.run(&["contact", "show", "classic", "--json"]).ok().object("contact");
    assert_eq!(contact["post_quantum"], false);

    let source = pair.ada.desk().join("dataset");
    sample_tree(&source);
    // To the one and back to the other, receipts included.
    let id = pair.ada.send(&[text(&source), "--to", "classic"]);
    assert_eq!(snapshot(&pair.bo.receive(&id)), snapshot(&source));
    pair.ada.run(&["outbox", &id]).ok().says("received and verified");
    let back = pair.bo.send(&[text(&source), "--to", "ada"]);
    assert_eq!(snapshot(&pair.ada.receive(&back)), snapshot(&source));
    pair.bo.run(&["outbox", &back]).ok().says("received and verified");

    for (from, to, stanza) in [(&pair.ada, "classic", "-> X25519 "), (&pair.bo, "ada", "-> mlkem768x25519 ")] {
        let file = from.desk().join("out.pouch");
        from.send(&[text(&source), "--to", to, "--out", text(&file)]);
        let envelope = envelope(&file, &from.desk());
        let header = String::from_utf8_lossy(&envelope).split("\n---").next().unwrap().to_owned();
        assert!(header.contains(stanza) && header.matches("-> ").count() == 1, "{header}");
    }
}

// attacks.md 30, 37: somebody who shows a classic card in a hybrid contact's name is stopped, and nothing changes.
#[test]
fn attack_30_a_classic_card_does_not_replace_a_hybrid_one() {
    let pair = Pair::new();
    let classic = pair.stranger("classic");
    classic.join_classic(&pair.ada.invite("classic"));
    let card = pair.ada.file("bo.card", classic.run(&["card", "-q"]).ok().out);
    let before = pair.ada.run(&["contact", "show", "bo", "--json"]).ok().object("contact");
    let ran = pair.ada.run(&["contact", "add", text(&card), "--name", "bo"]).ends(4);
    assert!(ran.err.contains("classic") && ran.err.contains("hybrid"), "{ran}");
    assert_eq!(pair.ada.run(&["contact", "show", "bo", "--json"]).ok().object("contact"), before);
}
