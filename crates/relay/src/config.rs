//! The relay's configuration: one TOML file, every value with a default and a variable.
//!
//! A value stands once, in [`Config`]'s definition below: name, type, default, range, and the text that is its comment in
//! the file and its row in docs/operating-a-relay.md.

mod address;
mod blobs;
mod load;
mod value;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use pouch_protocol::limits::MAX_LIFETIME;
use pouch_statement::RelayOrigin;
use serde::Deserialize;
use url::Url;

pub use address::{ClientField, Networks, OperationsAddress};
pub use blobs::{BlobConfig, EndpointError, S3Config, S3Endpoint};
pub use load::{InForce, Loaded, Source};
use value::{Setting as _, Value};

/// The file's name in the data folder.
pub(crate) const FILE: &str = "relay.toml";
/// A configuration is a page of text.
const MAX_FILE: u64 = 64 << 10;
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const DAY: u64 = 24 * 3600;
/// The ledger's integers are signed, and sums must fit.
const LARGEST: u64 = i64::MAX as u64 / 2;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Longer than any configuration.
    #[error("the configuration {} is longer than {MAX_FILE} bytes", .0.display())]
    TooLong(PathBuf),
    /// Not the TOML that it must be.
    #[error("the configuration {} cannot be understood: {message}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A value out of its range.
    #[error("the configuration's `{name}` must be {must}")]
    Value {
        /// Which.
        name: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// A variable that is none of the configuration's.
    #[error("the variable {0} is no value of the relay's configuration")]
    UnknownVariable(String),
    /// A variable that cannot be understood.
    #[error("the variable {name} cannot be understood: {message}")]
    Variable {
        /// Which.
        name: String,
        /// Why; what it holds is not repeated.
        message: String,
    },
}

macro_rules! values {
    (@example) => { None };
    (@example $example:literal) => { Some($example) };
    (@range) => { None };
    (@range $range:expr => $must:literal) => { Some(($range, $must)) };
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:expr $(, in $range:expr => $must:literal)? $(, like $example:literal)?;
    )*) => {
        /// Everything that an operator may set.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Config {$(
            $(#[doc = $doc])+
            pub $name: $type,
        )*}

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// All values, in the order in which they stand in the file.
        const VALUES: &[Value] = &[$(Value {
            name: stringify!($name),
            doc: &[$($doc),+],
            kind: <$type as value::Setting>::KIND,
            fields: <$type as value::Setting>::FIELDS,
            example: values!(@example $($example)?),
            range: values!(@range $($range => $must)?),
            written: |config| config.$name.written(),
            number: |config| config.$name.number(),
        },)*];
    };
}

