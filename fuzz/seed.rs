//! Writes the first corpus of every target: the project's own vectors, and the C2SP/CCTV age vectors where
//! `POUCH_VECTORS` names the folder that has them. Run by `just fuzz`.

use std::error::Error;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use pouch_core::age::{Identity, decrypt};
use pouch_core::bundle::{Expected, PouchFile, open_envelope};
use pouch_statement::Timestamp;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = Corpus(fuzz.join("corpus"));
    let vectors = fuzz.join("../tests/vectors");

    let statements: Value = serde_json::from_slice(&fs::read(vectors.join("statements.json"))?)?;
    for (name, value) in statements.as_object().into_iter().flatten() {
        if let (Some(statement), Some(signature)) = (value["statement"].as_str(), value["signature"].as_str()) {
            corpus.put("statement", name, statement)?;
            corpus.put("sshsig", name, signature)?;
            if name.contains("card") {
                corpus.put("card", name, format!("{statement}{signature}"))?;
            }
        }
    }
    corpus.put("age_keys", "recipient", statements["age_recipient"].as_str().unwrap_or_default())?;
    corpus.put("age_keys", "identities", include_str!("identities.txt"))?;

    let protocol: Value = serde_json::from_slice(&fs::read(vectors.join("protocol.json"))?)?;
    corpus.put("link", "link", protocol["link"].as_str().unwrap_or_default())?;
    for (number, request) in protocol["requests"].as_array().into_iter().flatten().enumerate() {
        let field = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
        corpus.put("request", &number.to_string(), field("signature_input") + "\n" + &field("signature"))?;
        corpus.put("request", &format!("{number}-field"), field("covering_field"))?;
    }

    // Requests to a relay: a byte for the signature, the line, the fields, the body.
    let begin = r#"{"bundle":"BUNDLE","expires":1900000000,"burn":true,"recipients":["MAILBOX"]}"#;
    let receipt = format!(r#"{{"outcome":"verified","commitment":"{}","sealed":"YWdl"}}"#, "0".repeat(64));
    let commit =
        format!(r#"{{"parts":1,"parts_sha256":"{0}","index_sha256":"{0}","recipients":["MAILBOX"]}}"#, "0".repeat(64));
    let detached = r#"{"statement":"","signature":""}"#;
    let pipeline =
        format!(r#"{{"card":{detached},"device":{detached},"recipients":["MAILBOX"],"expires":1900000000}}"#);
    let sealed = "age-encryption.org/v1\nsealed";
    for (number, request) in [
        "GET /v1",
        "GET /v1/openapi.json",
        "GET /j",
        "POST /v1/join\n\n{}",
        "POST /v1/links\n\n{}",
        "GET /v1/links",
        "DELETE /v1/links/BUNDLE",
        "GET /v1/account",
        "GET /v1/accounts?after=1",
        "GET /v1/access?after=9",
        "POST /v1/accounts/MAILBOX/suspend",
        "POST /v1/accounts/MAILBOX/restore",
        "POST /v1/accounts/MAILBOX/role\n\n{\"role\":\"contractor\"}",
        &format!("POST /v1/devices\n\n{{\"mailbox\":\"MAILBOX\",\"device\":{detached}}}"),
        "GET /v1/devices",
        "DELETE /v1/devices/0000000000000000000000000000000000000000000000000000000000000003",
        &format!("POST /v1/rotations\n\n{{\"rotation\":{detached},\"device\":{detached}}}"),
        "GET /v1/rotations/MAILBOX",
        "GET /v1/pipelines",
        "DELETE /v1/pipelines/MAILBOX",
        "GET /v1/journal",
        "PUT /v1/journal\nif-none-match: *\n\nage-encryption.org/v1\nsealed",
        "PUT /v1/journal\nif-match: \"x\"\n\nage-encryption.org/v1\nsealed",
        &format!("POST /v1/pipelines\n\n{pipeline}"),
        "POST /v1/bundles/BUNDLE/extend\n\n{\"expires\":1900000000}",
        "GET /v1/outbox",
        "GET /v1/inbox?after=0",
        "GET /v1/bundles/BUNDLE",
        "DELETE /v1/bundles/BUNDLE",
        "GET /v1/inbox/BUNDLE",
        "POST /v1/inbox/BUNDLE/release",
        "GET /v1/bundles/BUNDLE/index\nrange: bytes=0-9",
        "GET /v1/bundles/BUNDLE/parts/0\nif-match: \"x\"",
        "POST /v1/bundles/BUNDLE/takedown\n\n{\"reason\":\"x\"}",
        &format!("POST /v1/bundles\ncontent-type: application/json\n\n{begin}"),
        &format!("POST /v1/bundles/BUNDLE/commit\n\n{commit}"),
        &format!("POST /v1/inbox/BUNDLE/receipt\n\n{receipt}"),
        &format!("PUT /v1/bundles/BUNDLE/index\n\n{sealed}"),
        &format!("PUT /v1/bundles/BUNDLE/envelopes/MAILBOX\n\n{sealed}"),
        &format!("PUT /v1/bundles/BUNDLE/parts/0\npouch-part: number=0, length=28, blake3=:AAAA:\n\n{sealed}"),
    ]
    .into_iter()
    .enumerate()
    {
        corpus.put("relay", &number.to_string(), format!("\x01{request}"))?;
        if let Some((_, body)) = request.split_once("\n\n") {
            corpus.put("message", &number.to_string(), body)?;
        }
    }

    // Frames: blocks as they are, and one byte many times (RFC 8878, §3.1.1.2), with and without a checksum's flag.
    for (name, frame) in [
        ("raw", &b"\x05\x00\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello"[..]),
        ("rle", b"\x00\x01\x28\xb5\x2f\xfd\x60\x00\x00\x03\x08\x00x"),
        ("sum", b"\x05\x00\x28\xb5\x2f\xfd\x24\x05\x29\x00\x00hello\x00\x00\x00\x00"),
    ] {
        corpus.put("frame", name, frame)?;
    }

    // The second one is compressed: its index has lines of frames.
    for name in ["v1", "zstd"] {
        let bundle: Value = serde_json::from_slice(&fs::read(vectors.join(format!("bundle/{name}.json")))?)?;
        corpus.put("manifest", name, bundle["manifest"].as_str().unwrap_or_default())?;
        let carried = fs::read(vectors.join(format!("bundle/{name}.pouch")))?;
        let bo: Identity = bundle["recipient_identity"].as_str().unwrap_or_default().parse()?;
        let mut file = PouchFile::open(Cursor::new(&carried))?;
        let envelope = file.envelope()?;
        let mut plain = Vec::new();
        decrypt(&bo, envelope.as_slice())?.read_to_end(&mut plain)?;
        corpus.put("envelope", name, plain)?;
        let me = bundle["recipient"].as_str().unwrap_or_default().parse()?;
        let sender = bundle["sender"].as_str().unwrap_or_default().parse()?;
        let sender_key = bundle["sender_key"].as_str().unwrap_or_default().parse()?;
        let now = bundle["opened_at"].as_u64().unwrap_or_default();
        let expected = Expected {
            me: &me,
            sender: &sender,
            sender_key: &sender_key,
            bundle: None,
            now: Timestamp::from_unix(now)?,
        };
        let opening = open_envelope(&envelope, &bo)?.verify(&expected)?.open_index(&file.index()?)?;
        corpus.put("index", name, opening.index().encode()?)?;
        corpus.put("pouch_file", name, carried)?;
    }

    match std::env::var_os("POUCH_VECTORS") {
        Some(folder) => cctv(&corpus, Path::new(&folder))?,
        None => println!("POUCH_VECTORS is not set: no age files in the corpus"),
    }
    Ok(())
}

/// Each vector is `key: value` lines, an empty line, and the file.
fn cctv(corpus: &Corpus, folder: &Path) -> Result<(), Box<dyn Error>> {
    let unpacked = std::env::temp_dir().join(format!("pouch-fuzz-seed-{}", std::process::id()));
    fs::create_dir(&unpacked)?;
    let archive = folder.join("cctv-age.tar.gz");
    let status = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&unpacked).status()?;
    assert!(status.success(), "{} does not unpack", archive.display());
    for entry in fs::read_dir(unpacked.join("cctv-age"))? {
        let bytes = fs::read(entry?.path())?;
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\n\n") else { continue };
        let (head, mut file) = (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes[end + 2..].to_vec());
        if head.contains("compressed: zlib") {
            let mut inflated = Vec::new();
            flate2::read::ZlibDecoder::new(file.as_slice()).read_to_end(&mut inflated)?;
            file = inflated;
        }
        // A large vector teaches the fuzzer nothing and slows it down.
        if file.len() > 200_000 {
            continue;
        }
        let target = if head.contains("armored: yes") { "age_armor" } else { "age_file" };
        corpus.put(target, &name_of(&file), file)?;
    }
    Ok(fs::remove_dir_all(unpacked)?)
}

/// A name for a vector that does not depend on the order of the folder.
fn name_of(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("cctv-{:016x}", hasher.finish())
}

struct Corpus(PathBuf);

impl Corpus {
    fn put(&self, target: &str, name: &str, bytes: impl AsRef<[u8]>) -> Result<(), Box<dyn Error>> {
        let folder = self.0.join(target);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(name), bytes)?)
    }
}
