//! Links: what is read is written again in the one spelling that is ours, which reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_protocol::Link;

fuzz_target!(|text: &str| {
    if let Ok(link) = text.parse::<Link>() {
        let ours = link.expose_text();
        assert_eq!(ours.to_lowercase(), text.trim().to_lowercase());
        assert_eq!(ours.parse::<Link>().expect("our own spelling").expose_text(), ours);
    }
});
