//! attacks.md 5, 15, 31, 34, 38, 51, 58, 63: what goes wrong on this side while the relay takes its time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pouch_tests::hostile::{NASTY, World};
use pouch_tests::{noise, text, until};
use rustix::process::Signal;

type Make<'a> = Box<dyn Fn() -> Option<UnixListener> + 'a>;

const PART: &str = "/v1/bundles/*/parts/*";
const SOON: Duration = Duration::from_secs(30);

#[test]
fn attack_5_a_destination_that_exists_or_appears_meanwhile() {
    let world = World::of_two();
    let bundle = world.send(&world.file("a.txt", "from ada")).to_string();
    for kind in ["file", "folder", "full folder", "link to a folder", "dangling link"] {
        for meanwhile in [false, true] {
            let fresh = world.fresh();
            let (path, elsewhere) = (fresh.path.clone(), fresh.path.with_file_name("elsewhere"));
            std::fs::create_dir(&elsewhere).unwrap();
            let make = move || match kind {
                "file" => std::fs::write(&path, "mine").unwrap(),
                "folder" => std::fs::create_dir(&path).unwrap(),
                "full folder" => {
                    std::fs::create_dir(&path).unwrap();
                    std::fs::write(path.join("a.txt"), "mine").unwrap();
                }
                "link to a folder" => symlink("elsewhere", &path).unwrap(),
                _ => symlink("nowhere", &path).unwrap(),
            };
            world.hostile.behave();
            if meanwhile {
                // The part comes when the destination is there already.
                world.hostile.on("GET", PART, move |seen| {
                    make();
                    seen.pass().into()
                });
            } else {
                make();
            }
            let ran = world.run("bo", &["receive", &bundle, "-o", text(&fresh.path)]);
            assert_eq!(ran.code, 5, "{kind}, meanwhile {meanwhile}: {ran}");
            let asked = world.hostile.seen().iter().any(|s| s.contains("/parts/"));
            assert_eq!(asked, meanwhile, "{kind}");
            let mut left: Vec<_> =
                std::fs::read_dir(fresh.path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left, ["elsewhere", "it"], "{kind}");
            assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0, "{kind}");
            match kind {
                "file" => assert_eq!(std::fs::read(&fresh.path).unwrap(), b"mine"),
                "folder" => assert_eq!(std::fs::read_dir(&fresh.path).unwrap().count(), 0),
                "full folder" => assert_eq!(fresh.read("a.txt"), b"mine"),
                "link to a folder" => {
                    assert_eq!(std::fs::read_link(&fresh.path).unwrap(), std::path::Path::new("elsewhere"))
                }
                _ => assert!(!fresh.path.with_file_name("nowhere").exists()),
            }
        }
    }
    world.hostile.behave();
    let (ran, _) = world.receive(&bundle);
    ran.ok();
}

#[test]
fn attack_15_sources_that_are_no_files_or_lead_elsewhere() {
    let world = World::of_two();
    let tree = world.root().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("good.txt"), "good").unwrap();
    let odd = tree.join("odd");
    let made: [(&str, Make<'_>); 4] = [
        (
            "pipe",
            Box::new(|| {
                assert!(std::process::Command::new("mkfifo").arg(&odd).status().unwrap().success());
                None
            }),
        ),
        (
            "link out",
            Box::new(|| {
                symlink("/etc/passwd", &odd).unwrap();
                None
            }),
        ),
        (
            "dangling link",
            Box::new(|| {
                symlink("nowhere", &odd).unwrap();
                None
            }),
        ),
        ("socket", Box::new(|| Some(UnixListener::bind(&odd).unwrap()))),
    ];
    let mut kept = Vec::new();
    for (what, make) in made {
        kept.push(make());
        for path in [&tree, &odd] {
            let ran = world.run("ada", &["send", text(path), "--to", "bo"]);
            assert!(ran.code > 0, "{what}: {ran}");
            assert!(ran.err.contains("odd"), "{what}: not named: {ran}");
        }
        std::fs::remove_file(&odd).unwrap();
    }
    drop(kept);
    assert!(world.hostile.seen().iter().all(|s| !s.contains("/parts/")), "nothing was uploaded");
    world.run("bo", &["inbox"]).ok().says("nothing is waiting");
    world.run("ada", &["send", text(&tree), "--to", "bo"]).ok();
}

