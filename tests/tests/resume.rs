//! A send that is interrupted goes on with the same command: nothing that the relay acknowledged moves again, what arrives is
//! what was to be sent, and of all ciphertext that left no two files have one file key (attacks.md 33, 63).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "resume/deadly.rs"]
mod deadly;
#[path = "resume/spool.rs"]
mod spool;
#[path = "resume/state.rs"]
mod state;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use pouch_tests::hostile::{Answer, Reply};
use pouch_tests::{LIMIT, Pair, Random, files_beneath, holds, kills, noise, seeds, set_mtime, text, until};
use rustix::process::Signal;

use deadly::{Deadly, Death, Left, PART, plant};

/// Sends that are killed in an ordinary run; `POUCH_KILLS` sets another number.
const KILLS: u64 = 50;

#[test]
fn attack_33_killed_anywhere_the_same_command_goes_on() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let (mut killed, mut resumed) = (0, 0);
    let count = kills(KILLS);
    let mut seeds = seeds("resume", count).enumerate();
    while killed < count {
        let (round, seed) = seeds.next().unwrap_or((usize::MAX, killed));
        let mut random = Random(seed);
        std::fs::write(source.join("round"), format!("{round} {seed}")).unwrap();
        let mut words = vec!["send", text(&source), "--to", "bo", "-q"];
        if random.below(4) == 0 {
            words.extend(["--compress", "zstd"]);
        }
        let times = 1 + random.below(3);
        let mut ended = None;
        for _ in 0..times {
            let ran = deadly.killed_somewhere(&words, &mut random);
            if ran.code == 0 {
                ended = Some(ran.word());
                break;
            }
            killed += 1;
            ended = deadly.done();
            if ended.is_some() {
                break;
            }
        }
        let id = ended.unwrap_or_else(|| {
            let ran = deadly.world.run("ada", &words).ok();
            resumed += 1;
            ran.word()
        });
        deadly.arrives(&id, &source);
        deadly.nothing_is_left();
        // Room for the next ones.
        deadly.world.run("ada", &["outbox", "revoke", &id]).ok();
    }
    assert!(resumed > 0);
    assert!(deadly.check_keys() as u64 > 4 * resumed);
}

#[test]
fn what_the_relay_acknowledged_is_not_moved_again() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    for compress in ["none", "zstd"] {
        let words = ["send", text(&source), "--to", "bo", "--compress", compress];
        let mut parts = deadly.killed_after_parts(&words, 2);
        // What is sent, and the keys, are sealed; nobody else may read the rest (attacks.md 59, 60).
        let file = deadly.transfer();
        let bytes = std::fs::read(&file).unwrap();
        assert!(!holds(&bytes, b"plan") && !holds(&bytes, b"SECRET") && holds(&bytes, b"sealed_blake3"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let listed = deadly.world.run("ada", &["outbox", "--json"]).ok().object("bundle");
        assert_eq!(listed["progress"], "interrupted", "{listed}");
        let percent = listed["percent"].as_u64().unwrap();
        assert!((1..=99).contains(&percent), "{listed}");
        deadly.world.run("ada", &["outbox"]).ok().says(&format!("interrupted at {percent} %"));
        let ran =
            deadly.world.run("ada", &words).ok().says("going on with bundle").says(&format!("{percent} % of which"));
        assert!(ran.err.contains(&listed["bundle"].as_str().unwrap()[..6]));
        let after = deadly.parts();
        assert_eq!(after.len(), 1, "{after:?}");
        parts.extend(after);
        parts.sort_unstable();
        assert_eq!(parts, [0, 1, 2]);
        deadly.arrives(listed["bundle"].as_str().unwrap(), &source);
        deadly.nothing_is_left();
        // Bundles that are through are not gone on with: the same command sends another one.
        let again = deadly.world.run("ada", &[&words[..], &["-q"]].concat()).ok().word();
        assert_eq!(deadly.parts().len(), 3);
        deadly.arrives(&again, &source);
        for bundle in [listed["bundle"].as_str().unwrap(), &again] {
            deadly.world.run("ada", &["outbox", "revoke", bundle]).ok();
            std::fs::remove_file(deadly.world.party("ada").home().join(format!("outbox/{bundle}.json"))).unwrap();
        }
    }
    deadly.check_keys();
}

// attacks.md 33: state that was restored from a copy, before and after the delivery.
#[test]
fn attack_33_restored_state_uses_no_key_twice() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    let (home, copy) = (deadly.world.party("ada").home(), deadly.world.root().join("copy"));
    let copied = |from: &Path, to: &Path| {
        let _ = std::fs::remove_dir_all(to);
        pouch_tests::Run::of("cp").args(["-a", text(from), text(to)]).end().ok();
    };
    deadly.killed_after_parts(&words, 1);
    copied(&home, &copy);
    // It goes on, and dies; and goes on from the copy, which knows less.
    deadly.killed_at_the_index(&words);
    copied(&copy, &home);
    let id = deadly.world.run("ada", &words).ok().word();
    deadly.arrives(&id, &source);
    // The copy again: it is delivered, and only the relay knows.
    copied(&copy, &home);
    let ran = deadly.world.run("ada", &words).ok().says("delivered, by a copy of this home");
    assert_ne!(ran.word(), id);
    deadly.arrives(&ran.word(), &source);
    deadly.nothing_is_left();
    assert!(deadly.check_keys() >= 8);
}

