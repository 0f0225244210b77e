//! The file key of an age file, which no program shows: for tests that no key meets two plaintexts (attacks.md 33).

#![allow(unreachable_pub)]

use std::sync::Mutex;

use age::{DecryptError, Decryptor, Identity, x25519};
use age_core::format::{FileKey, Stanza};
use age_core::secrecy::ExposeSecret as _;

/// Opens as the identity in it, and notes the file key.
struct Tells<'a>(x25519::Identity, &'a Mutex<Vec<u8>>);

impl Identity for Tells<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let key = self.0.unwrap_stanza(stanza);
        if let Some(Ok(key)) = &key {
            *self.1.lock().unwrap() = key.expose_secret().to_vec();
        }
        key
    }
}

/// The file key that opens `sealed` for the X25519 identity `key`. Header and nonce are enough of the file.
#[must_use]
pub fn file_key(key: &str, sealed: &[u8]) -> Vec<u8> {
    let found = Mutex::default();
    let identity = Tells(key.parse().unwrap(), &found);
    drop(Decryptor::new(sealed).unwrap().decrypt([&identity as &dyn Identity].into_iter()).unwrap());
    let found = found.into_inner().unwrap();
    assert_eq!(found.len(), 16);
    found
}
