//! Text that somebody else chose: what a name or note may hold, and how any text is shown safely.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// The longest name, in bytes of UTF-8.
const MAX_NAME: usize = 64;
/// The longest note, in bytes of UTF-8.
const MAX_NOTE: usize = 1024;

/// Why a text cannot be a name or a note.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TextError {
    /// Nothing there.
    #[error("a name cannot be empty")]
    Empty,
    /// More bytes than fit.
    #[error("{length} bytes long, at most {limit} fit")]
    TooLong {
        /// Bytes of UTF-8 found.
        length: usize,
        /// Bytes of UTF-8 that fit.
        limit: usize,
    },
    /// A character that names and notes do not carry.
    #[error("the character U+{0:04X} is not allowed here")]
    Character(u32),
    /// A name that begins or ends with something that a shell or an eye would trip over.
    #[error("a name begins and ends with a letter or a digit")]
    Edge,
}

/// The name on a card or in the address book: letters, digits, and `. _ - @ ' space` between them.
///
/// At most 64 bytes. Anything that could move a cursor, turn the reading direction, or be read as
/// an option cannot be written in it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// A sender's remark on a bundle: one line, at most 1,024 bytes, no control or invisible characters.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Note(String);

impl FromStr for Name {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        within(text, MAX_NAME)?;
        let inner = |c: char| matches!(c, '.' | '_' | '-' | '@' | '\'' | ' ');
        if let Some(bad) = text.chars().find(|c| hazardous(*c) || !(c.is_alphanumeric() || inner(*c))) {
            return Err(TextError::Character(bad as u32));
        }
        let edge = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        if !edge(text.chars().next()) || !edge(text.chars().next_back()) {
            return Err(TextError::Edge);
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Note {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        within(text, MAX_NOTE)?;
        match text.chars().find(|c| hazardous(*c)) {
            Some(bad) => Err(TextError::Character(bad as u32)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

fn within(text: &str, limit: usize) -> Result<(), TextError> {
    if text.len() > limit { Err(TextError::TooLong { length: text.len(), limit }) } else { Ok(()) }
}

macro_rules! text {
    ($name:ident) => {
        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text!(Name);
text!(Note);

/// Shows any text without letting it act on a terminal or deceive an eye.
///
/// Control characters, bidirectional controls, zero-width and other invisible characters are
/// written as `\u{…}`, and a backslash is doubled so that the form is unambiguous.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                c if hazardous(c) => write!(f, "\\u{{{:x}}}", c as u32)?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

/// Characters that move the cursor, change direction, join or vanish.
#[must_use]
pub fn hazardous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}' | '\u{e000}'..='\u{f8ff}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // attacks.md 9: nothing that acts on a terminal gets into a name or note, or out of `Escaped`.
    #[test]
    fn attack_9_hostile_text_is_refused_in_names_and_escaped_elsewhere() {
        let hostile = ["\u{1b}[2J", "a\nb", "\u{1b}]0;x\u{7}", "\u{202e}fdp", "a\u{200b}b", "\u{9b}31m", "a\u{7f}b"];
        for text in hostile {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
            assert!(text.parse::<Note>().is_err(), "{text:?}");
            let shown = Escaped(text).to_string();
            assert!(!shown.chars().any(hazardous), "{shown}");
            assert!(shown.contains("\\u{"), "{shown}");
        }
        assert_eq!(Escaped("a\u{1b}b\\").to_string(), "a\\u{1b}b\\\\");
    }

    #[test]
    fn names_that_people_have() {
        for good in ["ada", "Bo", "José", "李小龍", "ada.l@acme", "O'Neil", "bo 2"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "-rf", " ada", "ada ", ".", "..", "a/b", "a\\b", "a:b", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
