//! A device key as paths and listings name it.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use pouch_statement::{KeyError, PublicKey};

/// An enrolled device key: its 32 bytes as 64 lower-case hexadecimal characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKey(pub PublicKey);

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(self.0.as_bytes()))
    }
}

impl FromStr for DeviceKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| KeyError::Encoding)?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyError::Encoding)?;
        PublicKey::from_bytes(&bytes).map(Self)
    }
}

pouch_statement::spelled!(DeviceKey);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pouch_statement::SigningKey;

    #[test]
    fn a_key_has_one_spelling() {
        let key = DeviceKey(SigningKey::from_seed(&[1; 32]).public());
        let text = key.to_string();
        assert_eq!((text.len(), text.parse()), (64, Ok(key)));
        // Capitals, a byte less, a byte more, and a point that is no key (RFC 8032, small order).
        for bad in [text.to_uppercase(), text[2..].to_owned(), format!("{text}00"), "00".repeat(32), String::new()] {
            bad.parse::<DeviceKey>().unwrap_err();
        }
        assert_eq!(serde_json::from_str::<DeviceKey>(&serde_json::to_string(&key).unwrap()).unwrap(), key);
    }
}