#[test]
fn attack_15_a_source_that_changes_while_it_is_uploaded() {
    let world = World::of_two();
    for kind in ["overwritten", "longer", "shorter", "replaced", "gone"] {
        let source = world.file("large.bin", noise("before", 160 << 20));
        let (path, begun, done) = (source.clone(), AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
        world.hostile.behave();
        world.hostile.on("PUT", PART, move |seen| {
            // All parts are held back until it has changed, so that the reader stands somewhere in the middle.
            if !begun.swap(true, Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(300));
                let file = || std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                match kind {
                    "overwritten" => {
                        use std::os::unix::fs::FileExt as _;
                        file().write_all_at(&noise("after", 8 << 20), 152 << 20).unwrap();
                    }
                    "longer" => file().set_len(161 << 20).unwrap(),
                    "shorter" => file().set_len(150 << 20).unwrap(),
                    "replaced" => {
                        std::fs::write(path.with_extension("new"), noise("other", 160 << 20)).unwrap();
                        std::fs::rename(path.with_extension("new"), &path).unwrap();
                    }
                    _ => std::fs::remove_file(&path).unwrap(),
                }
                done.store(true, Ordering::SeqCst);
            }
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            seen.pass().into()
        });
        let ran = world.run("ada", &["send", text(&source), "--to", "bo"]);
        if ran.code == 0 {
            // Whoever has opened a file may read on in it when its name is gone; then what was sent is what was there.
            assert!(matches!(kind, "replaced" | "gone"), "{kind}: {ran}");
            let id = world.run("bo", &["inbox", "-q"]).ok().word();
            let (ran, fresh) = world.receive(&id);
            ran.ok();
            assert!(fresh.read("large.bin") == noise("before", 160 << 20), "{kind}: a mix was sent");
        } else {
            assert!(ran.err.contains("large.bin"), "{kind}: {ran}");
            world.run("bo", &["inbox"]).ok().says("nothing is waiting");
            let sent = world.last_event("ada", "sent");
            assert_eq!(sent["outcome"], "failed", "{kind}");
        }
    }
}

#[test]
fn attack_34_a_secret_key_where_something_else_belongs() {
    let world = World::of_two();
    let identity = world.party("bo").home().join("identity");
    let whole = std::fs::read_to_string(&identity).unwrap();
    let secret = whole.lines().find(|l| l.starts_with("AGE-SECRET-KEY-")).unwrap().to_owned();
    let bare = world.file("bare.txt", &secret);
    let cards = world.file("card.txt", format!("{secret}\n{secret}\n"));
    let marked = world.file("marked.txt", format!("\u{feff}{secret}\n"));
    let lower = secret.to_ascii_lowercase();
    let short = &secret[..secret.len() - 3];
    let attempts: Vec<Vec<&str>> = vec![
        vec!["encrypt", "-r", &secret],
        vec!["encrypt", "-r", &lower],
        vec!["encrypt", "-r", short],
        vec!["encrypt", "-R", &secret],
        vec!["encrypt", "-i", &secret],
        vec!["decrypt", "-i", &secret],
        vec!["encrypt", "-R", text(&identity)],
        vec!["encrypt", "-R", text(&bare)],
        vec!["encrypt", "-R", text(&marked)],
        vec!["contact", "add", text(&identity)],
        vec!["contact", "add", text(&bare)],
        vec!["contact", "add", text(&cards)],
        vec!["contact", "add", text(&marked)],
    ];
    for words in attempts {
        for json in [false, true] {
            let mut words = words.clone();
            words.extend(json.then_some("--json"));
            let ran = world.run_with("ada", &words, b"plain");
            let shown = format!("{} {}", ran.text(), ran.err).to_ascii_uppercase();
            let what: Vec<_> = words.iter().map(|w| w.chars().take(20).collect::<String>()).collect();
            assert!(!shown.contains(&secret[20..40].to_ascii_uppercase()), "{what:?} echoes it: {}", ran.err);
            assert_eq!(ran.code, 2, "{what:?}: {}", ran.err);
        }
    }
    // Neither signing key nor secret stands in the journal or anywhere else of Ada's.
    let hex = whole.lines().find_map(|l| l.strip_prefix("# signing-key: ")).unwrap();
    for needle in [&secret[20..40], &hex[..20]] {
        assert!(pouch_tests::find_bytes(&world.party("ada").home(), needle.as_bytes()).is_empty());
    }
    // Cards that are not well, without secrets: other refusals, and with ESC in them never raw.
    let card = world.run("bo", &["card"]).ok().text();
    for (what, text_of) in [
        ("cut", card[..card.len() / 2].to_owned()),
        ("nasty", card.replacen("bo", NASTY, 1)),
        ("nothing", String::new()),
    ] {
        let path = world.file("bad.card", text_of);
        let ran = world.run("ada", &["contact", "add", text(&path), "--name", "eve"]);
        assert!(ran.code > 0, "{what}");
    }
}

