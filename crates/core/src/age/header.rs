//! The header (C2SP age, "Header"): a version line, stanzas and a MAC, all text.
//!
//! The parser is our own and strict. The one in the `age` crate reads without a bound and takes stanzas
//! without their final line; its writer adds a random stanza, so that no length is known beforehand.

use std::io::{self, BufRead};

use age_core::format::{FileKey, Stanza};
use age_core::secrecy::ExposeSecret;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::{Error, Result};
use super::passphrase;

/// Most bytes of a header: room for [`MAX_STANZAS`] hybrid post-quantum stanzas, of 1.6 kB each.
pub const MAX_HEADER_LEN: usize = 2 * 1024 * 1024;
/// Most bytes of one line of a header, its newline included.
pub const MAX_HEADER_LINE_LEN: usize = 16 * 1024;
/// Most stanzas in a header, thus most recipients of a file.
pub const MAX_STANZAS: usize = 1024;

/// Bytes of the header for one X25519 recipient; tested, for the sizes of all parts rest on it.
pub(super) const X25519_HEADER_LEN: usize = 168;

const VERSION_LINE: &[u8] = b"age-encryption.org/v1";
const ANY_VERSION: &[u8] = b"age-encryption.org/";
const STANZA_PREFIX: &[u8] = b"-> ";
const MAC_PREFIX: &[u8] = b"---";
/// Base64 characters on a line of a stanza's body that is not its last.
const BODY_COLUMNS: usize = 64;
const MAC_LEN: usize = 32;
/// HKDF info of the MAC's key.
const MAC_KEY_INFO: &[u8] = b"header";

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first line is not that of an age file.
    #[error("not an age file")]
    NotAge,
    /// An age file of another version than 1.
    #[error("an age file of an unknown version")]
    UnknownVersion,
    /// A line does not fit the grammar.
    #[error("line {line} of the header is malformed")]
    Malformed {
        /// Number of the line, from 1.
        line: usize,
    },
    /// The input ends within the header.
    #[error("the file is cut short in line {line} of the header")]
    CutShort {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A line beyond [`MAX_HEADER_LINE_LEN`].
    #[error("line {line} of the header is longer than {limit} bytes")]
    LongLine {
        /// Number of the line, from 1.
        line: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More than [`MAX_HEADER_LEN`].
    #[error("the header is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// More than [`MAX_STANZAS`].
    #[error("the header has more than {limit} stanzas")]
    TooManyStanzas {
        /// The limit.
        limit: usize,
    },
    /// A passphrase stanza beside others.
    #[error("the header has a passphrase beside other recipients")]
    PassphraseNotAlone,
    /// Other stanzas beside the one for the only recipient that there may be.
    #[error("the file is sealed for more than one recipient")]
    NotSole,
    /// A stanza of a known type that breaks the rules of its type, for instance with a low-order share.
    #[error("a recipient's stanza in the header is invalid")]
    Stanza,
    /// The input ends before the payload's nonce does.
    #[error("the file is cut short after the header")]
    NoNonce,
}

/// A header as it was read: well-formed, its MAC not yet checked.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) stanzas: Vec<Stanza>,
    mac: [u8; MAC_LEN],
    /// The bytes under the MAC, up to and with `---`.
    signed: Vec<u8>,
}

impl Header {
    /// Reads a header and not a byte more, within the limits above.
    pub(super) fn read(input: &mut impl BufRead) -> Result<Self> {
        let mut lines = Lines { input, bytes: Vec::new(), count: 0 };
        let version = lines.next()?;
        if version != VERSION_LINE {
            let other = version.starts_with(ANY_VERSION);
            return Err(if other { HeaderError::UnknownVersion } else { HeaderError::NotAge }.into());
        }
        let mut stanzas = Vec::new();
        let mac = loop {
            let line = lines.next()?;
            if let Some(args) = line.strip_prefix(STANZA_PREFIX) {
                if stanzas.len() == MAX_STANZAS {
                    return Err(HeaderError::TooManyStanzas { limit: MAX_STANZAS }.into());
                }
                let (tag, args) = parse_args(args).ok_or(HeaderError::Malformed { line: lines.count })?;
                let body = read_body(&mut lines)?;
                stanzas.push(Stanza { tag, args, body });
            } else {
                let mac = line.strip_prefix(MAC_PREFIX).and_then(|rest| rest.strip_prefix(b" "));
                let mac = mac.and_then(parse_mac).filter(|_| !stanzas.is_empty());
                break mac.ok_or(HeaderError::Malformed { line: lines.count })?;
            }
        };
        if stanzas.len() > 1 && stanzas.iter().any(|stanza| stanza.tag == passphrase::STANZA_TAG) {
            return Err(HeaderError::PassphraseNotAlone.into());
        }
        let mut signed = lines.bytes;
        // What follows `---` has a fixed length: a space, 43 characters, a newline.
        signed.truncate(signed.len().saturating_sub(encoded_len(MAC_LEN) + 2));
        Ok(Self { stanzas, mac, signed })
    }

