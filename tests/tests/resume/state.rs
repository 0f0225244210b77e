//! What is kept to go on with, when somebody else had a hand in it, and when there is more to go on with than parts.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_core::age;
use pouch_tests::hostile::{Answer, Reply};
use pouch_tests::{LIMIT, Running, files_beneath, set_mtime, text, until};

use super::deadly::{Deadly, Death, PART, plant};

/// The first line of a transfer, opened and made anew by whoever can write the file.
fn replant(deadly: &Deadly, file: &Path, edit: impl FnOnce(String) -> String) {
    let whole = std::fs::read_to_string(file).unwrap();
    let (first, rest) = whole.split_once('\n').unwrap();
    let mut first: serde_json::Value = serde_json::from_str(first).unwrap();
    let (party, identity) = deadly.world.party("ada").client();
    let mut plain = Vec::new();
    age::open_part(&identity.age, &STANDARD.decode(first["sealed"].as_str().unwrap()).unwrap(), &mut plain).unwrap();
    let sealed = age::seal_to_vec(party.recipient(), edit(String::from_utf8(plain).unwrap()).as_bytes()).unwrap();
    first["sealed"] = STANDARD.encode(sealed).into();
    std::fs::write(file, format!("{first}\n{rest}")).unwrap();
}

// attacks.md 33: anybody can seal to Ada. A bundle key that she did not make is not sealed to.
#[test]
fn attack_33_a_planted_bundle_key_is_not_taken() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    let mine = age::Identity::generate_x25519().expose_secret_string().to_string();
    type Forge<'a> = &'a dyn Fn(String) -> String;
    let secret = |text: &str| {
        let at = text.find("AGE-SECRET-KEY-1").unwrap();
        text[at..at + 74].to_owned()
    };
    let forgeries: [(&str, Forge<'_>); 3] = [
        ("the key of somebody else", &|text| text.replace(&secret(&text), &mine)),
        ("without a signature", &|text| text.lines().next().unwrap().to_owned() + "\n"),
        ("with a signature for something else", &|text| {
            let card = deadly.world.run("ada", &["card", "-q"]).ok().text().to_owned();
            let armor = |text: &str| text[text.find("-----BEGIN").unwrap()..].to_owned();
            text.replace(&armor(&text), &armor(&card))
        }),
    ];
    for (what, forge) in forgeries {
        std::fs::write(source.join("round"), what).unwrap();
        deadly.killed_at_the_index(&words);
        let begun = deadly.bundle("interrupted");
        let file = deadly.transfer();
        replant(&deadly, &file, |text| text);
        deadly.world.run("ada", &["outbox", "resume", &begun]).ok();
        deadly.arrives(&begun, &source);
        std::fs::write(source.join("round"), format!("{what}, forged")).unwrap();
        deadly.killed_after_parts(&words, 1);
        let begun = deadly.bundle("interrupted");
        let file = deadly.transfer();
        replant(&deadly, &file, forge);
        deadly.world.run("ada", &["outbox", "resume", &begun]).fails(5, "its state is damaged");
        let id = deadly.world.run("ada", &words).ok().word();
        assert_ne!(id, begun, "{what}");
        deadly.arrives(&id, &source);
        deadly.world.run("ada", &["outbox", "forget", &begun]).ok();
        deadly.nothing_is_left();
    }
    deadly.check_keys();
}

// attacks.md 33: what Ada made for one bundle is no key for another.
#[test]
fn attack_33_the_key_of_another_bundle_is_not_taken() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    deadly.killed_after_parts(&words, 1);
    let transfers = deadly.world.party("ada").home().join("transfers");
    let file = files_beneath(&transfers).remove(0);
    let first = std::fs::read(&file).unwrap();
    let id = deadly.world.run("ada", &words).ok().word();
    deadly.arrives(&id, &source);
    deadly.killed_after_parts(&words, 1);
    let begun = deadly.bundle("interrupted");
    std::fs::write(files_beneath(&transfers).remove(0), first).unwrap();
    deadly.world.run("ada", &["outbox", "resume", &begun]).fails(5, "its state is damaged");
    let id = deadly.world.run("ada", &words).ok().word();
    deadly.arrives(&id, &source);
    deadly.check_keys();
}

