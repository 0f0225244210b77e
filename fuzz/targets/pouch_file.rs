//! A bundle as one file.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use pouch_core::bundle::PouchFile;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = PouchFile::open(Cursor::new(bytes)) else { return };
    let _ = file.envelope();
    let _ = file.index();
    let mut part = Vec::new();
    for number in 0..file.parts() {
        let _ = file.part(number, &mut part);
    }
});
