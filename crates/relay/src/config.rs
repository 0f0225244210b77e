//! The relay's configuration: one TOML file, every value with a default.

mod blobs;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pouch_protocol::limits::MAX_LIFETIME;
use pouch_statement::RelayOrigin;
use serde::Deserialize;

pub use blobs::{BlobConfig, EndpointError, S3Config, S3Endpoint};

/// The file's name in the data folder.
pub(crate) const FILE: &str = "relay.toml";
/// A configuration is a page of text.
const MAX_FILE: u64 = 64 << 10;
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const DAY: u64 = 24 * 3600;

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
}

/// Everything that an operator may set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients reach it; request signatures are bound to it.
    pub origin: RelayOrigin,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The data folder; relative paths count from the configuration's own folder.
    pub data: PathBuf,
    /// Certificate chain (PEM). Without it the relay uses its own self-signed one, and links carry pins.
    pub certificate: Option<PathBuf>,
    /// Private key (PEM) of `certificate`.
    pub key: Option<PathBuf>,
    /// Where sealed parts and indexes are kept.
    pub blobs: BlobConfig,
    /// Bytes that uploads to the data folder leave free on its disk.
    pub disk_reserve_bytes: u64,
    /// `postgres://USER@HOST/DATABASE`, without a password. Without it the ledger is a file in the data folder.
    pub ledger: Option<String>,
    /// A file of one line: the password for `ledger`.
    pub ledger_password_file: Option<PathBuf>,
    /// Connections to `ledger` at once.
    pub ledger_connections: u32,
    /// Bytes that the bundles of one account may hold.
    pub account_bytes: u64,
    /// Bytes that all bundles together may hold.
    pub total_bytes: u64,
    /// Bundles that one account may have at once.
    pub account_bundles: u64,
    /// Ended bundles of one account whose state is kept: with as many it begins no further ones until some are pruned.
    pub account_ended_bundles: u64,
    /// Longest life of a bundle, in seconds.
    pub lifetime_seconds: u64,
    /// How long access records and what is left of ended bundles are kept, in seconds.
    pub retention_seconds: u64,
    /// How long a backup of the ledger may be restored, in seconds: so long blobs outlive what the ledger says of them.
    pub backup_seconds: u64,
    /// Connections at once.
    pub connections: usize,
    /// Time for a TLS handshake.
    pub handshake_seconds: u64,
    /// Time for a request's head, and how long a connection may idle.
    pub header_seconds: u64,
    /// Time in which a body, in either direction, must make progress.
    pub progress_seconds: u64,
    /// Time that requests get to finish when the relay stops.
    pub shutdown_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origin: default_origin(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)),
            data: PathBuf::from("."),
            certificate: None,
            key: None,
            blobs: BlobConfig::Folder,
            disk_reserve_bytes: 256 * MIB,
            ledger: None,
            ledger_password_file: None,
            ledger_connections: 16,
            account_bytes: 10 * GIB,
            total_bytes: 100 * GIB,
            account_bundles: 100_000,
            account_ended_bundles: 100_000,
            lifetime_seconds: MAX_LIFETIME,
            retention_seconds: 90 * DAY,
            backup_seconds: 0,
            connections: 512,
            handshake_seconds: 10,
            header_seconds: 15,
            progress_seconds: 20,
            shutdown_seconds: 10,
        }
    }
}

fn default_origin() -> RelayOrigin {
    "https://localhost:8443".parse().expect("a constant that every test parses")
}

