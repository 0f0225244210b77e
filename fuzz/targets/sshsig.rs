//! Signatures as text: only the one that the key makes for these bytes is good.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_statement::{SigningKey, sign_detached, verify_detached};

fuzz_target!(|armor: &str| {
    let key = SigningKey::from_seed(&[7; 32]);
    let ours = sign_detached("pouch.card.v1", b"statement", &key).expect("anything can be signed");
    let good = verify_detached("pouch.card.v1", b"statement", armor, &key.public()).is_ok();
    assert_eq!(good, armor == ours);
});
