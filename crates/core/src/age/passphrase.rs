//! Passphrases (C2SP age, "The scrypt recipient type").
//!
//! The stanza is made here and not by the `age` crate, whose constructors read the clock to choose a work
//! factor.

use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_core::secrecy::ExposeSecret;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use scrypt::Params;
use zeroize::Zeroizing;

use super::aead::{Aead, KEY_LEN, NONCE_LEN, TAG_LEN};
use super::error::{Error, Result};
use super::header::HeaderError;

/// Work factor of new files: N = 2^18 with r = 8 takes 256 MiB and about a second.
pub const DEFAULT_WORK_FACTOR: u8 = 18;
/// Highest work factor that is accepted by default: N = 2^20 with r = 8 takes 1 GiB and some seconds.
pub const MAX_WORK_FACTOR: u8 = 20;

/// First argument of the stanza.
pub(super) const STANZA_TAG: &str = "scrypt";
/// Stands before the salt in what scrypt sees.
const SALT_LABEL: &[u8; 28] = b"age-encryption.org/v1/scrypt";
const SALT_LEN: usize = 16;
const WRAPPED_KEY_LEN: usize = FILE_KEY_BYTES + TAG_LEN;
/// The wrapping key is used once, for the salt is fresh (C2SP age).
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// A passphrase, to seal and to open; wiped when dropped.
pub struct Passphrase {
    secret: Zeroizing<String>,
    log_n: u8,
    max_log_n: u8,
}

impl Passphrase {
    /// Seals with [`DEFAULT_WORK_FACTOR`], opens up to [`MAX_WORK_FACTOR`].
    pub fn new(secret: Zeroizing<String>) -> Self {
        Self { secret, log_n: DEFAULT_WORK_FACTOR, max_log_n: MAX_WORK_FACTOR }
    }

    /// Seals with scrypt's N = 2^`log_n` instead. Memory is 2^`log_n` KiB, and time grows alike.
    ///
    /// # Errors
    ///
    /// 0, or more than this passphrase would open with.
    pub fn with_work_factor(self, log_n: u8) -> Result<Self> {
        if log_n == 0 || log_n > self.max_log_n {
            return Err(Error::WorkFactor { log_n, max_log_n: self.max_log_n });
        }
        Ok(Self { log_n, ..self })
    }

    /// Opens files of a work factor up to N = 2^`max_log_n`. A stranger's file may make the reader spend
    /// 2^`max_log_n` KiB of memory.
    pub fn with_max_work_factor(self, max_log_n: u8) -> Self {
        Self { max_log_n, ..self }
    }

    /// The passphrase itself, for key files whose lock is not age's.
    pub(super) fn expose_secret(&self) -> &str {
        &self.secret
    }

    pub(super) fn wrap(&self, file_key: &FileKey) -> Result<Stanza> {
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).map_err(|_| Error::Random)?;
        let mut body = vec![0; WRAPPED_KEY_LEN];
        self.wrap_key(&salt, self.log_n)?.seal(NONCE, file_key.expose_secret(), &mut body)?;
        Ok(Stanza {
            tag: STANZA_TAG.to_owned(),
            args: vec![BASE64_STANDARD_NO_PAD.encode(salt), self.log_n.to_string()],
            body,
        })
    }

    /// Unwraps a stanza whose tag is [`STANZA_TAG`]. The form and the work factor are judged before any work.
    pub(super) fn unwrap(&self, stanza: &Stanza) -> Result<FileKey> {
        let [salt, log_n] = stanza.args.as_slice() else {
            return Err(HeaderError::Stanza.into());
        };
        let salt: [u8; SALT_LEN] = BASE64_STANDARD_NO_PAD
            .decode(salt)
            .ok()
            .and_then(|salt| salt.try_into().ok())
            .ok_or(HeaderError::Stanza)?;
        let log_n = parse_work_factor(log_n).ok_or(HeaderError::Stanza)?;
        if stanza.body.len() != WRAPPED_KEY_LEN {
            return Err(HeaderError::Stanza.into());
        }
        if log_n > self.max_log_n {
            return Err(Error::ExcessiveWork { log_n, max_log_n: self.max_log_n });
        }
        let key = self.wrap_key(&salt, log_n)?;
        FileKey::try_init_with_mut(
            |file_key| {
                if key.open(NONCE, &stanza.body, file_key) { Ok(()) } else { Err(Error::NoMatch) }
            },
        )
    }

    fn wrap_key(&self, salt: &[u8; SALT_LEN], log_n: u8) -> Result<Aead> {
        let params = Params::new(log_n, 8, 1, KEY_LEN).map_err(|_| Error::Library)?;
        let salt = [SALT_LABEL.as_slice(), salt].concat();
        let mut key = Zeroizing::new([0; KEY_LEN]);
        scrypt::scrypt(self.secret.as_bytes(), &salt, &params, key.as_mut()).map_err(|_| Error::Library)?;
        Aead::new(&key)
    }
}

/// A decimal number without sign or leading zero, at least 1.
fn parse_work_factor(text: &str) -> Option<u8> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn passphrase(secret: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(secret.to_owned())).with_work_factor(2).unwrap()
    }

    fn file_key() -> FileKey {
        FileKey::new(Box::new([3; FILE_KEY_BYTES]))
    }

    #[test]
    fn wraps_and_unwraps() {
        let stanza = passphrase("open sesame").wrap(&file_key()).unwrap();
        let unwrapped = passphrase("open sesame").unwrap(&stanza).unwrap();
        assert_eq!(unwrapped.expose_secret(), file_key().expose_secret());
        assert!(matches!(passphrase("open barley").unwrap(&stanza), Err(Error::NoMatch)));
    }

    // attacks.md 20: at 2^63 any work at all would never end
    #[test]
    fn excessive_work_is_refused_before_the_work() {
        let mut stanza = passphrase("x").wrap(&file_key()).unwrap();
        for (text, log_n) in [("21", 21), ("63", 63), ("255", 255)] {
            stanza.args[1] = text.to_owned();
            let error = passphrase("x").unwrap(&stanza).err().unwrap();
            assert!(matches!(error, Error::ExcessiveWork { log_n: found, max_log_n: 20 } if found == log_n));
        }
        let strict = passphrase("x").with_max_work_factor(1);
        stanza.args[1] = "2".to_owned();
        assert!(matches!(strict.unwrap(&stanza), Err(Error::ExcessiveWork { log_n: 2, max_log_n: 1 })));
    }

    #[test]
    fn work_factors_are_canonical_decimals() {
        for bad in ["", "0", "018", "+18", "-18", "0x12", "18 ", "1e1", "256", "١٨"] {
            assert_eq!(parse_work_factor(bad), None, "{bad:?}");
        }
        assert_eq!(parse_work_factor("18"), Some(18));
    }

    #[test]
    fn a_work_factor_nobody_accepts_is_refused() {
        let new = || Passphrase::new(Zeroizing::new("x".to_owned()));
        assert!(new().with_work_factor(0).is_err());
        assert!(new().with_work_factor(21).is_err());
        assert!(new().with_max_work_factor(22).with_work_factor(21).is_ok());
    }
}