impl Config {
    /// Reads and checks a file; relative paths in it count from its folder.
    ///
    /// # Errors
    /// Unreadable, unknown or wrong values.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let data = std::fs::metadata(path).map_err(read)?;
        if !data.is_file() {
            // A pipe would be waited for.
            return Err(read(std::io::Error::other("not a file")));
        }
        if data.len() > MAX_FILE {
            return Err(ConfigError::TooLong(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let mut config = Self::parse(&text).map_err(|error| match error {
            ConfigError::Form { message, .. } => ConfigError::Form { path: path.to_owned(), message },
            other => other,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.data = folder.join(&config.data);
        config.certificate = config.certificate.map(|p| folder.join(p));
        config.key = config.key.map(|p| folder.join(p));
        if let BlobConfig::S3(s3) = config.blobs {
            config.blobs = BlobConfig::S3(s3.beneath(folder));
        }
        config.ledger_password_file = config.ledger_password_file.map(|p| folder.join(p));
        Ok(config)
    }

    /// Reads and checks a text; paths stay as they are.
    ///
    /// # Errors
    /// Unknown or wrong values.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|e| ConfigError::Form { path: PathBuf::from(FILE), message: e.to_string() })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let require = |good: bool, name, must| {
            if good { Ok(()) } else { Err(ConfigError::Value { name, must }) }
        };
        require(self.certificate.is_some() == self.key.is_some(), "key", "given together with `certificate`")?;
        require(
            (60..=MAX_LIFETIME).contains(&self.lifetime_seconds),
            "lifetime_seconds",
            "between one minute and 366 days",
        )?;
        if let BlobConfig::S3(s3) = &self.blobs {
            s3.check()?;
        }
        require(self.retention_seconds >= 3600, "retention_seconds", "at least one hour")?;
        require(
            self.ledger.is_some() || self.ledger_password_file.is_none(),
            "ledger_password_file",
            "given together with `ledger`",
        )?;
        require((1..=1000).contains(&self.ledger_connections), "ledger_connections", "between 1 and 1000")?;
        require(self.backup_seconds <= MAX_LIFETIME, "backup_seconds", "at most 366 days")?;
        require((1..=65_536).contains(&self.connections), "connections", "between 1 and 65536")?;
        for (name, seconds) in [
            ("handshake_seconds", self.handshake_seconds),
            ("header_seconds", self.header_seconds),
            ("progress_seconds", self.progress_seconds),
            ("shutdown_seconds", self.shutdown_seconds),
        ] {
            require((1..=3600).contains(&seconds), name, "between 1 and 3600")?;
        }
        let largest = i64::MAX as u64 / 2; // the ledger's integers are signed, and sums must fit
        require(self.disk_reserve_bytes <= largest, "disk_reserve_bytes", "below four exbibytes")?;
        require(self.account_bytes <= largest, "account_bytes", "below four exbibytes")?;
        require(self.total_bytes <= largest, "total_bytes", "below four exbibytes")?;
        require(self.account_bundles <= largest, "account_bundles", "below four exbi")?;
        require(self.account_ended_bundles <= largest, "account_ended_bundles", "below four exbi")
    }

    /// The configuration as a commented file: values that differ from the defaults are set, the others shown behind `#`.
    #[must_use]
    pub fn write_commented(&self) -> String {
        let default = Self::default();
        let mut out = String::from(
            "# The configuration of a pouch relay. What stands behind a # is the default; remove the # to change it.\n",
        );
        let mut line = |comment: &str, name: &str, value: String, shown: bool| {
            let mark = if shown { "" } else { "# " };
            let _ = write!(out, "\n# {comment}\n{mark}{name} = {value}\n");
        };
        let path = |p: &Option<PathBuf>, example| quoted(&p.as_deref().unwrap_or(Path::new(example)).to_string_lossy());
        line(
            "Where clients reach this relay. Links, cards and request signatures are bound to it.",
            "origin",
            quoted(&self.origin.to_string()),
            true,
        );
        line("The address to listen on.", "listen", quoted(&self.listen.to_string()), true);
        line(
            "The data folder, counted from this file's folder.",
            "data",
            quoted(&self.data.to_string_lossy()),
            self.data != default.data,
        );
        line(
            "Certificate chain and private key (PEM) of a public authority.\n\
             # Without them the relay uses a self-signed certificate, and links carry the pins of its keys.",
            "certificate",
            path(&self.certificate, "/etc/letsencrypt/live/HOST/fullchain.pem"),
            self.certificate.is_some(),
        );
        line(
            "The private key of the certificate.",
            "key",
            path(&self.key, "/etc/letsencrypt/live/HOST/privkey.pem"),
            self.key.is_some(),
        );
        line(
            "Where sealed parts and indexes are kept: \"folder\" (in the data folder), or a bucket of an S3 service:\n\
             # { endpoint = \"https://s3.example\", bucket = \"pouch\", access_key_id = \"AK\", secret_access_key_file = \"s3.key\" }",
            "blobs",
            self.blobs.written(),
            self.blobs != default.blobs,
        );
        line(
            "PostgreSQL 15 or newer as the ledger, which any number of nodes can share. Without it the ledger is a file in the\n\
             # data folder. Off this machine the server's certificate is verified; `?sslrootcert=FILE` adds an authority.",
            "ledger",
            quoted(self.ledger.as_deref().unwrap_or("postgres://pouch@db.example/pouch")),
            self.ledger.is_some(),
        );
        line(
            "A file with the password for the ledger.",
            "ledger_password_file",
            path(&self.ledger_password_file, "/etc/pouch/ledger-password"),
            self.ledger_password_file.is_some(),
        );
        for ((comment, name, value), (.., standard)) in self.numbers().into_iter().zip(default.numbers()) {
            line(comment, name, value.to_string(), value != standard);
        }
        out
    }

    /// All values that are numbers: comment, name, value.
    fn numbers(&self) -> [(&'static str, &'static str, u64); 14] {
        [
            (
                "Bytes that uploads leave free on the data folder's disk: the ledger needs room, too.",
                "disk_reserve_bytes",
                self.disk_reserve_bytes,
            ),
            (
                "Bytes that the bundles of one account may hold, with the receipts for them.",
                "account_bytes",
                self.account_bytes,
            ),
            ("Bytes that all bundles together may hold; leave room on the disk.", "total_bytes", self.total_bytes),
            ("Bundles that one account may have at once.", "account_bundles", self.account_bundles),
            (
                "Ended bundles of one account that are remembered; with as many it sends no more until some are pruned.",
                "account_ended_bundles",
                self.account_ended_bundles,
            ),
            ("Longest life of a bundle, in seconds (366 days at most).", "lifetime_seconds", self.lifetime_seconds),
            (
                "How long access records and the state of ended bundles are kept, in seconds.",
                "retention_seconds",
                self.retention_seconds,
            ),
            (
                "How long a backup of the ledger may be restored, in seconds: so long blobs are kept when they are over.",
                "backup_seconds",
                self.backup_seconds,
            ),
            (
                "Connections to the PostgreSQL of the ledger at once.",
                "ledger_connections",
                u64::from(self.ledger_connections),
            ),
            (
                "Connections at once; when full, the oldest one that never signed a request makes room.",
                "connections",
                self.connections as u64,
            ),
            ("Seconds for a TLS handshake.", "handshake_seconds", self.handshake_seconds),
            (
                "Seconds for the head of a request, and for which a connection may idle.",
                "header_seconds",
                self.header_seconds,
            ),
            (
                "Seconds in which a body must make progress, in either direction.",
                "progress_seconds",
                self.progress_seconds,
            ),
            ("Seconds that requests get to finish when the relay stops.", "shutdown_seconds", self.shutdown_seconds),
        ]
    }

    pub(crate) fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.header_seconds)
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

/// A TOML basic string (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
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
        let all = other.write_commented().replace("\n# account", "\naccount").replace("\n# header", "\nheader");
        assert_eq!(Config::parse(&all).unwrap(), other);
    }

    #[test]
    fn unknown_and_wrong_values_are_refused() {
        for bad in
            ["nope = 1", "certificate = \"/a\"", "connections = 0", "origin = \"http://a\"", "header_seconds = 0"]
        {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }
}