values! {
    /// Where clients reach this relay. Links, cards and request signatures are bound to it.
    origin: RelayOrigin = default_origin();
    /// The address to listen on.
    listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8443));
    /// The data folder, counted from this file's folder.
    data: PathBuf = PathBuf::from(".");
    /// Certificate chain (PEM) of a public authority. It is read again when the file changes.
    /// Without it the relay uses a self-signed certificate, and links carry the pins of its keys.
    certificate: Option<PathBuf> = None, like "\"/etc/letsencrypt/live/HOST/fullchain.pem\"";
    /// The private key (PEM) of the certificate.
    key: Option<PathBuf> = None, like "\"/etc/letsencrypt/live/HOST/privkey.pem\"";
    /// Where sealed parts and indexes are kept: "folder" (blobs/ in the data folder), or a table with a bucket of S3:
    /// `{ endpoint = "https://s3.example", bucket = "pouch", access_key_id = "AK", secret_access_key_file = "s3.key" }`
    blobs: BlobConfig = BlobConfig::Folder;
    /// Bytes that uploads leave free on the data folder's disk, so that ledger and receipts still have room.
    disk_reserve_bytes: u64 = 256 * MIB, in 0..=LARGEST => "below four exbibytes";
    /// PostgreSQL 15 or newer as the ledger, which any number of nodes can share; without it, a file in the data folder.
    ledger: Option<String> = None, like "\"postgres://pouch@db.example/pouch\"";
    /// A file of one line: the password for the ledger.
    ledger_password_file: Option<PathBuf> = None, like "\"/etc/pouch/ledger-password\"";
    /// Connections to PostgreSQL at once.
    ledger_connections: u32 = 16, in 1..=1000 => "between 1 and 1000";
    /// How long a backup of the ledger may be restored, in seconds: so long blobs outlive what the ledger says of them.
    backup_seconds: u64 = 0, in 0..=MAX_LIFETIME => "at most 366 days";
    /// Where health, readiness and metrics are answered, without TLS: a loopback address, or unix:PATH.
    operations: Option<OperationsAddress> = None, like "\"127.0.0.1:9180\"";
    /// Networks of load balancers whose word on a client's address counts.
    trusted_proxies: Networks = Networks::default();
    /// The field in which they say it where they end TLS: x-forwarded-for or forwarded. The other one is not read.
    client_field: ClientField = ClientField::XForwardedFor;
    /// Connections from trusted_proxies begin with the PROXY protocol (version 1 or 2); without it they are refused.
    proxy_protocol: bool = false;
    /// Bytes that the bundles of one account may hold, with the receipts for them; a part or an index counts as 4 KiB at least.
    account_bytes: u64 = 10 * GIB, in 0..=LARGEST => "below four exbibytes";
    /// Bytes that all bundles together may hold; leave room on the disk beyond it for the rest of the ledger.
    total_bytes: u64 = 100 * GIB, in 0..=LARGEST => "below four exbibytes";
    /// Bundles that one account may have at once.
    account_bundles: u64 = 100_000, in 0..=LARGEST => "below four exbi";
    /// Ended bundles of one account whose state is kept; with as many it begins no further one until some are pruned.
    account_ended_bundles: u64 = 100_000, in 0..=LARGEST => "below four exbi";
    /// Longest life of a bundle, in seconds (366 days at most).
    lifetime_seconds: u64 = MAX_LIFETIME, in 60..=MAX_LIFETIME => "between one minute and 366 days";
    /// How long access records and the state of ended bundles are kept, in seconds.
    retention_seconds: u64 = 90 * DAY, in 3600..=LARGEST => "at least one hour";
    /// Requests of one account for each second, over time. What is beyond it is refused with the time to wait.
    account_requests_per_second: u64 = 200, in 1..=1_000_000 => "between 1 and 1000000";
    /// Requests that one account may make at once, before the rate above counts.
    account_requests_burst: u64 = 2000, in 1..=1_000_000 => "between 1 and 1000000";
    /// Requests from one address for each second, over time; of IPv6, from one /64.
    address_requests_per_second: u64 = 500, in 1..=1_000_000 => "between 1 and 1000000";
    /// Requests that may come from one address at once, before the rate above counts.
    address_requests_burst: u64 = 5000, in 1..=1_000_000 => "between 1 and 1000000";
    /// Requests of one account that may wait for a delivery at once; further ones are answered without waiting.
    account_waits: usize = 8, in 1..=65_536 => "between 1 and 65536";
    /// Requests that may wait for a delivery at once; further ones are answered without waiting.
    waits: usize = 256, in 1..=65_536 => "between 1 and 65536";
    /// Connections at once; when full, the oldest one that never signed a request makes room.
    connections: usize = 512, in 1..=65_536 => "between 1 and 65536";
    /// Connections from one address at once (of IPv6, from one /64); when full, the oldest of them that never signed
    /// a request makes room.
    address_connections: usize = 256, in 1..=65_536 => "between 1 and 65536";
    /// Seconds for a TLS handshake, with what a load balancer says before it.
    handshake_seconds: u64 = 10, in 1..=3600 => "between 1 and 3600";
    /// Seconds for the head of a request, and for which a connection may idle.
    header_seconds: u64 = 15, in 1..=3600 => "between 1 and 3600";
    /// Seconds in which a body must make progress by 16 KiB, in either direction.
    progress_seconds: u64 = 20, in 1..=60 => "between 1 and 60, so that a request is over before its nonce is forgotten";
    /// Seconds that requests get to finish when the relay stops.
    shutdown_seconds: u64 = 10, in 1..=3600 => "between 1 and 3600";
    /// Seconds for which a relay that stops still takes connections, so that load balancers see first that it is not ready.
    drain_seconds: u64 = 0, in 0..=3600 => "at most 3600";
}

fn default_origin() -> RelayOrigin {
    "https://localhost:8443".parse().expect("a constant that every test parses")
}

