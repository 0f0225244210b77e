//! attacks.md 35 and 61: a relay that puts in its own cards, or hands back the other side's, when people meet by a link.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use pouch_protocol::{CardMac, Link, LinkRole};
use pouch_statement::{Card, Detached, SignedCard, SigningKey};
use pouch_tests::hostile::{Answer, World};
use serde_json::{Value, json};

/// A card that the relay makes in somebody's name: everything as on theirs but for the keys.
fn forged(card: &Value) -> Value {
    let detached: Detached = serde_json::from_value(card.clone()).unwrap();
    let card = SignedCard::verify(&detached).unwrap();
    let key = SigningKey::generate().unwrap();
    let age = pouch_core::age::Identity::generate().recipient().to_string().parse().unwrap();
    let forged = Card { signing_key: key.public(), age_recipient: age, ..card.card().clone() };
    serde_json::to_value(SignedCard::sign(forged, &key).unwrap().detached()).unwrap()
}

fn contacts(world: &World, who: &str) -> Vec<String> {
    let path = world.party(who).home().join("contacts.json");
    let Ok(bytes) = std::fs::read(path) else { return Vec::new() };
    let rows: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
    rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

/// Joins while the relay changes its answer; nobody may be pinned and no account made.
#[track_caller]
fn join_is_refused(world: &World, change: impl Fn(Answer) -> Answer + Send + Sync + 'static) {
    let link = world.invite("bo");
    world.hostile.on("POST", "/v1/join", move |seen| change(seen.pass()).into());
    let name = format!("bo-{}", pouch_statement::BundleId::random().unwrap());
    world.run_with(&name, &["join", "--name", "bo", "--no-passphrase"], link.as_bytes()).fails(4, "");
    assert!(contacts(world, &name).is_empty());
    assert!(!world.party(&name).home().join("account.json").exists());
    world.run(&name, &["inbox"]).ends(2).says("nobody has joined");
    world.hostile.behave();
    // The relay's own record of who joined is true, so Ada pins the real joiner; she forgets them for the next round.
    world.run("ada", &["contact", "list"]).ok();
    world.run("ada", &["contact", "remove", "bo"]).ok();
}

#[test]
fn attack_35_61_an_inviter_whose_card_the_relay_changes_is_not_joined() {
    let world = World::empty();
    world.join("ada", &world.owner_link).ok();
    // Another card under the true card's MAC; no card; a MAC that is wrong; and members that nobody knows.
    join_is_refused(&world, |answer| answer.edit(|v| v["inviter"]["card"] = forged(&v["inviter"]["card"])));
    join_is_refused(&world, |answer| answer.edit(|v| v["inviter"] = Value::Null));
    join_is_refused(&world, |answer| answer.edit(|v| v["inviter"]["mac"] = json!("00".repeat(32))));
    join_is_refused(&world, |answer| answer.edit(|v| v["inviter"]["trust"] = json!("me")));
    join_is_refused(&world, |answer| answer.twist(|body| body.truncate(40)));
}

#[test]
fn attack_61_a_joiner_is_not_given_their_own_card_as_the_inviters() {
    let world = World::empty();
    world.join("ada", &world.owner_link).ok();
    let link = world.invite("bo");
    // The joiner's request carries a card with a good MAC of theirs: the relay hands it back.
    world.hostile.on("POST", "/v1/join", |seen| {
        let request: Value = serde_json::from_slice(&seen.body).unwrap();
        let mirrored = json!({ "card": request["card"], "mac": request["mac"] });
        seen.pass().edit(|v| v["inviter"] = mirrored).into()
    });
    world.join("bo", &link).ends(4).says("substituted");
    assert!(contacts(&world, "bo").is_empty());
    // The same link with the honest answer works: the refusal was for what the relay did.
    world.hostile.behave();
    world.join("bo", &link).ok().says("ada pinned");
    assert_eq!(contacts(&world, "bo"), ["ada"]);
}

#[test]
fn attack_61_an_owners_link_has_no_inviter() {
    let world = World::empty();
    let stranger = forged_inviter();
    world.hostile.on("POST", "/v1/join", move |seen| {
        let stranger = stranger.clone();
        seen.pass().edit(|v| v["inviter"] = stranger).into()
    });
    world.join("ada", &world.owner_link).fails(4, "");
    assert!(contacts(&world, "ada").is_empty());
    world.hostile.behave();
    world.join("ada", &world.owner_link).ok();
}

/// A well-made card of nobody, with any MAC.
fn forged_inviter() -> Value {
    let key = SigningKey::generate().unwrap();
    let now = pouch_client::clock::now();
    let card = Card {
        name: "ada".parse().unwrap(),
        age_recipient: pouch_core::age::Identity::generate().recipient().to_string().parse().unwrap(),
        signing_key: key.public(),
        relay: "https://127.0.0.1:1".parse().unwrap(),
        relay_pins: vec![],
        mailbox: pouch_statement::MailboxId::random().unwrap(),
        serial: 1,
        created: now,
        expires: now.plus(3600),
    };
    let card = SignedCard::sign(card, &key).unwrap().detached();
    json!({ "card": card, "mac": "11".repeat(32) })
}

/// Bo has joined by a new link, and the relay changes what it tells Ada of it.
#[track_caller]
fn joiner_is_refused(change: impl Fn(&mut Value) + Send + Sync + 'static) {
    let world = World::empty();
    world.join("ada", &world.owner_link).ok();
    let link = world.invite("bo");
    world.join("bo", &link).ok();
    world.hostile.on("GET", "/v1/links", move |seen| seen.pass().edit(|v| change(&mut v["links"][0])).into());
    // Nor can it keep Ada from hearing of it by failing at the next request.
    world.hostile.on("DELETE", "/v1/links/*", |_| Answer::problem(500, "internal", "sorry").into());
    world.run("ada", &["inbox"]).ends(4).says("nobody was pinned");
    assert!(contacts(&world, "ada").is_empty());
    let event = world.last_event("ada", "contact-pinned");
    assert_eq!((&event["outcome"], &event["peer"]), (&json!("failed"), &json!("bo")));
    // The stop is final: an honest relay afterwards does not bring the name back by itself, and nothing is sent to it.
    world.hostile.behave();
    world.run("ada", &["contact", "list"]).ok();
    assert!(contacts(&world, "ada").is_empty());
    world.run("ada", &["send", "/etc/hostname", "--to", "bo"]).fails(3, "");
}

#[test]
fn attack_35_61_a_joiner_whose_card_the_relay_replaced_is_not_pinned() {
    joiner_is_refused(|link| link["joiner"]["card"] = forged(&link["joiner"]["card"]));
}

#[test]
fn attack_35_61_a_joiner_whose_mac_the_relay_changed_is_not_pinned() {
    joiner_is_refused(|link| link["joiner"]["mac"] = json!("ab".repeat(32)));
}

// The inviter's own card came to the relay with a good MAC under the same key: it is not taken for the joiner's.
#[test]
fn attack_61_the_inviters_own_card_is_not_taken_as_the_joiners() {
    let world = World::empty();
    world.join("ada", &world.owner_link).ok();
    let mirrored = std::sync::Arc::new(std::sync::Mutex::new(Value::Null));
    let kept = mirrored.clone();
    world.hostile.on("POST", "/v1/links", move |seen| {
        *kept.lock().unwrap() = serde_json::from_slice::<Value>(&seen.body).unwrap()["inviter"].clone();
        seen.pass().into()
    });
    world.invite("bo");
    let mirrored = mirrored.lock().unwrap().clone();
    world.hostile.on("GET", "/v1/links", move |seen| {
        let mirrored = mirrored.clone();
        seen.pass().edit(|v| v["links"][0]["joiner"] = mirrored).into()
    });
    world.run("ada", &["inbox"]).ends(4).says("nobody was pinned");
    assert!(contacts(&world, "ada").is_empty());
}

// Whoever holds the link's secret and is not the relay can make the MAC, but still only for a card of this relay.
#[test]
fn attack_35_a_joiner_from_another_relay_is_not_pinned() {
    let world = World::empty();
    world.join("ada", &world.owner_link).ok();
    let link: Link = world.invite("bo").parse().unwrap();
    let other: Detached = serde_json::from_value(forged_inviter()["card"].clone()).unwrap();
    let mac = CardMac::of(&link.secret.card_key(), LinkRole::Joiner, &other);
    world.hostile.on("GET", "/v1/links", move |seen| {
        seen.pass().edit(|v| v["links"][0]["joiner"] = json!({ "card": other, "mac": mac })).into()
    });
    world.run("ada", &["inbox"]).ends(4).says("another relay");
    assert!(contacts(&world, "ada").is_empty());
}

// The relay cannot redeem a link that it was never shown: what it stores is a digest.
#[test]
fn attack_61_a_link_works_once_and_its_copies_do_not() {
    let world = World::empty();
    world.join("ada", &world.owner_link).ok();
    let link = world.invite("bo");
    world.join("bo", &link).ok();
    world.join("bo2", &link).ends(6).says("used");
    assert!(contacts(&world, "bo2").is_empty());
    for broken in [&link[..link.len() - 1], &link.replace("https", "http"), "https://127.0.0.1/j", ""] {
        let name = format!("broken-{}", broken.len());
        let ran = world.join(&name, broken).fails(2, "");
        // A link is a secret: no error repeats it (34, 59).
        let fragment = link.split('#').nth(1).unwrap();
        assert!(!ran.err.contains(&fragment[..20]) && !ran.text().contains(&fragment[..20]));
    }
    world.run("ada", &["contact", "list"]).ok().says("bo joined and is pinned");
}
