//! Rotations that are not taken: of somebody who has stolen the keys, or who is revoked.

use pouch_client::identity::Identity;
use pouch_statement::{Card, Detached, Rotation, Signed, SignedCard, SigningKey, sign_detached};
use pouch_tests::{Pair, Party, files_beneath, text};

use super::{contact, take, words};

/// The keys of somebody who has stolen Bo's, and his card.
struct Thief {
    card: SignedCard,
    old: Identity,
    new: Identity,
}

impl Thief {
    fn of(party: &Party) -> Self {
        let (client, old) = party.client();
        Self { card: client.card().clone(), old, new: Identity::generate().unwrap() }
    }

    fn card(&self) -> Card {
        Card {
            age_recipient: self.new.age.recipient().to_string().parse().unwrap(),
            signing_key: self.new.signing.public(),
            serial: self.card.card().serial + 1,
            created: pouch_client::clock::now(),
            ..self.card.card().clone()
        }
    }

    /// A rotation to `card`, signed by whoever these are.
    fn forge(&self, card: Card, key: &SigningKey, signers: [&SigningKey; 2]) -> String {
        let card = Signed::sign(card, key).unwrap().detached();
        let statement = Signed::sign(Rotation { previous: self.card.fingerprint(), card }, signers[0]).unwrap();
        let second = sign_detached("pouch.rotation.v1", statement.bytes(), signers[1]).unwrap();
        let Detached { statement, signature } = statement.detached();
        statement + &signature + &second
    }
}

fn offer(pair: &Pair, rotation: &str) -> pouch_tests::Ran {
    pair.ada.pouch(["contact", "rotate", "bo", "-", "--yes"]).input(rotation).end()
}

fn evidence(party: &Party) -> usize {
    let folder = party.home().join("evidence");
    if folder.exists() { files_beneath(&folder).len() } else { 0 }
}

// attacks.md 25, 30, 35, 37
#[test]
fn attack_37_what_is_no_rotation_of_the_pinned_card_is_refused_and_kept() {
    let pair = Pair::new();
    let cy = pair.third("cy");
    let pinned = contact(&pair.ada, "bo");
    let thief = Thief::of(&pair.bo);
    let (old, new) = (&thief.old.signing, &thief.new.signing);
    let classic = Identity::generate_classic().unwrap();
    let weaker = Card {
        age_recipient: classic.age.recipient().to_string().parse().unwrap(),
        signing_key: classic.signing.public(),
        ..thief.card()
    };
    let mailbox = pair.ada.client().0.card().card().mailbox;
    // Somebody else's; by the old key alone, or by the new one alone; weaker; not higher; with somebody else's mailbox.
    cy.run(&["card", "rotate", "--yes"]).ok();
    let theirs = cy.run(&["card", "--rotation"]).ok().text();
    let cases = [
        (theirs, "other keys"),
        (thief.forge(thief.card(), new, [old, old]), "the signature is by another key"),
        (thief.forge(thief.card(), new, [new, new]), "the signature is by another key"),
        (thief.forge(weaker, &classic.signing, [old, &classic.signing]), "from a hybrid key to a classic one"),
        (thief.forge(Card { serial: 1, ..thief.card() }, new, [old, new]), "not higher"),
        (thief.forge(Card { mailbox, ..thief.card() }, new, [old, new]), "another mailbox"),
    ];
    for (number, (rotation, why)) in (1..).zip(cases) {
        offer(&pair, &rotation).fails(4, why);
        assert_eq!(evidence(&pair.ada), number, "{why}");
        assert_eq!(contact(&pair.ada, "bo"), pinned);
    }
    offer(&pair, "hello").fails(4, "not an armored ssh signature");
    offer(&pair, "").fails(4, "not an armored ssh signature");
    let failed = pair.ada.events().into_iter().filter(|e| e["action"] == "contact-rotated" && e["outcome"] == "failed");
    assert_eq!(failed.count(), 6);
}

// attacks.md 37: an old word of the old keys brings nobody back.
#[test]
fn attack_37_a_rotation_of_before_is_replayed_in_vain() {
    let pair = Pair::new();
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    let first = pair.bo.run(&["card", "--rotation"]).ok().text();
    let card = pair.ada.file("bo.card", pair.bo.run(&["card", "-q"]).ok().out);
    take(&pair.ada, "bo", &pair.bo);
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    take(&pair.ada, "bo", &pair.bo);
    let pinned = contact(&pair.ada, "bo");
    offer(&pair, &first).fails(3, "no rotation that leads on");
    pair.ada.run(&["contact", "add", text(&card), "--name", "bo"]).fails(4, "older than the pinned one");
    assert_eq!(contact(&pair.ada, "bo"), pinned);
    // A relay with an older ledger gives what it has.
    pair.ada.run(&["contact", "rotate", "bo"]).fails(3, "no rotation that leads on");
}

