//! Where blobs are kept: the data folder, or a bucket.

use std::fmt;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::Uri;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::ConfigError;
use super::value::{Beneath, Kind, Setting, quoted};
use crate::blob::SINGLE;

/// What `blobs` says for the data folder.
const FOLDER: &str = "folder";
/// Variables that every S3 tool knows.
const ID_VARIABLE: &str = "AWS_ACCESS_KEY_ID";
const SECRET_VARIABLE: &str = "AWS_SECRET_ACCESS_KEY";
/// A key is a line of text.
const MAX_SECRET: u64 = 4 << 10;
const MAX_PREFIX: usize = 200;

/// Where blobs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum BlobConfig {
    /// Files in the data folder.
    #[default]
    Folder,
    /// Objects in a bucket.
    S3(S3Config),
}

/// A bucket of an S3 service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// Where the service is.
    pub endpoint: S3Endpoint,
    /// The bucket; it must be there.
    pub bucket: String,
    /// What all keys begin with, for a bucket with other things in it.
    #[serde(default)]
    pub prefix: String,
    /// The region that requests are signed for.
    #[serde(default = "default_region")]
    pub region: String,
    /// `endpoint/bucket/key` and not `bucket.endpoint/key`.
    #[serde(default = "default_path_style")]
    pub path_style: bool,
    /// Who signs; without it `AWS_ACCESS_KEY_ID` of the environment.
    pub access_key_id: Option<String>,
    /// The file whose first line is the key; without it `AWS_SECRET_ACCESS_KEY` of the environment.
    pub secret_access_key_file: Option<PathBuf>,
    /// Bytes of uploads in memory at once; further ones wait.
    #[serde(default = "default_memory")]
    pub memory_bytes: u64,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

const fn default_path_style() -> bool {
    true
}

const fn default_memory() -> u64 {
    64 << 20
}

/// The keys that requests to S3 are signed with.
pub(crate) struct S3Keys {
    pub(crate) id: String,
    pub(crate) secret: Zeroizing<String>,
}

impl S3Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let require = |good: bool, name, must| {
            if good { Ok(()) } else { Err(ConfigError::Value { name, must }) }
        };
        let word = |text: &str, more: &str| {
            !text.is_empty()
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || more.contains(c))
        };
        let bucket = &self.bucket;
        require(
            (3..=63).contains(&bucket.len()) && word(bucket, ".") && !bucket.starts_with(['.', '-']),
            "blobs.bucket",
            "3 to 63 lower-case letters, digits, dots and hyphens",
        )?;
        require(self.region.len() <= 64 && word(&self.region, "_"), "blobs.region", "a region's name")?;
        let part = |part: &str| {
            let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            plain && !part.chars().all(|c| c == '.')
        };
        require(
            self.prefix.is_empty() || self.prefix.len() <= MAX_PREFIX && self.prefix.split('/').all(part),
            "blobs.prefix",
            "letters, digits, - _ . in parts with / between them, 200 bytes at most",
        )?;
        require(
            (SINGLE..=64 << 30).contains(&self.memory_bytes),
            "blobs.memory_bytes",
            "between 16 MiB (16777216) and 64 GiB",
        )
    }

    /// Reads the keys. What is wrong is said without them.
    pub(crate) fn keys(&self) -> Result<S3Keys, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let id = self.access_key_id.clone().or_else(|| variable(ID_VARIABLE));
        let id = id.ok_or_else(|| format!("set `access_key_id` in `blobs`, or {ID_VARIABLE}"))?;
        let secret = match &self.secret_access_key_file {
            Some(path) => first_line(path).map_err(|error| format!("{}: {error}", path.display()))?,
            None => {
                let secret = variable(SECRET_VARIABLE).map(Zeroizing::new);
                secret.ok_or_else(|| format!("set `secret_access_key_file` in `blobs`, or {SECRET_VARIABLE}"))?
            }
        };
        Ok(S3Keys { id, secret })
    }

    /// As an inline table of TOML.
    fn table(&self) -> String {
        let mut fields = vec![
            format!("endpoint = {}", quoted(&self.endpoint.to_string())),
            format!("bucket = {}", quoted(&self.bucket)),
            format!("prefix = {}", quoted(&self.prefix)),
            format!("region = {}", quoted(&self.region)),
            format!("path_style = {}", self.path_style),
            format!("memory_bytes = {}", self.memory_bytes),
        ];
        if let Some(id) = &self.access_key_id {
            fields.push(format!("access_key_id = {}", quoted(id)));
        }
        if let Some(path) = &self.secret_access_key_file {
            fields.push(format!("secret_access_key_file = {}", quoted(&path.to_string_lossy())));
        }
        format!("{{ {} }}", fields.join(", "))
    }
}

