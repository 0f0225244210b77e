//! What is piped in with `--spool`: it goes on like files, and nothing of it stays.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pouch_client::Party;
use pouch_core::age;
use pouch_statement::BundleId;
use pouch_tests::hostile::{Answer, Reply, Seen};
use pouch_tests::{LIMIT, Small, files_beneath, holds, noise, skip, until};
use rustix::process::Signal;

use super::deadly::{Deadly, Death, PART, plant};

const WORDS: [&str; 7] = ["send", "-", "--spool", "--name", "dump", "--to", "bo"];

/// Ada, whose pipe gives what takes three parts.
fn piped() -> Deadly {
    Deadly { input: noise("piped", 2 * PART + 4321), ..Deadly::new() }
}

fn spools(deadly: &Deadly) -> Vec<PathBuf> {
    files_beneath(&deadly.world.party("ada").home().join("spools"))
}

#[track_caller]
fn arrives(deadly: &Deadly, id: &str) {
    arrives_at(deadly, "bo", id);
    assert_eq!(spools(deadly), Vec::<PathBuf>::new());
    deadly.nothing_is_left();
}

#[test]
fn what_is_kept_goes_on_and_then_goes() {
    let deadly = piped();
    for compress in ["none", "zstd"] {
        let mut parts = deadly.killed_after_parts(&[&WORDS[..], &["--compress", compress]].concat(), 2);
        let [spool] = spools(&deadly).try_into().unwrap();
        let kept = std::fs::read(&spool).unwrap();
        assert!(kept.starts_with(b"age-encryption.org/v1\n") && !holds(&kept, &deadly.input[PART..PART + 32]));
        assert_eq!(std::fs::metadata(&spool).unwrap().permissions().mode() & 0o777, 0o600);
        let id = deadly.bundle("interrupted");
        let standing = deadly.standing("interrupted");
        assert_eq!((&standing["size"], &standing["files"]), (&deadly.input.len().into(), &1.into()));
        let percent = standing["percent"].as_u64().unwrap();
        assert!((1..=99).contains(&percent), "{percent}");
        deadly.world.run("ada", &["outbox", "resume", &id]).ok().says("going on with bundle");
        parts.extend(deadly.parts());
        parts.sort_unstable();
        assert_eq!(parts, [0, 1, 2], "none was sent twice");
        arrives(&deadly, &id);
    }
    deadly.check_keys();
}

#[test]
fn what_the_relay_has_lost_is_sent_anew_from_what_is_kept() {
    let deadly = piped();
    deadly.killed_after_parts(&WORDS, 1);
    let id = deadly.bundle("interrupted");
    let (party, _) = deadly.world.party("ada").client();
    delete(&party, id.parse().unwrap());
    let ran = deadly.world.run("ada", &["outbox", "resume", "-q", &id]).ok();
    assert_ne!(ran.word(), id);
    arrives(&deadly, &ran.word());
    // Given up, it goes, too; and where it is lost, it cannot go on.
    deadly.killed_after_parts(&WORDS, 1);
    gone(&deadly, &deadly.bundle("interrupted"));
    deadly.killed_after_parts(&WORDS, 1);
    std::fs::remove_file(&spools(&deadly)[0]).unwrap();
    let id = deadly.bundle("lost");
    deadly.world.run("ada", &["outbox", "resume", &id]).fails(5, "cannot be read again");
}

// What is kept is not only for the keys that its recipient had.
#[test]
fn what_is_kept_goes_to_new_keys() {
    let deadly = piped();
    deadly.killed_after_parts(&WORDS, 1);
    let id = deadly.bundle("interrupted");
    rotate(&deadly);
    deadly.world.run("ada", &["outbox", "resume", &id]).ok().says("begun anew: a recipient has other keys since");
    let new = deadly.bundle("sent");
    assert_ne!(new, id);
    arrives(&deadly, &new);
    deadly.check_keys();
}

// Where nobody knows whether it is delivered, it is said to its end, and not twice.
#[test]
fn what_is_kept_and_was_committing_goes_to_the_keys_of_then() {
    for once in [&["--once", "run 7"][..], &[]] {
        let deadly = piped();
        let death = Death::at(|seen| seen.path.ends_with("/commit"));
        assert_eq!(deadly.killed(&[&WORDS[..], once].concat(), death).code, -9);
        let id = deadly.bundle("committing");
        rotate(&deadly);
        assert_eq!(deadly.world.run("ada", &["outbox", "resume", "-q", &id]).ok().word(), id);
        arrives(&deadly, &id);
    }
}

