//! Files of keys for encrypt and decrypt: recipients, and identities in the clear or sealed with a passphrase.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use pouch_core::age::{self, Identity, Recipient, decrypt, parse_identities, parse_recipients};
use zeroize::Zeroizing;

use crate::commands::input::{Stdin, cannot_read, is_dash, read_small};
use crate::exit;
use crate::prompt::Asker;
use crate::run::Failure;
use crate::show::{Show, inert};

/// The longest recipient or identity file that is read, in bytes.
const MAX_KEY_FILE: usize = 16 << 20;
/// How a secret key begins, in any case.
pub(crate) const SECRET_KEY: &str = "AGE-SECRET-KEY-";
/// How an age file begins, binary or armored.
const SEALED: [&[u8]; 2] = [b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----"];

/// What stands in an identity file.
pub(crate) enum IdentityFile {
    /// Identities that can be used.
    Open(Vec<Identity>),
    /// Identities behind a passphrase.
    Sealed(SealedFile),
}

/// An identity file that is an age file itself.
pub(crate) struct SealedFile {
    path: PathBuf,
    content: Zeroizing<Vec<u8>>,
}

/// The recipients in a file; `-` is standard input.
pub(crate) fn recipients(path: &Path, stdin: &Stdin) -> Result<Vec<Recipient>, Failure> {
    let content = read(path, stdin)?;
    parse_recipients(text_of(path, &content)?).map_err(|e| told(path, &e))
}

/// The identities in a file; `-` is standard input.
pub(crate) fn identities(path: &Path, stdin: &Stdin) -> Result<IdentityFile, Failure> {
    let content = read(path, stdin)?;
    if SEALED.iter().any(|start| content.starts_with(start)) {
        return Ok(IdentityFile::Sealed(SealedFile { path: path.to_owned(), content }));
    }
    let identities = parse_identities(text_of(path, &content)?).map_err(|e| told(path, &e))?;
    Ok(IdentityFile::Open(identities))
}

impl IdentityFile {
    /// The identities, for which a passphrase is asked where there is one.
    pub(crate) fn open(self, asker: &Asker<'_>) -> Result<Vec<Identity>, Failure> {
        match self {
            Self::Open(identities) => Ok(identities),
            Self::Sealed(sealed) => sealed.open(asker),
        }
    }
}

impl SealedFile {
    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for the passphrase and opens it.
    pub(crate) fn open(&self, asker: &Asker<'_>) -> Result<Vec<Identity>, Failure> {
        let name = inert(&self.path.to_string_lossy());
        let passphrase = asker.passphrase_for(&format!("passphrase for {name}: "))?;
        let cannot = |error: age::Error| {
            let text = match error {
                age::Error::NoMatch => format!("the passphrase for {name} is wrong"),
                age::Error::IdentityNeeded => format!("{name} is encrypted, but not with a passphrase"),
                other => format!("{name}: {other}"),
            };
            Failure::Told { code: exit::OTHER, text, hint: None, kind: None }
        };
        let reader = decrypt(&passphrase, self.content.as_slice()).map_err(cannot)?;
        // What is inside is no longer than what is outside.
        let mut content = Zeroizing::new(Vec::with_capacity(self.content.len()));
        reader.take(MAX_KEY_FILE as u64).read_to_end(&mut content).map_err(|e| cannot(e.into()))?;
        parse_identities(text_of(&self.path, &content)?).map_err(|e| told(&self.path, &e))
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

fn text_of<'a>(path: &Path, content: &'a [u8]) -> Result<&'a str, Failure> {
    std::str::from_utf8(content).map_err(|_| Failure::usage(format!("{} is not text", name_of(path)), HINT))
}

const HINT: &str = "one key a line; lines that begin with # are comments";

/// An error about a key file, by its name; the file's content is never quoted.
fn told(path: &Path, error: &age::Error) -> Failure {
    Failure::usage(format!("{}: {error}", name_of(path)), HINT)
}

fn name_of(path: &Path) -> String {
    if is_dash(path) { "standard input".to_owned() } else { path.display().to_string() }
}
