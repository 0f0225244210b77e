//! A receive that is killed (SIGKILL) anywhere goes on with the same command: what was verified does not move again,
//! nothing half is published, and what was changed in between is found (attacks.md 63).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use pouch_tests::{Balancer, LIMIT, Pair, Random, files_beneath, noise, snapshot, text, until};
use rustix::process::Signal;

/// Receives that are killed in an ordinary run; `POUCH_KILLS` sets another number.
const KILLS: u64 = 50;
/// Bytes of a full part, sealed.
const PART: u64 = 8 << 20;
/// What requests and answers may take beside the parts, from one run to another.
const SLACK: u64 = 256 << 10;

/// Files within parts, across them and larger than them: five parts and what more is said, in MiB.
fn make(folder: &Path, more: usize) {
    for (name, size) in [("a/one", 5 << 20), ("a/two", 7 << 20), ("b/large", (18 + more) << 20), ("b/empty", 0)] {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), noise(name, size)).unwrap();
    }
    for number in 0..200 {
        fs::write(folder.join(format!("a/{number}.small")), noise(&number.to_string(), 30_000)).unwrap();
    }
}

/// Changes a byte of something in a hidden folder, as whoever can write there could.
fn change(folder: &Path, random: &mut Random) {
    let files: Vec<_> = files_beneath(folder)
        .into_iter()
        .filter(|file| file.file_name() != folder.file_name() && fs::metadata(file).unwrap().len() > 0)
        .collect();
    if files.is_empty() {
        return;
    }
    let path = &files[random.below(files.len() as u64) as usize];
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let at = random.below(file.metadata().unwrap().len());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

struct Round<'a> {
    pair: &'a Pair,
    proxy: &'a Balancer,
    id: &'a str,
    source: &'a Path,
    /// Bytes that a receive moves that is not cut off.
    total: u64,
}

/// How a round went.
#[derive(Default)]
struct Played {
    killed: bool,
    went_on: bool,
    moved: u64,
}

impl Round<'_> {
    fn play(&self, seed: u64) -> Played {
        let (mut random, bo) = (Random(seed), &self.pair.bo);
        let (threshold, delay) = (random.below(self.total + self.total / 20), random.below(20_000));
        // Half of them when so many bytes came, half of them when so many parts were verified.
        let (changed, parts) = (random.below(4) == 0, random.below(12) as usize);
        let into = bo.fresh();
        let receive = || bo.pouch(["receive", self.id, "-o", text(&into)]);
        let before = self.proxy.moved();
        let mut running = receive().start();
        until("bytes come, or it ends", LIMIT, || {
            let reached = match parts {
                0..6 => bo.hidden().first().is_some_and(|hidden| bo.noted(hidden).len() >= parts),
                _ => self.proxy.moved() - before >= threshold,
            };
            (reached || !running.is_running()).then_some(())
        });
        std::thread::sleep(Duration::from_micros(delay));
        running.signal(Signal::KILL);
        let ran = running.end();
        assert!(ran.code == -9 || ran.code == 0, "seed {seed}: {ran}");
        let mut played = Played { killed: ran.code == -9, ..Played::default() };
        if into.exists() {
            // The kill came after the rename, if at all.
            assert_eq!(snapshot(&into), snapshot(self.source), "seed {seed}: something half was published");
        } else {
            let hidden = bo.hidden();
            assert!(hidden.len() <= 1, "seed {seed}: {hidden:?}");
            let noted = hidden.first().map_or(0, |hidden| bo.noted(hidden).len() as u64);
            if let Some(hidden) = hidden.first().filter(|_| changed) {
                change(&bo.desk().join(hidden), &mut random);
            }
            let before = self.proxy.moved();
            let ran = receive().end().ok();
            played.moved = self.proxy.moved() - before;
            assert_eq!(snapshot(&into), snapshot(self.source), "seed {seed}");
            if noted > 0 && !changed {
                // All parts but the last are full ones; one of those that are noted may be the last.
                let kept = (noted - 1) * PART;
                assert!(played.moved + kept < self.total + SLACK, "seed {seed}: {noted} noted, {} moved", played.moved);
                assert!(ran.err.contains("came before") || ran.text().contains("came before"), "seed {seed}: {ran}");
                played.went_on = true;
            }
            assert!(played.moved < self.total + SLACK, "seed {seed}");
        }
        assert_eq!(bo.hidden(), Vec::<String>::new(), "seed {seed}");
        fs::remove_dir_all(&into).unwrap();
        played
    }
}