#[test]
fn attack_38_wrong_passphrase_and_damaged_identity_are_one_message() {
    let world = World::empty();
    let (right, wrong) = (world.file("right", "correct horse\n"), world.file("wrong", "wrong horse\n"));
    let join = ["join", "--name", "ada", "--passphrase-file", text(&right)];
    world.run_with("ada", &join, world.owner_link.as_bytes()).ok();
    let show = |file| world.run("ada", &["log", "show", "--passphrase-file", text(file)]);
    show(&right).ok();
    let guessed = show(&wrong);
    let path = world.party("ada").home().join("identity.age");
    let good = std::fs::read(&path).unwrap();
    let middle = good.len() / 2;
    for at in [good.len() - 1, middle, 60] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let damaged = show(&right);
        assert_eq!((damaged.code, &damaged.err, &damaged.out), (guessed.code, &guessed.err, &guessed.out), "byte {at}");
    }
    assert!(guessed.code > 0);
    std::fs::write(&path, good).unwrap();
    show(&right).ok();
}

#[test]
fn attack_58_a_journal_edited_cut_or_swapped_is_found_out() {
    let world = World::of_two();
    for name in ["a.txt", "b.txt"] {
        world.send(&world.file(name, name));
    }
    world.run("ada", &["log", "verify"]).ok();
    let path = world.party("ada").home().join("journal/records");
    let good = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    assert!(lines.len() >= 4);
    let whole = |lines: &[&str]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
    let without = |n: usize| whole(&[&lines[..n], &lines[n + 1..]].concat());
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    let edited = good.replacen("\"commitment\":\"", "\"commitment\":\"0", 1);
    let sealed = {
        let at = good.rfind("\"sealed\":\"").unwrap() + 200;
        let other = if &good[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &good[..at], &good[at + 1..])
    };
    let damages = [
        ("first deleted", without(0)),
        ("middle deleted", without(2)),
        ("last deleted", without(lines.len() - 1)),
        ("swapped", whole(&swapped)),
        ("doubled", whole(&[&lines[..2], &lines[1..]].concat())),
        ("edited", edited),
        ("a sealed byte edited", sealed),
        ("emptied", String::new()),
        ("cut within a line", good[..good.len() - 20].to_owned()),
        ("not json", good.replacen('{', "[", 1)),
        ("nasty", good.replacen("{\"seq\"", &format!("{{\"{NASTY}\""), 1)),
    ];
    for (what, text) in damages {
        std::fs::write(&path, &text).unwrap();
        let ran = world.run("ada", &["log", "verify"]);
        assert_eq!(ran.code, 4, "{what}: {ran}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{what}: the evidence was changed");
    }
    std::fs::remove_file(&path).unwrap();
    let ran = world.run("ada", &["log", "verify"]);
    assert!(matches!(ran.code, 4 | 9), "deleted: {ran}");
    std::fs::write(&path, &good).unwrap();
    world.run("ada", &["log", "verify"]).ok();
}