// Nor is it once more for new keys, where it was to be once.
#[test]
fn what_was_delivered_under_the_same_key_is_not_sent_to_new_keys() {
    let deadly = piped();
    let words = [&WORDS[..], &["--once", "run 7", "-q"]].concat();
    deadly.killed_after_parts(&words, 1);
    let id = deadly.bundle("interrupted");
    let other = deadly.world.pouch("ada", &words).input(deadly.input.clone()).end().ok().word();
    rotate(&deadly);
    assert_eq!(deadly.world.run("ada", &["outbox", "resume", "-q", &id]).ok().word(), other);
    arrives(&deadly, &other);
}

/// Bo has other keys, and Ada knows.
fn rotate(deadly: &Deadly) {
    let run = |who: &str, words: &[&str]| deadly.world.run(who, words).ok();
    run("bo", &["card", "rotate", "--yes"]);
    let words = run("bo", &["card", "--words"]).word();
    run("ada", &["contact", "rotate", "bo", "--words", &words]);
}

// A pipe may have no end; the disk has.
#[test]
fn what_is_kept_leaves_room_on_the_disk() {
    let deadly = Deadly::new();
    let ada = deadly.world.party("ada");
    let Some(_small) = Small::mount(ada.home().join("spools"), 40) else {
        return skip("only root mounts a small file system");
    };
    let endless = [&WORDS[..], &["-q"]].concat();
    let ran = ada.pouch(&endless).behind("cat /dev/zero |").end();
    ran.fails(8, "are left to others");
    assert_eq!(spools(&deadly), Vec::<PathBuf>::new());
    deadly.nothing_is_left();
}

/// It is given up, and all of it goes.
#[track_caller]
fn gone(deadly: &Deadly, id: &str) {
    deadly.world.run("ada", &["outbox", "forget", id]).ok();
    assert_eq!(spools(deadly), Vec::<PathBuf>::new());
    deadly.nothing_is_left();
}

// What cannot be read again stays for whatever reason it was not delivered, and is sent anew when its bundle is over.
#[test]
fn it_stays_until_it_is_delivered() {
    let deadly = piped();
    let sent = |words: &[&str]| deadly.world.pouch("ada", words).input(deadly.input.clone()).end();
    // What can be known before is asked before anything is read.
    let far = [&WORDS[..], &["--until", "4000d"]].concat();
    assert_eq!(sent(&far).ends(2).out, b"");
    assert_eq!(spools(&deadly), Vec::<PathBuf>::new());
    // The relay goes away behind that.
    deadly.world.hostile.on("POST", "/v1/bundles", |_| Reply::Close);
    let ran = sent(&WORDS).ends(7);
    let id = deadly.bundle("interrupted");
    assert!(ran.err.contains(&format!("outbox resume {}", &id[..6])), "{ran}");
    // Or says no.
    deadly.watch();
    deadly.world.hostile.on("POST", "/v1/bundles/*/commit", |_| Answer::problem(403, "forbidden", "no").into());
    deadly.world.run("ada", &["outbox", "resume", &id]).ends(5);
    assert_eq!(spools(&deadly).len(), 1);
    assert_eq!(deadly.standing("undelivered")["bundle"], id.as_str());
    deadly.world.run("ada", &["outbox"]).ok().says("sends what was kept");
    deadly.world.run("ada", &["outbox", &id]).fails(3, "outbox resume ID");
    deadly.watch();
    let ran = deadly.world.run("ada", &["outbox", "resume", "-q", &id]).ok();
    assert_ne!(ran.word(), id);
    arrives(&deadly, &ran.word());
    // Or the time of its bundle is over before it is there.
    let begun = Instant::now();
    deadly.killed_after_parts(&[&WORDS[..], &["--until", "15s"]].concat(), 1);
    let id = deadly.bundle("interrupted");
    std::thread::sleep(Duration::from_secs(17).saturating_sub(begun.elapsed()));
    deadly.world.run("ada", &["outbox"]).ok().says("sends what was kept");
    let ran = deadly.world.run("ada", &["outbox", "resume", "-q", &id]).ok();
    assert_ne!(ran.word(), id);
    arrives(&deadly, &ran.word());
}

fn delete(party: &Party, bundle: BundleId) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { party.api().unwrap().delete_bundle(bundle).await.unwrap() });
}

// Whoever can write into the home cannot have something else sent in the name of what was piped in.
#[test]
fn something_else_in_its_place_is_not_delivered() {
    let deadly = piped();
    let ada = deadly.world.party("ada").client().1.age;
    let input = &deadly.input;
    for other in [noise("another", input.len()), input[..input.len() - 1].to_vec(), [&input[..], b"!"].concat()] {
        deadly.killed_after_parts(&WORDS, 1);
        let id = deadly.bundle("interrupted");
        std::fs::write(&spools(&deadly)[0], age::seal_to_vec(&ada.recipient(), &other).unwrap()).unwrap();
        let ran = deadly.world.run("ada", &["outbox", "resume", &id]).ends(9);
        assert!(ran.err.contains("what was kept of it is not what was piped in"), "{ran}");
        assert_eq!(deadly.world.run("bo", &["inbox", "-q"]).ok().out, b"");
        gone(&deadly, &id);
    }
}

