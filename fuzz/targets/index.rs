//! The index: what is accepted is written again to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_core::bundle::Index;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = Index::decode(bytes) {
        assert_eq!(index.encode().expect("it was read"), bytes);
        for entry in index.entries() {
            assert!(index.locate(entry.path.as_str()).is_some());
        }
    }
});
