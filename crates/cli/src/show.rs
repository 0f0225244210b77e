//! What is printed: for people, for scripts (`--json`), or only the essential (`-q`). Sizes and times for eyes.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroU64;

use jiff::tz::TimeZone;
use pouch_statement::{Timestamp, hazardous};
use serde::Serialize;

/// How a secret key begins, in any case.
pub(crate) const SECRET_KEY: &str = "AGE-SECRET-KEY-";

/// How this run prints.
#[derive(Clone, Copy)]
pub(crate) struct Show {
    /// One JSON object a line on stdout.
    pub(crate) json: bool,
    /// Only what a script needs.
    pub(crate) quiet: bool,
}

impl Show {
    /// Whether a person reads along: no JSON, not quiet.
    pub(crate) fn chatty(self) -> bool {
        !self.json && !self.quiet
    }

    /// A line on stdout for people; nothing for scripts.
    pub(crate) fn line(self, text: impl Display) -> io::Result<()> {
        if self.chatty() { writeln!(io::stdout().lock(), "{text}") } else { Ok(()) }
    }

    /// The one thing that `-q` prints; also printed on its own where there is nothing else to say.
    pub(crate) fn essence(self, text: impl Display) -> io::Result<()> {
        if self.quiet && !self.json { writeln!(io::stdout().lock(), "{text}") } else { Ok(()) }
    }

    /// One JSON object as a line on stdout, with `--json`.
    pub(crate) fn object(self, object: &impl Serialize) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        writeln!(io::stdout().lock(), "{}", Inert(&serde_json::to_string(object)?))
    }

    /// An error on stderr: for people with what to do about it, with `--json` as one object. Never on stdout, which may be
    /// carrying data.
    pub(crate) fn error(self, code: u8, kind: Option<&str>, error: &str, hint: Option<&str>) {
        if !self.json {
            return complain(error, hint);
        }
        // Before it is encoded: what is left out would otherwise end at no quote, or at an escaped one.
        let (error, hint) = (without_keys(error), hint.map(without_keys));
        let object = serde_json::json!({ "type": "error", "code": code, "kind": kind, "message": error, "hint": hint });
        say(&Inert(&object.to_string()).to_string());
    }

    /// A remark on stderr, for people only.
    pub(crate) fn remark(self, text: impl Display) {
        if self.chatty() {
            say(&without_keys(&text.to_string()));
        }
    }

    /// Says that a listing of the relay holds more than was read of it: on stderr, and with `--json` as a last object.
    pub(crate) fn cut(self, shown: usize, which: &str) -> io::Result<()> {
        self.warn(format_args!("the relay lists more than these; only the {which} {} are shown", count(shown as u64)));
        self.object(&serde_json::json!({ "type": "cut", "shown": shown }))
    }

    /// A warning on stderr, also when quiet.
    pub(crate) fn warn(self, text: impl Display) {
        say(&without_keys(&format!("pouch: warning: {}", inert(&text.to_string()))));
    }
}

/// JSON in which what could act on a terminal stands as `\u…`: `serde_json` does that below U+0020 only (attacks.md 9).
struct Inert<'a>(&'a str);

impl Display for Inert<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(hazardous) {
            let (plain, tail) = rest.split_at(at);
            f.write_str(plain)?;
            let mut behind = tail.chars();
            // Such a character stands in a string, where this form means the same.
            for unit in behind.next().into_iter().flat_map(|c| c.encode_utf16(&mut [0; 2]).to_vec()) {
                write!(f, "\\u{unit:04x}")?;
            }
            rest = behind.as_str();
        }
        f.write_str(rest)
    }
}

/// Text that may hold what the user typed or named: a file's name from a glob can hold anything (attacks.md 9).
pub(crate) fn inert(text: &str) -> String {
    text.chars().map(|c| if hazardous(c) { format!("\\u{{{:x}}}", c as u32) } else { c.to_string() }).collect()
}

/// An error and what to do about it, on stderr.
pub(crate) fn complain(error: impl Display, hint: Option<&str>) {
    say(&without_keys(&format!("pouch: error: {}", inert(&error.to_string()))));
    if let Some(hint) = hint {
        say(&without_keys(&format!("pouch: hint: {}", inert(hint))));
    }
}

/// What the parser says: help on stdout, errors on stderr. In its own colours, unless it repeats a secret key.
pub(crate) fn parsing(error: &clap::Error) {
    let text = error.render().to_string();
    match without_keys(&text) {
        Cow::Borrowed(_) => drop(error.print()),
        Cow::Owned(text) if error.use_stderr() => say(text.trim_end()),
        Cow::Owned(text) => drop(writeln!(io::stdout().lock(), "{}", text.trim_end())),
    }
}

fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Text in which no secret key stands that was put in the wrong place, whole or mistyped (attacks.md 34, 59): what follows
/// `AGE-SECRET-KEY-`, in any case, is left out up to a space, a quote or the end. Borrowed if there was none.
pub(crate) fn without_keys(text: &str) -> Cow<'_, str> {
    // The same length, and the same places between characters.
    let capitals = text.to_ascii_uppercase();
    let Some(first) = capitals.find(SECRET_KEY) else { return Cow::Borrowed(text) };
    let (mut safe, mut at) = (text.get(..first).unwrap_or_default().to_owned(), first);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let key = rest.find([' ', '\'', '"', '`']).and_then(|end| rest.get(..end)).unwrap_or(rest);
        safe.push_str(SECRET_KEY);
        safe.push('…');
        // The punctuation of the sentence around it.
        safe.push_str(key.get(key.trim_end_matches([':', ',', ';', '\n']).len()..).unwrap_or_default());
        at += key.len();
        let next = capitals.get(at..).and_then(|rest| rest.find(SECRET_KEY)).map_or(text.len(), |next| at + next);
        safe.push_str(text.get(at..next).unwrap_or_default());
        at = next;
    }
    Cow::Owned(safe)
}

/// Whether stderr is a terminal that bars and prompts may use.
pub(crate) fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Bytes in units of 1,024, with one decimal: `1.2 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.iter().skip(1) {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A count with thousands apart: `20,412`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Several in a row.
pub(crate) fn joined(all: &[impl Display]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `1 file`, `20,412 files`.
pub(crate) fn many(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {one}s", count(number)) }
}

/// A time in the local zone, for people.
pub(crate) fn local(time: Timestamp) -> String {
    match jiff::Timestamp::from_second(i64::try_from(time.unix()).unwrap_or(i64::MAX)) {
        Ok(stamp) => stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => time.unix().to_string(),
    }
}

/// A time in UTC by RFC 3339, for JSON.
pub(crate) fn iso(time: Timestamp) -> String {
    match jiff::Timestamp::from_second(i64::try_from(time.unix()).unwrap_or(i64::MAX)) {
        Ok(stamp) => stamp.to_string(),
        Err(_) => time.unix().to_string(),
    }
}

/// A span of time, roughly: `3 d`, `71 h`, `5 min`.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..259_200 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Reads `90s`, `15m`, `8h`, `7d`, `2w`.
pub(crate) fn parse_span(text: &str) -> Result<u64, String> {
    let wrong = || "a time like 15m, 8h, 7d or 2w".to_owned();
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number = digits_alone(digits).ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).filter(|s| *s > 0).ok_or_else(wrong)
}

/// A number without a sign.
fn digits_alone(text: &str) -> Option<u64> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Slower than this a relay takes a line for stalled when several requests share it, in bytes a second.
const LEAST_RATE: u64 = 16 << 10;

/// Reads `500K`, `2M`, `1G`: bytes a second, in powers of 1024.
pub(crate) fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let wrong = || "bytes a second like 500K, 2M or 1G, and 16K at least".to_owned();
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let factor = match text.get(digits.len()..) {
        Some("") => 1,
        Some("K") => 1 << 10,
        Some("M") => 1 << 20,
        Some("G") => 1 << 30,
        _ => return Err(wrong()),
    };
    let number = digits_alone(digits).ok_or_else(wrong)?;
    let rate = number.checked_mul(factor).filter(|rate| *rate >= LEAST_RATE);
    rate.and_then(NonZeroU64::new).ok_or_else(wrong)
}

/// The part of an id that people type: the first six characters.
pub(crate) fn short(id: impl Display) -> String {
    id.to_string().chars().take(6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_34_keys_are_left_out() {
        let cases = [
            ("no key: AGE-SECRET", "no key: AGE-SECRET"),
            ("cannot read ./AGE-SECRET-KEY-1QQ: gone", "cannot read ./AGE-SECRET-KEY-…: gone"),
            ("'age-secret-key-pq-1qq' and 'x'", "'AGE-SECRET-KEY-…' and 'x'"),
            ("ä AGE-SECRET-KEY-1Q/é\nQ AGE-SECRET-KEY-", "ä AGE-SECRET-KEY-… AGE-SECRET-KEY-…"),
            ("\"Age-Secret-Key-1AGE-SECRET-KEY-1\"", "\"AGE-SECRET-KEY-…\""),
        ];
        for (text, safe) in cases {
            assert_eq!(without_keys(text), safe);
        }
        assert!(matches!(without_keys("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn sizes_counts_and_spans() {
        let sizes = [0, 1023, 1024, 1536, (1 << 20) - 1, 1 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 GiB", "16.0 EiB"]);
        assert_eq!([0, 999, 1000, 20_412, 1_234_567].map(count), ["0", "999", "1,000", "20,412", "1,234,567"]);
        assert_eq!((parse_span("7d"), parse_span("90s")), (Ok(604_800), Ok(90)));
        for bad in ["", "d", "7", "-1d", "+1d", "0h", "7y", "99999999999999999999w", "é"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
        assert_eq!(
            ["16K", "16384", "2M", "1G"].map(|t| parse_rate(t).unwrap().get()),
            [16_384, 16_384, 2 << 20, 1 << 30]
        );
        for bad in ["", "K", "15K", "16383", "2MK", "2m", "-1M", "+2M", "99999999999G"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert_eq!([5, 130, 7200, 259_200].map(span), ["5 s", "2 min", "2 h", "3 d"]);
    }
}
