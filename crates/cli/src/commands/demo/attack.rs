//! Attacks on the exchange that just worked. Each must be refused, with the message that a user would see.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pouch_client::transport::{Answer, HttpRequest, Https, Network, Transport};
use pouch_client::{Home, Party};
use pouch_protocol::NewBundle;
use pouch_statement::{BundleId, Card, SignedCard, SigningKey};

use super::stage::{Ran, Stage, check, fail, found, say};
use crate::run::{Failure, Outcome};

/// All of them.
pub(super) fn all(stage: &Stage, canary: &str) -> Outcome {
    search_relay(stage, canary)?;
    flip_byte(stage)?;
    swap_parts(stage)?;
    substitute_card(stage)?;
    replay_request(stage)?;
    edit_journal(stage)
}

fn io(error: std::io::Error) -> Failure {
    Failure::other(error)
}

fn search_relay(stage: &Stage, canary: &str) -> Outcome {
    say("the operator of the relay searches its disk for what was sent:");
    let disk = stage.home("relay");
    check(!found(&disk, canary.as_bytes(), &[])?, "the canary that ada sent is nowhere on the relay's disk")?;
    check(!found(&disk, b"canary-", &[])?, "nor is the name of its file")
}

/// Files beneath the relay's folder that hold sealed objects.
fn blobs(stage: &Stage) -> Result<BTreeSet<PathBuf>, Failure> {
    fn walk(folder: &Path, into: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), into)?;
            } else {
                into.insert(entry.path());
            }
        }
        Ok(())
    }
    let mut all = BTreeSet::new();
    walk(&stage.home("relay").join("relay"), &mut all).map_err(io)?;
    let sealed = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"age-encryption.org/v1"));
    Ok(all.into_iter().filter(sealed).collect())
}

/// Sends a file of 100 kB as ada; gives the bundle and the sealed part that is now on the relay's disk.
fn send_one(stage: &Stage, name: &str) -> Result<(String, PathBuf), Failure> {
    let file = stage.root().join(name);
    fs::write(&file, name.repeat(100_000 / name.len())).map_err(io)?;
    let before = blobs(stage)?;
    let id = stage.send(&["send", &file.display().to_string(), "--to", "bo"], None)?;
    let new = blobs(stage)?;
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
    let part = new.difference(&before).max_by_key(|path| size(path)).cloned();
    Ok((id, part.ok_or_else(|| fail("the part is not on the relay's disk"))?))
}

fn refused(ran: &Ran, into: &Path, what: &str) -> Outcome {
    check(ran.code == Some(4) && !into.exists(), &format!("{what}: refused with code 4, nothing at the destination"))
}

fn flip_byte(stage: &Stage) -> Outcome {
    say("\nthe relay flips one stored byte:");
    let (id, part) = send_one(stage, "flipped")?;
    let mut bytes = fs::read(&part).map_err(io)?;
    if let Some(byte) = bytes.get_mut(50_000) {
        *byte ^= 1;
    }
    fs::write(&part, bytes).map_err(io)?;
    let into = stage.root().join("from-flipped");
    let ran = stage.bo(&["receive", &id, "-o", &into.display().to_string()])?;
    refused(&ran, &into, "a flipped byte")?;
    let outbox = stage.ada(&["outbox", &id])?;
    check(outbox.said("FAILED"), "ada learns of it by bo's signed receipt")
}

fn swap_parts(stage: &Stage) -> Outcome {
    say("\nthe relay swaps the parts of two bundles:");
    let (first, one) = send_one(stage, "first")?;
    let (_, other) = send_one(stage, "other")?;
    let aside = one.with_extension("aside");
    fs::rename(&one, &aside).map_err(io)?;
    fs::rename(&other, &one).map_err(io)?;
    fs::rename(&aside, &other).map_err(io)?;
    let into = stage.root().join("from-swapped");
    let ran = stage.bo(&["receive", &first, "-o", &into.display().to_string()])?;
    refused(&ran, &into, "a part of another bundle")
}

fn substitute_card(stage: &Stage) -> Outcome {
    say("\nsomebody offers ada another card under bo's name:");
    let bo = Party::open(&Home::open(Some(&stage.home("bo")))?)?;
    let stranger = SigningKey::generate().map_err(Failure::other)?;
    let forged = Card { signing_key: stranger.public(), serial: 2, ..bo.card().card().clone() };
    let forged = SignedCard::sign(forged, &stranger).map_err(Failure::other)?;
    let file = stage.root().join("bo.card");
    fs::write(&file, forged.detached().to_text()).map_err(io)?;
    let ran = stage.ada(&["contact", "add", &file.display().to_string()])?;
    check(ran.code == Some(4), "a substituted card: a hard stop, the pinned one stays")
}

/// Passes requests on and remembers the last.
struct Recorder {
    inner: Https,
    last: Mutex<Option<HttpRequest>>,
}

impl Transport for Recorder {
    fn call(&self, request: HttpRequest) -> Answer<'_> {
        if let Ok(mut last) = self.last.lock() {
            *last = Some(request.clone());
        }
        self.inner.call(request)
    }
}

fn replay_request(stage: &Stage) -> Outcome {
    say("\nsomebody sends one of ada's signed requests a second time:");
    let party = Party::open(&Home::open(Some(&stage.home("ada")))?)?;
    let https = Https::new(party.relay().clone(), party.relay_pins(), &Network::default())?;
    let recorder = Arc::new(Recorder { inner: https, last: Mutex::new(None) });
    let party = party.with_transport(recorder.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    let answer = runtime.block_on(async {
        let api = party.api()?;
        let bundle = BundleId::random().map_err(Failure::other)?;
        let expires = pouch_client::clock::now().plus(3600);
        api.new_bundle(&NewBundle { bundle, expires, burn: false, recipients: vec![] }).await?;
        let again = recorder.last.lock().ok().and_then(|mut last| last.take()).ok_or_else(|| fail("no request"))?;
        let answer = recorder.inner.call(again).await?;
        api.delete_bundle(bundle).await?;
        Ok::<_, Failure>(answer)
    })?;
    say(format_args!("    {} {}", answer.status, String::from_utf8_lossy(&answer.body)));
    let replay = answer.status == 401 && answer.body.windows(6).any(|w| w == b"replay");
    check(replay, "a replayed request: refused by the relay")
}

fn edit_journal(stage: &Stage) -> Outcome {
    say("\nsomebody edits a record of ada's journal:");
    let path = stage.home("ada").join("journal/records");
    let good = fs::read_to_string(&path).map_err(io)?;
    let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
    if let Some(line) = lines.get_mut(1)
        && let Some(at) = line.find("\"commitment\":\"").map(|at| at + 14)
    {
        let other = if line.get(at..=at) == Some("0") { "1" } else { "0" };
        line.replace_range(at..=at, other);
    }
    fs::write(&path, lines.join("\n") + "\n").map_err(io)?;
    let ran = stage.ada(&["log", "verify"])?;
    check(ran.code == Some(4), "an edited journal: noticed, and where")?;
    fs::write(&path, good).map_err(io)
}
