//! SSH keys beside the real `age` and `ssh-keygen`, both ways.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use pouch_core::age::{IdentityFile, Passphrase, Recipient, decrypt, seal_to_vec};
use pouch_tests::{Party, Run, have, noise, text};
use zeroize::Zeroizing;

/// A key pair of `ssh-keygen`: the private file; the public one has `.pub` behind its name.
fn ssh_key(folder: &Path, name: &str, words: &[&str]) -> PathBuf {
    let path = folder.join(name);
    Run::of("ssh-keygen").args(["-q", "-C", "bo@laptop", "-f", text(&path)]).args(words).end().ok();
    path
}

fn public(key: &Path) -> PathBuf {
    PathBuf::from(format!("{}.pub", text(key)))
}

#[test]
fn files_for_ssh_keys_both_ways() {
    if !have(&["age", "ssh-keygen"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let party = Party::new(folder.path(), "ada");
    let age = |words: &[&str]| Run::of("age").args(words).dir(&party.desk());
    for round in 0..4 {
        let key = ssh_key(&party.desk(), &format!("id_{round}"), &["-t", "ed25519", "-N", ""]);
        let line = fs::read_to_string(public(&key)).unwrap();
        let (key, list, line) = (text(&key), public(Path::new(&key)), line.trim());
        for size in [0, 1, 65_536, 65_537] {
            let plain = noise("plain", size);
            let by_pouch = party.pouch(["encrypt", "-r", line]).input(plain.clone()).end().ok().out;
            let from_file = party.pouch(["encrypt", "-a", "-R", text(&list)]).input(plain.clone()).end().ok().out;
            let by_age = age(&["-r", line]).input(plain.clone()).end().ok().out;
            for sealed in [by_pouch, from_file, by_age] {
                assert!(age(&["-d", "-i", key]).input(sealed.clone()).end().ok().out == plain);
                assert!(party.pouch(["decrypt", "-i", key]).input(sealed).end().ok().out == plain);
            }
        }
    }
}

#[test]
fn an_ssh_key_beside_an_age_key() {
    if !have(&["age", "age-keygen", "ssh-keygen"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let party = Party::new(folder.path(), "ada");
    let ssh = ssh_key(&party.desk(), "id_ed25519", &["-t", "ed25519", "-N", ""]);
    let key = party.desk().join("key.txt");
    Run::of("age-keygen").args(["-o", text(&key)]).end().ok();
    let recipient = Run::of("age-keygen").args(["-y", text(&key)]).end().ok().word();
    let list = party.file("team.txt", format!("{recipient}\n{}", fs::read_to_string(public(&ssh)).unwrap()));
    let sealed = party.pouch(["encrypt", "-R", text(&list)]).input("for the team").end().ok().out;
    for key in [&ssh, &key] {
        let opened = Run::of("age").args(["-d", "-i", text(key)]).input(sealed.clone()).end().ok().out;
        assert_eq!(opened, b"for the team");
        assert_eq!(party.pouch(["decrypt", "-i", text(key)]).input(sealed.clone()).end().ok().out, b"for the team");
    }
}

#[test]
fn locked_keys_of_every_cipher_open_with_their_passphrase() {
    if !have(&["age", "ssh-keygen"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let phrase = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned()));
    for cipher in ["aes256-ctr", "aes256-cbc", "aes128-ctr", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"]
    {
        let name = cipher.split('@').next().unwrap();
        let words = ["-t", "ed25519", "-N", "correct horse", "-a", "2", "-Z", cipher];
        let key = ssh_key(folder.path(), name, &words);
        let IdentityFile::Locked(locked) = IdentityFile::parse(&fs::read(&key).unwrap()).unwrap() else {
            panic!("{cipher}: it has a passphrase")
        };
        assert!(locked.unlock(&phrase("wrong")).is_err(), "{cipher}");
        let identities = locked.unlock(&phrase("correct horse")).unwrap();
        let recipient: Recipient = fs::read_to_string(public(&key)).unwrap().trim().parse().unwrap();
        assert_eq!(identities[0].recipient(), recipient, "{cipher}");
        let by_age = Run::of("age").args(["-R", text(&public(&key))]).input("for bo").end().ok().out;
        for sealed in [by_age, seal_to_vec(&recipient, b"for bo").unwrap()] {
            let mut plain = Vec::new();
            decrypt(identities.as_slice(), sealed.as_slice()).unwrap().read_to_end(&mut plain).unwrap();
            assert_eq!(plain, b"for bo", "{cipher}");
        }
    }
}

// Of ssh-keygen's types only ed25519 is taken; the others are named.
#[test]
fn other_types_are_refused_by_name() {
    if !have(&["ssh-keygen"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let party = Party::new(folder.path(), "ada");
    for (kind, name) in [("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256")] {
        for (form, words) in
            [("new", &["-N", ""][..]), ("locked", &["-N", "correct horse"]), ("old", &["-N", "", "-m", "PEM"])]
        {
            let key = ssh_key(&party.desk(), &format!("{kind}-{form}"), &[&["-t", kind], words].concat());
            let error = IdentityFile::parse(&fs::read(&key).unwrap()).err().unwrap().to_string();
            assert!(error.contains(name), "{kind} {form}: {error}");
            let ran = party.pouch(["encrypt", "-R", text(&public(&key))]).input("x").end();
            assert!(ran.code != 0 && ran.out.is_empty() && ran.err.contains(name), "{ran}");
        }
    }
}
