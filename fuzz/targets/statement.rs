//! Statements in canonical form, behind a good signature: one meaning has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_statement::{
    Card, Delegation, Detached, Device, Receipt, Rotation, RotationClaim, Signed, SigningKey, Statement, sign_detached,
};

fn check<T: Statement>(bytes: &[u8], key: &SigningKey) {
    let signature = sign_detached(T::TYPE, bytes, key).expect("anything can be signed");
    if let Ok(signed) = Signed::<T>::verify(bytes, &signature, &key.public()) {
        assert_eq!(signed.bytes(), bytes);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let key = SigningKey::from_seed(&[7; 32]);
    check::<Card>(bytes, &key);
    check::<Device>(bytes, &key);
    check::<Receipt>(bytes, &key);
    check::<Rotation>(bytes, &key);
    check::<Delegation>(bytes, &key);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = RotationClaim::read(&Detached { statement: text.to_owned(), signature: String::new() });
    }
});
