//! Recipients and identities, alone and in files. A key that is accepted has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_core::age::{IdentityFile, Recipient, parse_identities, parse_recipients};

fuzz_target!(|text: &str| {
    if let Ok(recipient) = text.parse::<Recipient>() {
        let again = recipient.to_string();
        assert_eq!(again.parse::<Recipient>().expect("our own spelling"), recipient);
    }
    let _ = parse_recipients(text);
    let _ = parse_identities(text);
    let _ = IdentityFile::parse(text.as_bytes());
});
