//! Links: one spelling each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_protocol::Link;

fuzz_target!(|text: &str| {
    if let Ok(link) = text.parse::<Link>() {
        assert_eq!(link.expose_text().as_str(), text);
    }
});
