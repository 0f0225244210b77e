//! The statements' bytes are pinned by tests/vectors/statements.json: what is read today must be read tomorrow.
//!
//! `POUCH_WRITE_VECTORS=1` writes the file anew; a diff of it is a change of format.
#![allow(clippy::unwrap_used)]

use pouch_statement::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Vectors {
    /// Seed of the signing key, 32 times this byte.
    signing_seed: u8,
    signing_key: String,
    age_recipient: String,
    fingerprint: Fingerprint,
    words: String,
    id: BundleId,
    card: Pinned,
    /// The same card with the recipient of `hybrid.json`.
    hybrid_card: Pinned,
    device: Pinned,
    receipt: Pinned,
    failed_receipt: Pinned,
    /// From `card` to the keys of `rotated_seed` with the recipient of `hybrid.json`; two armors.
    rotation: Pinned,
    rotated_seed: u8,
    delegation: Pinned,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Pinned {
    statement: String,
    signature: String,
    sha256: Sha256Digest,
}

fn pinned<T>(signed: &Signed<T>) -> Pinned {
    let Detached { statement, signature } = signed.detached();
    Pinned { statement, signature, sha256: signed.digest() }
}

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const SEED: u8 = 7;
const ROTATED_SEED: u8 = 9;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds).unwrap()
}

fn hybrid_recipient() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/hybrid.json");
    let keys: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    keys.get("recipient").unwrap().as_str().unwrap().to_owned()
}

fn make() -> Vectors {
    let key = SigningKey::from_seed(&[SEED; 32]);
    let device = SigningKey::from_seed(&[8; 32]);
    let card = Card {
        name: "ada".parse().unwrap(),
        age_recipient: RECIPIENT.parse().unwrap(),
        signing_key: key.public(),
        relay: "https://pouch.acme.example".parse().unwrap(),
        relay_pins: vec![Sha256Digest::of(b"present"), Sha256Digest::of(b"next")],
        mailbox: MailboxId::from_bytes([0x11; 16]),
        serial: 1,
        created: at(1_700_000_000),
        expires: at(1_800_000_000),
    };
    let fingerprint = card.fingerprint();
    let hybrid = Card { age_recipient: hybrid_recipient().parse().unwrap(), ..card.clone() };
    let receipt = Receipt {
        bundle: BundleId::from_bytes(*b"0123456789abcdef"),
        manifest_sha256: Sha256Digest::of(b"manifest"),
        sender: Fingerprint::from_bytes([0x22; 32]),
        recipient: fingerprint,
        outcome: Outcome::Verified,
        stage: None,
        created: at(1_700_000_100),
    };
    let failed = Receipt { outcome: Outcome::Failed, stage: Some(Stage::Part), ..receipt.clone() };
    let delegation = Delegation {
        identity: fingerprint,
        name: "nightly".parse().unwrap(),
        age_recipient: RECIPIENT.parse().unwrap(),
        signing_key: device.public(),
        recipients: vec![Fingerprint::from_bytes([0x22; 32]), Fingerprint::from_bytes([0x33; 32])],
        created: at(1_700_000_000),
        expires: at(1_700_000_000 + MAX_DELEGATION),
    };
    let enrolled = Device { identity: fingerprint, device_key: device.public(), created: at(1_700_000_000) };
    let old = SignedCard::sign(card.clone(), &key).unwrap();
    let new_key = SigningKey::from_seed(&[ROTATED_SEED; 32]);
    let created = at(1_750_000_000);
    let new = Card { signing_key: new_key.public(), serial: 2, created, ..hybrid.clone() };
    let rotation = SignedRotation::sign(&old, &key, new, &new_key).unwrap();
    let Detached { statement, signature } = rotation.detached();
    let rotation = Pinned { statement, signature, sha256: rotation.digest() };
    Vectors {
        signing_seed: SEED,
        signing_key: key.public().to_string(),
        age_recipient: RECIPIENT.to_owned(),
        fingerprint,
        words: fingerprint.words(),
        id: receipt.bundle,
        card: pinned(SignedCard::sign(card, &key).unwrap().statement()),
        hybrid_card: pinned(SignedCard::sign(hybrid, &key).unwrap().statement()),
        device: pinned(&Signed::sign(enrolled, &key).unwrap()),
        receipt: pinned(&Signed::sign(receipt, &key).unwrap()),
        failed_receipt: pinned(&Signed::sign(failed, &key).unwrap()),
        rotation,
        rotated_seed: ROTATED_SEED,
        delegation: pinned(&Signed::sign(delegation, &key).unwrap()),
    }
}

#[test]
fn statements_are_what_they_were() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/statements.json");
    let made = make();
    if std::env::var_os("POUCH_WRITE_VECTORS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let stored: Vectors = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(stored, made);
    let key: PublicKey = stored.signing_key.parse().unwrap();
    let Pinned { statement, signature, .. } = stored.card;
    let card = SignedCard::verify(&Detached { statement, signature }).unwrap();
    assert_eq!(card.fingerprint(), stored.fingerprint);
    let Pinned { statement, signature, .. } = stored.rotation;
    let rotation = SignedRotation::verify(&Detached { statement, signature }, &card).unwrap();
    let new_key = SigningKey::from_seed(&[stored.rotated_seed; 32]).public();
    assert_eq!((rotation.card().card().signing_key, rotation.time()), (new_key, at(1_750_000_000)));
    let Pinned { statement, signature, .. } = stored.hybrid_card;
    let hybrid = SignedCard::verify(&Detached { statement, signature }).unwrap();
    assert!(hybrid.card().age_recipient.is_post_quantum() && hybrid.fingerprint() != stored.fingerprint);
    Signed::<Device>::verify(stored.device.statement.as_bytes(), &stored.device.signature, &key).unwrap();
    let Pinned { statement, signature, .. } = stored.delegation;
    let delegation = Signed::<Delegation>::verify(statement.as_bytes(), &signature, &key).unwrap();
    delegation.body().check().unwrap();
    for receipt in [stored.receipt, stored.failed_receipt] {
        Signed::<Receipt>::verify(receipt.statement.as_bytes(), &receipt.signature, &key).unwrap();
        // attacks.md 26: a receipt is no device statement, whatever it says.
        assert!(Signed::<Device>::verify(receipt.statement.as_bytes(), &receipt.signature, &key).is_err());
    }
}