// Uploaded whole, and the relay has not heard the commit: asking how it stands takes nothing away, and another send to the
// same recipient delivers it first.
#[test]
fn what_only_lacks_its_commit_is_not_given_up() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    deadly.killed(&words, Death::at(|seen| seen.path.ends_with("/commit")));
    deadly.parts();
    let begun = deadly.bundle("committing");
    deadly.world.run("ada", &["outbox", &begun]).ok().says("not finished").says("outbox resume");
    deadly.standing("committing");
    let other = deadly.world.file("other", "other");
    let id = deadly.world.run("ada", &["send", text(&other), "--to", "bo", "-q"]).ok().word();
    assert_eq!(deadly.parts(), [0], "of the other one");
    for id in [begun, id] {
        let ran = deadly.world.receive(&id).0.ok();
        assert!(!ran.err.contains("warning"), "{ran}");
    }
    deadly.nothing_is_left();
    deadly.killed(&words, Death::at(|seen| seen.path.ends_with("/commit")));
    deadly.parts();
    let begun = deadly.bundle("committing");
    deadly.world.run("ada", &["outbox", &begun]).ok();
    // With a slash behind it, it is the same.
    let slash = format!("{}/", text(&source));
    assert_eq!(deadly.world.run("ada", &["send", &slash, "--to", "bo", "-q"]).ok().word(), begun);
    assert_eq!(deadly.parts(), Vec::<u32>::new());
    deadly.arrives(&begun, &source);
    deadly.nothing_is_left();
    deadly.check_keys();
}

// What only lacks its commit is not delivered to somebody who is revoked, whoever else it is for.
#[test]
fn what_only_lacks_its_commit_is_withdrawn_from_who_is_revoked() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    deadly.killed(&words, Death::at(|seen| seen.path.ends_with("/commit")));
    let begun = deadly.bundle("committing");
    deadly.world.run("ada", &["contact", "revoke", "bo"]).ok().says("withdrawn");
    assert_eq!(deadly.world.run("bo", &["inbox", "-q"]).ok().text(), "");
    assert_eq!(deadly.standing("revoked")["bundle"], begun.as_str());
    deadly.world.run("ada", &words).ends(6);
    assert_eq!(deadly.world.run("bo", &["inbox", "-q"]).ok().text(), "");
}

#[test]
fn a_full_relay_is_waited_for_by_the_user() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q"];
    deadly.world.hostile.on("PUT", "/v1/bundles/*/index", |_| Answer::problem(507, "quota", "").into());
    deadly.world.run("ada", &words).fails(8, "quota").says("outbox resume");
    let begun = deadly.bundle("interrupted");
    deadly.parts();
    deadly.watch();
    assert_eq!(deadly.world.run("ada", &words).ok().word(), begun);
    assert_eq!(deadly.parts(), Vec::<u32>::new());
    deadly.arrives(&begun, &source);
    deadly.nothing_is_left();
}

#[test]
fn content_that_is_compressed_to_fewer_parts_starts_over() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "-q", "--compress", "zstd"];
    deadly.killed_at_the_index(&words);
    let begun = deadly.bundle("interrupted");
    let large = source.join("large");
    let before = std::fs::metadata(&large).unwrap().modified().unwrap();
    std::fs::write(&large, vec![b'x'; 2 * PART + 4321]).unwrap();
    set_mtime(&large, before);
    let ran = deadly.world.run("ada", &words).ok().says("begun anew: what is sent has changed since");
    assert_ne!(ran.word(), begun);
    deadly.arrives(&ran.word(), &source);
    deadly.nothing_is_left();
}

#[test]
fn what_is_over_leaves_no_state_behind() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    deadly.killed_after_parts(&["send", text(&source), "--to", "bo", "-q", "--until", "3s"], 1);
    let transfers = deadly.world.party("ada").home().join("transfers");
    assert_eq!(files_beneath(&transfers).len(), 1);
    std::thread::sleep(Duration::from_millis(3100));
    deadly.world.run("ada", &["outbox"]).ok();
    assert!(files_beneath(&transfers).is_empty());
}

// attacks.md 62: what is withdrawn while it is on its way is not delivered, under this id or another.
#[test]
fn attack_62_what_is_revoked_while_it_is_sent_is_not_delivered() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let words = ["send", text(&source), "--to", "bo", "--limit-rate", "8M"];
    let running = deadly.world.pouch("ada", &words).start();
    let id = begun(&deadly);
    deadly.world.run("ada", &["outbox", "forget", &id]).fails(5, "it is being sent");
    deadly.world.run("ada", &["outbox", "revoke", &id]).ok();
    comes_to_nothing(&deadly, running, &id);
}