impl Setting for BlobConfig {
    const KIND: Kind = Kind::Text;
    const FIELDS: &'static [(&'static str, Kind)] = &[
        ("endpoint", Kind::Text),
        ("bucket", Kind::Text),
        ("prefix", Kind::Text),
        ("region", Kind::Text),
        ("path_style", Kind::Flag),
        ("access_key_id", Kind::Text),
        ("secret_access_key_file", Kind::Path),
        ("memory_bytes", Kind::Number),
    ];

    fn written(&self) -> Option<String> {
        Some(match self {
            Self::Folder => quoted(FOLDER),
            Self::S3(s3) => s3.table(),
        })
    }
}

impl Beneath for BlobConfig {
    fn beneath(self, folder: &Path) -> Self {
        match self {
            Self::Folder => self,
            Self::S3(s3) => {
                Self::S3(S3Config { secret_access_key_file: s3.secret_access_key_file.beneath(folder), ..s3 })
            }
        }
    }
}

fn first_line(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?.take(MAX_SECRET).read_to_string(&mut text)?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        Err(std::io::Error::other("the first line is empty"))
    } else {
        Ok(Zeroizing::new(line.to_owned()))
    }
}

/// `https://HOST[:PORT]`; to this machine also `http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Endpoint {
    plain: bool,
    /// Host and port.
    authority: String,
}

/// What is wrong with an endpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointError {
    /// Not of this form.
    #[error("an S3 endpoint is https://HOST or https://HOST:PORT")]
    Form,
    /// Without TLS.
    #[error("an S3 endpoint without TLS must be this machine's (http://127.0.0.1:PORT)")]
    Plain,
}

impl FromStr for S3Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let uri: Uri = text.parse().map_err(|_| EndpointError::Form)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(EndpointError::Form);
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(EndpointError::Form);
        }
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let loopback = address.map_or(host == "localhost", |address| address.is_loopback());
        let plain = match scheme {
            "https" => false,
            "http" if loopback => true,
            "http" => return Err(EndpointError::Plain),
            _ => return Err(EndpointError::Form),
        };
        Ok(Self { plain, authority: authority.as_str().to_owned() })
    }
}

impl S3Endpoint {
    /// Whether it has no TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// Where `object_store` looks for the bucket: with the path style it adds its name itself.
    pub(crate) fn for_bucket(&self, bucket: &str, path_style: bool) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        if path_style { self.to_string() } else { format!("{scheme}://{bucket}.{}", self.authority) }
    }
}

impl fmt::Display for S3Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.plain { "http" } else { "https" }, self.authority)
    }
}

impl<'de> Deserialize<'de> for S3Endpoint {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for BlobConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = BlobConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"folder\", or a table with endpoint and bucket of an S3 service")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<BlobConfig, E> {
                if text == FOLDER {
                    Ok(BlobConfig::Folder)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BlobConfig, A::Error> {
                S3Config::deserialize(MapAccessDeserializer::new(map)).map(BlobConfig::S3)
            }
        }

        d.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Config;

