#![allow(clippy::unwrap_used, clippy::panic)]

use super::super::Identity;
use super::*;

fn file_key() -> FileKey {
    FileKey::new(Box::new([3; 16]))
}

fn stanza(body: usize) -> Stanza {
    Stanza { tag: "test".into(), args: vec!["a".into(), "~!".into()], body: vec![0xff; body] }
}

fn read(bytes: &[u8]) -> Result<Header> {
    Header::read(&mut &*bytes)
}

#[test]
fn the_header_of_one_recipient_has_a_constant_length() {
    for _ in 0..20 {
        let wrapped = Identity::generate_x25519().recipient().wrap(&file_key()).unwrap();
        assert_eq!(encode(&[wrapped], &file_key()).unwrap().len(), X25519_HEADER_LEN);
    }
}

#[test]
fn bodies_of_any_length_roundtrip() {
    let stanzas: Vec<_> = (0..200).map(stanza).collect();
    let bytes = encode(&stanzas, &file_key()).unwrap();
    let header = read(&bytes).unwrap();
    assert_eq!(header.stanzas, stanzas);
    header.verify(&file_key()).unwrap();
    let other = FileKey::new(Box::new([4; 16]));
    assert!(matches!(header.verify(&other), Err(Error::HmacFailure)));
}

#[test]
fn reads_not_a_byte_more() {
    let mut bytes = encode(&[stanza(64)], &file_key()).unwrap();
    bytes.extend_from_slice(b"payload");
    let mut input = bytes.as_slice();
    Header::read(&mut input).unwrap();
    assert_eq!(input, b"payload");
}

// attacks.md 17, 28
#[test]
fn every_cut_is_refused() {
    let bytes = encode(&[stanza(10), stanza(48)], &file_key()).unwrap();
    for len in 0..bytes.len() {
        let cut = bytes.get(..len).unwrap();
        assert!(matches!(read(cut), Err(Error::HeaderFailure(_))), "{len}");
    }
}

// attacks.md 20, 22
#[test]
fn malformed_headers_are_refused() {
    let mac = "A".repeat(43);
    let refused = |stanza: &str, expected: HeaderError| {
        let text = format!("age-encryption.org/v1\n{stanza}--- {mac}\n");
        assert!(matches!(read(text.as_bytes()), Err(Error::HeaderFailure(found)) if found == expected), "{stanza:?}");
    };
    refused("", HeaderError::Malformed { line: 2 });
    refused("-> \n\n", HeaderError::Malformed { line: 2 });
    refused("->a\n\n", HeaderError::Malformed { line: 2 });
    refused("-> a  b\n\n", HeaderError::Malformed { line: 2 });
    refused("-> a \u{e9}\n\n", HeaderError::Malformed { line: 2 });
    refused("-> a\r\n\n", HeaderError::Malformed { line: 2 });
    refused("-> a\nAA==\n", HeaderError::Malformed { line: 3 });
    refused("-> a\nAB\n", HeaderError::Malformed { line: 3 }); // trailing bits
    refused("-> a\nA\n", HeaderError::Malformed { line: 3 });
    refused("-> a\nAA\nAA\n", HeaderError::Malformed { line: 4 });
    refused(&format!("-> a\n{}\n", "A".repeat(65)), HeaderError::Malformed { line: 3 });
    refused("-> scrypt a 1\n\n-> b\n\n", HeaderError::PassphraseNotAlone);
    refused("-> scrypt a 1\n\n-> scrypt a 1\n\n", HeaderError::PassphraseNotAlone);
    for first in ["age-encryption.org/v2\n", "age-encryption.org/v1 \n", "age-encryption.org/v1\r\n"] {
        assert!(matches!(read(first.as_bytes()), Err(Error::HeaderFailure(HeaderError::UnknownVersion))));
    }
    assert!(matches!(read(b"%PDF-1.7\n"), Err(Error::HeaderFailure(HeaderError::NotAge))));
}

// attacks.md 21
#[test]
fn limits_are_met_to_the_byte() {
    let first = "age-encryption.org/v1\n";
    let last = format!("--- {}\n", "A".repeat(43));
    let line = |length: usize| format!("-> {}\n", "a".repeat(length - 4));
    let text = |stanzas: &str| format!("{first}{stanzas}{last}");
    let found = |text: &str| match read(text.as_bytes()) {
        Ok(header) => Ok(header.stanzas.len()),
        Err(Error::HeaderFailure(error)) => Err(error),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(found(&text(&(line(MAX_HEADER_LINE_LEN) + "\n"))), Ok(1));
    let long = HeaderError::LongLine { line: 2, limit: MAX_HEADER_LINE_LEN };
    assert_eq!(found(&text(&(line(MAX_HEADER_LINE_LEN + 1) + "\n"))), Err(long));
    // With the limit within what the reader gives at once, and without the end of the line.
    assert_eq!(found(&format!("{first}{}", "-".repeat(3 * MAX_HEADER_LINE_LEN))), Err(long));

    let whole = line(1 << 14) + "\n";
    let room = MAX_HEADER_LEN - first.len() - last.len();
    let (count, rest) = (room / whole.len(), room % whole.len());
    let filled = |more: usize| text(&(whole.repeat(count) + &line(rest - 1 + more) + "\n"));
    assert_eq!(filled(0).len(), MAX_HEADER_LEN);
    assert_eq!(found(&filled(0)), Ok(count + 1));
    assert_eq!(found(&filled(1)), Err(HeaderError::TooLong { limit: MAX_HEADER_LEN }));
}

/// Gives a byte at a time, and is interrupted before each.
struct Interrupted<'a> {
    bytes: &'a [u8],
    ready: bool,
}

impl io::Read for Interrupted<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("headers are read from the buffer")
    }
}

impl BufRead for Interrupted<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.ready = !self.ready;
        if self.ready { Ok(self.bytes.get(..1).unwrap_or_default()) } else { Err(io::ErrorKind::Interrupted.into()) }
    }

    fn consume(&mut self, count: usize) {
        self.bytes = self.bytes.get(count..).unwrap_or_default();
    }
}

#[test]
fn an_interrupted_read_goes_on() {
    let stanzas = [stanza(48), stanza(3)];
    let bytes = encode(&stanzas, &file_key()).unwrap();
    let mut input = Interrupted { bytes: &bytes, ready: true };
    assert_eq!(Header::read(&mut input).unwrap().stanzas, stanzas);
    assert!(input.bytes.is_empty());
}
