//! Names inside a bundle: one parser, so that a path that could leave its folder cannot be held.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use pouch_statement::Escaped;
use unicode_normalization::UnicodeNormalization as _;

use super::litter::is_private_name;

/// The longest path in bytes, components and slashes (docs/format.md, "Paths").
pub const MAX_PATH: usize = 4096;
/// The longest component in bytes; what ext4, xfs, btrfs and APFS can hold.
pub const MAX_COMPONENT: usize = 255;
/// The most components of a path.
pub const MAX_DEPTH: usize = 256;

/// Why a text is not a path that a bundle may carry. The text itself stays out: it is the attacker's.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// Nothing there.
    #[error("the path is empty")]
    Empty,
    /// Begins with a slash.
    #[error("the path is absolute")]
    Absolute,
    /// Two slashes in a row, or one at the end.
    #[error("a component of the path is empty")]
    EmptyComponent,
    /// `.` or `..`.
    #[error("a component of the path is . or ..")]
    Dots,
    /// A name like those of our own unfinished folders and files, which are cleared away after a crash.
    #[error("a component of the path is named like an unfinished transfer of pouch")]
    Unfinished,
    /// A separator elsewhere.
    #[error("the path holds a backslash")]
    Backslash,
    /// The end of a string elsewhere.
    #[error("the path holds a NUL byte")]
    Nul,
    /// `C:` in front.
    #[error("the path begins with a drive")]
    Drive,
    /// A component over [`MAX_COMPONENT`].
    #[error("a component of the path has {length} bytes, at most {MAX_COMPONENT} fit")]
    ComponentTooLong {
        /// Bytes found.
        length: usize,
    },
    /// A path over [`MAX_PATH`].
    #[error("the path has {length} bytes, at most {MAX_PATH} fit")]
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// More than [`MAX_DEPTH`] components.
    #[error("the path has more than {MAX_DEPTH} components")]
    TooDeep,
}

/// A relative path of an entry: `/` between components, none of them empty, `.` or `..`.
///
/// Ordered component by component, each by its bytes: the order of a bundle, in which all that is in a folder stands
/// right behind it. Shown escaped; [`EntryPath::as_str`] is raw.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Box<str>);

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        in_order(&self.0, &other.0)
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of paths in a bundle: that of their components, which is that of their bytes with the separator below all
/// others.
pub(super) fn in_order(a: &str, b: &str) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    let differing = a.bytes().zip(b.bytes()).find(|(a, b)| a != b);
    differing.map_or_else(|| a.len().cmp(&b.len()), |(a, b)| rank(a).cmp(&rank(b)))
}

impl EntryPath {
    /// The raw text. It may hold control characters: never print it, print the path itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the folder that holds this, `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The path of `name` in this folder.
    ///
    /// # Errors
    /// When `name` is not one component, or the whole breaks a limit.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        format!("{}/{name}", self.0).parse()
    }
}

impl FromStr for EntryPath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > MAX_PATH {
            return Err(PathError::TooLong { length: text.len() });
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.contains('\\') {
            return Err(PathError::Backslash);
        }
        if text.contains('\0') {
            return Err(PathError::Nul);
        }
        if matches!(text.split('/').next().map(str::as_bytes), Some([letter, b':']) if letter.is_ascii_alphabetic()) {
            return Err(PathError::Drive);
        }
        for component in text.split('/') {
            match component {
                "" => return Err(PathError::EmptyComponent),
                "." | ".." => return Err(PathError::Dots),
                ours if is_private_name(ours) => return Err(PathError::Unfinished),
                long if long.len() > MAX_COMPONENT => {
                    return Err(PathError::ComponentTooLong { length: long.len() });
                }
                _ => {}
            }
        }
        if text.split('/').count() > MAX_DEPTH { Err(PathError::TooDeep) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// A name that arrives here as it is, and may mean something else, or nothing, where it is received.
/// For warnings to the sender (attacks.md 6, 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hazard {
    /// Two names that are one where case or the form of Unicode does not count (Windows, macOS).
    Alike {
        /// The one that comes first.
        first: EntryPath,
        /// The other.
        second: EntryPath,
    },
    /// A name that is a device on Windows: `NUL.txt`, `com1`.
    Reserved {
        /// The entry.
        path: EntryPath,
    },
    /// A dot or space at the end, which Windows drops.
    DroppedEnd {
        /// The entry.
        path: EntryPath,
    },
    /// A character that Windows cannot hold, or reads as a stream or pattern: `:` and `<>"|?*`.
    Character {
        /// The entry.
        path: EntryPath,
        /// The first such character.
        character: char,
    },
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alike { first, second } => {
                write!(f, "{first:?} and {second:?} are one name where upper case or accents are not told apart")
            }
            Self::Reserved { path } => write!(f, "{path:?} is the name of a device on Windows"),
            Self::DroppedEnd { path } => write!(f, "{path:?} ends in a dot or a space, which Windows drops"),
            Self::Character { path, character } => write!(f, "{path:?} holds {character}, which Windows cannot store"),
        }
    }
}

/// What other systems would make of these names, in the order of the names.
#[must_use]
pub fn hazards<'a>(paths: impl IntoIterator<Item = &'a EntryPath>) -> Vec<Hazard> {
    let mut found = Vec::new();
    let mut seen: HashMap<String, &EntryPath> = HashMap::new();
    for path in paths {
        let name = path.name();
        if let Some(first) = seen.insert(folded(path.as_str()), path) {
            found.push(Hazard::Alike { first: first.clone(), second: path.clone() });
        }
        if reserved_on_windows(name) {
            found.push(Hazard::Reserved { path: path.clone() });
        }
        if name.ends_with(['.', ' ']) {
            found.push(Hazard::DroppedEnd { path: path.clone() });
        }
        if let Some(character) = name.chars().find(|c| matches!(c, ':' | '<' | '>' | '"' | '|' | '?' | '*')) {
            found.push(Hazard::Character { path: path.clone(), character });
        }
    }
    found
}

