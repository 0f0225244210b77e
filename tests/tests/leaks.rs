//! Secrets searched for everywhere but where they belong, and who may read what lies there (attacks.md 59, 60, 64).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pouch_protocol::Link;
use pouch_tests::{Pair, Party, Ran, find_bytes, holds, noise, text};

/// A secret, and a name for it that a failure may print.
type Needle = (&'static str, Vec<u8>);

/// Looks at the arguments of every process, and at the environment of every `pouch`, until it is told to stop.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(BTreeSet<String>, u64)>,
}

impl Watcher {
    fn start(needles: Vec<Needle>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut found, mut seen) = (BTreeSet::new(), 0);
            while !stopped.load(Ordering::Relaxed) {
                for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
                    seen += u64::from(look_at(&process, &needles, &mut found));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            (found, seen)
        });
        Self { stop, thread }
    }

    fn found(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let (found, seen) = self.thread.join().unwrap();
        assert!(seen > 20, "it hardly saw a pouch at work: {seen}");
        found
    }
}

/// Whether the process was a `pouch`.
fn look_at(process: &Path, needles: &[Needle], found: &mut BTreeSet<String>) -> bool {
    let is_pouch = || fs::read_link(process.join("exe")).is_ok_and(|exe| exe.ends_with("pouch"));
    let Ok(words) = fs::read(process.join("cmdline")) else { return false };
    let mut texts = vec![("arguments", words)];
    let pouch = is_pouch();
    if pouch {
        // Read before and after: with --env pouch becomes the command that is to have the value.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        if is_pouch() {
            texts.push(("environment", environment));
        }
    }
    for (place, bytes) in texts {
        let hits = needles.iter().filter(|(_, needle)| holds(&bytes, needle));
        found.extend(hits.map(|(name, _)| format!("{name} in the {place} of {}", process.display())));
    }
    pouch
}

fn assert_absent(needles: &[Needle], folder: &Path, but: &[PathBuf]) {
    for (name, needle) in needles {
        let found: Vec<_> = find_bytes(folder, needle).into_iter().filter(|path| !but.contains(path)).collect();
        assert!(found.is_empty(), "{name} in {found:?}");
    }
}

