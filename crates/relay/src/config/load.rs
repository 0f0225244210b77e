//! Where values come from: the defaults, the file, the variables; the later wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value as Toml};

use super::value::{Beneath as _, Kind};
use super::{Config, ConfigError, FILE, MAX_FILE, VALUES};

/// What the variables of the configuration begin with.
const PREFIX: &str = "POUCH_RELAY_";
/// A variable that is longer is no value.
const MAX_VARIABLE: usize = 4096;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was not set.
    Default,
    /// The file.
    File,
    /// This variable.
    Variable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str(FILE),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// A value that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its name in the file.
    pub name: &'static str,
    /// As it would stand in the file; `None` where nothing is set. No value is a secret: those are in files of their own.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
}

/// A configuration, and where each value of it comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    sources: BTreeMap<&'static str, Source>,
}

/// One variable, and where in the file its value would stand.
struct Variable {
    name: &'static str,
    field: Option<&'static str>,
    kind: Kind,
}

impl Loaded {
    /// Reads the file and then the variables; those whose name begins with `POUCH_RELAY_` are all taken for values. Paths in
    /// the file count from its folder, paths in variables from the working directory.
    ///
    /// # Errors
    /// Unreadable, unknown or wrong values.
    pub fn load(path: &Path, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let in_file = |message| ConfigError::Form { path: path.to_owned(), message };
        // Read by itself first: its errors know their lines.
        Config::form(&text).map_err(in_file)?;
        let mut table: Table = toml::from_str(&text).map_err(|e| in_file(e.message().to_owned()))?;
        let mut sources = BTreeMap::new();
        for value in VALUES.iter().filter(|value| table.contains_key(value.name)) {
            sources.insert(value.name, Source::File);
        }
        let mut variables: Vec<_> = variables.into_iter().collect();
        // The environment has no order: a value comes before its fields, which then say more than it does.
        variables.sort();
        for (variable, text) in variables {
            let Some(end) = variable.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            let variable = format!("{PREFIX}{end}");
            let known = find(end).ok_or_else(|| ConfigError::UnknownVariable(variable.clone()))?;
            let wrong = |message: &str| ConfigError::Variable { name: variable.clone(), message: message.to_owned() };
            let value = text.to_str().ok_or("it is not UTF-8").and_then(|text| known.kind.read(text)).map_err(wrong)?;
            let alone = known.put(&mut Table::new(), value.clone());
            if known.field.is_none() && alone.try_into::<Config>().is_err() {
                return Err(wrong(&format!("it is no `{}`; see the file's comments", known.name)));
            }
            known.put(&mut table, value);
            sources.insert(known.name, Source::Variable(variable));
        }
        let config: Config = table.try_into().map_err(|e: toml::de::Error| in_file(e.message().to_owned()))?;
        let config = config.beneath(path.parent().unwrap_or(Path::new("")));
        config.check()?;
        Ok(Self { config, sources })
    }

    /// All values, in the file's order.
    #[must_use]
    pub fn in_force(&self) -> Vec<InForce> {
        let source = |name| self.sources.get(name).cloned().unwrap_or(Source::Default);
        VALUES
            .iter()
            .map(|value| InForce { name: value.name, value: (value.written)(&self.config), source: source(value.name) })
            .collect()
    }
}