// attacks.md 37: two words of the same keys for different ones tell that somebody else has them, whichever came first.
#[test]
fn attack_37_two_rotations_of_one_card_are_evidence() {
    let pair = Pair::new();
    let thief = Thief::of(&pair.bo);
    let forged = thief.forge(thief.card(), &thief.new.signing, [&thief.old.signing, &thief.new.signing]);
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    let honest = pair.bo.run(&["card", "--rotation"]).ok().text();
    let before = contact(&pair.ada, "bo");
    offer(&pair, &(honest.clone() + &forged)).fails(4, "two rotations").says("contact revoke");
    assert_eq!((contact(&pair.ada, "bo"), evidence(&pair.ada)), (before, 1));
    take(&pair.ada, "bo", &pair.bo);
    let pinned = contact(&pair.ada, "bo");
    offer(&pair, &forged).fails(4, "two rotations");
    offer(&pair, &(honest + &forged)).fails(4, "two rotations");
    assert_eq!(contact(&pair.ada, "bo"), pinned);
}

// attacks.md 37: what somebody who stole the old keys signs after the rotation is dated after it.
#[test]
fn attack_37_a_former_key_signs_nothing_new() {
    let pair = Pair::new();
    let copy = pair.root().join("copy.home");
    let copied = std::process::Command::new("cp").arg("-a").args([pair.bo.home(), copy.clone()]).status().unwrap();
    assert!(copied.success());
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    take(&pair.ada, "bo", &pair.bo);
    // Dated in the second of the rotation it would be of before.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let file = pair.bo.file("g", "g");
    let out = pair.bo.desk().join("stolen.pouch");
    let home = text(&copy).to_owned();
    pair.bo.run(&["send", text(&file), "--to", "ada", "--out", text(&out), "--home", &home]).ok();
    pair.ada.run(&["receive", text(&out), "-o", text(&pair.ada.fresh())]).fails(4, "dated after it was replaced");
    assert_eq!(evidence(&pair.ada), 1);
    // The copy cannot change the keys either: the account has moved.
    pair.bo.run(&["card", "rotate", "--yes", "--home", &home]).fails(5, "does not begin at the account's card");
    assert!(!copy.join("rotation.next").exists());
}

// Revocation beats rotation.
#[test]
fn attack_37_a_revoked_contact_is_never_rotated() {
    let pair = Pair::new();
    let cy = pair.third("cy");
    let (file, theirs) = (pair.ada.file("f", "f"), pair.bo.file("g", "g"));
    let send = |to: &str| pair.ada.send(&[text(&file), "--to", to]);
    let (fetched, waiting, both) = (send("bo"), send("bo"), send("bo,cy"));
    pair.bo.receive(&fetched);
    let from_bo = pair.bo.send(&[text(&theirs), "--to", "ada"]);
    let done = pair.ada.run(&["contact", "revoke", "bo", "--json"]).ok().object("contact-revoked");
    assert_eq!(done["withdrawn"], serde_json::json!([waiting]));
    assert_eq!(done["fetched"], serde_json::json!([fetched]));
    assert_eq!(done["shared"], serde_json::json!([both]));
    pair.ada.run(&["contact", "revoke", "bo"]).ok().says("to others, too");
    pair.bo.run(&["receive", &waiting]).ends(6);
    cy.receive(&both);
    // Now nobody waits for it but him.
    let done = pair.ada.run(&["contact", "revoke", "bo", "--json"]).ok().object("contact-revoked");
    assert_eq!((&done["withdrawn"], &done["shared"]), (&serde_json::json!([both]), &serde_json::json!([])));
    pair.bo.run(&["receive", &both]).ends(6);
    // What she signed before is still fetched.
    pair.ada.run(&["outbox"]).ok().says("received");
    let row = pair.ada.run(&["outbox", "--json"]).ok().objects().into_iter().find(|o| o["bundle"] == both.as_str());
    let row = row.unwrap();
    assert_eq!((&row["recipients"][0]["outcome"], &row["recipients"][1]["outcome"]), (&().into(), &"verified".into()));
    // Nothing to him, nothing from him, and no new keys of his.
    pair.ada.run(&["send", text(&file), "--to", "bo"]).fails(6, "is revoked");
    pair.ada.run(&["receive", &from_bo]).fails(6, "is revoked");
    pair.ada.run(&["receive", "--next", "--timeout", "1s"]).ends(3);
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    pair.ada.run(&["contact", "rotate", "bo", "--words", &words(&pair.bo)]).fails(6, "is revoked");
    let rotation = pair.bo.run(&["card", "--rotation"]).ok().text();
    offer(&pair, &rotation).fails(6, "is revoked");
    let card = pair.ada.file("bo.card", pair.bo.run(&["card", "-q"]).ok().out);
    pair.ada.run(&["contact", "add", text(&card), "--name", "bo"]).fails(4, "another key");
    pair.ada.run(&["contact", "list"]).ok().says("REVOKED");
    // Forgotten, a card of his is anybody's again.
    pair.ada.run(&["contact", "remove", "bo"]).ok();
    pair.ada.run(&["contact", "add", text(&card), "--name", "bo", "--words", &words(&pair.bo)]).ok();
    let did = pair.ada.events().into_iter().filter(|e| e["action"] == "contact-revoked").count();
    assert_eq!(did, 1);
}