    /// Checks the MAC, in constant time.
    pub(super) fn verify(&self, file_key: &FileKey) -> Result<()> {
        header_mac(file_key, &self.signed)?.verify_slice(&self.mac).map_err(|_| Error::HmacFailure)
    }
}

/// The header with these stanzas, in bytes.
pub(super) fn encode(stanzas: &[Stanza], file_key: &FileKey) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(VERSION_LINE);
    bytes.push(b'\n');
    for stanza in stanzas {
        bytes.extend_from_slice(b"->");
        for arg in [&stanza.tag].into_iter().chain(&stanza.args) {
            bytes.push(b' ');
            bytes.extend_from_slice(arg.as_bytes());
        }
        bytes.push(b'\n');
        let body = BASE64_STANDARD_NO_PAD.encode(&stanza.body);
        for line in body.as_bytes().chunks(BODY_COLUMNS) {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        // The last line must be a short one, and may be empty.
        if body.len().is_multiple_of(BODY_COLUMNS) {
            bytes.push(b'\n');
        }
    }
    bytes.extend_from_slice(MAC_PREFIX);
    let mac = header_mac(file_key, &bytes)?.finalize().into_bytes();
    bytes.push(b' ');
    bytes.extend_from_slice(BASE64_STANDARD_NO_PAD.encode(mac).as_bytes());
    bytes.push(b'\n');
    Ok(bytes)
}

/// HMAC-SHA-256(key = HKDF-SHA-256(ikm = file key, salt = empty, info = "header"), bytes).
fn header_mac(file_key: &FileKey, bytes: &[u8]) -> Result<Hmac<Sha256>> {
    let mut key = Zeroizing::new([0; MAC_LEN]);
    Hkdf::<Sha256>::new(None, file_key.expose_secret())
        .expand(MAC_KEY_INFO, key.as_mut())
        .map_err(|_| Error::Library)?;
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key.as_ref()).map_err(|_| Error::Library)?;
    mac.update(bytes);
    Ok(mac)
}

/// Characters of `len` bytes in base64 without padding.
const fn encoded_len(len: usize) -> usize {
    (len * 4).div_ceil(3)
}

fn parse_args(line: &[u8]) -> Option<(String, Vec<String>)> {
    let mut args = line.split(|byte| *byte == b' ').map(|arg| {
        let printable = !arg.is_empty() && arg.iter().all(u8::is_ascii_graphic);
        printable.then(|| String::from_utf8(arg.to_vec()).ok()).flatten()
    });
    Some((args.next()??, args.collect::<Option<_>>()?))
}

fn parse_mac(text: &[u8]) -> Option<[u8; MAC_LEN]> {
    BASE64_STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Reads lines of 64 characters and then a shorter one; base64 without padding, in its canonical form only.
fn read_body(lines: &mut Lines<'_, impl BufRead>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let line = lines.next()?;
        let len = line.len();
        if len <= BODY_COLUMNS {
            text.extend_from_slice(line);
        }
        if len < BODY_COLUMNS {
            let body = BASE64_STANDARD_NO_PAD.decode(text);
            return Ok(body.map_err(|_| HeaderError::Malformed { line: lines.count })?);
        }
        if len > BODY_COLUMNS {
            return Err(HeaderError::Malformed { line: lines.count }.into());
        }
    }
}

/// The lines of a header, all kept, for the MAC is over them.
struct Lines<'a, R> {
    input: &'a mut R,
    bytes: Vec<u8>,
    count: usize,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line without its newline.
    fn next(&mut self) -> Result<&[u8]> {
        let start = self.bytes.len();
        self.count += 1;
        loop {
            let available = match self.input.fill_buf() {
                Ok([]) => return Err(HeaderError::CutShort { line: self.count }.into()),
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let newline = available.iter().position(|byte| *byte == b'\n');
            let taken = newline.map_or(available.len(), |at| at + 1);
            if self.bytes.len() - start + taken > MAX_HEADER_LINE_LEN {
                return Err(HeaderError::LongLine { line: self.count, limit: MAX_HEADER_LINE_LEN }.into());
            }
            if self.bytes.len() + taken > MAX_HEADER_LEN {
                return Err(HeaderError::TooLong { limit: MAX_HEADER_LEN }.into());
            }
            self.bytes.extend_from_slice(available.get(..taken).unwrap_or_default());
            self.input.consume(taken);
            if newline.is_some() {
                break;
            }
        }
        Ok(self.bytes.get(start..).and_then(|line| line.strip_suffix(b"\n")).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