impl Config {
    /// Reads and checks a file; relative paths in it count from its folder.
    ///
    /// # Errors
    /// Unreadable, unknown or wrong values.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Loaded::load(path, []).map(|loaded| loaded.config)
    }

    /// Reads and checks a text; paths stay as they are.
    ///
    /// # Errors
    /// Unknown or wrong values.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config = Self::form(text).map_err(|message| ConfigError::Form { path: PathBuf::from(FILE), message })?;
        config.check()?;
        Ok(config)
    }

    /// Reads a text; the error says where, and shows no line of it.
    fn form(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| match error.span().and_then(|span| text.get(..span.start)) {
            Some(before) => format!("line {}: {}", before.matches('\n').count() + 1, error.message()),
            None => error.message().to_owned(),
        })
    }

    /// Paths of the file, counted from its folder.
    fn beneath(self, folder: &Path) -> Self {
        Self {
            data: self.data.beneath(folder),
            certificate: self.certificate.beneath(folder),
            key: self.key.beneath(folder),
            blobs: self.blobs.beneath(folder),
            ledger_password_file: self.ledger_password_file.beneath(folder),
            ..self
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let data = std::fs::metadata(path).map_err(read)?;
    if !data.is_file() {
        // A pipe would be waited for.
        return Err(read(std::io::Error::other("not a file")));
    }
    if data.len() > MAX_FILE {
        return Err(ConfigError::TooLong(path.to_owned()));
    }
    std::fs::read_to_string(path).map_err(read)
}

/// The value whose variable ends so.
fn find(end: &str) -> Option<Variable> {
    VALUES.iter().find_map(|value| {
        let name = value.name;
        if end == name.to_uppercase() {
            return Some(Variable { name, field: None, kind: value.kind });
        }
        let rest = end.strip_prefix(&name.to_uppercase())?.strip_prefix('_')?;
        let (field, kind) = value.fields.iter().find(|(field, _)| rest == field.to_uppercase())?;
        Some(Variable { name, field: Some(field), kind: *kind })
    })
}

impl Variable {
    /// Puts the value where the file would have it.
    fn put(&self, table: &mut Table, value: Toml) -> Table {
        match self.field {
            None => {
                table.insert(self.name.to_owned(), value);
            }
            Some(field) => {
                let inner = table.entry(self.name).or_insert_with(|| Toml::Table(Table::new()));
                if !inner.is_table() {
                    *inner = Toml::Table(Table::new());
                }
                if let Some(inner) = inner.as_table_mut() {
                    inner.insert(field.to_owned(), value);
                }
            }
        }
        table.clone()
    }
}

impl Kind {
    /// A variable's text as a value of TOML.
    fn read(self, text: &str) -> Result<Toml, &'static str> {
        if text.len() > MAX_VARIABLE {
            return Err("it is too long");
        }
        match self {
            Self::List => {
                let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
                Ok(Toml::Array(texts.map(|text| Toml::String(text.to_owned())).collect()))
            }
            _ if text.is_empty() => Err("it is empty; unset it to leave the value to the file"),
            Self::Text => Ok(Toml::String(text.to_owned())),
            Self::Path => {
                let path = std::path::absolute(text).map_err(|_| "it is no path")?;
                path.into_os_string().into_string().map(Toml::String).map_err(|_| "the working directory is not UTF-8")
            }
            Self::Number => {
                let digits = text.bytes().all(|c| c.is_ascii_digit());
                let number = text.parse().ok().filter(|_| digits);
                number.map(Toml::Integer).ok_or("it is no whole number")
            }
            Self::Flag => match text {
                "true" => Ok(Toml::Boolean(true)),
                "false" => Ok(Toml::Boolean(false)),
                _ => Err("it is neither true nor false"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, file).unwrap();
        Loaded::load(&path, variables.iter().map(|(name, text)| (name.into(), text.into())))
    }

    #[test]
    fn a_variable_wins_over_the_file_and_that_over_the_default() {
        let file = "connections = 7\nheader_seconds = 8\ncertificate = \"c\"\nkey = \"k\"";
        let variables = [
            ("POUCH_RELAY_CONNECTIONS", "9"),
            ("POUCH_RELAY_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1"),
            ("POUCH_RELAY_PROXY_PROTOCOL", "true"),
            ("POUCH_RELAY_KEY", "/k"),
            ("POUCH_LOG", "debug"),
            ("HOME", "/"),
        ];
        let loaded = load(file, &variables).unwrap();
        let config = &loaded.config;
        assert_eq!((config.connections, config.header_seconds, config.progress_seconds), (9, 8, 20));
        assert!(config.trusted_proxies.contain("192.0.2.1".parse().unwrap()) && config.proxy_protocol);
        assert_eq!(config.key, Some("/k".into()));
        assert!(config.certificate.as_ref().unwrap().ends_with("c"));
        let shown = |name| loaded.in_force().into_iter().find(|value| value.name == name).unwrap();
        let variable = Source::Variable("POUCH_RELAY_CONNECTIONS".to_owned());
        assert_eq!(
            shown("connections"),
            InForce { name: "connections", value: Some("9".to_owned()), source: variable }
        );
        assert_eq!(shown("header_seconds").source, Source::File);
        assert_eq!(shown("operations"), InForce { name: "operations", value: None, source: Source::Default });
        assert_eq!(shown("trusted_proxies").value.unwrap(), "[\"10.0.0.0/8\", \"192.0.2.1/32\"]");
    }

    #[test]
    fn every_value_has_its_variable() {
        let all = Config {
            certificate: Some("/c".into()),
            key: Some("/k".into()),
            operations: Some("unix:/o".parse().unwrap()),
            ledger: Some("postgres://pouch@db.example/pouch".to_owned()),
            ledger_password_file: Some("/p".into()),
            trusted_proxies: Config::parse("trusted_proxies = [\"10.0.0.0/8\"]").unwrap().trusted_proxies,
            ..Config::default()
        };
        for value in VALUES {
            let name = format!("{PREFIX}{}", value.name.to_uppercase());
            let written = (value.written)(&all).unwrap_or_else(|| panic!("{name} is not set above"));
            let text = written.trim_matches(['[', ']']).trim_matches('"');
            let needed = [("CERTIFICATE", "/c"), ("KEY", "/k"), ("LEDGER", "postgres://pouch@db.example/pouch")];
            let needed = needed.map(|(end, text)| (format!("{PREFIX}{end}"), text));
            let variables: Vec<_> =
                needed.iter().map(|(n, t)| (n.as_str(), *t)).chain([(name.as_str(), text)]).collect();
            let loaded = load("", &variables).unwrap_or_else(|e| panic!("{e}"));
            let given = loaded.in_force().into_iter().find(|given| given.name == value.name).unwrap();
            assert_eq!(given.source, Source::Variable(name));
        }
    }

    #[test]
    fn wrong_variables_are_refused_by_name_and_not_repeated() {
        for (name, text) in [
            ("POUCH_RELAY_CONECTIONS", "CANARY"),
            ("POUCH_RELAY_", "CANARY"),
            ("POUCH_RELAY_CONNECTIONS", "CANARY"),
            ("POUCH_RELAY_CONNECTIONS", ""),
            ("POUCH_RELAY_CONNECTIONS", "+7"),
            ("POUCH_RELAY_CONNECTIONS", "-7"),
            ("POUCH_RELAY_CONNECTIONS", "99999999999999999999"),
            ("POUCH_RELAY_PROXY_PROTOCOL", "yes CANARY"),
            ("POUCH_RELAY_ORIGIN", "http://CANARY"),
            ("POUCH_RELAY_LISTEN", "CANARY"),
            ("POUCH_RELAY_OPERATIONS", "192.0.2.1:80 CANARY"),
            ("POUCH_RELAY_TRUSTED_PROXIES", "CANARY"),
        ] {
            let error = load("", &[(name, text)]).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("CANARY"), "{name}={text}: {error}");
        }
        // The range is checked wherever a number comes from.
        let error = load("", &[("POUCH_RELAY_CONNECTIONS", "0")]).unwrap_err().to_string();
        assert!(error.contains("`connections` must be between 1 and 65536"), "{error}");
        let error = load("connections = 1\n\nnope = 2", &[]).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("nope"), "{error}");
    }

    #[test]
    fn a_field_of_a_table_has_a_variable() {
        let mut variables = [
            ("POUCH_RELAY_BLOBS", "folder"),
            ("POUCH_RELAY_BLOBS_BUCKET", "parcels"),
            ("POUCH_RELAY_BLOBS_ENDPOINT", "https://s3.example"),
            ("POUCH_RELAY_BLOBS_MEMORY_BYTES", "16777216"),
        ];
        // Whatever the order of the environment, and whatever the file says of the rest.
        for file in ["", "blobs = { endpoint = \"https://other.example\", bucket = \"other\" }"] {
            for _ in 0..variables.len() {
                variables.rotate_left(1);
                let blobs = load(file, &variables).unwrap().config.blobs;
                let crate::config::BlobConfig::S3(s3) = &blobs else { panic!("{blobs:?}") };
                let endpoint = s3.endpoint.to_string();
                assert_eq!((endpoint.as_str(), s3.bucket.as_str()), ("https://s3.example", "parcels"));
                assert_eq!((s3.memory_bytes, s3.region.as_str()), (16 << 20, "us-east-1"));
            }
        }
        // A field alone is added to the file's table.
        let file = "blobs = { endpoint = \"https://s3.example\", bucket = \"parcels\" }";
        let blobs = load(file, &[("POUCH_RELAY_BLOBS_BUCKET", "others")]).unwrap().config.blobs;
        let crate::config::BlobConfig::S3(s3) = &blobs else { panic!("{blobs:?}") };
        assert_eq!((s3.endpoint.to_string().as_str(), s3.bucket.as_str()), ("https://s3.example", "others"));
    }
}
