//! Where a relay is reached: an HTTPS origin and nothing else.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a relay's origin.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OriginError {
    /// Another scheme, or none.
    #[error("a relay is reached at https:// only")]
    Scheme,
    /// User, path, query or fragment.
    #[error("a relay's address is https://HOST or https://HOST:PORT, without a path or user")]
    Extra,
    /// Host missing, too long or of other characters.
    #[error("the relay's host is not a DNS name or address in ASCII")]
    Host,
    /// Not a port.
    #[error("the relay's port is not a number from 1 to 65535")]
    Port,
}

/// An HTTPS origin (RFC 6454): lower-case ASCII host, port, no path. 443 is not written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelayOrigin {
    host: String,
    port: u16,
}

impl RelayOrigin {
    /// The host: a DNS name, an IPv4 address, or an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOST` or `HOST:PORT`: the `@authority` of request signatures (RFC 9421 §2.2.3) and the `Host` field.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl FromStr for RelayOrigin {
    type Err = OriginError;
    fn from_str(text: &str) -> Result<Self, OriginError> {
        let rest = text.strip_prefix("https://").ok_or(OriginError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(OriginError::Extra);
        }
        let (host, port) = split(rest)?;
        let host = host.to_ascii_lowercase();
        let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let good = match v6 {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.len() <= 253
                    && host.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
                    && host.split('.').all(|label| !label.is_empty() && label.len() <= 63)
            }
        };
        if good { Ok(Self { host, port }) } else { Err(OriginError::Host) }
    }
}

fn split(rest: &str) -> Result<(&str, u16), OriginError> {
    let colon = match rest.rfind(']') {
        Some(end) => rest.get(end..).and_then(|tail| tail.find(':')).map(|at| at + end),
        None => rest.find(':'),
    };
    let Some(colon) = colon else { return Ok((rest, 443)) };
    let (host, port) = rest.split_at(colon);
    let digits = port.get(1..).unwrap_or("");
    let plain = !digits.starts_with('0') && digits.bytes().all(|c| c.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plain && port != 0 => Ok((host, port)),
        _ => Err(OriginError::Port),
    }
}

impl fmt::Display for RelayOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl fmt::Debug for RelayOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

spelled!(RelayOrigin);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn origins() {
        let show = |t: &str| t.parse::<RelayOrigin>().map(|o| o.to_string());
        assert_eq!(show("https://Pouch.Acme.Example"), Ok("https://pouch.acme.example".into()));
        assert_eq!(show("https://pouch.acme.example:443/"), Ok("https://pouch.acme.example".into()));
        assert_eq!(show("https://127.0.0.1:8443"), Ok("https://127.0.0.1:8443".into()));
        assert_eq!(show("https://[::1]:8443"), Ok("https://[::1]:8443".into()));
        assert_eq!(show("http://a"), Err(OriginError::Scheme));
        assert_eq!(show("https://a/b"), Err(OriginError::Extra));
        assert_eq!(show("https://u@a"), Err(OriginError::Extra));
        assert_eq!(show("https://"), Err(OriginError::Host));
        assert_eq!(show("https://a b"), Err(OriginError::Host));
        assert_eq!(show("https://bücher.example"), Err(OriginError::Host));
        assert_eq!(show("https://a:0"), Err(OriginError::Port));
        assert_eq!(show("https://a:+1"), Err(OriginError::Port));
        assert_eq!(show("https://a:99999"), Err(OriginError::Port));
    }
}