impl Config {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        for Value { name, range, number, .. } in VALUES {
            if let (Some((range, must)), Some(number)) = (range, number(self))
                && !range.contains(&number)
            {
                return Err(ConfigError::Value { name, must });
            }
        }
        let require = |good: bool, name, must| {
            if good { Ok(()) } else { Err(ConfigError::Value { name, must }) }
        };
        require(self.certificate.is_some() == self.key.is_some(), "key", "given together with `certificate`")?;
        if let BlobConfig::S3(s3) = &self.blobs {
            s3.check()?;
        }
        require(
            self.ledger.is_some() || self.ledger_password_file.is_none(),
            "ledger_password_file",
            "given together with `ledger`",
        )?;
        // The rest of the address is judged where it is used.
        let url = self.ledger.as_deref().and_then(|text| Url::parse(text).ok());
        let holds_password = |url: Url| url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password");
        require(
            !url.is_some_and(holds_password),
            "ledger",
            "without a password, which belongs into a file (`ledger_password_file`)",
        )?;
        let proxies = !self.proxy_protocol || !self.trusted_proxies.is_empty();
        require(proxies, "trusted_proxies", "given where `proxy_protocol` is: it is believed from nobody else")
    }

    /// The configuration as a commented file: values that differ from the defaults are set, the others shown behind `#`.
    #[must_use]
    pub fn write_commented(&self) -> String {
        let default = Self::default();
        let mut out = String::from(
            "# The configuration of a pouch relay. What stands behind a # is the default; remove the # to change it.\n\
             # The variable POUCH_RELAY_NAME, with a value's name in capitals, wins over this file.\n",
        );
        for Value { name, doc, example, written, .. } in VALUES {
            out.push('\n');
            for line in *doc {
                let _ = writeln!(out, "#{line}");
            }
            let (mine, standard) = (written(self), written(&default));
            // What clients and links are bound to, and where it listens, is said in any case.
            let mark = if mine != standard || matches!(*name, "origin" | "listen") { "" } else { "# " };
            let value = mine.or(standard).unwrap_or_else(|| example.unwrap_or("\"\"").to_owned());
            let _ = writeln!(out, "{mark}{name} = {value}");
        }
        out
    }

    pub(crate) fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.header_seconds)
    }

    pub(crate) fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_secs(self.handshake_seconds)
    }

    pub(crate) fn progress_timeout(&self) -> Duration {
        Duration::from_secs(self.progress_seconds)
    }

    pub(crate) fn shutdown_timeout(&self) -> Duration {
        Duration::from_secs(self.shutdown_seconds)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let default = Config::default();
        assert_eq!(Config::parse(&default.write_commented()).unwrap(), default);
        let other = Config {
            origin: "https://pouch.acme.example".parse().unwrap(),
            data: "/a \"b\"\\c\n".into(),
            certificate: Some("/c".into()),
            key: Some("/k".into()),
            connections: 7,
            retention_seconds: 7200,
            ..default
        };
        assert_eq!(Config::parse(&other.write_commented()).unwrap(), other);
        // Without the marks every example is a value that can be read.
        let lines = other.write_commented().lines().map(uncommented).collect::<Vec<_>>().join("\n");
        let all = Config::parse(&lines).unwrap();
        assert_eq!(all.operations, Some("127.0.0.1:9180".parse().unwrap()));
        assert_eq!(Config { operations: None, ledger: None, ledger_password_file: None, ..all }, other);
    }

    /// A value's line without its mark.
    fn uncommented(line: &str) -> &str {
        match line.strip_prefix("# ") {
            Some(value) if VALUES.iter().any(|v| value.split(" = ").next() == Some(v.name)) => value,
            _ => line,
        }
    }

    #[test]
    fn ranges_hold_at_both_ends() {
        for Value { name, range, number, .. } in VALUES {
            let Some((range, must)) = range else {
                assert!(number(&Config::default()).is_none(), "{name} is a number without a range");
                continue;
            };
            for (number, good) in [
                (Some(*range.start()), true),
                (Some(*range.end()), true),
                (range.start().checked_sub(1), false),
                (range.end().checked_add(1), false),
            ] {
                let Some(number) = number else { continue };
                let outcome = Config::parse(&format!("{name} = {number}"));
                assert_eq!(outcome.is_ok(), good, "{name} = {number}");
                if let Err(error) = outcome {
                    assert!(error.to_string().contains(must), "{error}");
                }
            }
        }
    }

    /// The table of docs/operating-a-relay.md.
    fn table() -> String {
        let default = Config::default();
        let mut out = String::from("| value | default | what |\n| --- | --- | --- |\n");
        for Value { name, doc, written, .. } in VALUES {
            let standard = written(&default).map_or_else(|| "none".to_owned(), |value| readable(name, value));
            let text = doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            let _ = writeln!(out, "| `{name}` | {standard} | {text} |");
        }
        out
    }

    fn readable(name: &str, value: String) -> String {
        match value.parse::<u64>() {
            Ok(bytes) if name.ends_with("_bytes") && bytes % GIB == 0 => format!("{} GiB", bytes / GIB),
            Ok(bytes) if name.ends_with("_bytes") && bytes % MIB == 0 => format!("{} MiB", bytes / MIB),
            Ok(seconds) if name.ends_with("_seconds") && seconds > 0 && seconds % DAY == 0 => {
                format!("{} days", seconds / DAY)
            }
            Ok(_) => value,
            Err(_) => format!("`{value}`"),
        }
    }

    #[test]
    fn the_documentation_has_every_value() {
        let page = include_str!("../../../docs/operating-a-relay.md");
        assert!(page.contains(&table()), "the table must be:\n{}", table());
    }

    #[test]
    fn unknown_and_wrong_values_are_refused() {
        for bad in [
            "nope = 1",
            "certificate = \"/a\"",
            "ledger = \"postgres://pouch:CANARY@db.example/pouch\"",
            "ledger = \"postgres://pouch@db.example/pouch?password=CANARY\"",
            "connections = 0",
            "origin = \"http://a\"",
            "header_seconds = 0",
            "proxy_protocol = true",
            "operations = \"0.0.0.0:1\"",
            "trusted_proxies = \"10.0.0.0/8\"",
            "trusted_proxies = [\"10.0.0.1/8\"]",
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }
}
