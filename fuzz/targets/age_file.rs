//! A binary age file: header, stanzas, payload. On one thread and on several the verdict and the release are the same.
#![no_main]

use std::io::{Cursor, Read};
use std::num::NonZero;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pouch_core::age::{Encoding, Error, Identity, decrypt_encoded, decrypt_seekable, decrypt_stream, parse_identities};

/// The identities of the C2SP/CCTV vectors, which are the corpus, so that what they seal is opened.
static IDENTITIES: LazyLock<Vec<Identity>> =
    LazyLock::new(|| parse_identities(include_str!("../identities.txt")).expect("they are test vectors"));

fuzz_target!(|file: &[u8]| {
    let mut released = Vec::new();
    let alone = match decrypt_encoded(IDENTITIES.as_slice(), file, Encoding::Binary) {
        Err(error) => Err(error.kind()),
        Ok(mut reader) => reader.read_to_end(&mut released).map_err(|error| Error::from(error).kind()).map(|_| ()),
    };
    // A file that begins like an armor is read as one by the other.
    if file.first() == Some(&b'a') {
        for threads in [1, 3].map(|count| NonZero::new(count).expect("not zero")) {
            let mut together = Vec::new();
            let verdict = decrypt_stream(IDENTITIES.as_slice(), file, &mut together, threads)
                .map(|_| ())
                .map_err(|error| error.kind());
            assert_eq!(alone, verdict);
            assert_eq!(released, together);
        }
    }
    if alone.is_ok() {
        let mut reader = decrypt_seekable(IDENTITIES.as_slice(), Cursor::new(file)).expect("it opens in order");
        let mut again = Vec::new();
        reader.read_to_end(&mut again).expect("it opens in order");
        assert_eq!(released, again);
    }
});