#[test]
fn a_changed_source_starts_over() {
    let deadly = Deadly::new();
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("another file", |source| std::fs::write(source.join("another"), "x").unwrap()),
        ("a shorter file", |source| {
            std::fs::File::options().write(true).open(source.join("large")).unwrap().set_len(9_000_000).unwrap();
        }),
        ("a file that is gone", |source| std::fs::remove_file(source.join("small/3")).unwrap()),
        ("another time", |source| set_mtime(&source.join("large"), SystemTime::UNIX_EPOCH + Duration::from_secs(9))),
        // Only its content tells; in whichever parts the relay has.
        ("other bytes", |source| {
            let large = source.join("large");
            let before = std::fs::metadata(&large).unwrap().modified().unwrap();
            let mut bytes = std::fs::read(&large).unwrap();
            bytes.iter_mut().step_by(1 << 20).for_each(|byte| *byte ^= 1);
            std::fs::write(&large, bytes).unwrap();
            set_mtime(&large, before);
        }),
    ];
    for (what, change) in changes {
        let source = plant(&deadly.world, what);
        let words = ["send", text(&source), "--to", "bo", "-q"];
        deadly.killed_after_parts(&words, 2);
        let begun = deadly.bundle("interrupted");
        change(&source);
        let ran = deadly.world.run("ada", &words).ok().says("begun anew: what is sent has changed since");
        assert_ne!(ran.word(), begun, "{what}");
        deadly.arrives(&ran.word(), &source);
        deadly.nothing_is_left();
        // What was begun is gone at the relay, too.
        let (party, _) = deadly.world.party("ada").client();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(party.api().unwrap().bundle(begun.parse().unwrap()));
        assert_eq!(status.unwrap_err().refused(), Some(pouch_protocol::ProblemKind::NotFound), "{what}");
    }
    // Gone altogether: that is an error, and what was begun can be forgotten.
    let source = plant(&deadly.world, "gone");
    deadly.killed_after_parts(&["send", text(&source), "--to", "bo"], 1);
    std::fs::remove_dir_all(&source).unwrap();
    let begun = deadly.bundle("interrupted");
    deadly.world.run("ada", &["send", text(&source), "--to", "bo"]).ends(3);
    deadly.world.run("ada", &["outbox", "resume", &begun]).ends(3);
    deadly.world.run("ada", &["outbox", "forget", &begun]).ok();
    deadly.world.run("ada", &["outbox", "resume", &begun]).ends(3);
    deadly.nothing_is_left();
    deadly.check_keys();
}

