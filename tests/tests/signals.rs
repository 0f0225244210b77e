//! attacks.md 63: stopped at any moment, pouch fails, leaves no litter, and works the next time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use pouch_tests::{LIMIT, Pair, Ran, Run, Running, noise, text, until};
use rustix::process::Signal;

const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 2), (Signal::TERM, 15), (Signal::HUP, 1)];

/// Not zero: 130, or where there is nothing to clean up, the end that the signal brings by itself.
#[track_caller]
fn was_interrupted(ran: &Ran, number: i32) {
    assert!(ran.code == 130 || ran.code == -number, "{ran}");
}

/// Starts with an input that does not end, and feeds so much of it.
fn fed(run: Run, bytes: usize) -> Running {
    let mut running = run.holding_input().start();
    running.stdin.as_mut().unwrap().write_all(&noise("fed", bytes)).unwrap();
    running
}

/// Signals, while the input stays open: whatever reads it is not helped to its end.
#[track_caller]
fn stop(mut running: Running, signal: Signal) -> Ran {
    let stdin = running.stdin.take();
    let begun = Instant::now();
    running.signal(signal);
    let ran = running.end();
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?} to stop", begun.elapsed());
    drop(stdin);
    ran
}

/// The bundles of a party on the relay that are being uploaded.
fn in_outbox(pair: &Pair) -> usize {
    pair.ada.run(&["outbox", "-q"]).ok().text().lines().count()
}

#[test]
fn attack_63_send() {
    let pair = Pair::new();
    for (round, (signal, number)) in SIGNALS.into_iter().enumerate() {
        // Two parts are read and one of them on its way, when it stops.
        let running = fed(pair.ada.pouch(["send", "-", "--to", "bo"]), 17 << 20);
        until("the upload has begun", LIMIT, || (in_outbox(&pair) == round + 1).then_some(()));
        was_interrupted(&stop(running, signal), number);
        assert!(pair.ada.lying_around().is_empty());
        pair.ada.run(&["log", "verify"]).ok().says("intact");
        let events = pair.ada.events();
        let last = events.last().unwrap();
        assert_eq!((last["action"].as_str(), last["outcome"].as_str()), (Some("sent"), Some("failed")), "{last}");
        assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text(), "", "nothing half is visible");
    }
    // What was interrupted is shown as that, and can be cleared away.
    let list = pair.ada.run(&["outbox", "-q"]).ok().text();
    pair.ada.run(&["outbox"]).ok().says("interrupted");
    for id in list.lines() {
        pair.ada.run(&["outbox", "revoke", id]).ok();
    }
    let file = pair.ada.file("next", "works");
    let into = pair.bo.receive(&pair.ada.send(&[text(&file), "--to", "bo"]));
    assert_eq!(fs::read(into.join("next")).unwrap(), b"works");
}

#[test]
fn attack_63_send_to_a_file() {
    let pair = Pair::new();
    for (signal, number) in SIGNALS {
        let out = pair.ada.desk().join("out.pouch");
        let running = fed(pair.ada.pouch(["send", "-", "--to", "bo", "--out", text(&out)]), 9 << 20);
        until("a hidden file", LIMIT, || (!pair.ada.lying_around().is_empty()).then_some(()));
        was_interrupted(&stop(running, signal), number);
        assert_eq!(pair.ada.lying_around(), Vec::<String>::new());
    }
    pair.ada.run(&["log", "verify"]).ok().says("intact");
}

/// A folder of Ada's with 48 files of a mebibyte.
fn many(pair: &Pair) -> std::path::PathBuf {
    let folder = pair.ada.desk().join("many");
    fs::create_dir(&folder).unwrap();
    for number in 0..48 {
        fs::write(folder.join(number.to_string()), noise(&number.to_string(), 1 << 20)).unwrap();
    }
    folder
}

