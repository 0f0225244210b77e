//! `encrypt` and `decrypt` beside the real `age`, both ways.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pouch_tests::{Party, Run, have, large, noise, skip, text};
use tempfile::TempDir;

/// Somebody with an age identity from `age-keygen`, and no pouch identity.
struct Desk {
    party: Party,
    key: PathBuf,
    recipient: String,
    folder: TempDir,
}

impl Desk {
    fn new() -> Option<Self> {
        if !have(&["age", "age-keygen"]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let party = Party::new(folder.path(), "ada");
        let key = party.desk().join("key.txt");
        Run::of("age-keygen").args(["-o", text(&key)]).end().ok();
        let recipient = Run::of("age-keygen").args(["-y", text(&key)]).end().ok().word();
        Some(Self { party, key, recipient, folder })
    }

    fn age(&self, words: &[&str]) -> Run {
        Run::of("age").args(words).dir(&self.party.desk())
    }
}

#[test]
fn every_size_both_ways() {
    let Some(desk) = Desk::new() else { return };
    let (recipient, key) = (desk.recipient.as_str(), text(&desk.key));
    for size in [0, 1, 65_535, 65_536, 65_537, 1 << 20] {
        let plain = noise("plain", size);
        for armor in [&[][..], &["-a"]] {
            let words = [&["encrypt", "-r", recipient], armor].concat();
            let sealed = desk.party.pouch(words).input(plain.clone()).end().ok().out;
            assert_eq!(sealed.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"), !armor.is_empty());
            let opened = desk.age(&["-d", "-i", key]).input(sealed.clone()).end().ok().out;
            assert!(opened == plain, "pouch → age, {size} bytes, {armor:?}");
            let opened = desk.party.pouch(["decrypt", "-i", key]).input(sealed).end().ok().out;
            assert!(opened == plain, "pouch → pouch, {size} bytes, {armor:?}");
            let words = [&["-r", recipient], armor].concat();
            let sealed = desk.age(&words).input(plain.clone()).end().ok().out;
            let opened = desk.party.pouch(["decrypt", "-i", key]).input(sealed).end().ok().out;
            assert!(opened == plain, "age → pouch, {size} bytes, {armor:?}");
        }
    }
}

#[test]
fn recipients_and_identities_from_files() {
    let Some(desk) = Desk::new() else { return };
    let other = desk.party.desk().join("other.txt");
    Run::of("age-keygen").args(["-o", text(&other)]).end().ok();
    let others = Run::of("age-keygen").args(["-y", text(&other)]).end().ok().word();
    let list = desk.party.file("team.txt", format!("# the team\n\n{others}\n{}\n", desk.recipient));
    let plain = desk.party.file("plain", "for the team");
    let sealed = desk.party.desk().join("sealed.age");
    desk.party.run(&["encrypt", "-R", text(&list), "-o", text(&sealed), text(&plain)]).ok();
    for key in [&desk.key, &other] {
        assert_eq!(desk.age(&["-d", "-i", text(key), text(&sealed)]).end().ok().out, b"for the team");
        assert_eq!(desk.party.run(&["decrypt", "-i", text(key), text(&sealed)]).ok().out, b"for the team");
    }
    // -i encrypts to the identity's own recipient; -o of decrypt makes a file.
    desk.party.run(&["encrypt", "-i", text(&other), "-o", text(&sealed), text(&plain)]).ok();
    assert_eq!(desk.age(&["-d", "-i", text(&other), text(&sealed)]).end().ok().out, b"for the team");
    let opened = desk.party.desk().join("opened");
    desk.party.run(&["decrypt", "-i", text(&other), "-o", text(&opened), text(&sealed)]).ok();
    assert_eq!(fs::read(&opened).unwrap(), b"for the team");
    // Bad lists name the file and do not echo what is in it (attacks.md 34).
    let secret = fs::read_to_string(&desk.key).unwrap();
    let secret = secret.lines().last().unwrap();
    for bad in [secret, "age1zz", "\u{feff}age1", &others[..others.len() - 1]] {
        let list = desk.party.file("bad.txt", format!("{bad}\n"));
        let ran = desk.party.run(&["encrypt", "-R", text(&list), text(&plain)]).fails(2, "bad.txt");
        assert!(ran.out.is_empty() && !ran.err.contains(bad), "{ran}");
        let ran = desk.party.run(&["encrypt", "-r", bad, text(&plain)]).ends(2);
        assert!(ran.out.is_empty(), "{ran}");
    }
    let ran = desk.party.run(&["encrypt", "-r", secret, text(&plain)]).ends(2);
    assert!(!ran.err.contains(&secret[..30]), "attack 34: a secret key pasted as a recipient is not echoed: {ran}");
    desk.party.run(&["encrypt", text(&plain)]).fails(2, "nobody to encrypt for");
}

#[test]
fn with_a_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let party = Party::new(folder.path(), "ada");
    let good = party.file("good", "correct horse\n");
    let bad = party.file("bad", "correct cow\n");
    let sealed = party.pouch(["encrypt", "-p", "--passphrase-file", text(&good)]).input("plain").end().ok().out;
    let open =
        |phrase: &Path| party.pouch(["decrypt", "-p", "--passphrase-file", text(phrase)]).input(sealed.clone()).end();
    assert_eq!(open(&good).ok().out, b"plain");
    let ran = open(&bad).ends(1);
    assert!(ran.out.is_empty(), "{ran}");
    assert!(String::from_utf8_lossy(&sealed).contains("\n-> scrypt "));
}

#[test]
fn failures_are_1_and_named_in_json() {
    let Some(desk) = Desk::new() else { return };
    let (recipient, key) = (desk.recipient.as_str(), text(&desk.key));
    let other = desk.party.desk().join("other.txt");
    Run::of("age-keygen").args(["-o", text(&other)]).end().ok();
    let sealed = desk.age(&["-r", recipient]).input(noise("plain", 200_000)).end().ok().out;
    let decrypt = |identity: &str, bytes: &[u8]| {
        let out = desk.party.desk().join("out");
        let ran = desk.party.pouch(["decrypt", "-i", identity, "-o", text(&out), "--json"]).input(bytes).end().ends(1);
        assert!(!out.exists(), "{ran}");
        assert_eq!(desk.age(&["-d", "-i", identity]).input(bytes).end().code, 1, "age fails in the same way");
        assert!(ran.out.is_empty(), "{ran}");
        ran.error()["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(decrypt(text(&other), &sealed), "no match");
    assert_eq!(decrypt(key, &sealed[..sealed.len() - 1]), "payload failure");
    assert_eq!(decrypt(key, b"age-encryption.org/v1\n"), "header failure");
    let mut flipped = sealed.clone();
    let at = flipped.windows(4).position(|w| w == b"--- ").unwrap() + 5;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    assert_eq!(decrypt(key, &flipped), "HMAC failure");
    let armored = desk.age(&["-a", "-r", recipient]).input("plain").end().ok().text();
    assert_eq!(decrypt(key, armored.replace("-----END", "-----Ende").as_bytes()), "armor failure");
    // To standard output, what was verified before comes out, as with age; the status is the verdict.
    let ran = desk.party.pouch(["decrypt", "-i", key]).input(&sealed[..sealed.len() - 1]).end().ends(1);
    assert!(noise("plain", 200_000).starts_with(&ran.out) && ran.out.len() < 200_000);
    assert!(!desk.party.run(&["decrypt", "-i", "no such file"]).err.is_empty());
}

#[test]
fn no_binary_on_a_terminal() {
    let Some(desk) = Desk::new() else { return };
    if !have(&["script"]) {
        return;
    }
    let plain = desk.party.file("plain", "plain");
    let on_terminal = |words: &str| {
        let line =
            format!("exec script -qec \"$0 encrypt -r {} {words} {}\" /dev/null #", desk.recipient, text(&plain));
        desk.party.pouch([""; 0]).behind(&line).end()
    };
    on_terminal("").ends(2).says("refusing to write binary to the terminal");
    on_terminal("-a").ok().says("BEGIN AGE ENCRYPTED FILE");
    let out = desk.party.desk().join("out.age");
    on_terminal(&format!("-o {}", text(&out))).ok();
    assert_eq!(desk.age(&["-d", "-i", text(&desk.key), text(&out)]).end().ok().out, b"plain");
}

#[test]
fn a_gibibyte_both_ways() {
    let Some(desk) = Desk::new() else { return };
    if !large() {
        return skip("it moves gigabytes; set POUCH_LARGE");
    }
    let plain = desk.folder.path().join("plain");
    let mut file = File::create(&plain).unwrap();
    for chunk in 0..1024 {
        std::io::Write::write_all(&mut file, &noise(&chunk.to_string(), 1 << 20)).unwrap();
    }
    let digest = |path: &Path| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path).unwrap()).unwrap();
        hasher.finalize()
    };
    let (sealed, opened) = (desk.folder.path().join("sealed"), desk.folder.path().join("opened"));
    let limit = Duration::from_secs(600);
    let (recipient, key) = (desk.recipient.as_str(), text(&desk.key));
    desk.party.pouch(["encrypt", "-r", recipient, "-o", text(&sealed), text(&plain)]).limit(limit).end().ok();
    desk.age(&["-d", "-i", key, "-o", text(&opened), text(&sealed)]).limit(limit).end().ok();
    assert_eq!(digest(&opened), digest(&plain));
    desk.age(&["-r", recipient, "-o", text(&sealed), text(&plain)]).limit(limit).end().ok();
    desk.party.pouch(["decrypt", "-i", key, "-o", text(&opened), text(&sealed)]).limit(limit).end().ok();
    assert_eq!(digest(&opened), digest(&plain));
}