/// The age key in an identity without passphrase.
fn key_of(party: &Party) -> Vec<u8> {
    let identity = fs::read_to_string(party.home().join("identity")).unwrap();
    identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap().as_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// The link in each form that would let somebody use it, or put a card of their own in.
fn of_link(link: &str) -> Vec<Needle> {
    let parsed: Link = link.parse().unwrap();
    let (admit, card_key) = (parsed.secret.admit(), parsed.secret.card_key());
    vec![
        ("the link", link.split_once('#').unwrap().1.as_bytes().to_vec()),
        ("the link's admission secret", admit.to_vec()),
        ("the link's admission secret", hex(admit.as_ref())),
        ("the link's card key", card_key.to_vec()),
        ("the link's card key", hex(card_key.as_ref())),
    ]
}

#[test]
fn attack_59_secrets_are_nowhere() {
    let mut pair = Pair::new();
    // Cy has a passphrase, kept outside of every folder that is searched.
    let outside = tempfile::tempdir().unwrap();
    let phrase = "Nordwind-7-canary-passphrase";
    let file = outside.path().join("phrase");
    fs::write(&file, phrase).unwrap();
    let cy = pair.stranger("cy");
    let link = pair.ada.invite("cy");
    let credential = "canary-credential-3f8e1c77a90b4d25-postgres://app@db";
    let mut needles = vec![
        ("the passphrase", phrase.as_bytes().to_vec()),
        ("the credential", credential.as_bytes().to_vec()),
        ("ada's key", key_of(&pair.ada)),
        ("bo's key", key_of(&pair.bo)),
    ];
    needles.extend(of_link(&link));
    let watcher = Watcher::start(needles.clone());

    let with = ["--passphrase-file", text(&file)];
    let run = |words: &[&str], input: &str| cy.pouch([words, &with].concat()).input(input).end();
    let mut told: Vec<Ran> = Vec::new();
    told.push(run(&["join", "--name", "cy"], &link).ok());
    told.push(pair.ada.run(&["contact", "list"]).ok());
    let id =
        run(&["send", "--secret", "DB_URL", "--to", "ada", "-q", "--note", "rotate monthly"], credential).ok().word();
    told.push(pair.ada.run(&["receive", &id, "--env", "DB", "--", "sh", "-c", "sleep 0.2; test -n \"$DB\""]).ok());
    let id = pair.ada.pouch(["send", "--secret", "DB_URL", "--to", "cy", "-q"]).input(credential).end().ok().word();
    let got = run(&["receive", &id, "--stdout"], "").ok();
    assert_eq!(got.text(), credential);
    told.push(pair.ada.run(&["outbox", &id, "--json"]).ok());
    told.push(run(&["log", "show", "--json"], "").ok());
    told.push(pair.ada.run(&["log", "show", "--relay"]).ok());
    // Error texts do not say them either.
    let key = String::from_utf8(key_of(&pair.ada)).unwrap();
    let wrong = outside.path().join("wrong");
    fs::write(&wrong, format!("{phrase}?")).unwrap();
    told.push(cy.run(&["receive", &id, "--stdout", "--passphrase-file", text(&wrong)]).ends(5));
    told.push(
        pair.stranger("late").pouch(["join", "--name", "x", "--no-passphrase"]).input(link.clone()).end().ends(6),
    );
    let cut = &link[..link.len() - 1];
    told.push(pair.stranger("slip").pouch(["join", "--name", "x", "--no-passphrase"]).input(cut).end().ends(2));
    told.push(run(&["receive", &id, "--env", "X", "--", "/no/such/command"], "").ends(125));
    told.push(pair.ada.pouch(["join", "--name", "x"]).input(link.clone()).end().ends(2));
    let found = watcher.found();
    assert!(found.is_empty(), "{found:?}");
    // A key where a recipient belongs is in the arguments by whoever typed it, but it is not repeated.
    told.push(pair.ada.pouch(["encrypt", "-r", &key]).input("x").end().ends(2));
    pair.relay.stop().ok();

    for ran in &told {
        for (name, needle) in &needles {
            let said = holds(ran.err.as_bytes(), needle) || holds(&ran.out, needle);
            assert!(!said, "{name} was printed, exit code {}", ran.code);
        }
    }
    // Everything that everybody keeps, relay and logs and temporary folders too, but for the identities without a
    // passphrase; one of them was made for a link that was spent.
    let late = pair.stranger("late").home();
    let identities = [pair.ada.home(), pair.bo.home(), late].map(|home| home.join("identity"));
    assert_absent(&needles, pair.root(), &identities);
    let keys: &[Needle] = &[("an age key", b"AGE-SECRET-KEY-".to_vec())];
    assert_absent(keys, pair.root(), &identities);
    assert_eq!(
        find_bytes(&pair.ada.home(), keys[0].1.as_slice()),
        [identities[0].clone()],
        "the search finds what is there"
    );
    // Nor names, notes or contents of what was sent at the relay.
    let private = [b"rotate monthly".to_vec(), b"DB_URL".to_vec()].map(|needle| ("what was sent", needle));
    assert_absent(&private, &pair.relay.data(), &[]);
    assert!(pair.relay.log().contains("serving") && !pair.relay.log().contains("rotate monthly"));
    for party in [&pair.ada, &pair.bo, &cy] {
        assert!(party.lying_around().is_empty(), "{:?}", party.lying_around());
    }
}

#[test]
fn attack_34_59_a_key_in_the_wrong_place_is_not_repeated() {
    let pair = Pair::new();
    let mine = String::from_utf8(key_of(&pair.ada)).unwrap();
    let secret = mine.strip_prefix("AGE-SECRET-KEY-").unwrap().to_owned();
    let file = pair.ada.file("f", "f");
    let file = text(&file);
    let upper = mine.as_str();
    let lower = mine.to_lowercase();
    let dashed = format!("-{mine}");
    let long = format!("--{mine}");
    let (under, here) = (format!("{mine}/x"), format!("./{mine}"));
    let (equals, attached) = (format!("--identity={dashed}"), format!("-i./{mine}"));
    let places: &[&[&str]] = &[
        &["encrypt", "--to", upper, file],
        &["encrypt", "--to", &lower, file],
        &["encrypt", "-r", upper, file],
        &["encrypt", "-R", &here, file],
        &["encrypt", "-R", &here, "-R", &here, file],
        &["encrypt", "-i", &here, file],
        &["encrypt", "-i", upper, file],
        &["encrypt", &attached, file],
        &["encrypt", &equals, file],
        &["encrypt", "-p", upper],
        &["encrypt", "--to", "bo", upper],
        &["encrypt", "--to", "bo", &here],
        &["encrypt", "--to", "bo", file, upper],
        &["encrypt", "--to", "bo", file, "-o", &under],
        &["encrypt", "--to", "bo", file, &long],
        &["encrypt", "--to", "bo", file, &dashed],
        &["encrypt", "--to", "bo", file, "--threads", upper],
        &["encrypt", "--to", "bo", file, "--passphrase", "--passphrase-file", &here],
        &["decrypt", upper],
        &["decrypt", "-i", upper, file],
        &["decrypt", "-i", &here, file],
        &["decrypt", &equals, file],
        &["decrypt", file, "-i", file, "-o", &under],
        &["send", file, "--to", upper],
        &["send", file, "--to", &lower],
        &["send", upper, "--to", "bo"],
        &["send", file, "--to", "bo", "--until", upper],
        &["send", file, "--to", "bo", "--out", &under],
        &["receive", upper],
        &["receive", "--next", "--from", upper],
        &["receive", "--next", "--timeout", upper],
        &["receive", &here],
        &["inbox", upper],
        &["outbox", upper],
        &["outbox", "revoke", &lower],
        &["invite", upper],
        &["join", upper],
        &["join", "--name", upper],
        &["contact", "show", upper],
        &["contact", "verify", upper],
        &["contact", "verify", "bo", "--words", upper],
        &["contact", "add", upper],
        &["contact", upper],
        &["help", upper],
        &[upper],
        &[&lower],
        &[&long],
        &[&dashed],
        &["inbox", "--home", &under],
    ];
    let check = |ran: &Ran, place: &[&str]| {
        let said = format!("{}{}", ran.text(), ran.err).to_uppercase();
        // Not even a part of it, as where a flag takes the first letters.
        let parts = secret.as_bytes().windows(8).any(|part| holds(said.as_bytes(), part));
        assert!(!parts, "a part of the key was printed by {}, exit code {}", place[0], ran.code);
        assert!(ran.code > 0, "{} with a key ends with {}", place[0], ran.code);
    };
    for place in places {
        check(&pair.ada.run(place), place);
        let ran = pair.ada.run(&[&["--json"], *place].concat());
        check(&ran, place);
        if ran.err.starts_with('{') {
            assert_eq!(ran.error()["type"], "error");
        }
    }
    check(&pair.ada.pouch(["send", file]).env("POUCH_SEND_TO", &mine).end(), &["POUCH_SEND_TO"]);
    // What is left says what was wrong.
    pair.ada.run(&["encrypt", "--to", upper, file]).fails(2, "'AGE-SECRET-KEY-…' for '--to <NAME>'");
    pair.ada.run(&["decrypt", upper]).says("cannot read AGE-SECRET-KEY-…: ");
    let told = pair.ada.run(&["--json", "decrypt", &here]).error();
    assert!(told["message"].as_str().unwrap().contains("./AGE-SECRET-KEY-…: "), "{told}");
    fs::write(pair.ada.home().join("config.toml"), format!("[send]\nto = {mine:?}\n{mine:?} = 1\n")).unwrap();
    check(&pair.ada.run(&["inbox"]).ends(9), &["config.toml"]);
}

/// Everything beneath `folder` that group or others may touch.
fn open_to_others(folder: &Path) -> Vec<String> {
    let mut open = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mode = fs::metadata(&folder).unwrap().permissions().mode() & 0o7777;
        if mode != 0o700 {
            open.push(format!("{} {mode:o}", folder.display()));
        }
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let data = entry.metadata().unwrap();
            let mode = data.permissions().mode() & 0o7777;
            if data.is_dir() {
                folders.push(entry.path());
            } else if mode != 0o600 {
                open.push(format!("{} {mode:o}", entry.path().display()));
            }
        }
    }
    open
}