#[test]
fn attack_63_receive() {
    let pair = Pair::new();
    let folder = many(&pair);
    for (signal, number) in SIGNALS {
        let id = pair.ada.send(&[text(&folder), "--to", "bo"]);
        let into = pair.bo.fresh();
        let running = pair.bo.pouch(["receive", &id, "-o", text(&into)]).start();
        // As soon as something is noted as verified, the relay stands still, so that it cannot be done too early.
        let noted = || pair.bo.hidden().first().map_or(0, |hidden| pair.bo.noted(hidden).len());
        until("a part", LIMIT, || (noted() > 0).then_some(()));
        pair.relay.process().signal(Signal::STOP);
        let ran = stop(running, signal);
        pair.relay.process().signal(Signal::CONT);
        was_interrupted(&ran, number);
        // What was verified stays, and the way to go on is told.
        let hidden = pair.bo.hidden();
        assert!(hidden.len() == 1 && !into.exists(), "{hidden:?}");
        assert!(ran.err.contains(&hidden[0]) && ran.err.contains("the same command goes on"), "{ran}");
        let last = pair.bo.events().pop().unwrap();
        assert_eq!((last["action"].as_str(), last["outcome"].as_str()), (Some("received"), Some("failed")), "{last}");
        pair.bo.run(&["log", "verify"]).ok().says("intact");
        assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().word(), id, "it still waits");
        pair.bo.run(&["receive", &id, "-o", text(&into)]).ok().says("came before");
        assert_eq!(fs::read_dir(&into).unwrap().count(), 48);
        assert_eq!(pair.bo.hidden(), Vec::<String>::new());
    }
}

#[test]
fn attack_63_encrypt_and_decrypt_to_a_file() {
    let pair = Pair::new();
    let out = pair.ada.desk().join("out");
    let sealed = pair.ada.pouch(["encrypt", "--to", "bo"]).input(noise("fed", 9 << 20)).end().ok().out;
    for (signal, number) in SIGNALS {
        let running = fed(pair.ada.pouch(["encrypt", "--to", "bo", "-o", text(&out)]), 9 << 20);
        was_interrupted(&stop(running, signal), number);
        let mut running = pair.bo.pouch(["decrypt", "-o", text(&pair.bo.desk().join("out"))]).holding_input().start();
        running.stdin.as_mut().unwrap().write_all(&sealed[..8 << 20]).unwrap();
        was_interrupted(&stop(running, signal), number);
        assert!(pair.ada.lying_around().is_empty() && pair.bo.lying_around().is_empty());
    }
    // The next run works, and replaces what is there only when it is whole.
    fs::write(&out, "old").unwrap();
    let running = fed(pair.ada.pouch(["encrypt", "--to", "bo", "-o", text(&out)]), 1 << 20);
    was_interrupted(&stop(running, Signal::INT), 2);
    assert_eq!(fs::read(&out).unwrap(), b"old");
    pair.ada.pouch(["encrypt", "--to", "bo", "-o", text(&out)]).input("new").end().ok();
    assert_eq!(pair.bo.run(&["decrypt", text(&out)]).ok().out, b"new");
    assert_eq!(pair.ada.lying_around(), ["out"]);
}

#[test]
fn attack_63_a_closed_pipe_is_a_failure() {
    let pair = Pair::new();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let stream = noise("stream", 1 << 20);
    let id = pair.ada.pouch(["send", "-", "--to", "bo", "-q"]).input(stream.clone()).end().ok().word();
    let key = pair.bo.home().join("identity");
    let sealed = pair.ada.pouch(["encrypt", "--to", "bo"]).input(stream.clone()).end().ok().out;
    let runs = [
        pair.bo.pouch(["receive", &id, "--stdout"]),
        pair.bo.pouch(["decrypt", "-i", text(&key)]).input(sealed),
        pair.ada.pouch(["encrypt", "--to", "bo"]).input(stream),
        pair.bo.pouch(["log", "show"]),
        pair.ada.pouch(["card"]),
    ];
    for run in runs {
        let ran = run.output_to(closed()).end();
        assert_eq!(ran.code, 1, "{ran}");
        assert!(!ran.err.contains("panicked"), "{ran}");
    }
    // What was not written was not received: no receipt, and it can be had.
    pair.ada.run(&["outbox", &id]).ok().says("no receipt yet");
    assert_eq!(pair.bo.run(&["receive", &id, "--stdout"]).ok().out.len(), 1 << 20);
    // Only a prefix was wanted.
    let (reader, writer) = std::io::pipe().unwrap();
    let running = pair.bo.pouch(["receive", &id, "--stdout"]).output_to(writer).start();
    let mut first = [0u8; 10];
    std::io::Read::read_exact(&mut &reader, &mut first).unwrap();
    drop(reader);
    assert_eq!(running.end().code, 1);
}

