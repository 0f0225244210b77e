//! Manifests behind a good signature, with all their own rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_core::bundle::Manifest;
use pouch_statement::{Signed, SigningKey, Statement, sign_detached};

fuzz_target!(|bytes: &[u8]| {
    let key = SigningKey::from_seed(&[7; 32]);
    let signature = sign_detached(Manifest::TYPE, bytes, &key).expect("anything can be signed");
    if let Ok(signed) = Signed::<Manifest>::verify(bytes, &signature, &key.public()) {
        assert_eq!(signed.bytes(), bytes);
        let _ = signed.body().layout();
    }
});
