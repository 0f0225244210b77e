//! Addresses in the configuration: whose word on a client's address counts, and where operations are answered.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::value::{Kind, Setting, quoted};

/// The most networks of a list.
const MAX_NETWORKS: usize = 256;

/// Networks of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether an address is in one of them. An IPv4 address in IPv6's notation is the IPv4 address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `10.0.0.0/8`, or an address for itself alone.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse::<IpNet>().ok().filter(|network| network.trunc() == *network),
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        if texts.len() > MAX_NETWORKS {
            return Err(D::Error::custom(format!("more than {MAX_NETWORKS} networks")));
        }
        let read = |text: &String| {
            network(text).ok_or_else(|| D::Error::custom(format!("{text:?} is no network such as 10.0.0.0/8")))
        };
        texts.iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl Setting for Networks {
    const KIND: Kind = Kind::List;
    fn written(&self) -> Option<String> {
        let texts: Vec<_> = self.0.iter().map(|network| quoted(&network.to_string())).collect();
        Some(format!("[{}]", texts.join(", ")))
    }
}

/// The field in which load balancers that end TLS say who the client is. One alone: a client could send the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientField {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Setting for ClientField {
    const KIND: Kind = Kind::Text;
    fn written(&self) -> Option<String> {
        let text = match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        };
        Some(quoted(text))
    }
}

/// Where health and metrics are answered, without TLS: on this machine only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationsAddress {
    /// A loopback address.
    Loopback(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for OperationsAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err("unix: takes an absolute path") };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().to_canonical().is_loopback() => Ok(Self::Loopback(address)),
            Ok(_) => Err("without TLS only a loopback address or a Unix socket will do"),
            Err(_) => Err("neither ADDRESS:PORT nor unix:PATH"),
        }
    }
}

impl fmt::Display for OperationsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for OperationsAddress {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn networks(texts: &[&str]) -> Option<Networks> {
        texts.iter().map(|text| network(text)).collect::<Option<_>>().map(Networks)
    }

    #[test]
    fn networks_of_both_families() {
        let all = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]).unwrap();
        for (address, expected) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.0.0.1", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(all.contain(address.parse().unwrap()), expected, "{address}");
        }
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "", "a", "10.0.0.0/8 "] {
            assert!(networks(&[bad]).is_none(), "{bad}");
        }
    }

    // Health and metrics have no TLS and ask nobody who they are.
    #[test]
    fn operations_stay_on_this_machine() {
        for (text, good) in [
            ("127.0.0.1:9180", true),
            ("[::1]:9180", true),
            ("[::ffff:127.0.0.1]:9180", true),
            ("unix:/run/pouch/operations", true),
            ("0.0.0.0:9180", false),
            ("[::]:9180", false),
            ("192.0.2.1:9180", false),
            ("localhost:9180", false),
            ("unix:operations", false),
            ("127.0.0.1", false),
            ("", false),
        ] {
            let parsed = text.parse::<OperationsAddress>();
            assert_eq!(parsed.is_ok(), good, "{text}");
            if let Ok(address) = parsed {
                assert_eq!(address.to_string(), text);
            }
        }
    }
}
