//! The armor: whatever is accepted is the one way to write that file down, line ends and white space around it aside.
#![no_main]

use std::io::{Read, Write};

use libfuzzer_sys::fuzz_target;
use pouch_core::age::{ArmorReader, ArmorWriter};

fuzz_target!(|armor: &[u8]| {
    let mut file = Vec::new();
    if ArmorReader::new(armor).read_to_end(&mut file).is_err() {
        return;
    }
    let mut writer = ArmorWriter::new(Vec::new());
    writer.write_all(&file).expect("memory takes it");
    let again = writer.finish().expect("memory takes it");
    let lines = |text: &[u8]| String::from_utf8_lossy(text).trim().replace("\r\n", "\n");
    assert_eq!(lines(armor), lines(&again));
});