#[test]
fn a_source_that_changes_while_it_is_sent_is_an_error_and_nothing_stays() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let change = source.join("small/7");
    deadly.world.hostile.on("PUT", "/v1/bundles/*/parts/0", |seen| seen.pass().into());
    deadly.world.hostile.on("POST", "/v1/bundles", move |seen| {
        std::fs::write(&change, "changed").unwrap();
        seen.pass().into()
    });
    let ran =
        deadly.world.run("ada", &["send", text(&source), "--to", "bo"]).fails(1, "changed while it was being read");
    assert!(!ran.err.contains("outbox resume"), "{ran}");
    deadly.nothing_is_left();
    deadly.world.run("ada", &["outbox"]).ok().says("nothing was sent yet");
}

// attacks.md 33: a relay that denies having parts, and one that has lost them.
#[test]
fn attack_33_parts_that_the_relay_lost_or_denies_are_sealed_again() {
    for lost in [false, true] {
        let deadly = Deadly::new();
        let source = plant(&deadly.world, "data");
        let words = ["send", text(&source), "--to", "bo", "-q"];
        if lost {
            // Acknowledged, and never kept.
            let left = deadly.left.clone();
            deadly.world.hostile.on("PUT", "/v1/bundles/*/parts/0", move |seen| {
                left.lock().unwrap().note(seen);
                Reply::Raw(b"HTTP/1.1 204 x\r\nconnection: close\r\n\r\n".to_vec())
            });
        }
        deadly.killed_at_the_index(&words);
        deadly.world.hostile.behave();
        deadly.watch();
        if !lost {
            let denied = Arc::new(AtomicU32::new(0));
            let (size, part) = (denied.clone(), denied.clone());
            deadly.world.hostile.on("GET", "/v1/bundles/*", move |seen| {
                let first = size.load(Ordering::SeqCst) == 0;
                seen.pass()
                    .edit(|status| {
                        if first {
                            status["size"] = 4096.into()
                        }
                    })
                    .into()
            });
            deadly.world.hostile.on("GET", "/v1/bundles/*/parts/0", move |_| {
                part.fetch_add(1, Ordering::SeqCst);
                Answer::problem(404, "not-found", "").into()
            });
        }
        let ran = deadly.world.run("ada", &words).ok();
        let parts = deadly.parts();
        assert_eq!(parts, [0]);
        deadly.world.hostile.behave();
        deadly.arrives(&ran.word(), &source);
        deadly.nothing_is_left();
        let of = |left: &Left| left.sealed[&ran.word()].len();
        assert!(of(&deadly.left.lock().unwrap()) >= 7, "part 0 was sealed twice");
        deadly.check_keys();
    }
}

// Whether the relay heard of the commit or not: the same bundle, once, and no part of it again.
#[test]
fn killed_at_the_commit() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    for (what, heard) in [("commit", false), ("commit", true), ("envelopes", false), ("envelopes", true)] {
        std::fs::write(source.join("round"), format!("{what} {heard}")).unwrap();
        let death = Death::at(move |seen| seen.path.split('/').any(|word| word == what));
        assert_eq!(deadly.killed(&words, Death { heard, ..death }).code, -9);
        deadly.parts();
        let begun = deadly.bundle("committing");
        let ran = deadly.world.run("ada", &words).ok();
        assert_eq!((ran.word().as_str(), deadly.parts()), (begun.as_str(), vec![]), "{what} {heard}");
        deadly.arrives(&ran.word(), &source);
        deadly.nothing_is_left();
        let mut envelopes = deadly.left.lock().unwrap().envelopes[&ran.word()].clone();
        envelopes.dedup();
        assert_eq!(envelopes.len(), 1, "one envelope, byte for byte");
    }
    // Another send to the same settles it: it does not take its number.
    let death = Death::at(|seen| seen.path.ends_with("/commit"));
    deadly.killed(&words, Death { heard: true, ..death });
    let begun = deadly.bundle("committing");
    let other = deadly.world.file("other", "other");
    let id = deadly.world.run("ada", &["send", text(&other), "--to", "bo", "-q"]).ok().word();
    for id in [begun, id] {
        let ran = deadly.world.receive(&id).0.ok();
        assert!(!ran.err.contains("warning"), "{ran}");
    }
    deadly.nothing_is_left();
    deadly.check_keys();
}

