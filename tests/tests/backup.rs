//! Backups of an identity: a home that was lost, a second one, and an identity that is gone for good.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use pouch_tests::{Pair, Party, Run, files_beneath, have, text};

const PASSPHRASE: &str = "correct horse battery staple";
/// docs/format.md, "Backup".
const STEP: u64 = 1 << 32;

/// A backup of Bo's, who has no passphrase, under this one.
fn backup(pair: &Pair, name: &str) -> String {
    let file = text(&pair.bo.desk().join(name)).to_owned();
    let phrase = pair.bo.file("phrase", PASSPHRASE);
    pair.bo.run(&["identity", "backup", "--out", &file, "--passphrase-file", text(&phrase)]).ok();
    file
}

fn restoring(party: &Party, file: &str) -> pouch_tests::Run {
    let phrase = text(&party.file("phrase", PASSPHRASE)).to_owned();
    party.pouch(["identity", "restore", file, "--no-passphrase", "--passphrase-file", &phrase, "--json"])
}

/// The last number of the one contact in this direction.
fn last(party: &Party, direction: &str) -> u64 {
    let book = fs::read(party.home().join("contacts.json")).unwrap();
    let book: serde_json::Value = serde_json::from_slice(&book).unwrap();
    book[0][direction]["sequence"].as_u64().unwrap()
}

fn received(party: &Party) -> u64 {
    last(party, "received")
}

#[test]
fn a_lost_home_is_restored_and_uses_no_number_twice() {
    let pair = Pair::new();
    let (file, theirs) = (pair.ada.file("f", "f"), pair.bo.file("g", "g"));
    let send = |by: &Party, path, to| by.send(&[text(path), "--to", to]);
    let before = send(&pair.bo, &theirs, "ada");
    pair.ada.receive(&before);
    let for_old = send(&pair.ada, &file, "bo");
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    let saved = backup(&pair, "saved");
    // What the backup does not know of.
    let after = send(&pair.bo, &theirs, "ada");
    let rotation = pair.bo.run(&["card", "--rotation"]).ok().text();
    pair.ada.pouch(["contact", "rotate", "bo", "-", "--yes"]).input(rotation).end().ok();
    pair.ada.receive(&after);
    assert_eq!(received(&pair.ada), 2);
    let old_journal = fs::read_to_string(pair.bo.home().join("account.json")).unwrap();
    let old_journal: serde_json::Value = serde_json::from_str(&old_journal).unwrap();
    let old_device = pair.bo.run(&["device", "list", "-q"]).ok().word();
    fs::remove_dir_all(pair.bo.home()).unwrap();

    let restored = restoring(&pair.bo, &saved).end().ok().object("identity-restored");
    assert_eq!((&restored["name"], restored["contacts"].as_u64()), (&"bo".into(), Some(1)));
    // The journal is another one, and names the one before. The device key is another one, and the lost one is revoked.
    let events = pair.bo.events();
    let first = &events[0];
    assert_eq!(first["action"], "restored");
    assert!(first["detail"].as_str().unwrap().contains(old_journal["journal"].as_str().unwrap()), "{first}");
    assert_eq!(pair.bo.run(&["device", "list", "-q"]).ok().text().lines().count(), 2);
    pair.bo.run(&["device", "revoke", &old_device]).ok();
    // What waited, for the keys of before even, opens; and it is answered.
    pair.bo.receive(&for_old);
    pair.ada.run(&["outbox", &for_old]).ok().says("received and verified");
    // The next number is beyond all that may have been used, and Ada is told what that means. Then it goes on as ever.
    let next = send(&pair.bo, &theirs, "ada");
    let ran = pair.ada.run(&["receive", &next, "-o", text(&pair.ada.fresh())]).ok();
    ran.says("sends from another home, made of a backup");
    let number = received(&pair.ada);
    assert!(number > STEP && number % STEP == 1, "{number}");
    let next = send(&pair.bo, &theirs, "ada");
    pair.ada.run(&["receive", &next, "-o", text(&pair.ada.fresh())]).ok().in_order();
    assert_eq!(received(&pair.ada), number + 1);
    // A home that was restored from the same backup again uses others.
    let other = pair.stranger("other");
    restoring(&other, &saved).end().ok();
    let elsewhere = send(&other, &other.file("g", "g"), "ada");
    pair.ada.receive(&elsewhere);
    assert_eq!(last(&pair.bo, "sent"), number + 1);
    assert_ne!(last(&other, "sent") / STEP, number / STEP);
}