#[test]
fn attack_60_modes_under_any_umask() {
    for (umask, folders, files) in [("000", 0o777, 0o666), ("077", 0o700, 0o600)] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let under = format!("umask {umask}; exec");
        let relay = pouch_tests::Relay::start_under(root, &under);
        let (ada, bo) = (Party::new(root, "ada"), Party::new(root, "bo"));
        let run =
            |party: &Party, words: &[&str], input: &str| party.pouch(words).input(input).behind(&under).end().ok();
        run(&ada, &["join", "--name", "ada", "--no-passphrase"], relay.owner_link());
        let link = run(&ada, &["invite", "bo", "-q"], "").word();
        run(&bo, &["join", "--name", "bo", "--no-passphrase"], &link);
        let file = ada.file("f", noise("f", 100_000));
        let id = run(&ada, &["send", text(&file), "--to", "bo", "-q"], "").word();
        let carried = ada.desk().join("f.pouch");
        run(&ada, &["send", text(&file), "--to", "bo", "--out", text(&carried)], "");
        let into = bo.fresh();
        run(&bo, &["receive", &id, "-o", text(&into)], "");
        run(&ada, &["outbox", &id], "");
        for home in [ada.home(), bo.home(), relay.data()] {
            let open = open_to_others(&home);
            assert!(open.is_empty(), "umask {umask}: {open:#?}");
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&carried), 0o600);
        // What was asked for is like what any program makes.
        assert_eq!((mode(&into), mode(&into.join("f"))), (folders, files), "umask {umask}");
    }
}