#[test]
fn when_half_of_the_time_is_over_it_starts_over() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q", "--until", "16s"];
    deadly.killed_after_parts(&words, 1);
    std::thread::sleep(Duration::from_millis(9100));
    let ran = deadly.world.run("ada", &words).ok().says("more than half of the time");
    deadly.arrives(&ran.word(), &source);
    deadly.nothing_is_left();
}

#[test]
fn what_the_relay_has_collected_starts_over() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    deadly.killed_after_parts(&words, 2);
    let (party, _) = deadly.world.party("ada").client();
    let begun = deadly.world.run("ada", &["outbox", "-q"]).ok().word();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(party.api().unwrap().delete_bundle(begun.parse().unwrap())).unwrap();
    let ran = deadly.world.run("ada", &words).ok().says("the relay does not have it any more");
    assert_ne!(ran.word(), begun);
    deadly.arrives(&ran.word(), &source);
    deadly.nothing_is_left();
}

#[test]
fn a_torn_or_foreign_line_ends_what_is_known() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    for damage in 0..4 {
        std::fs::write(source.join("round"), [damage]).unwrap();
        deadly.killed_after_parts(&words, 2);
        let file = deadly.transfer();
        let mut bytes = std::fs::read(&file).unwrap();
        match damage {
            0 => bytes.extend_from_slice(b"half a line"),
            1 => bytes.truncate(bytes.len() - 3),
            // The number of a part: its line has no valid check any more.
            2 => {
                let at = bytes.windows(7).rposition(|w| w == b"\"part\":").unwrap() + 7;
                bytes[at] = b'2';
            }
            // All of it.
            _ => bytes.fill(0),
        }
        std::fs::write(&file, bytes).unwrap();
        let ran = deadly.world.run("ada", &words).ok();
        deadly.arrives(&ran.word(), &source);
        if damage == 3 {
            deadly.world.run("ada", &["outbox"]).ok().says("cannot be resumed");
            for line in deadly.world.run("ada", &["outbox", "--json"]).ok().objects() {
                if line["progress"] == "lost" {
                    deadly
                        .world
                        .run("ada", &["outbox", "resume", line["bundle"].as_str().unwrap()])
                        .fails(5, "cannot be");
                    deadly.world.run("ada", &["outbox", "forget", line["bundle"].as_str().unwrap()]).ok();
                }
            }
        }
        deadly.nothing_is_left();
    }
    deadly.check_keys();
}

/// Starts a send and stops the relay's process as soon as something is acknowledged.
fn standing_still(pair: &Pair, source: &Path) -> pouch_tests::Running {
    let running = pair.ada.pouch(["send", text(source), "--to", "bo"]).start();
    let acknowledged = |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|text| text.lines().count() > 1);
    until("a part is acknowledged", LIMIT, || {
        files_beneath(&pair.ada.home().join("transfers")).iter().any(acknowledged).then_some(())
    });
    pair.relay.process().signal(Signal::STOP);
    running
}

// attacks.md 63
#[test]
fn attack_63_ctrl_c_says_how_to_go_on() {
    let pair = Pair::new();
    let source = pair.ada.file("large", noise("large", 12 * PART));
    let running = standing_still(&pair, &source);
    let transfers = pair.ada.home().join("transfers");
    pair.ada.run(&["outbox", "forget", "0000"]).ends(3);
    running.signal(Signal::INT);
    let ran = running.end();
    pair.relay.process().signal(Signal::CONT);
    let listed = pair.ada.run(&["outbox", "--json"]).ok().object("bundle");
    let id = listed["bundle"].as_str().unwrap().to_owned();
    assert_eq!((listed["progress"].as_str(), listed["size"].as_u64()), (Some("interrupted"), Some(12 * PART as u64)));
    ran.fails(130, "interrupted").says(&format!("`pouch outbox resume {}`", &id[..6]));
    assert_eq!(files_beneath(&transfers).len(), 1);
    pair.ada.run(&["outbox", "resume", &id[..8], "-q"]).ok().says(&id);
    assert!(files_beneath(&transfers).is_empty());
    assert!(std::fs::read(pair.bo.receive(&id).join("large")).unwrap() == std::fs::read(&source).unwrap());
    // What is delivered is neither resumed nor forgotten.
    pair.ada.run(&["outbox", "resume", &id]).fails(5, "it is not interrupted");
    pair.ada.run(&["outbox", "forget", &id]).fails(5, "it is delivered");
    // One that is running is not taken from whoever sends it: the same command sends another.
    let running = standing_still(&pair, &source);
    let other = pair.ada.run(&["outbox", "-q"]);
    pair.relay.process().signal(Signal::CONT);
    running.end().ok();
    assert_eq!(other.ok().text().lines().count(), 2);
}

