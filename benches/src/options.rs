//! The command line.

use std::path::PathBuf;

use crate::Failure;

const USAGE: &str = "usage: cargo run --release -p pouch-benches -- (aead | encrypt | transfer | tree | relay | bundles | \
                     crowd | soak | all) [--size 1GiB] [--rounds 5] [--dir DIR] [--bundles 20000] [--clients 16] \
                     [--minutes 30]";
/// A measurement of fewer bytes is one of the start of a process.
const MIN_SIZE: u64 = 1 << 20;
const MAX_SIZE: u64 = 1 << 40;
const MAX_ROUNDS: u32 = 1000;

/// Which measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Aead,
    Encrypt,
    Transfer,
    Tree,
    Relay,
    Bundles,
    Crowd,
    Soak,
    /// All but the soak.
    All,
}

/// What to measure, and on how much.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) what: What,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// How often each contender runs, after one run that does not count.
    pub(crate) rounds: u32,
    /// Where the files lie; the temporary folder if not given.
    pub(crate) dir: PathBuf,
    /// How many small bundles.
    pub(crate) bundles: usize,
    /// How many accounts ask a relay at once.
    pub(crate) clients: usize,
    /// How long a soak takes.
    pub(crate) minutes: u32,
}

impl Options {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            what: What::All,
            size: 1 << 30,
            rounds: 5,
            dir: std::env::temp_dir(),
            bundles: 20_000,
            clients: 16,
            minutes: 30,
        };
        let mut what = None;
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value; {USAGE}"));
            match word.as_str() {
                "aead" if what.is_none() => what = Some(What::Aead),
                "encrypt" if what.is_none() => what = Some(What::Encrypt),
                "transfer" if what.is_none() => what = Some(What::Transfer),
                "tree" if what.is_none() => what = Some(What::Tree),
                "relay" if what.is_none() => what = Some(What::Relay),
                "bundles" if what.is_none() => what = Some(What::Bundles),
                "crowd" if what.is_none() => what = Some(What::Crowd),
                "soak" if what.is_none() => what = Some(What::Soak),
                "all" if what.is_none() => what = Some(What::All),
                "--size" => options.size = size(&value()?)?,
                "--rounds" => options.rounds = number("rounds", &value()?, MAX_ROUNDS)?,
                "--bundles" => options.bundles = number("bundles", &value()?, 10_000_000)? as usize,
                "--clients" => options.clients = number("clients", &value()?, 256)? as usize,
                "--minutes" => options.minutes = number("minutes", &value()?, 10_000)?,
                "--dir" => options.dir = PathBuf::from(value()?),
                _ => return Err(USAGE.into()),
            }
        }
        options.what = what.ok_or(USAGE)?;
        Ok(options)
    }
}

fn size(text: &str) -> Result<u64, Failure> {
    let wrong = || format!("{text} is no size like 512MiB or 1GiB, from 1MiB to 1TiB");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..) {
        Some("MiB") => 1 << 20,
        Some("GiB") => 1 << 30,
        Some("TiB") => 1 << 40,
        _ => return Err(wrong().into()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(unit).filter(|bytes| (MIN_SIZE..=MAX_SIZE).contains(bytes));
    Ok(bytes.ok_or_else(wrong)?)
}

fn number(of: &str, text: &str, most: u32) -> Result<u32, Failure> {
    let number = text.parse().ok().filter(|n| (1..=most).contains(n));
    Ok(number.ok_or_else(|| format!("{text} is no number of {of} from 1 to {most}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failure> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn lines_are_read() {
        let options = parse("encrypt --size 64MiB --rounds 3 --dir /x").unwrap();
        assert_eq!((options.what, options.size, options.rounds), (What::Encrypt, 64 << 20, 3));
        assert_eq!(parse("all").unwrap().size, 1 << 30);
    }

    #[test]
    fn anything_else_is_refused() {
        for line in ["", "encrypt transfer", "encrypt --size", "encrypt --size 1", "encrypt --size 0MiB", "x"] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in [
            "all --size 2TiB",
            "all --size 99999999999999999999GiB",
            "all --rounds 0",
            "all --rounds 1001",
            "soak --minutes 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
