//! How encrypt and decrypt fail: with 1 like age, and by the names of the age test vectors.

use std::io;

use pouch_core::age::{self, Kind};

use crate::commands::output::Unwritten;
use crate::exit;
use crate::run::Failure;

/// The failure to tell. Its kind is for scripts; the code is 1, but 2 where the call was wrong.
pub(crate) fn failure(error: impl Into<Unwritten>) -> Failure {
    let error = match error.into() {
        Unwritten::Work(error) => error,
        Unwritten::Binary => {
            return Failure::Told {
                code: exit::OTHER,
                text: "refusing to write binary to the terminal".to_owned(),
                hint: Some("use -o FILE, or -o - to have it anyway".to_owned()),
                kind: None,
            };
        }
    };
    if let age::Error::Io(io) = &error
        && io.kind() == io::ErrorKind::BrokenPipe
    {
        return Failure::Code(exit::OTHER);
    }
    let code = if error.kind() == Kind::Usage { exit::USAGE } else { exit::OTHER };
    let hint = match error {
        age::Error::PassphraseNeeded => Some("without -i the passphrase is asked for".to_owned()),
        age::Error::IdentityNeeded => Some("name the file of your identity with -i".to_owned()),
        age::Error::NoMatch => Some("it was encrypted for somebody else; -i names other identities".to_owned()),
        _ => None,
    };
    Failure::Told { code, text: error.to_string(), hint, kind: Some(error.kind().to_string()) }
}

/// A passphrase that does not open it.
pub(crate) fn wrong_passphrase() -> Failure {
    let kind = Some(Kind::NoMatch.to_string());
    Failure::Told { code: exit::OTHER, text: "the passphrase is wrong".to_owned(), hint: None, kind }
}