#[test]
fn a_forgotten_send_leaves_nothing() {
    let pair = Pair::new();
    let source = pair.ada.file("large", noise("large", 12 * PART));
    let running = standing_still(&pair, &source);
    running.signal(Signal::KILL);
    drop(running);
    pair.relay.process().signal(Signal::CONT);
    let id = pair.ada.run(&["outbox", "-q"]).ok().word();
    let forgotten = pair.ada.run(&["outbox", "forget", &id, "--json"]).ok().object("forgotten");
    assert_eq!(forgotten["bundle"], id.as_str());
    pair.ada.run(&["outbox"]).ok().says("nothing was sent yet");
    until("the relay has deleted it", LIMIT, || pair.relay.blobs().is_empty().then_some(()));
    assert!(files_beneath(&pair.ada.home().join("transfers")).is_empty());
    let last = pair.ada.events().pop().unwrap();
    assert_eq!((last["action"].as_str(), last["bundle"].as_str()), (Some("forgotten"), Some(id.as_str())));
}

#[test]
fn a_stream_cannot_go_on_and_says_so() {
    use std::io::Write as _;
    let pair = Pair::new();
    let mut running = pair.ada.pouch(["send", "-", "--to", "bo"]).holding_input().start();
    running.stdin.as_mut().unwrap().write_all(&noise("stream", 9 << 20)).unwrap();
    until("it has begun", LIMIT, || pair.ada.run(&["outbox"]).ok().text().contains("being sent").then_some(()));
    let stdin = running.stdin.take();
    running.signal(Signal::INT);
    running.end().fails(130, "interrupted").says("standard input cannot be read again");
    drop(stdin);
    let id = pair.ada.run(&["outbox", "-q"]).ok().word();
    pair.ada.run(&["outbox"]).ok().says("cannot be resumed");
    pair.ada.run(&["outbox", "resume", &id]).fails(5, "cannot be read again");
    pair.ada.run(&["outbox", "forget", &id]).ok().says("is forgotten");
    assert!(files_beneath(&pair.ada.home().join("transfers")).is_empty());
}

#[test]
fn the_relay_is_restarted_again_and_again() {
    let mut pair = Pair::new();
    let source = pair.ada.file("large", noise("large", 24 * PART));
    let words = ["send", text(&source), "--to", "bo", "-q"];
    let mut running = pair.ada.pouch(words).start();
    let (mut restarts, mut failures) = (0, 0);
    let id = loop {
        if running.is_running() {
            if restarts < 20 {
                pair.relay.kill();
                pair.relay.serve();
                restarts += 1;
            }
            std::thread::sleep(Duration::from_millis(40));
            continue;
        }
        let ran = running.end();
        if ran.code == 0 {
            break ran.word();
        }
        // Where the relay was away before anything was begun, there is nothing to go on with.
        ran.ends(7);
        failures += 1;
        assert!(failures < 30);
        running = pair.ada.pouch(words).start();
    };
    assert!(restarts > 3, "{restarts}");
    assert!(std::fs::read(pair.bo.receive(&id).join("large")).unwrap() == std::fs::read(&source).unwrap());
    assert!(files_beneath(&pair.ada.home().join("transfers")).is_empty());
    assert_eq!(pair.ada.run(&["outbox", "-q"]).ok().text().lines().count(), 1);
}