/// A `.pouch` file of one stream, with its last part damaged.
fn damaged(pair: &Pair, size: usize) -> PathBuf {
    let file = pair.ada.desk().join(format!("{size}.pouch"));
    let send = ["send", "-", "--to", "bo", "--out", text(&file)];
    pair.ada.pouch(send).input(noise("stream", size)).end().ok();
    let mut bytes = fs::read(&file).unwrap();
    // Behind the last part come index and envelope: some ten kilobytes.
    let at = bytes.len() - 100_000;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn attack_64_of_a_bad_bundle_nothing_is_printed_up_to_32_mib() {
    let pair = Pair::new();
    for size in [200_000, (8 << 20) + 200_000, 32 << 20] {
        let file = damaged(&pair, size);
        let ran = pair.bo.run(&["receive", text(&file), "--stdout"]).ends(4);
        assert!(ran.out.is_empty(), "{size}: {} bytes were printed", ran.out.len());
    }
    // Cut short anywhere.
    let file = damaged(&pair, 200_001);
    let bytes = fs::read(&file).unwrap();
    for length in [0, 511, 1024, 100_000, bytes.len() - 1] {
        let cut = pair.bo.file("cut.pouch", &bytes[..length]);
        let ran = pair.bo.run(&["receive", text(&cut), "--stdout"]).ends(4);
        assert!(ran.out.is_empty(), "cut at {length}");
    }
}

#[test]
fn attack_64_of_a_larger_one_a_verified_prefix() {
    let pair = Pair::new();
    let size = 48 << 20;
    let file = damaged(&pair, size);
    let ran = pair.bo.run(&["receive", text(&file), "--stdout"]).ends(4);
    let whole = noise("stream", size);
    assert!(ran.out.len() < size && whole.starts_with(&ran.out), "{} bytes", ran.out.len());
    assert_eq!(ran.out.len(), 40 << 20, "all parts but the last");
    assert!(pair.bo.lying_around().is_empty());
}