#[test]
fn attack_63_interrupted_while_the_relay_holds_an_answer_back() {
    let world = World::of_two();
    let bundle = world.send(&world.file("a.bin", noise("a", 17 << 20))).to_string();
    for (signal, path) in
        [(Signal::INT, PART), (Signal::TERM, PART), (Signal::INT, "/v1/bundles/*/index"), (Signal::HUP, PART)]
    {
        let (asked, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (told, stop) = (asked.clone(), over.clone());
        world.hostile.behave();
        world.hostile.on("GET", path, move |seen| {
            let last = path != PART || seen.path.ends_with("/2");
            if last {
                told.store(true, Ordering::SeqCst);
                until("the end of the interrupted command", SOON, || stop.load(Ordering::SeqCst).then_some(()));
            }
            seen.pass().into()
        });
        let fresh = world.fresh();
        let running = world.pouch("bo", &["receive", &bundle, "-o", text(&fresh.path)]).start();
        until("the request", SOON, || asked.load(Ordering::SeqCst).then_some(()));
        let beside = || std::fs::read_dir(fresh.path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        let record = |hidden: std::path::PathBuf| std::fs::read_to_string(hidden.join(hidden.file_name().unwrap()));
        let noted = || beside().any(|hidden| record(hidden).is_ok_and(|record| record.lines().count() > 2));
        until("the parts before are verified", SOON, || (path != PART || noted()).then_some(()));
        running.signal(signal);
        let ran = running.end();
        over.store(true, Ordering::SeqCst);
        assert_eq!(ran.code, 130, "{signal:?} {path}: {ran}");
        assert!(!fresh.path.exists());
        world.run("bo", &["log", "verify"]).ok();
        if path != PART {
            fresh.is_untouched();
            continue;
        }
        // Two of three parts were verified; they stay, and the same command goes on.
        assert!(ran.err.contains("the same command goes on"), "{ran}");
        world.hostile.behave();
        world.run("bo", &["receive", &bundle, "-o", text(&fresh.path)]).ok().says("came before");
        assert!(fresh.read("a.bin") == noise("a", 17 << 20));
        assert_eq!(beside().count(), 1);
    }
    // A sender who is stopped leaves nothing for the recipient, and can send again.
    let (asked, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (told, stop) = (asked.clone(), over.clone());
    world.hostile.behave();
    world.hostile.on("PUT", PART, move |seen| {
        told.store(true, Ordering::SeqCst);
        until("the end of the interrupted command", SOON, || stop.load(Ordering::SeqCst).then_some(()));
        seen.pass().into()
    });
    let running = world.pouch("ada", &["send", "a.bin", "--to", "bo"]).start();
    until("the upload", SOON, || asked.load(Ordering::SeqCst).then_some(()));
    running.signal(Signal::INT);
    let ran = running.end();
    over.store(true, Ordering::SeqCst);
    assert_eq!(ran.code, 130, "{ran}");
    world.hostile.behave();
    assert_eq!(world.run("bo", &["inbox", "-q"]).ok().word(), "");
    world.run("ada", &["log", "verify"]).ok();
    let again = world.send(&world.root().join("a.bin")).to_string();
    let (ran, fresh) = world.receive(&again);
    ran.ok();
    assert!(fresh.read("a.bin") == noise("a", 17 << 20));
}

// 51: what a person types as an id or a name is never part of a path or a query.
#[test]
fn attack_39_51_ids_and_names_that_people_type_stay_what_they_are() {
    let world = World::of_two();
    world.hostile.behave();
    for typed in
        ["..", "../../x", "%2e%2e", "' OR 1=1 --", "0".repeat(26).as_str(), "0".repeat(5000).as_str(), "*", "é"]
    {
        for words in [&["receive", typed][..], &["outbox", typed], &["outbox", "revoke", typed]] {
            let ran = world.run("bo", words);
            assert!(ran.code > 0, "{typed}: {ran}");
        }
    }
    let odd: Vec<_> =
        world.hostile.seen().into_iter().filter(|s| s.contains("..") || s.contains('%') || s.contains('\'')).collect();
    assert!(odd.is_empty(), "{odd:?}");
}