#[test]
fn what_a_kill_leaves_within_the_pipe_goes_with_the_next() {
    let deadly = piped();
    for (signal, code) in [(Signal::KILL, -9), (Signal::INT, 130)] {
        let mut running = deadly.world.pouch("ada", &WORDS).holding_input().start();
        running.stdin.as_mut().unwrap().write_all(&deadly.input[..PART]).unwrap();
        let begun = || spools(&deadly).iter().any(|spool| spool.metadata().unwrap().len() > 0).then_some(());
        until("something is kept", LIMIT, begun);
        let stdin = running.stdin.take();
        running.signal(signal);
        running.end().ends(code);
        drop(stdin);
        assert_eq!(spools(&deadly).len(), usize::from(signal == Signal::KILL));
        let id =
            deadly.world.pouch("ada", &[&WORDS[..], &["-q"]].concat()).input(deadly.input.clone()).end().ok().word();
        arrives(&deadly, &id);
    }
}

#[test]
fn what_need_not_be_kept_is_not() {
    let deadly = piped();
    let file = deadly.world.party("ada").file("file", "content");
    // As from a config file that asks for it always.
    deadly.world.run("ada", &["send", pouch_tests::text(&file), "--spool", "--to", "bo"]).ok();
    deadly.world.pouch("ada", &["send", "--secret", "TOKEN", "--spool", "--to", "bo"]).input("secret").end().ok();
    let piped = deadly.world.pouch("ada", &["send", "-", "--to", "bo"]).input("content").end().ok();
    assert!(piped.err.contains("--spool keeps it"), "{piped}");
    let out = deadly.world.root().join("carried.pouch");
    let words = [&WORDS[..], &["--out", pouch_tests::text(&out)]].concat();
    deadly.world.pouch("ada", &words).input("content").end().ok();
    // Where the first one is kept, it is made.
    assert!(!deadly.world.party("ada").home().join("spools").exists());
}

/// Killed where it began anew: two bundles have what was piped in.
fn two_of_one(deadly: &Deadly) -> (String, String) {
    deadly.killed_after_parts(&WORDS, 1);
    let old = deadly.bundle("interrupted");
    let home = deadly.world.party("ada").home();
    let copy = deadly.world.root().join("copy");
    let copied = |from: &std::path::Path, to: &std::path::Path| {
        let args = ["-a", pouch_tests::text(from), pouch_tests::text(to)];
        pouch_tests::Run::of("cp").args(args).end().ok();
    };
    copied(&home, &copy);
    delete(&deadly.world.party("ada").client().0, old.parse().unwrap());
    deadly.killed_at_the_index(&["outbox", "resume", &old]);
    let new = deadly.bundle("interrupted");
    assert_ne!(new, old);
    // As if it had been killed before the old one was cleared away.
    for state in [format!("outbox/{old}.json"), format!("transfers/{old}")] {
        copied(&copy.join(&state), &home.join(&state));
    }
    (old, new)
}

#[test]
fn giving_up_one_of_two_leaves_the_other() {
    let deadly = piped();
    let (old, new) = two_of_one(&deadly);
    deadly.world.run("ada", &["outbox", "forget", &old]).ok();
    assert_eq!(spools(&deadly).len(), 1);
    deadly.world.run("ada", &["outbox", "resume", &new]).ok();
    arrives(&deadly, &new);
}

#[test]
fn of_two_only_one_is_delivered() {
    let deadly = piped();
    let (old, new) = two_of_one(&deadly);
    deadly.world.run("ada", &["outbox", "resume", &new]).ok();
    arrives(&deadly, &new);
    deadly.world.run("ada", &["outbox", "resume", &old]).fails(3, "no bundle");
    assert_eq!(deadly.world.run("bo", &["inbox", "-q"]).ok().text(), "");
}

