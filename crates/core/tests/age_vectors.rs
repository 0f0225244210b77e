//! The C2SP/CCTV age testkit (attacks.md 16): verdict and released plaintext of every vector.
//!
//! The vectors are found in the folder that `POUCH_VECTORS` names. Where it names none, the older and fewer ones
//! that the `age` crate ships in its sources have to do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;

use pouch_core::age::{
    DecryptReader, Encoding, Error, Identity, Opener, Passphrase, decrypt, decrypt_encoded, decrypt_stream,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// One vector: `key: value` lines, an empty line, the file.
struct Vector {
    name: String,
    fields: BTreeMap<String, Vec<String>>,
    file: Vec<u8>,
}

impl Vector {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let mut fields = BTreeMap::<String, Vec<String>>::new();
        for line in std::str::from_utf8(&bytes[..end]).unwrap().lines() {
            let (key, value) = line.split_once(": ").unwrap();
            fields.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        let mut file = bytes[end + 2..].to_vec();
        match fields.get("compressed").map(|values| values[0].as_str()) {
            None => {}
            Some("zlib") => {
                let mut inflated = Vec::new();
                flate2::read::ZlibDecoder::new(file.as_slice()).read_to_end(&mut inflated).unwrap();
                file = inflated;
            }
            Some(other) => panic!("unknown compression {other}"),
        }
        Self { name: path.file_name().unwrap().to_str().unwrap().to_owned(), fields, file }
    }

    fn all(&self, key: &str) -> &[String] {
        self.fields.get(key).map_or(&[], Vec::as_slice)
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.all(key).first().map(String::as_str)
    }

    fn encoding(&self) -> Encoding {
        if self.one("armored") == Some("yes") { Encoding::Armor } else { Encoding::Binary }
    }

    /// The verdict's words, and the SHA-256 of what was released.
    fn run(
        &self,
        identities: &[Identity],
        open: impl Fn(Opener<'_>, &mut Vec<u8>) -> Result<(), Error>,
    ) -> (String, String) {
        let passphrase = self.one("passphrase").map(|text| Passphrase::new(Zeroizing::new(text.to_owned())));
        let opener = match &passphrase {
            Some(passphrase) => Opener::Passphrase(passphrase),
            None => Opener::Identities(identities),
        };
        let mut released = Vec::new();
        let verdict =
            open(opener, &mut released).map_or_else(|error| error.kind().to_string(), |()| "success".to_owned());
        (verdict, Sha256::digest(&released).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn check(&self, (verdict, released): (String, String)) -> Result<(), String> {
        let expected = self.one("expect").unwrap();
        if verdict != expected {
            return Err(format!("{}: {verdict} instead of {expected}", self.name));
        }
        // Where the vector names no payload, nothing may be released.
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        if released != self.one("payload").unwrap_or(nothing) {
            return Err(format!("{}: other plaintext released", self.name));
        }
        Ok(())
    }
}

/// The sources of the `age` crate that we are built with.
fn age_crate() -> PathBuf {
    let metadata =
        Command::new(env!("CARGO")).args(["metadata", "--offline", "--format-version", "1"]).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let age = packages.iter().find(|package| package["name"] == "age").unwrap();
    Path::new(age["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

// attacks.md 16
#[test]
fn cctv_testkit() {
    let unpacked = tempfile::tempdir().unwrap();
    let (folder, least) = match std::env::var_os("POUCH_VECTORS") {
        Some(folder) => {
            let archive = Path::new(&folder).join("cctv-age.tar.gz");
            let status = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path()).status().unwrap();
            assert!(status.success());
            (unpacked.path().join("cctv-age"), 143)
        }
        None => {
            eprintln!(
                "POUCH_VECTORS is not set: the age crate's copy of the C2SP/CCTV age vectors is used, which is older"
            );
            (age_crate().join("tests/testdata/testkit"), 123)
        }
    };
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();

    let (mut passed, mut failures) = (0, Vec::new());
    for path in &paths {
        let vector = Vector::read(path);
        let identities: Vec<Identity> = vector.all("identity").iter().map(|key| key.parse().unwrap()).collect();
        let read = |reader: Result<DecryptReader<&[u8]>, Error>, out: &mut Vec<u8>| {
            reader?.read_to_end(out).map(|_| ()).map_err(Error::from)
        };
        let file = vector.file.as_slice();
        let explicit =
            vector.run(&identities, |opener, out| read(decrypt_encoded(opener, file, vector.encoding()), out));
        let mut result = vector.check(explicit);
        result = result.and(vector.check(vector.run(&identities, |opener, out| read(decrypt(opener, file), out))));
        for threads in [1, 2, 5].map(|count| NonZero::new(count).unwrap()) {
            let parallel =
                vector.run(&identities, |opener, out| decrypt_stream(opener, file, out, threads).map(|_| ()));
            result = result.and(vector.check(parallel));
        }
        match result {
            Ok(()) => passed += 1,
            Err(failure) => failures.push(failure),
        }
    }
    eprintln!("{passed} of {} vectors passed", paths.len());
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(passed >= least, "{passed} passed");
}