/// A spelling that names share when a file system might hold them as one: composed, upper and then lower case, so
/// that `ß` and `SS` meet too. It folds more than any one file system does; it serves a warning.
fn folded(path: &str) -> String {
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    path.nfd().collect::<String>().to_uppercase().to_lowercase().nfc().collect()
}

/// "Naming Files, Paths, and Namespaces", learn.microsoft.com: devices, whatever extension follows.
fn reserved_on_windows(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let number = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    number.is_some_and(|n| matches!(n, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_separator_is_below_every_other_byte() {
        let path = |text: &str| text.parse::<EntryPath>().unwrap();
        for (first, second) in [("a", "b"), ("a", "a/b"), ("a/b", "a\u{1}"), ("a/z", "a.b"), ("a", "a\u{1}")] {
            assert!(path(first) < path(second), "{first:?} {second:?}");
            assert!(path(second) > path(first), "{first:?} {second:?}");
        }
        // What a person types is compared too.
        assert_eq!(in_order("a/b", "a\0b"), Ordering::Less);
        assert_eq!(in_order("a", "a"), Ordering::Equal);
    }

    // attacks.md 1, 8: paths that leave, and names that no file system holds.
    #[test]
    fn attack_1_and_8_paths_that_leave_or_do_not_fit() {
        let deep = vec!["d"; MAX_DEPTH + 1].join("/");
        let long = vec!["x".repeat(MAX_COMPONENT); 17].join("/");
        let refused = [
            ("", PathError::Empty),
            ("/x", PathError::Absolute),
            ("//host/share", PathError::Absolute),
            ("../x", PathError::Dots),
            ("a/../b", PathError::Dots),
            (".pouch-1p3na12gtfe5mz7gq8hvw7xf3g", PathError::Unfinished),
            ("a/.pouch-1p3na12gtfe5mz7gq8hvw7xf3g/b", PathError::Unfinished),
            ("a/.", PathError::Dots),
            (".", PathError::Dots),
            ("a//b", PathError::EmptyComponent),
            ("a/", PathError::EmptyComponent),
            ("C:\\x", PathError::Backslash),
            ("\\\\host\\share", PathError::Backslash),
            ("a\\..\\b", PathError::Backslash),
            ("C:", PathError::Drive),
            ("c:/x", PathError::Drive),
            ("a\0b", PathError::Nul),
            (&"x".repeat(256), PathError::ComponentTooLong { length: 256 }),
            (&long, PathError::TooLong { length: long.len() }),
            (&deep, PathError::TooDeep),
        ];
        for (text, wanted) in refused {
            assert_eq!(text.parse::<EntryPath>(), Err(wanted), "{text:?}");
        }
        let longest = vec!["x".repeat(MAX_COMPONENT - 1); 16].join("/") + "/0123456789abcdef";
        assert_eq!(longest.len(), MAX_PATH);
        let wide = "x".repeat(MAX_COMPONENT);
        for good in ["a", ".ssh/authorized_keys", "..a", "a:b", "C:x", "a b/ c", "é\n", &wide, &longest, &deep[2..]] {
            assert_eq!(good.parse::<EntryPath>().unwrap().as_str(), good);
        }
    }

    // attacks.md 6, 7: the sender hears of names that are something else elsewhere.
    #[test]
    fn attack_6_and_7_hazardous_names_are_reported() {
        let paths: Vec<EntryPath> = [
            "README",
            "readme",
            "Caf\u{e9}",
            "Cafe\u{301}",
            "straße",
            "STRASSE",
            "nul.txt",
            "COM1",
            "lpt¹",
            "com0",
            "a:b",
            "dot.",
            "space ",
            "plain",
        ]
        .map(|p| p.parse().unwrap())
        .into();
        let of = |i: usize| paths.get(i).unwrap().clone();
        assert_eq!(
            hazards(&paths),
            [
                Hazard::Alike { first: of(0), second: of(1) },
                Hazard::Alike { first: of(2), second: of(3) },
                Hazard::Alike { first: of(4), second: of(5) },
                Hazard::Reserved { path: of(6) },
                Hazard::Reserved { path: of(7) },
                Hazard::Reserved { path: of(8) },
                Hazard::Character { path: of(10), character: ':' },
                Hazard::DroppedEnd { path: of(11) },
                Hazard::DroppedEnd { path: of(12) },
            ]
        );
    }

    // attacks.md 9: a name never acts on a terminal.
    #[test]
    fn attack_9_paths_are_shown_escaped() {
        let path: EntryPath = "a\u{1b}[2J\n\u{202e}b".parse().unwrap();
        let told = path.to_string();
        assert!(told.starts_with('a') && told.ends_with('b'), "{told}");
        assert!(!told.chars().any(|c| c.is_control() || c == '\u{202e}'), "{told:?}");
        assert_eq!(format!("{path:?}"), format!("`{told}`"));
        for hazard in [
            Hazard::Alike { first: path.clone(), second: path.clone() },
            Hazard::Reserved { path: path.clone() },
            Hazard::DroppedEnd { path: path.clone() },
            Hazard::Character { path: path.clone(), character: ':' },
        ] {
            assert!(hazard.to_string().starts_with(&format!("`{told}` ")), "{hazard}");
        }
    }
}
