//! Hybrid keys beside the real `age` 1.3 or newer, both ways. `POUCH_GO_AGE` names the folder with `age` and
//! `age-keygen`; Debian 12 has an older one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use pouch_tests::{Pair, Party, Run, go_age, noise, text};
use tempfile::TempDir;

/// Somebody with hybrid identities from `age-keygen -pq`, and no pouch identity.
struct Desk {
    party: Party,
    tools: PathBuf,
    _folder: TempDir,
}

impl Desk {
    fn new() -> Option<Self> {
        let tools = go_age()?;
        let folder = tempfile::tempdir().unwrap();
        Some(Self { party: Party::new(folder.path(), "ada"), tools, _folder: folder })
    }

    /// A new key file and its recipient.
    fn key(&self, name: &str) -> (PathBuf, String) {
        let path = self.party.desk().join(name);
        Run::of(self.tools.join("age-keygen")).args(["-pq", "-o", text(&path)]).end().ok();
        let recipient = Run::of(self.tools.join("age-keygen")).args(["-y", text(&path)]).end().ok().word();
        assert!(recipient.starts_with("age1pq1"));
        (path, recipient)
    }

    fn age(&self, words: &[&str]) -> Run {
        Run::of(self.tools.join("age")).args(words).dir(&self.party.desk())
    }
}

#[test]
fn hybrid_files_both_ways() {
    let Some(desk) = Desk::new() else { return };
    let (key, recipient) = desk.key("key.txt");
    let key = text(&key);
    for size in [0, 1, 65_536, 65_537] {
        let plain = noise("plain", size);
        for armor in [&[][..], &["-a"]] {
            let sealed = desk.party.pouch([&["encrypt", "-r", &recipient], armor].concat());
            let sealed = sealed.input(plain.clone()).end().ok().out;
            let opened = desk.age(&["-d", "-i", key]).input(sealed.clone()).end().ok().out;
            assert!(opened == plain, "pouch → age, {size} bytes, {armor:?}");
            let opened = desk.party.pouch(["decrypt", "-i", key]).input(sealed).end().ok().out;
            assert!(opened == plain, "pouch → pouch, {size} bytes, {armor:?}");
            let sealed = desk.age(&[&["-r", &recipient], armor].concat()).input(plain.clone()).end().ok().out;
            let opened = desk.party.pouch(["decrypt", "-i", key]).input(sealed).end().ok().out;
            assert!(opened == plain, "age → pouch, {size} bytes, {armor:?}");
        }
    }
}

#[test]
fn several_hybrid_recipients_and_no_classic_beside_them() {
    let Some(desk) = Desk::new() else { return };
    let ((ada, to_ada), (bo, to_bo)) = (desk.key("ada.txt"), desk.key("bo.txt"));
    let list = desk.party.file("team.txt", format!("# the team\n{to_ada}\n{to_bo}\n"));
    let by_pouch = desk.party.pouch(["encrypt", "-R", text(&list)]).input("for both").end().ok().out;
    let by_age = desk.age(&["-R", text(&list)]).input("for both").end().ok().out;
    for sealed in [by_pouch, by_age] {
        for key in [&ada, &bo] {
            let by_age = desk.age(&["-d", "-i", text(key)]).input(sealed.clone()).end().ok().out;
            let by_pouch = desk.party.pouch(["decrypt", "-i", text(key)]).input(sealed.clone()).end().ok().out;
            assert_eq!((by_age.as_slice(), by_pouch.as_slice()), (&b"for both"[..], &b"for both"[..]));
        }
    }
    let classic = desk.party.desk().join("classic.txt");
    Run::of(desk.tools.join("age-keygen")).args(["-o", text(&classic)]).end().ok();
    let classic = Run::of(desk.tools.join("age-keygen")).args(["-y", text(&classic)]).end().ok().word();
    let mixed = ["-r", to_ada.as_str(), "-r", classic.as_str()];
    let ran = desk.party.pouch([&["encrypt"], &mixed[..]].concat()).input("x").end();
    assert!(ran.code != 0 && ran.out.is_empty() && ran.err.contains("cannot be mixed"), "{ran}");
    assert_ne!(desk.age(&mixed).input("x").end().code, 0, "age says the same");
}

// What we make for an identity of ours, the other side opens with the string of that identity, and the reverse.
#[test]
fn the_keys_and_the_envelope_of_a_party() {
    let Some(desk) = Desk::new() else { return };
    let pair = Pair::new();
    let path = pair.ada.file("report", "all is well");
    let file = pair.ada.desk().join("report.pouch");
    pair.ada.send(&[text(&path), "--to", "bo", "--out", text(&file)]);
    let identity = pair.bo.home().join("identity");
    Run::of("tar").args(["-xf", text(&file), "envelope"]).dir(&desk.party.desk()).end().ok();
    let envelope = fs::read(desk.party.desk().join("envelope")).unwrap();
    assert!(envelope.starts_with(b"age-encryption.org/v1\n-> mlkem768x25519 "));
    let opened = desk.age(&["-d", "-i", text(&identity)]).input(envelope).end().ok().out;
    assert!(opened.windows(15).any(|window| window == b"AGE-SECRET-KEY-"), "the bundle key is in it");

    let card = pair.bo.run(&["card", "--json"]).ok().object("card");
    let statement: serde_json::Value = serde_json::from_str(card["card"]["statement"].as_str().unwrap()).unwrap();
    let recipient = statement["age_recipient"].as_str().unwrap();
    let keygen = Run::of(desk.tools.join("age-keygen")).args(["-y", text(&identity)]).end().ok().word();
    assert_eq!(keygen, recipient);
    let sealed = desk.age(&["-r", recipient]).input("for bo").end().ok().out;
    assert_eq!(pair.bo.pouch(["decrypt"]).input(sealed).end().ok().out, b"for bo");
}
