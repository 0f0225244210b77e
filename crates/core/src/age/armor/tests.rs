#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn armor(plain: &[u8]) -> Vec<u8> {
    let mut writer = ArmorWriter::new(Vec::new());
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn dearmor(text: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    ArmorReader::new(text).read_to_end(&mut plain)?;
    Ok(plain)
}

fn failure(text: &[u8]) -> ArmorError {
    match dearmor(text) {
        Err(Error::ArmorFailure(error)) => error,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn any_length_roundtrips_with_flushes_between() {
    let plain: Vec<u8> = (0..3 * COLLECTED_LEN).map(|i| i as u8).collect();
    let lens = (0..200).chain([COLLECTED_LEN - 1, COLLECTED_LEN, COLLECTED_LEN + 1, 3 * COLLECTED_LEN]);
    for len in lens {
        let mut writer = ArmorWriter::new(Vec::new());
        for piece in plain[..len].chunks(700) {
            writer.write_all(piece).unwrap();
            writer.flush().unwrap();
        }
        let text = writer.finish().unwrap();
        assert_eq!(text, armor(&plain[..len]));
        assert_eq!(dearmor(&text).unwrap(), &plain[..len]);
        let mut theirs = Vec::new();
        age::armor::ArmoredReader::new(text.as_slice()).read_to_end(&mut theirs).unwrap();
        assert_eq!(theirs, &plain[..len]);
    }
}

// attacks.md 17
#[test]
fn every_cut_is_refused() {
    let text = armor(&[7; 100]);
    // The last newline may be missing.
    for len in 0..text.len() - 1 {
        failure(&text[..len]);
    }
    assert!(dearmor(&text[..text.len() - 1]).is_ok());
}

// attacks.md 19
#[test]
fn one_file_has_one_armor() {
    let text = String::from_utf8(armor(&[0; 49])).unwrap();
    assert!(dearmor(text.replace('\n', "\r\n").as_bytes()).is_ok());
    assert!(dearmor(format!(" \r\n\t{text}\n \n").as_bytes()).is_ok());
    assert_eq!(failure(b""), ArmorError::Begin);
    assert_eq!(failure(format!("x{text}").as_bytes()), ArmorError::Begin);
    assert_eq!(failure(format!("{text}x").as_bytes()), ArmorError::Around);
    assert_eq!(failure(format!("{text}{text}").as_bytes()), ArmorError::Around);
    assert_eq!(failure(format!("{}{text}", " ".repeat(1025)).as_bytes()), ArmorError::Around);
    assert_eq!(failure(format!("{text}{}", " ".repeat(1025)).as_bytes()), ArmorError::Around);
    assert_eq!(failure(text.replace("AA==", "AB==").as_bytes()), ArmorError::Line { line: 2 });
    assert_eq!(failure(text.replace("AA==", "AA").as_bytes()), ArmorError::Line { line: 2 });
    assert_eq!(failure(text.replace("AA==", "AA==\n").as_bytes()), ArmorError::Line { line: 3 });
    assert_eq!(failure(text.replace("AA==", "AA==\nAA==").as_bytes()), ArmorError::Line { line: 3 });
    assert_eq!(failure(text.replace("AA==", "AA==\r\r").as_bytes()), ArmorError::Line { line: 2 });
}

// attacks.md 21
#[test]
fn a_line_without_end_is_not_kept() {
    let start = [BEGIN, b"\n"].concat();
    let mut endless = ArmorReader::new(io::BufReader::new(start.as_slice().chain(io::repeat(b'A'))));
    let error = Error::from(io::copy(&mut endless, &mut io::sink()).unwrap_err());
    assert!(matches!(error, Error::ArmorFailure(ArmorError::Line { line: 1 })));
    assert!(endless.text.capacity() < 8192);
    // The failure stays.
    assert!(endless.read(&mut [0]).is_err());
}
