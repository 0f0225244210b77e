//! attacks.md 16: the C2SP/CCTV age testkit through the program: its verdict, and the plaintext that it releases.
//!
//! The vectors are found in the folder that `POUCH_VECTORS` names. Where it names none, the older and fewer ones that the
//! `age` crate ships in its sources have to do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pouch_core::age::Identity;
use pouch_statement::Sha256Digest;
use pouch_tests::{Party, Ran, Run, skip, text};
use tempfile::TempDir;

/// One vector: `key: value` lines, an empty line, the file.
struct Vector {
    name: String,
    fields: Vec<(String, String)>,
    file: Vec<u8>,
}

impl Vector {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let lines = std::str::from_utf8(&bytes[..end]).unwrap().lines();
        let fields: Vec<_> =
            lines.map(|line| line.split_once(": ").map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap()).collect();
        let mut file = bytes[end + 2..].to_vec();
        if fields.iter().any(|(key, value)| key == "compressed" && value == "zlib") {
            let packed = std::mem::take(&mut file);
            flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut file).unwrap();
        }
        Self { name: path.file_name().unwrap().to_str().unwrap().to_owned(), fields, file }
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.fields.iter().filter(|(k, _)| k == key).map(|(_, value)| value.as_str()).collect()
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.all(key).first().copied()
    }

    /// Whether the program said and released what the vector says.
    fn check(&self, ran: &Ran, how: &str) -> Result<(), String> {
        let verdict = if ran.code == 0 {
            "success".to_owned()
        } else {
            ran.error()["kind"].as_str().unwrap_or("no kind").to_owned()
        };
        let expected = self.one("expect").unwrap();
        if verdict != expected || ran.code != i32::from(expected != "success") {
            return Err(format!("{}, {how}: {verdict} ({}) instead of {expected}", self.name, ran.code));
        }
        // Where the vector names no payload, nothing may be released.
        let released = Sha256Digest::of(&ran.out).to_string();
        if released != self.one("payload").unwrap_or(&Sha256Digest::of(b"").to_string()) {
            return Err(format!("{}, {how}: other plaintext released", self.name));
        }
        Ok(())
    }
}

/// Where the vectors are, and how many there are at least.
fn vectors(unpacked: &TempDir) -> (PathBuf, usize) {
    if let Some(folder) = std::env::var_os("POUCH_VECTORS") {
        let archive = Path::new(&folder).join("cctv-age.tar.gz");
        Run::of("tar").args(["-xzf", text(&archive), "-C", text(unpacked.path())]).end().ok();
        return (unpacked.path().join("cctv-age"), 143);
    }
    skip("POUCH_VECTORS is not set: the age crate's copy of the C2SP/CCTV age vectors is used, which is older");
    let metadata =
        Command::new(env!("CARGO")).args(["metadata", "--offline", "--format-version", "1"]).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let age = packages.iter().find(|package| package["name"] == "age").unwrap();
    (Path::new(age["manifest_path"].as_str().unwrap()).parent().unwrap().join("tests/testdata/testkit"), 123)
}

/// The three ways to decrypt a vector: from a file on several threads, from a pipe on one, and into a file.
fn run(party: &Party, vector: &Vector) -> Result<(), String> {
    let sealed = party.file("vector.age", &vector.file);
    let key = match vector.one("passphrase") {
        Some(passphrase) => ["--passphrase-file".to_owned(), text(&party.file("passphrase", passphrase)).to_owned()],
        None => {
            // Some are broken before it matters who opens them, and name nobody.
            let anybody = Identity::generate().expose_secret_string();
            let keys = if vector.one("identity").is_some() { vector.all("identity") } else { vec![anybody.as_str()] };
            ["-i".to_owned(), text(&party.file("key", keys.join("\n"))).to_owned()]
        }
    };
    let decrypt = |words: &[&str]| {
        let common = ["decrypt", "--json", key[0].as_str(), key[1].as_str()];
        party.pouch([&common[..], words].concat())
    };
    let ran = decrypt(&["--threads", "4", text(&sealed)]).end();
    vector.check(&ran, "from a file")?;
    vector.check(&decrypt(&["--threads", "1"]).input(vector.file.clone()).end(), "from a pipe")?;
    let out = party.desk().join("out");
    let into = decrypt(&["-o", text(&out), text(&sealed)]).end();
    // All of it, or none.
    let whole = fs::read(&out).ok();
    let _ = fs::remove_file(&out);
    if into.code != ran.code || whole != (ran.code == 0).then_some(ran.out) || !into.out.is_empty() {
        return Err(format!("{}, into a file: {into}", vector.name));
    }
    Ok(())
}

#[test]
fn attack_16_the_testkit_through_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let party = Party::new(folder.path(), "ada");
    let (folder, count) = vectors(&folder);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= count, "{} vectors", paths.len());
    let failures: Vec<_> = paths.iter().filter_map(|path| run(&party, &Vector::read(path)).err()).collect();
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), paths.len());
}