#[test]
fn attack_63_a_wait_for_input_ends_with_the_first_signal() {
    let pair = Pair::new();
    let out = pair.ada.desk().join("out.pouch");
    for (out, signal) in [(None, Signal::INT), (None, Signal::TERM), (Some(&out), Signal::INT)] {
        let mut words = vec!["send", "-", "--to", "bo"];
        words.extend(out.iter().flat_map(|out| ["--out", text(out)]));
        let before = in_outbox(&pair);
        let mut running = fed(pair.ada.pouch(words), 1000);
        until("it reads", LIMIT, || {
            let begun = if out.is_some() { !pair.ada.lying_around().is_empty() } else { in_outbox(&pair) > before };
            begun.then_some(())
        });
        let stdin = running.stdin.take();
        // The thread that reads is in the middle of it.
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        running.signal(signal);
        was_interrupted(&running.end(), 0);
        // Half of what cleaning up may take at most; the read alone would take all of it.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        drop(stdin);
        assert_eq!(pair.ada.lying_around(), Vec::<String>::new());
    }
}

// attacks.md 63: SIGKILL lets nobody clean up; the same command goes on with what is there, and others leave it alone.
#[test]
fn attack_63_what_a_killed_receive_leaves_is_gone_on_with() {
    let pair = Pair::new();
    let folder = many(&pair);
    let id = pair.ada.send(&[text(&folder), "--to", "bo"]);
    let carried = pair.bo.desk().join("carried.pouch");
    pair.ada.run(&["send", text(&folder.join("1")), "--to", "bo", "--out", text(&carried)]).ok();
    // Begins to receive, and the relay stands still before it is done.
    let begin = |into: &std::path::Path, parts: usize| {
        let running = pair.bo.pouch(["receive", &id, "-o", text(into)]).start();
        until("some parts", LIMIT, || {
            let hidden = pair.bo.hidden();
            hidden.first().filter(|hidden| pair.bo.noted(hidden).len() > parts).map(drop)
        });
        pair.relay.process().signal(Signal::STOP);
        running
    };
    let killed = begin(&pair.bo.fresh(), 0);
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().code, -9);
    let left = pair.bo.hidden();
    assert_eq!(left.len(), 1, "the kill left it");
    let noted = pair.bo.noted(&left[0]).len();
    // Another one leaves it alone, also while somebody is at it.
    pair.bo.receive(text(&carried));
    assert_eq!((pair.bo.hidden(), pair.bo.noted(&left[0]).len()), (left.clone(), noted));
    pair.relay.process().signal(Signal::CONT);
    let into = pair.bo.fresh();
    let running = begin(&into, noted);
    pair.bo.receive(text(&carried));
    assert_eq!(pair.bo.hidden(), left);
    pair.relay.process().signal(Signal::CONT);
    running.end().ok().says("came before");
    assert_eq!(fs::read_dir(into).unwrap().count(), 48);
    assert!(pair.bo.hidden().is_empty());
}

#[test]
fn attack_63_what_a_killed_send_to_a_file_leaves_goes_with_the_next() {
    let pair = Pair::new();
    let out = pair.ada.desk().join("out.pouch");
    let begin = |count: usize| {
        let running = fed(pair.ada.pouch(["send", "-", "--to", "bo", "--out", text(&out)]), 1000);
        until("a hidden file", LIMIT, || (pair.ada.hidden().len() == count).then_some(()));
        running
    };
    let killed = begin(1);
    let left = pair.ada.hidden();
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().code, -9);
    assert_eq!(pair.ada.hidden(), left, "the kill left it");
    let running = fed(pair.ada.pouch(["send", "-", "--to", "bo", "--out", text(&out)]), 1000);
    let used = until("another hidden file and no more", LIMIT, || match pair.ada.hidden().as_slice() {
        [one] if *one != left[0] => Some(one.clone()),
        _ => None,
    });
    // Beside one that is running.
    let other = pair.ada.desk().join("other.pouch");
    pair.ada.pouch(["send", "-", "--to", "bo", "--out", text(&other)]).input("x").end().ok();
    assert_eq!(pair.ada.hidden(), [used]);
    running.end().ok();
    assert_eq!(pair.ada.lying_around(), ["other.pouch", "out.pouch"]);
}

#[test]
fn a_second_signal_does_not_wait() {
    let pair = Pair::new();
    let mut running = fed(pair.ada.pouch(["send", "-", "--to", "bo"]), 9 << 20);
    until("the upload has begun", LIMIT, || (in_outbox(&pair) == 1).then_some(()));
    let stdin = running.stdin.take();
    running.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    running.signal(Signal::INT);
    assert_eq!(running.end().code, 130);
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(stdin);
}
