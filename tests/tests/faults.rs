//! Transfers over connections that are cut, stalled, held up and changed (`pouch_tests::Faults`), and a relay that is restarted
//! beneath them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use pouch_tests::hostile::{Reply, World};
use pouch_tests::{Fate, Pair, Random, files_beneath, noise, seeds, snapshot, text};

const PART: u64 = 8 << 20;
/// What more than a part's content has to pass: its seal, TLS, the request around it.
const AROUND: u64 = 64 << 10;
/// Exchanges in an ordinary run; `POUCH_KILLS` sets another number.
const EXCHANGES: u64 = 12;

fn plant(pair: &Pair, name: &str, parts: usize) -> PathBuf {
    let folder = pair.root().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("large"), noise(name, parts * PART as usize - 70_000)).unwrap();
    for number in 0..20 {
        std::fs::write(folder.join(format!("{number}")), noise(&format!("{name} {number}"), number * 333)).unwrap();
    }
    folder
}

fn arrives(pair: &Pair, id: &str, source: &Path) {
    let target = pair.root().join(format!("{id} received"));
    pair.bo.run(&["receive", id, "-o", text(&target), "--retry-for", "60s"]).ok();
    assert!(snapshot(source) == snapshot(&target));
    pair.ada.run(&["outbox", id]).ok().says("received and verified");
}

#[test]
fn connections_that_are_cut_behind_a_part_do_not_stop_an_upload() {
    let (pair, faults) = Pair::faulty();
    for limit in [PART + AROUND, PART + AROUND + 1_000_000, 2 * PART, 3 * PART + AROUND] {
        let source = plant(&pair, &limit.to_string(), 5);
        faults.plan(move || Fate::Cut(limit));
        let id = pair.ada.run(&["send", text(&source), "--to", "bo", "-q", "--retry-for", "60s"]).ok().word();
        arrives(&pair, &id, &source);
        faults.plan(|| Fate::Passes);
    }
    assert!(faults.met() >= 8, "{} connections were cut", faults.met());
}

#[test]
fn connections_that_are_cut_before_a_part_is_through_end_it_and_it_goes_on() {
    let (pair, faults) = Pair::faulty();
    for limit in [0, 1000, 5000, PART / 2, PART - AROUND] {
        let source = plant(&pair, &limit.to_string(), 3);
        let words = ["send", text(&source), "--to", "bo", "-q", "--retry-for", "2s"];
        faults.plan(move || Fate::Cut(limit));
        let ran = pair.ada.run(&words).fails(7, "cannot reach the relay");
        // Below a handshake nothing is begun.
        let begun = !files_beneath(&pair.ada.home().join("transfers")).is_empty();
        assert_eq!(begun, ran.err.contains("outbox resume"), "{limit}: {ran}");
        assert_eq!(begun, limit >= 5000, "{limit}: {ran}");
        faults.plan(|| Fate::Passes);
        let id = pair.ada.run(&words).ok().word();
        arrives(&pair, &id, &source);
    }
}

#[test]
fn exchanges_over_connections_with_faults() {
    let (pair, faults) = Pair::faulty();
    let count = pouch_tests::kills(EXCHANGES);
    for seed in seeds("faults", count) {
        let source = plant(&pair, &format!("seed {seed}"), 2);
        let target = pair.root().join(format!("target {seed}"));
        faults.by_chance(seed, 3, 3 * PART);
        let until_done = |words: &[&str]| {
            for _ in 0..50 {
                let ran = if words[0] == "send" { pair.ada.run(words) } else { pair.bo.run(words) };
                if ran.code == 0 {
                    return ran;
                }
                assert_eq!(ran.code, 7, "seed {seed}: {ran}");
            }
            panic!("seed {seed}: {words:?} does not come to an end");
        };
        let id = until_done(&["send", text(&source), "--to", "bo", "-q", "--retry-for", "1s"]).word();
        until_done(&["receive", &id, "-o", text(&target), "--retry-for", "1s"]);
        faults.plan(|| Fate::Passes);
        assert!(snapshot(&source) == snapshot(&target), "seed {seed}");
        pair.bo.run(&["inbox", "-q"]).ok();
        pair.ada.run(&["outbox", &id]).ok().says("received and verified");
        for used in [source, target] {
            std::fs::remove_dir_all(used).unwrap();
        }
    }
    assert!(faults.met() > count);
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text(), "", "nothing came twice");
}

// A third of all requests is lost, before the relay hears of them or behind.
#[test]
fn a_third_of_all_requests_is_lost() {
    let world = World::of_two();
    let requests = [
        ("POST", "/v1/bundles"),
        ("GET", "/v1/bundles/*"),
        ("PUT", "/v1/bundles/*/parts/*"),
        ("PUT", "/v1/bundles/*/index"),
        ("PUT", "/v1/bundles/*/envelopes/*"),
        ("POST", "/v1/bundles/*/commit"),
        ("POST", "/v1/inbox/*/release"),
        ("GET", "/v1/bundles/*/index"),
        ("GET", "/v1/bundles/*/parts/*"),
        ("POST", "/v1/inbox/*/receipt"),
    ];
    for (number, (method, path)) in requests.into_iter().enumerate() {
        let random = Mutex::new(Random(number as u64));
        world.hostile.on(method, path, move |seen| match random.lock().unwrap().below(10) {
            0 => Reply::Close,
            1 | 2 => {
                seen.pass();
                Reply::Close
            }
            _ => seen.pass().into(),
        });
    }
    let source = world.root().join("source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("large"), noise("large", 6 * PART as usize)).unwrap();
    let words = ["send", text(&source), "--to", "bo", "-q", "--retry-for", "60s"];
    let id = (0..5).map(|_| world.run("ada", &words)).find(|ran| ran.code == 0).unwrap().word();
    let target = world.root().join("target");
    let words = ["receive", &id, "-o", text(&target), "--retry-for", "60s"];
    assert!((0..5).any(|_| world.run("bo", &words).code == 0));
    assert!(snapshot(&source) == snapshot(&target));
    world.hostile.behave();
    world.run("bo", &["inbox"]).ok();
    world.run("ada", &["outbox", &id]).ok().says("received and verified");
}

#[test]
fn a_relay_that_is_restarted_twenty_times_is_ridden_out() {
    let mut pair = Pair::new();
    let source = plant(&pair, "source", 10);
    let words = ["send", text(&source), "--to", "bo", "-q", "--retry-for", "2m", "--limit-rate", "6M"];
    let mut sending = pair.ada.pouch(words).start();
    let mut restarts = 0;
    while restarts < 20 && sending.is_running() {
        std::thread::sleep(Duration::from_millis(150));
        pair.relay.kill();
        pair.relay.serve();
        restarts += 1;
    }
    assert_eq!(restarts, 20, "it was through before");
    let id = sending.end().ok().word();
    arrives(&pair, &id, &source);
}
