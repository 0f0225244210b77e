//! `pouch relay check`: what it finds between ledger and blobs, and what it repairs; and a relay over PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use pouch_tests::{LIMIT, Pair, Postgres, Ran, Run, noise, text, until};

/// The findings by their word, and whether each was repaired.
fn findings(ran: &Ran) -> Vec<(String, bool)> {
    let found = ran.objects().into_iter().filter(|object| object["type"] == "finding");
    found.map(|f| (f["finding"].as_str().unwrap().to_owned(), f["repaired"].as_bool().unwrap())).collect()
}

/// The file of a part: the largest one, when one bundle is there.
fn part(pair: &Pair) -> PathBuf {
    pair.relay.blobs().into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn word(word: &str, repaired: bool) -> Vec<(String, bool)> {
    vec![(word.to_owned(), repaired)]
}

#[test]
fn what_is_lost_altered_or_left_is_found_and_repaired() {
    let mut pair = Pair::new();
    let id = pair.ada.send(&[text(&pair.ada.file("data", noise("data", 200_000))), "--to", "bo"]);
    // A ledger in a file is its relay's alone.
    pair.relay.check(&[]).fails(9, "in use by another relay process");
    pair.relay.stop().ok();
    let clean = pair.relay.check(&["--deep"]).ok().object("check");
    assert_eq!((&clean["objects"], &clean["blobs"], &clean["found"]), (&2.into(), &2.into(), &0.into()));

    // Altered: only who reads all of it can tell.
    let path = part(&pair);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[1000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    pair.relay.check(&[]).ok();
    assert_eq!(findings(&pair.relay.check(&["--deep"]).ends(9)), word("lost", false));
    // Of another length: everybody can.
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(findings(&pair.relay.check(&[]).ends(9)), word("lost", false));
    fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert_eq!(findings(&pair.relay.check(&[]).ends(9)), word("lost", false));
    // Gone: its bundle is marked, which the recipient is told.
    fs::remove_file(&path).unwrap();
    assert_eq!(findings(&pair.relay.check(&["--repair"]).ends(9)), word("lost", false));
    pair.relay.serve();
    pair.bo.run(&["receive", &id]).fails(6, "the relay lost an object of this bundle");
    pair.relay.stop().ok();
    // It was in a backup.
    fs::write(&path, &whole).unwrap();
    assert_eq!(findings(&pair.relay.check(&[]).ends(9)), word("damaged", false));
    assert_eq!(findings(&pair.relay.check(&["--repair", "--deep"]).ok()), word("damaged", true));

    // A blob that no row names, beside files that are none of the relay's.
    let known = path.file_name().unwrap().to_str().unwrap();
    let name = format!("{}{}", &known[..2], "0".repeat(30));
    let (orphan, stranger) = (path.with_file_name(name), path.with_file_name("README"));
    fs::write(&orphan, b"x").unwrap();
    fs::write(&stranger, b"x").unwrap();
    assert_eq!(findings(&pair.relay.check(&[]).ends(9)), word("orphan", false));
    let config = pair.relay.data().join("relay.toml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("backup_seconds = 3600\n{before}")).unwrap();
    assert_eq!(pair.relay.check(&["--repair"]).ok().object("check")["kept"], 1, "a backup may know it");
    fs::write(&config, before).unwrap();
    assert_eq!(findings(&pair.relay.check(&["--repair"]).ok()), word("orphan", true));
    assert!(!orphan.exists() && stranger.exists());
    pair.relay.check(&["--deep"]).ok();
    pair.relay.serve();
    let into = pair.bo.receive(&id);
    assert_eq!(fs::read(into.join("data")).unwrap(), noise("data", 200_000));
}

/// A backup of the ledger from before: what it names is there, as blobs outlive their rows.
#[test]
fn a_ledger_restored_from_a_backup_loses_nothing() {
    let mut pair = Pair::new();
    pair.relay.stop().ok();
    let config = pair.relay.data().join("relay.toml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("backup_seconds = 86400\n{before}")).unwrap();
    pair.relay.serve();
    let id = pair.ada.send(&[text(&pair.ada.file("data", noise("data", 50_000))), "--to", "bo"]);
    pair.relay.stop().ok();
    let ledger = pair.relay.data().join("ledger.sqlite");
    let backup = fs::read(&ledger).unwrap();
    pair.relay.serve();
    pair.ada.run(&["outbox", "revoke", &id]).ok();
    let late = pair.ada.send(&[text(&pair.ada.file("late", noise("late", 50_000))), "--to", "bo"]);
    pair.relay.stop().ok();
    fs::write(&ledger, backup).unwrap();
    // Those that came later are kept, too: who restored the wrong backup restores the right one.
    let checked = pair.relay.check(&["--repair", "--deep"]).ok().object("check");
    assert_eq!((&checked["objects"], &checked["kept"]), (&2.into(), &2.into()), "{checked}");
    pair.relay.serve();
    let into = pair.bo.receive(&id);
    assert_eq!(fs::read(into.join("data")).unwrap(), noise("data", 50_000));
    pair.bo.run(&["receive", &late]).fails(3, "");
}

/// Blobs that are not this relay's are left alone, by `serve` and by `check --repair`, until the operator says that they are.
#[test]
fn blobs_of_another_relay_are_refused_and_taken_when_told_to() {
    let (mut pair, mut other) = (Pair::new(), Pair::new());
    let mut ids = Vec::new();
    for pair in [&mut pair, &mut other] {
        ids.push(pair.ada.send(&[text(&pair.ada.file("data", noise("data", 50_000))), "--to", "bo"]));
        pair.relay.stop().ok();
    }
    let (blobs, away) = (pair.relay.data().join("blobs"), pair.relay.data().join("away"));
    fs::rename(&blobs, &away).unwrap();
    let refused = |pair: &Pair, says: &str| {
        pair.relay.check(&["--repair"]).fails(9, says).fails(9, "--adopt-store");
        pair.relay.command(&["serve"]).fails(9, says);
    };
    // Not mounted, or `blobs` names another place: an empty folder.
    refused(&pair, "`store` is missing");
    fs::remove_dir_all(&blobs).unwrap();
    // Another relay's.
    fs::rename(other.relay.data().join("blobs"), &blobs).unwrap();
    let theirs = pair.relay.blobs();
    refused(&pair, "another relay's");
    assert!(theirs.len() == 2 && pair.relay.blobs() == theirs, "nothing was deleted");
    fs::rename(&blobs, other.relay.data().join("blobs")).unwrap();
    // A restore that forgot the one file, and that brings it.
    fs::rename(&away, &blobs).unwrap();
    let store = fs::read(blobs.join("store")).unwrap();
    fs::remove_file(blobs.join("store")).unwrap();
    refused(&pair, "`store` is missing");
    fs::write(blobs.join("store"), &store[..10]).unwrap();
    pair.relay.check(&["--repair"]).fails(9, "holds no id of a store");
    fs::write(blobs.join("store"), &store).unwrap();
    pair.relay.check(&["--deep"]).ok();
    // The blobs are really lost.
    fs::remove_dir_all(&blobs).unwrap();
    pair.relay.check(&["--adopt-store", "--repair"]).ends(2);
    assert!(!blobs.exists());
    pair.relay.check(&["--adopt-store"]).ends(9);
    let lost = pair.relay.check(&["--repair"]).ends(9);
    assert_eq!(findings(&lost), [("lost".to_owned(), false), ("lost".to_owned(), false)]);
    assert_eq!(fs::read(blobs.join("store")).unwrap(), store);
    pair.relay.serve();
    pair.bo.run(&["receive", &ids[0]]).fails(6, "the relay lost an object of this bundle");
    let id = pair.ada.send(&[text(&pair.ada.file("data", noise("data", 50_000))), "--to", "bo"]);
    pair.bo.receive(&id);
    // The other one has never noticed.
    other.relay.serve();
    other.bo.receive(&ids[1]);
}

#[test]
fn a_relay_over_postgres_serves_checks_and_survives_its_database() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    let mut pair = Pair::over(&postgres, "pouch");
    let file = pair.ada.file("data", noise("data", 300_000));
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    assert_eq!(fs::read(pair.bo.receive(&id).join("data")).unwrap(), fs::read(&file).unwrap());
    // It is checked while it serves.
    assert_eq!(pair.relay.check(&["--deep"]).ok().object("check")["objects"], 2);
    // A second node with blobs of its own is none.
    let node = pair.stranger("node");
    let data = node.desk().join("relay");
    fs::create_dir(&data).unwrap();
    Run::of("cp")
        .args(["-a"])
        .args([pair.relay.data().join("relay.toml"), pair.relay.data().join("keys")])
        .args([&data])
        .end()
        .ok();
    node.run(&["relay", "serve", "--data", text(&data)]).fails(9, "that all nodes have the same blobs");
    // One relay for one database.
    let other = pair.stranger("other");
    let url = postgres.url("pouch");
    let words = ["relay", "init", "--host", "127.0.0.1", "--ledger", &url, "--data", "other"];
    other.run(&words).fails(9, "holds a relay's ledger already");
    assert!(!other.desk().join("other").exists(), "nothing was made");
    other
        .run(&["relay", "init", "--host", "h", "--ledger", "postgres://a:secret@h/b", "--data", "other"])
        .fails(9, "ledger_password_file");

    // The server crashes, and comes back: the same relay goes on, with everything.
    postgres.stop();
    pair.ada.run(&["inbox"]).fails(7, "");
    postgres.serve();
    until("the relay goes on", LIMIT, || (pair.ada.run(&["inbox"]).code == 0).then_some(()));
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.ada.run(&["outbox", &id]).ok();
    pair.bo.receive(&id);
    pair.relay.stop().ok();
    let said = pair.relay.log();
    assert!(!said.contains("postgres://"), "the log names the database's address");
    pair.relay.check(&["--deep"]).ok();
    // Without its database it does not start, and says why.
    postgres.stop();
    pair.relay.check(&[]).fails(9, "ledger");
}