#[test]
fn attack_63_killed_anywhere_in_a_receive() {
    let kills = std::env::var("POUCH_KILLS").ok().map_or(KILLS, |n| n.parse().unwrap());
    let (pair, proxy) = Pair::proxied();
    let source = pair.ada.desk().join("source");
    make(&source, 0);
    let id = pair.ada.send(&[text(&source), "--to", "bo"]);
    let before = proxy.moved();
    fs::remove_dir_all(pair.bo.receive(&id)).unwrap();
    let total = proxy.moved() - before;
    assert!(total > 4 * PART, "{total}");
    let fresh = u64::from_le_bytes(pouch_statement::random().unwrap());
    // Past the capture: whoever finds a failure needs it. The rounds before it are the same each time.
    drop(std::io::Write::write_all(&mut std::io::stderr(), format!("receive: fresh seed {fresh}\n").as_bytes()));
    let round = Round { pair: &pair, proxy: &proxy, id: &id, source: &source, total };
    let (mut killed, mut went_on, mut moved) = (0, 0, 0);
    for number in 0..kills {
        let played = round.play(if number + 1 == kills { fresh } else { number });
        killed += u64::from(played.killed);
        went_on += u64::from(played.went_on);
        moved += played.moved;
    }
    assert!(kills < KILLS || killed > kills / 2 && went_on > kills / 5, "{killed} killed, {went_on} went on");
    // Fewer bytes than all rounds from the start would have moved.
    assert!(kills < KILLS || moved < killed * total * 9 / 10, "{moved} of {}", killed * total);
    pair.bo.run(&["log", "verify"]).ok().says("intact");
    pair.ada.run(&["outbox", &id]).ok().says("received and verified");
}

#[test]
fn a_relay_that_goes_away_leaves_what_came() {
    let mut pair = Pair::new();
    let source = pair.ada.desk().join("source");
    make(&source, 160);
    let id = pair.ada.send(&[text(&source), "--to", "bo"]);
    let into = pair.bo.fresh();
    let running = pair.bo.pouch(["receive", &id, "-o", text(&into)]).start();
    until("a part", LIMIT, || pair.bo.hidden().first().filter(|hidden| !pair.bo.noted(hidden).is_empty()).map(drop));
    pair.relay.kill();
    running.end().fails(7, "the same command goes on");
    assert!(!into.exists() && pair.bo.hidden().len() == 1);
    pair.relay.serve();
    // Only what is asked for is gone on with, and by nobody else.
    pair.bo.run(&["receive", &id, "-o", text(&into)]).ok().says("came before");
    assert_eq!(snapshot(&into), snapshot(&source));
    assert!(pair.bo.hidden().is_empty());
}

#[test]
fn what_is_begun_anew_or_gone_is_not_kept() {
    let (pair, proxy) = Pair::proxied();
    let source = pair.ada.desk().join("source");
    make(&source, 0);
    let cut = |id: &str, into: &Path| {
        let running = pair.bo.pouch(["receive", id, "-o", text(into)]).start();
        until("a part", LIMIT, || {
            pair.bo.hidden().first().filter(|hidden| !pair.bo.noted(hidden).is_empty()).map(drop)
        });
        running.signal(Signal::KILL);
        assert_eq!(running.end().code, -9);
    };
    let id = pair.ada.send(&[text(&source), "--to", "bo"]);
    let into = pair.bo.fresh();
    cut(&id, &into);
    let before = proxy.moved();
    let ran = pair.bo.run(&["receive", &id, "-o", text(&into), "--restart"]).ok();
    assert!(!ran.text().contains("came before"), "{ran}");
    assert!(proxy.moved() - before > 36 << 20);
    assert_eq!(snapshot(&into), snapshot(&source));
    // Revoked in between: it cannot be gone on with, and nothing of it stays.
    let id = pair.ada.send(&[text(&source), "--to", "bo"]);
    let into = pair.bo.fresh();
    cut(&id, &into);
    pair.ada.run(&["outbox", "revoke", &id]).ok();
    pair.bo.run(&["receive", &id, "-o", text(&into)]).ends(6);
    assert!(!into.exists() && pair.bo.hidden().is_empty());
}
