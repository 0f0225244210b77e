//! Proofs and logs of other projects, from the folder named by `POUCH_VECTORS`; skipped where it is unset.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use pouch_log::{
    ConsistencyProof, Frontier, Hash, Head, InclusionProof, leaf_hash, prove_consistency, prove_inclusion,
};
use serde_json::Value;

/// A folder of vectors, or `None` where there are none.
fn folder(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("POUCH_VECTORS") else {
        eprintln!("skipped: POUCH_VECTORS is not set, so there is no {name}");
        return None;
    };
    Some(Path::new(&root).join(name))
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(json_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    found
}

/// A hash of a vector, or `None` where it is not 32 bytes long and so cannot even be a [`Hash`].
fn hash(value: &Value) -> Option<Hash> {
    let bytes = BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
    <[u8; Hash::LEN]>::try_from(bytes).ok().map(Hash::from)
}

fn hashes(value: &Value) -> Option<Vec<Hash>> {
    value.as_array().into_iter().flatten().map(hash).collect()
}

fn head(size: &Value, root: &Value) -> Option<Head> {
    Some(Head { size: size.as_u64().unwrap(), root: hash(root)? })
}

/// Counts of vectors, by what became of them.
#[derive(Debug, Default, PartialEq)]
struct Ran {
    accepted: usize,
    refused: usize,
    /// Refused already because something in it is not a hash.
    unreadable: usize,
}

/// Runs all vectors of a folder. `verify` says `None` where one cannot be read, which is a refusal too.
fn run(folder: &Path, verify: impl Fn(&Value) -> Option<bool>) -> Ran {
    let mut ran = Ran::default();
    for path in json_files(folder) {
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let verdict = verify(&vector);
        match verdict {
            Some(true) => ran.accepted += 1,
            Some(false) => ran.refused += 1,
            None => ran.unreadable += 1,
        }
        // The one vector that is to be accepted although its two equal roots are 16 bytes of text.
        if path.ends_with("additional/sizes-are-equal-one-and-proof-is-empty.json") {
            assert_eq!(verdict, None);
            continue;
        }
        let want = !vector["wantErr"].as_bool().unwrap();
        assert_eq!(verdict.unwrap_or(false), want, "{}", path.display());
    }
    ran
}

#[test]
fn inclusion_proofs_of_transparency_dev() {
    let Some(folder) = folder("rfc6962-proofs/inclusion") else {
        return;
    };
    let ran = run(&folder, |vector| {
        let head = head(&vector["treeSize"], &vector["root"])?;
        let (leaf, index) = (hash(&vector["leafHash"])?, vector["leafIdx"].as_u64().unwrap());
        let proof = InclusionProof::new(hashes(&vector["proof"])?);
        Some(proof.verify(index, &leaf, &head).is_ok())
    });
    assert_eq!(ran, Ran { accepted: 6, refused: 66, unreadable: 26 });
}

#[test]
fn consistency_proofs_of_transparency_dev() {
    let Some(folder) = folder("rfc6962-proofs/consistency") else {
        return;
    };
    let ran = run(&folder, |vector| {
        let old = head(&vector["size1"], &vector["root1"])?;
        let new = head(&vector["size2"], &vector["root2"])?;
        Some(ConsistencyProof::new(hashes(&vector["proof"])?).verify(&old, &new).is_ok())
    });
    assert_eq!(ran, Ran { accepted: 5, refused: 66, unreadable: 27 });
}

/// The entries of a bundle: each a big-endian 16-bit length and as many bytes (C2SP tlog-tiles, log entries).
fn entries(mut bundle: &[u8]) -> Vec<&[u8]> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk() {
        let (entry, rest) = rest.split_at(u16::from_be_bytes(*length).into());
        entries.push(entry);
        bundle = rest;
    }
    assert!(bundle.is_empty());
    entries
}

/// Size and root of a checkpoint: its second and third line (C2SP tlog-checkpoint). The signature is not looked at.
fn checkpoint(path: &Path) -> Head {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    Head { size: lines[1].parse().unwrap(), root: hash(&lines[2].into()).unwrap() }
}

#[test]
fn checkpoints_of_a_tiled_log() {
    let Some(folder) = folder("tlog-tiles") else {
        return;
    };
    let bundle = fs::read(folder.join("tile/entries/000.p/15")).unwrap();
    let leaves: Vec<Hash> = entries(&bundle).into_iter().map(leaf_hash).collect();
    let tile = fs::read(folder.join("tile/0/000.p/15")).unwrap();
    assert_eq!(tile.as_chunks::<32>().0, leaves.iter().map(|leaf| *leaf.as_bytes()).collect::<Vec<_>>());

    let heads: Vec<Head> = (0..=15).map(|size| checkpoint(&folder.join(format!("checkpoint.{size}")))).collect();
    let mut frontier = Frontier::new();
    for (size, head) in heads.iter().enumerate() {
        assert_eq!(frontier.head(), *head);
        frontier.extend(leaves.get(size).copied());
    }
    assert_eq!(frontier.size(), 15);

    for new in &heads[1..] {
        for old in heads[1..].iter().filter(|old| old.size <= new.size) {
            prove_consistency(leaves.as_slice(), old.size, new.size).unwrap().verify(old, new).unwrap();
        }
        for (index, leaf) in (0..new.size).zip(&leaves) {
            prove_inclusion(leaves.as_slice(), index, new.size).unwrap().verify(index, leaf, new).unwrap();
        }
    }
}