    fn s3(more: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("blobs = {{ endpoint = \"https://s3.example\", bucket = \"pouch\"{more} }}"))
    }

    #[test]
    fn what_is_written_is_read() {
        let BlobConfig::S3(plain) = s3("").unwrap().blobs else { unreachable!() };
        assert_eq!((plain.region.as_str(), plain.path_style, plain.memory_bytes), ("us-east-1", true, 64 << 20));
        let all = S3Config {
            endpoint: "http://127.0.0.1:8000".parse().unwrap(),
            prefix: "a/b".to_owned(),
            path_style: false,
            access_key_id: Some("AK\"1".to_owned()),
            secret_access_key_file: Some("/run/secret".into()),
            memory_bytes: 32 << 20,
            ..plain.clone()
        };
        for s3 in [plain, all] {
            let config = Config { blobs: BlobConfig::S3(s3), ..Config::default() };
            assert_eq!(Config::parse(&config.write_commented()).unwrap(), config);
        }
        assert_eq!(Config::parse("blobs = \"folder\"").unwrap(), Config::default());
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (more, says) in [
            (", nope = 1", "nope"),
            (", prefix = \"/a\"", "blobs.prefix"),
            (", prefix = \"a/../b\"", "blobs.prefix"),
            (", region = \"a b\"", "blobs.region"),
            (", memory_bytes = 16777215", "blobs.memory_bytes"),
        ] {
            let error = s3(more).unwrap_err().to_string();
            assert!(error.contains(says), "{more}: {error}");
        }
        for bucket in ["ab", "Pouch", "-pouch", &"x".repeat(64)] {
            let text = format!("blobs = {{ endpoint = \"https://a\", bucket = \"{bucket}\" }}");
            assert!(Config::parse(&text).unwrap_err().to_string().contains("blobs.bucket"), "{bucket}");
        }
        assert!(s3(", memory_bytes = 16777216, prefix = \"a.b/c_d-1\"").is_ok());
        let error = Config::parse("blobs = \"disk\"").unwrap_err().to_string();
        assert!(error.contains("\"folder\", or a table"), "{error}");
        assert!(Config::parse("blobs = { bucket = \"pouch\" }").unwrap_err().to_string().contains("endpoint"));
    }

    #[test]
    fn plain_http_only_to_this_machine() {
        use EndpointError as E;
        for (text, expected) in [
            ("https://s3.example", Ok("https://s3.example")),
            ("https://s3.example:9000/", Ok("https://s3.example:9000")),
            ("http://127.0.0.1:8000", Ok("http://127.0.0.1:8000")),
            ("http://[::1]:8000", Ok("http://[::1]:8000")),
            ("http://localhost:8000", Ok("http://localhost:8000")),
            ("http://s3.example", Err(E::Plain)),
            ("http://127.0.0.1.example", Err(E::Plain)),
            ("http://10.0.0.1", Err(E::Plain)),
            ("https://u:p@s3.example", Err(E::Form)),
            ("https://s3.example/path", Err(E::Form)),
            ("https://s3.example?x", Err(E::Form)),
            ("ftp://s3.example", Err(E::Form)),
            ("s3.example", Err(E::Form)),
            ("", Err(E::Form)),
        ] {
            let parsed = text.parse::<S3Endpoint>().map(|endpoint| endpoint.to_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{text}");
        }
        let endpoint: S3Endpoint = "https://s3.example:9000".parse().unwrap();
        assert_eq!(endpoint.for_bucket("pouch", true), "https://s3.example:9000");
        assert_eq!(endpoint.for_bucket("pouch", false), "https://pouch.s3.example:9000");
    }

    // attacks.md 59: neither value nor error shows the key.
    #[test]
    fn attack_59_the_key_comes_from_a_file_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), " CANARY \nmore\n").unwrap();
        let path = folder.path().join("relay.toml");
        let lines = "blobs = { endpoint = \"https://a\", bucket = \"pouch\", access_key_id = \"A\", \
                     secret_access_key_file = \"key\" }\n";
        std::fs::write(&path, lines).unwrap();
        let config = Config::load(&path).unwrap();
        let BlobConfig::S3(s3) = &config.blobs else { unreachable!() };
        let keys = s3.keys().unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str()), ("A", "CANARY"));
        assert!(!format!("{config:?}{}", config.write_commented()).contains("CANARY"));
        for (content, says) in [("\n", "the first line is empty"), ("CANARY\0\u{1}\r", "")] {
            std::fs::write(folder.path().join("key"), content).unwrap();
            let said = s3.keys().err().unwrap_or_default();
            assert!(said.contains(says) && !said.contains("CANARY"), "{said}");
        }
        std::fs::remove_file(folder.path().join("key")).unwrap();
        assert!(s3.keys().err().unwrap().contains("key: No such file"));
    }
}
