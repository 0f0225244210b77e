//! Types of values, and how each stands in TOML and in a variable.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use pouch_statement::RelayOrigin;

use super::{Config, OperationsAddress};

/// How the text of a variable becomes a value of TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it stands.
    Text,
    /// As it stands, counted from the working directory.
    Path,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// Texts with commas between them.
    List,
}

/// The type of a value.
pub(crate) trait Setting: Sized {
    /// How a variable gives it.
    const KIND: Kind;
    /// Names and kinds of what it holds where it is a table in the file: each has a variable of its own.
    const FIELDS: &'static [(&'static str, Kind)] = &[];

    /// As TOML; `None` where nothing is set.
    fn written(&self) -> Option<String>;

    /// As a number, for ranges.
    fn number(&self) -> Option<u64> {
        None
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            const KIND: Kind = Kind::Number;
            fn written(&self) -> Option<String> {
                Some(self.to_string())
            }
            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )*};
}
numbers!(u32, u64, usize);

impl Setting for bool {
    const KIND: Kind = Kind::Flag;
    fn written(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for PathBuf {
    const KIND: Kind = Kind::Path;
    fn written(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

macro_rules! texts {
    ($($text:ty),*) => {
        $(impl Setting for $text {
            const KIND: Kind = Kind::Text;
            fn written(&self) -> Option<String> {
                Some(quoted(&self.to_string()))
            }
        })*
    };
}
texts!(String, RelayOrigin, SocketAddr, OperationsAddress);

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;
    const FIELDS: &'static [(&'static str, Kind)] = T::FIELDS;
    fn written(&self) -> Option<String> {
        self.as_ref().and_then(T::written)
    }
    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(T::number)
    }
}

/// What there is to say about one value.
pub(crate) struct Value {
    /// As it stands in the file; in capitals behind `POUCH_RELAY_` it is the variable.
    pub(crate) name: &'static str,
    /// Lines of text: the comment in the file, and the row of the table in docs/operating-a-relay.md.
    pub(crate) doc: &'static [&'static str],
    pub(crate) kind: Kind,
    pub(crate) fields: &'static [(&'static str, Kind)],
    /// What may stand in the file where the default is nothing.
    pub(crate) example: Option<&'static str>,
    /// What numbers it may be, and in words.
    pub(crate) range: Option<(RangeInclusive<u64>, &'static str)>,
    pub(crate) written: fn(&Config) -> Option<String>,
    pub(crate) number: fn(&Config) -> Option<u64>,
}

/// A TOML basic string (TOML 1.0, "String").
pub(crate) fn quoted(text: &str) -> String {
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

/// A path of the file, counted from the file's folder.
pub(crate) trait Beneath {
    /// The path from `folder` on.
    fn beneath(self, folder: &Path) -> Self;
}

impl Beneath for PathBuf {
    fn beneath(self, folder: &Path) -> Self {
        folder.join(self)
    }
}

impl<T: Beneath> Beneath for Option<T> {
    fn beneath(self, folder: &Path) -> Self {
        self.map(|path| path.beneath(folder))
    }
}
