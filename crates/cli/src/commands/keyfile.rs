//! Files of keys for encrypt and decrypt: recipients, and identities in the clear or behind a passphrase.

use std::path::{Path, PathBuf};

use pouch_core::age::{self, Identity, IdentityFile, LockedIdentity, Recipient, parse_recipients};
use zeroize::Zeroizing;

use crate::commands::input::{Stdin, cannot_read, is_dash, read_small};
use crate::exit;
use crate::prompt::Asker;
use crate::run::Failure;
use crate::show::{SECRET_KEY, Show, inert, without_keys};

/// The longest recipient or identity file that is read, in bytes.
const MAX_KEY_FILE: usize = 16 << 20;

/// The identities of one file.
pub(crate) enum Identities {
    /// They can be used.
    Open(Vec<Identity>),
    /// They are behind a passphrase: an SSH key, or a file that age sealed.
    Locked {
        /// The file.
        path: PathBuf,
        /// What is in it.
        locked: LockedIdentity,
    },
}

/// The recipients in a file; `-` is standard input.
pub(crate) fn recipients(path: &Path, stdin: &Stdin) -> Result<Vec<Recipient>, Failure> {
    let content = read(path, stdin)?;
    let text = std::str::from_utf8(&content).map_err(|_| told(path, &age::KeyError::NotText.into()))?;
    parse_recipients(text).map_err(|e| told(path, &e))
}

/// The identities in a file; `-` is standard input.
pub(crate) fn identities(path: &Path, stdin: &Stdin) -> Result<Identities, Failure> {
    let content = read(path, stdin)?;
    Ok(match IdentityFile::parse(&content).map_err(|e| told(path, &e))? {
        IdentityFile::Open(identities) => Identities::Open(identities),
        IdentityFile::Locked(locked) => Identities::Locked { path: path.to_owned(), locked },
    })
}

impl Identities {
    /// The identities, for which a passphrase is asked where there is one.
    pub(crate) fn open(self, asker: &Asker<'_>) -> Result<Vec<Identity>, Failure> {
        let (path, locked) = match self {
            Self::Open(identities) => return Ok(identities),
            Self::Locked { path, locked } => (path, locked),
        };
        let name = inert(&name_of(&path));
        let passphrase = asker.passphrase_for(&without_keys(&format!("passphrase for {name}: ")))?;
        locked.unlock(&passphrase).map_err(|error| {
            let text = match error {
                age::Error::NotUnlocked => format!("the passphrase for {name} is wrong"),
                age::Error::IdentityNeeded => format!("{name} is encrypted, but not with a passphrase"),
                other => format!("{name}: {other}"),
            };
            Failure::Told { code: exit::OTHER, text, hint: None, kind: None }
        })
    }
}

/// Says that something is named twice, as age does. Only for what was read already: a secret key would not have been.
pub(crate) fn warn_of_duplicates(show: Show, what: &str, named: impl IntoIterator<Item = String>) {
    let mut named: Vec<String> = named.into_iter().collect();
    named.sort();
    for same in named.chunk_by(String::eq) {
        if let [one, _, ..] = same {
            show.warn(format_args!("{what} {one} is named {} times", same.len()));
        }
    }
}

/// The names of files, to be compared as they are written.
pub(crate) fn names(paths: &[PathBuf]) -> impl Iterator<Item = String> {
    paths.iter().map(|path| path.display().to_string())
}

fn read(path: &Path, stdin: &Stdin) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if path.to_string_lossy().to_ascii_uppercase().starts_with(SECRET_KEY) {
        return Err(Failure::usage(
            "a secret key stands where the name of a file belongs",
            "write it to a file of its own",
        ));
    }
    read_small(stdin.or_file(path)?, MAX_KEY_FILE).map_err(|e| cannot_read(path, &e))
}

/// An error about a key file, by its name; the file's content is never quoted.
fn told(path: &Path, error: &age::Error) -> Failure {
    let hint = "one key a line, or one private key of SSH; lines that begin with # are comments";
    Failure::usage(format!("{}: {error}", name_of(path)), hint)
}

fn name_of(path: &Path) -> String {
    if is_dash(path) { "standard input".to_owned() } else { path.display().to_string() }
}