// One who is revoked does not take it from the others.
#[test]
fn what_is_kept_for_several_goes_to_those_who_are_left() {
    // Nobody knows whether it is delivered; the relay has it whole, or says no.
    for says_no in [false, true] {
        let deadly = piped();
        deadly.world.befriend("cy");
        let both = [&WORDS[..6], &["bo,cy"]].concat();
        if says_no {
            let no = |_: &Seen| Answer::problem(403, "forbidden", "no").into();
            deadly.world.hostile.on("POST", "/v1/bundles/*/commit", no);
            deadly.world.pouch("ada", &both).input(deadly.input.clone()).end().ends(5);
            deadly.watch();
        } else {
            let death = Death::at(|seen| seen.path.ends_with("/commit"));
            assert_eq!(deadly.killed(&both, death).code, -9);
        }
        let id = deadly.bundle(if says_no { "undelivered" } else { "committing" });
        let revoked = deadly.world.run("ada", &["contact", "revoke", "cy", "--json"]).ok();
        let kept = &revoked.object("contact-revoked")["kept"];
        // Of the one that was denied it was the hostile relay's word: the honest one behind it has it still.
        assert_eq!(*kept, serde_json::json!([id]));
        deadly.world.run("ada", &["outbox", "resume", &id]).fails(6, "cy is revoked");
        assert_eq!(spools(&deadly).len(), 1);
        let new = deadly.world.run("ada", &["outbox", "resume", "-q", &id, "--to", "bo"]).ok().word();
        arrives(&deadly, &new);
    }
}

// To others is to others: not to those of before, whatever it was marked with, nor given up because they have it.
#[test]
fn what_is_kept_goes_to_others_and_not_to_those_of_before() {
    let words = [&WORDS[..], &["--once", "run 7", "-q"]].concat();
    for committing in [true, false] {
        let deadly = piped();
        deadly.world.befriend("cy");
        let id = if committing {
            let death = Death::at(|seen| seen.path.ends_with("/commit"));
            assert_eq!(deadly.killed(&words, death).code, -9);
            deadly.bundle("committing")
        } else {
            deadly.killed_after_parts(&words, 1);
            let id = deadly.bundle("interrupted");
            let again = deadly.world.pouch("ada", &words).input(deadly.input.clone()).end().ok().word();
            arrives_at(&deadly, "bo", &again);
            id
        };
        let new = deadly.world.run("ada", &["outbox", "resume", "-q", &id, "--to", "cy"]).ok().word();
        assert_eq!(deadly.world.run("bo", &["inbox", "-q"]).ok().text(), "");
        arrives_at(&deadly, "cy", &new);
        assert_eq!(spools(&deadly), Vec::<PathBuf>::new());
    }
}

#[track_caller]
fn arrives_at(deadly: &Deadly, who: &str, id: &str) {
    let (ran, fresh) = deadly.world.receive_as(who, id);
    ran.ok();
    assert!(std::fs::read(fresh.path.join("dump")).unwrap() == deadly.input);
}

// What the relay denied to have delivered is asked for before it is sent anew.
#[test]
fn what_was_delivered_after_all_is_not_sent_anew() {
    let deadly = piped();
    deadly.world.hostile.on("POST", "/v1/bundles/*/commit", |seen| {
        seen.pass();
        Answer::problem(403, "forbidden", "no").into()
    });
    deadly.world.pouch("ada", &WORDS).input(deadly.input.clone()).end().ends(5);
    let id = deadly.bundle("undelivered");
    deadly.watch();
    assert_eq!(deadly.world.run("ada", &["outbox", "resume", "-q", &id]).ok().word(), id);
    arrives(&deadly, &id);
}

// Files are where they were; and to whom a stream goes is not changed by what is not asked.
#[test]
fn only_what_is_kept_is_sent_to_others() {
    let deadly = piped();
    let source = plant(&deadly.world, "data");
    deadly.killed_after_parts(&["send", pouch_tests::text(&source), "--to", "bo"], 1);
    let id = deadly.bundle("interrupted");
    deadly.world.run("ada", &["outbox", "resume", &id, "--to", "bo"]).fails(5, "by sending them");
    deadly.world.run("ada", &["outbox", "resume", &id, "--to", "nobody"]).ends(3);
}

// Nor does a send clear away what somebody planted there, or what may belong to a transfer that cannot be read.
#[test]
fn what_is_not_known_to_be_over_is_left_alone() {
    let deadly = piped();
    let home = deadly.world.party("ada").home();
    let file = deadly.world.party("ada").file("file", "content");
    let send = || deadly.world.run("ada", &["send", pouch_tests::text(&file), "--to", "bo"]).ok();
    deadly.killed_after_parts(&WORDS, 1);
    let transfer = home.join("transfers").join(deadly.bundle("interrupted"));
    let planted = home.join("spools").join(BundleId::random().unwrap().to_string());
    std::fs::create_dir(&planted).unwrap();
    std::fs::write(&transfer, "").unwrap();
    send();
    assert_eq!(spools(&deadly).len(), 1);
    std::fs::remove_file(&transfer).unwrap();
    send();
    assert_eq!(spools(&deadly).len(), 0);
    assert!(planted.is_dir());
}
