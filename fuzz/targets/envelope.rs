//! What is inside an envelope and a sealed receipt, sealed by somebody who knows the recipient's key.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pouch_core::age::{Identity, seal_to_vec};
use pouch_core::bundle::{Expected, open_envelope, open_receipt};
use pouch_statement::{SigningKey, Timestamp};

static ME: LazyLock<Identity> = LazyLock::new(Identity::generate_x25519);

fuzz_target!(|plain: &[u8]| {
    let sealed = seal_to_vec(&ME.recipient(), plain).expect("memory takes it");
    if let Ok(envelope) = open_envelope(&sealed, &ME) {
        // Whom it names, that is who is expected: the rest must still be refused without a panic.
        let sender = envelope.claimed_sender();
        let key = SigningKey::from_seed(&[7; 32]).public();
        let me = envelope.claimed_recipient();
        let expected =
            Expected { me: &me, sender: &sender, sender_key: &key, bundle: None, now: Timestamp::from_unix(1).expect("it is in range") };
        let _ = envelope.verify(&expected);
    }
    let _ = open_receipt(&sealed, &ME);
});