#[test]
fn a_second_home_has_its_own_device_key_and_both_receive() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let laptop = pair.stranger("laptop");
    let saved = backup(&pair, "saved");
    restoring(&laptop, &saved).end().ok();
    restoring(&laptop, &saved).end().fails(2, "has joined a relay already");
    let [one, two] = [(); 2].map(|()| pair.ada.send(&[text(&file), "--to", "bo"]));
    pair.bo.receive(&one);
    laptop.receive(&two);
    for id in [&one, &two] {
        pair.ada.run(&["outbox", id]).ok().says("received and verified");
    }
    let keys = |party: &Party| -> Vec<bool> {
        let listed = party.run(&["device", "list", "--json"]).ok().objects();
        listed.iter().map(|o| o["here"].as_bool().unwrap()).collect()
    };
    let (mut here, mut there) = (keys(&pair.bo), keys(&laptop));
    there.sort_unstable();
    here.sort_unstable();
    assert_eq!((here, there), (vec![false, true], vec![false, true]));
    // New keys in one home end the other, until it is restored from a backup of now.
    pair.bo.run(&["card", "rotate", "--yes"]).ok();
    laptop.run(&["inbox"]).fails(5, "not enrolled");
    laptop.run(&["device", "rotate"]).ends(5);
    let late = pair.stranger("late");
    restoring(&late, &saved).end().ends(5);
    fs::remove_dir_all(laptop.home()).unwrap();
    restoring(&laptop, &backup(&pair, "fresh")).end().ok();
    laptop.run(&["inbox"]).ok();
    assert_eq!(laptop.run(&["card", "--words"]).ok().word(), pair.bo.run(&["card", "--words"]).ok().word());
}

// attacks.md 38
#[test]
fn attack_38_a_backup_opens_for_whom_it_is_made_and_a_wrong_passphrase_leaves_nothing() {
    let pair = Pair::new();
    let saved = backup(&pair, "saved");
    let whole = fs::read(&saved).unwrap();
    pair.bo.run(&["identity", "backup", "--out", &saved]).fails(5, "exists already");
    assert_eq!(fs::read(&saved).unwrap(), whole);
    let cy = pair.stranger("cy");
    let wrong = text(&cy.file("wrong", "incorrect horse")).to_owned();
    cy.run(&["identity", "restore", &saved, "--passphrase-file", &wrong]).fails(5, "does not open");
    let damaged = cy.file("damaged", &whole[..whole.len() - 1]);
    restoring(&cy, text(&damaged)).end().fails(5, "does not open");
    let right = text(&cy.file("phrase", PASSPHRASE)).to_owned();
    // It opens and is none.
    let none = text(&cy.desk().join("none")).to_owned();
    let plain = cy.file("plain", "{\"type\":\"pouch.backup.v2\"}");
    cy.run(&["encrypt", "-p", text(&plain), "-o", &none, "--passphrase-file", &right]).ok();
    restoring(&cy, &none).end().fails(4, "no backup of an identity");
    assert!(!cy.home().exists(), "something was written");
    cy.run(&["identity", "restore", &saved, "--passphrase-file", &right]).ok();
    // The identity has the backup's passphrase here, and its backups have it again.
    assert!(cy.home().join("identity.age").exists());
    cy.run(&["log", "show", "--passphrase-file", &right]).ok();
    let again = text(&cy.desk().join("again")).to_owned();
    cy.run(&["identity", "backup", "--out", &again, "--passphrase-file", &wrong])
        .fails(5, "does not open the identity");
    assert!(!std::path::Path::new(&again).exists());
    cy.run(&["identity", "backup", "--out", &again, "--passphrase-file", &right]).ok();
    let dee = pair.stranger("dee");
    restoring(&dee, &again).end().ok();
}