/// The one that is being sent.
fn begun(deadly: &Deadly) -> String {
    let transfers = deadly.world.party("ada").home().join("transfers");
    let file = until("it is begun", LIMIT, || files_beneath(&transfers).into_iter().next());
    file.file_name().unwrap().to_str().unwrap().to_owned()
}

/// It was revoked while it was being sent, and nobody has it.
#[track_caller]
fn comes_to_nothing(deadly: &Deadly, running: Running, id: &str) {
    running.end().fails(6, "revoked meanwhile");
    assert_eq!(deadly.world.run("bo", &["inbox", "-q"]).ok().text(), "");
    assert_eq!(deadly.bundle("revoked"), id);
    deadly.nothing_is_left();
}

// Also where the relay does not mind: the send looks before it delivers.
#[test]
fn attack_62_what_is_revoked_before_the_relay_knows_it_is_not_delivered() {
    let deadly = Deadly::new();
    let source = plant(&deadly.world, "data");
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    deadly.world.hostile.on("POST", "/v1/bundles", move |seen| {
        let _ = gate.lock().unwrap().recv_timeout(LIMIT);
        seen.pass().into()
    });
    let running = deadly.world.pouch("ada", &["send", text(&source), "--to", "bo"]).start();
    let id = begun(&deadly);
    deadly.world.run("ada", &["outbox", "revoke", &id]).ok();
    drop(open);
    comes_to_nothing(&deadly, running, &id);
}

// What was committed without an answer has its number for good, also where it is withdrawn before anybody asked.
#[test]
fn attack_62_a_number_is_not_used_twice_after_a_revocation() {
    let deadly = Deadly::new();
    let file = deadly.world.party("ada").file("file", "content");
    let words = ["send", text(&file), "--to", "bo", "-q"];
    let death = Death { heard: true, ..Death::at(|seen| seen.path.ends_with("/commit")) };
    assert_eq!(deadly.killed(&words, death).code, -9);
    let first = deadly.bundle("committing");
    deadly.world.receive(&first).0.ok();
    deadly.world.run("ada", &["outbox", "revoke", &first]).ok();
    let second = deadly.world.run("ada", &words).ok().word();
    let ran = deadly.world.receive(&second).0.ok();
    assert!(!ran.err.contains("warning"), "{ran}");
}

// However much was sent before: a send reads what may be open, and now and then all.
#[test]
fn a_send_reads_only_what_may_be_open() {
    let deadly = Deadly::new();
    let home = deadly.world.party("ada").home();
    let file = deadly.world.party("ada").file("file", "content");
    let send = || deadly.world.run("ada", &["send", text(&file), "--to", "bo", "-q"]);
    let first = send().ok().word();
    std::fs::write(home.join(format!("outbox/{first}.json")), "damaged").unwrap();
    send().ok();
    deadly.world.run("ada", &["outbox"]).ends(9);
    std::fs::write(home.join("outbox/looked"), "1700000000").unwrap();
    send().ends(9);
}

// A stream cannot go on, but a commit of it without an answer is settled before anything else is numbered.
#[test]
fn a_commit_of_a_stream_without_an_answer_is_settled_by_the_next_send() {
    let deadly = Deadly::new();
    let commit = ("POST", "/v1/bundles/*/commit");
    deadly.world.hostile.on(commit.0, commit.1, |seen| {
        seen.pass();
        Reply::Close
    });
    let words = ["send", "-", "--to", "bo", "-q"];
    let piped = |input: &str| deadly.world.pouch("ada", &words).input(input).end();
    piped("one").ends(7);
    let first = deadly.bundle("committing");
    deadly.watch();
    let second = piped("two").ok().word();
    let sent = deadly.world.run("ada", &["outbox", "--json"]).ok().objects();
    assert!(sent.iter().all(|bundle| bundle["progress"] == "sent"), "{sent:?}");
    for (id, content) in [(&first, "one"), (&second, "two")] {
        let (ran, fresh) = deadly.world.receive(id);
        ran.ok();
        assert_eq!(std::fs::read_to_string(fresh.path.join("stdin")).unwrap(), content);
    }
    deadly.nothing_is_left();
}
