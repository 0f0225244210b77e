//! Cards, as text and signed: what is accepted is written again to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_statement::{Detached, SignedCard, SigningKey, sign_detached};

fuzz_target!(|text: &str| {
    if let Ok(detached) = Detached::from_text(text)
        && let Ok(card) = SignedCard::verify(&detached)
    {
        assert_eq!(card.detached().to_text(), text);
    }
    // The same statement signed by the key of the corpus, so that a change in it is not refused for its signature.
    let key = SigningKey::from_seed(&[7; 32]);
    let statement = text.split_inclusive('\n').next().unwrap_or_default().to_owned();
    let signature = sign_detached("pouch.card.v1", statement.as_bytes(), &key).expect("anything can be signed");
    let _ = SignedCard::verify(&Detached { statement, signature });
});