#[test]
fn a_backup_for_a_recipient_is_an_age_file_with_all_keys_and_no_device_key() {
    if !have(&["age", "age-keygen"]) {
        return;
    }
    let pair = Pair::new();
    let desk = pair.bo.desk();
    let (key, saved) = (desk.join("key"), desk.join("saved"));
    Run::of("age-keygen").args(["-o", text(&key)]).end().ok();
    let recipient = Run::of("age-keygen").args(["-y", text(&key)]).end().ok().word();
    pair.bo.run(&["identity", "backup", "--out", text(&saved), "-r", &recipient]).ok();
    let plain = Run::of("age").args(["-d", "-i", text(&key), text(&saved)]).end().ok().text();
    let told: serde_json::Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(told["type"], "pouch.backup.v1");
    let identity = fs::read_to_string(pair.bo.home().join("identity")).unwrap();
    assert_eq!(told["identity"].as_str().unwrap(), identity);
    let device = fs::read_to_string(pair.bo.home().join("device.key")).unwrap();
    assert!(!plain.contains(device.trim()) && !plain.contains("bundle_key"), "only who I am and whom I know");
    let cy = pair.stranger("cy");
    cy.run(&["identity", "restore", text(&saved), "-i", text(&key), "--no-passphrase"]).ok();
    cy.run(&["inbox"]).ok();
    pair.bo.run(&["identity", "backup", "--out", "x", "-r", "hello"]).fails(2, "-r");
}

#[test]
fn attack_50_a_restore_that_is_killed_at_any_write_is_finished_by_the_same_command() {
    if !have(&["strace"]) {
        return;
    }
    let pair = Pair::new();
    // For Ada's key and not with a passphrase, which takes a second each time.
    let saved = text(&pair.bo.desk().join("saved")).to_owned();
    let card = pair.ada.client().0.card().card().age_recipient.to_string();
    pair.bo.run(&["identity", "backup", "--out", &saved, "-r", &card]).ok();
    let key = text(&pair.ada.home().join("identity")).to_owned();
    let restoring = |home: &Party| home.pouch(["identity", "restore", &saved, "-i", &key, "--no-passphrase"]);
    let mut killed = 0;
    for call in ["rename", "linkat", "unlink"] {
        for at in 1.. {
            let home = pair.stranger(&format!("{call}{at}"));
            let ran = restoring(&home).killed_at(call, at).end();
            assert!(ran.code == 0 || ran.code == -9, "{ran}");
            if ran.code == 0 {
                break;
            }
            killed += 1;
            restoring(&home).end().ok();
            home.run(&["inbox"]).ok();
            home.run(&["log", "verify"]).ok();
            assert!(!home.home().join("restoring.json").exists());
            let left =
                files_beneath(&home.home()).into_iter().filter(|path| path.extension().is_some_and(|e| e == "tmp"));
            assert!(left.count() <= 1, "one write was cut off");
            // The relay has sixteen places for device keys.
            let mine = home.run(&["device", "list", "--json"]).ok().objects();
            let here = mine.iter().find(|o| o["here"] == true).unwrap()["key"].as_str().unwrap();
            pair.bo.run(&["device", "revoke", here]).ok();
        }
    }
    assert!(killed >= 8, "only {killed} writes were cut off");
}

/// docs/operating-a-relay.md, "Somebody leaves, or loses their keys".
#[test]
fn a_lost_identity_begins_anew_and_its_mailbox_is_closed() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let waits = pair.ada.send(&[text(&file), "--to", "bo"]);
    let old = pair.bo.run(&["card", "--words"]).ok().word();
    let lost = pair.root().join("lost");
    fs::rename(pair.bo.home(), &lost).unwrap();
    // The owner closes the mailbox: what waits in it stays there, for nobody.
    pair.ada.run(&["relay", "suspend", "bo"]).ok();
    pair.bo.run(&["receive", &waits, "--home", text(&lost)]).fails(5, "suspended");
    pair.ada.run(&["outbox", &waits]).ok().says("has not fetched it");
    let more = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.ada.run(&["outbox", &more]).ok().says("waiting on the relay");
    // Revoking withdraws it; forgetting makes room for the name.
    pair.ada.run(&["contact", "revoke", "bo"]).ok().says("withdrawn");
    for id in [&waits, &more] {
        pair.ada.run(&["outbox", id]).ok().says("revoked");
    }
    pair.ada.run(&["contact", "remove", "bo"]).ok();
    pair.bo.join(&pair.ada.invite("bo"));
    pair.ada.run(&["contact", "list"]).ok().says("bo joined and is pinned");
    let new = pair.bo.run(&["card", "--words"]).ok().word();
    assert_ne!(old, new);
    let again = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.receive(&again);
    pair.ada.run(&["outbox", &again]).ok().says("received and verified");
}
