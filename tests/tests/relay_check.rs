//! `pouch relay check`: what it finds between ledger and blobs, and what it repairs; and a relay over PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use pouch_tests::{LIMIT, Pair, Postgres, Ran, files_beneath, noise, text, until};

/// The findings by their word, and whether each was repaired.
fn findings(ran: &Ran) -> Vec<(String, bool)> {
    let found = ran.objects().into_iter().filter(|object| object["type"] == "finding");
    found.map(|f| (f["finding"].as_str().unwrap().to_owned(), f["repaired"].as_bool().unwrap())).collect()
}

/// The file of a part: the largest one, when one bundle is there.
fn part(pair: &Pair) -> PathBuf {
    let files = files_beneath(&pair.relay.data().join("blobs"));
    files.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
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

#[test]
fn a_relay_over_postgres_serves_checks_and_survives_its_database() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    let mut pair = Pair::over(&postgres, "pouch");
    let file = pair.ada.file("data", noise("data", 300_000));
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    assert_eq!(fs::read(pair.bo.receive(&id).join("data")).unwrap(), fs::read(&file).unwrap());
    // It is checked while it serves.
    assert_eq!(pair.relay.check(&["--deep"]).ok().object("check")["objects"], 2);
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
