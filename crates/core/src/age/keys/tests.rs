#![allow(clippy::unwrap_used)]

use super::*;
use age_core::primitives::bech32_encode;

// The pair in C2SP age, "The X25519 recipient type".
const SECRET: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const PUBLIC: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

// A pair that the age command made.
#[test]
fn the_hybrid_pair_of_the_vectors() {
    let keys: serde_json::Value =
        serde_json::from_str(include_str!("../../../../../tests/vectors/hybrid.json")).unwrap();
    let member = |name: &str| keys.get(name).unwrap().as_str().unwrap();
    let identity: Identity = member("identity").parse().unwrap();
    assert_eq!(identity.recipient().to_string(), member("recipient"));
    assert_eq!(identity.recipient(), member("recipient").parse().unwrap());
    assert_eq!(identity.expose_secret_string().as_str(), member("identity"));
}

fn hrp<T>(of: &str, use_it: impl Fn(&dyn Fn(&[u8]) -> String) -> T) -> T {
    let mut found = None;
    bech32_decode(
        of,
        |_| (),
        |hrp| {
            found = Some(hrp);
            Ok(())
        },
        |_, _| Ok(()),
    )
    .unwrap();
    use_it(&|bytes| bech32_encode(found.unwrap(), bytes))
}

#[test]
fn the_example_of_the_specification() {
    let identity: Identity = SECRET.parse().unwrap();
    assert_eq!(identity.recipient().to_string(), PUBLIC);
    assert_eq!(identity.expose_secret_string().as_str(), SECRET);
    assert_eq!(identity.recipient(), PUBLIC.parse().unwrap());
}

// attacks.md 34
#[test]
fn wrong_recipients_have_distinct_errors_without_their_text() {
    let cut = PUBLIC.strip_suffix('j').unwrap();
    let cases = [
        (String::new(), KeyError::Empty),
        (format!("\u{feff}{PUBLIC}"), KeyError::ByteOrderMark),
        (format!("{PUBLIC}\n"), KeyError::Whitespace),
        (format!(" {PUBLIC}"), KeyError::Whitespace),
        (PUBLIC.replace("zvk", "z vk"), KeyError::Whitespace),
        (PUBLIC.replace("zvk", "z\0vk"), KeyError::Whitespace),
        (SECRET.to_owned(), KeyError::SecretKey),
        (format!("\u{feff} {}", SECRET.to_lowercase()), KeyError::SecretKey),
        ("AGE-SECRET-KEY-PQ-1HZLG".to_owned(), KeyError::SecretKey),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl".to_owned(), KeyError::SecretKey),
        ("age1pq1x34nzsvr0rxjsgdn8zgyhfe8j".to_owned(), KeyError::WrongLength { expected: 1959, found: 32 }),
        ("age1pq".to_owned(), KeyError::WrongLength { expected: 62, found: 6 }),
        ("age1tagpq1x34nzsvr0rxjsgdn8zgyhfe8j".to_owned(), KeyError::Plugin),
        ("age1yubikey1x34nzsvr0rxjsgdn8".to_owned(), KeyError::Plugin),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 x@y".to_owned(), KeyError::SshLine),
        ("npub1x34nzsvr0rxjsgdn8".to_owned(), KeyError::UnknownPrefix),
        ("hello".to_owned(), KeyError::UnknownPrefix),
        (PUBLIC.to_uppercase(), KeyError::Uppercase),
        (PUBLIC.replace("zvk", "zVk"), KeyError::Uppercase),
        (cut.to_owned(), KeyError::WrongLength { expected: 62, found: 61 }),
        (format!("{PUBLIC}q"), KeyError::WrongLength { expected: 62, found: 63 }),
        (format!("{cut}q"), KeyError::Checksum),
        (format!("{cut}é"), KeyError::Checksum),
    ];
    for (text, expected) in &cases {
        let error = text.parse::<Recipient>().unwrap_err();
        assert_eq!(error, *expected);
        assert!(text.len() < 5 || !error.to_string().contains(text));
    }
}

// attacks.md 34
#[test]
fn wrong_identities_have_distinct_errors_without_their_text() {
    let cases = [
        (String::new(), KeyError::Empty),
        (format!("\u{feff}{SECRET}"), KeyError::ByteOrderMark),
        (format!("{SECRET} "), KeyError::Whitespace),
        (PUBLIC.to_owned(), KeyError::NotSecret),
        ("AGE-SECRET-KEY-PQ-1HZLG".to_owned(), KeyError::WrongLength { expected: 77, found: 23 }),
        ("AGE-PLUGIN-YUBIKEY-1HZLGZUPT4ETPKDEV8H".to_owned(), KeyError::Plugin),
        ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), KeyError::SshPrivate),
        ("hello".to_owned(), KeyError::UnknownPrefix),
        (SECRET.to_lowercase(), KeyError::Lowercase),
        (format!("{SECRET}Q"), KeyError::WrongLength { expected: 74, found: 75 }),
        (SECRET.replace("GFPYY", "GFPYZ"), KeyError::Checksum),
    ];
    for (text, expected) in &cases {
        let error = text.parse::<Identity>().err().unwrap();
        assert_eq!(error, *expected);
        assert!(text.len() < 5 || !error.to_string().contains(text));
    }
}

// attacks.md 22: the points of order 1, 2, 4 and 8, in every encoding that X25519 takes for them
#[test]
fn low_order_recipients_are_refused() {
    let mut points = vec![[0; 32]];
    let order_8 = [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ];
    for hex in order_8 {
        points.push(std::array::from_fn(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2).unwrap(), 16).unwrap()));
    }
    // 1, then p - 1, p and p + 1, little-endian.
    points.push(std::array::from_fn(|i| u8::from(i == 0)));
    for low in [0xec, 0xed, 0xee] {
        points.push(std::array::from_fn(|i| match i {
            0 => low,
            31 => 0x7f,
            _ => 0xff,
        }));
    }
    for mut point in points {
        for top_bit in [0, 0x80] {
            *point.last_mut().unwrap() |= top_bit;
            let text = hrp(PUBLIC, |encode| encode(&point));
            assert_eq!(text.parse::<Recipient>(), Err(KeyError::LowOrder));
        }
    }
}

#[test]
fn bits_that_carry_nothing_must_be_zero() {
    // 33 characters' worth of bits cannot be made with the encoder, so try all last data characters with
    // a checksum that fits: only one string of each key may pass.
    let recipient: Recipient = PUBLIC.parse().unwrap();
    assert_eq!(recipient.to_string(), PUBLIC);
    assert_eq!(padded(PUBLIC).parse::<Recipient>(), Err(KeyError::NotCanonical));
}

/// The same 32 bytes with one of the four padding bits set.
fn padded(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let (prefix, data) = text.rsplit_once('1').unwrap();
    let mut values: Vec<u8> = data.bytes().map(|c| ALPHABET.iter().position(|a| *a == c).unwrap() as u8).collect();
    values.truncate(52);
    *values.last_mut().unwrap() |= 1;
    // BIP 173, "Checksum".
    let polymod = |values: &mut dyn Iterator<Item = u8>| {
        values.fold(1u32, |checksum, value| {
            let top = checksum >> 25;
            let generator = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3u32];
            let next = (checksum & 0x1ff_ffff) << 5 ^ u32::from(value);
            generator.iter().zip(0..).filter(|(_, bit)| top >> bit & 1 == 1).fold(next, |sum, (g, _)| sum ^ g)
        })
    };
    let expanded = prefix.bytes().map(|c| c >> 5).chain([0]).chain(prefix.bytes().map(|c| c & 31));
    let checksum = polymod(&mut expanded.chain(values.iter().copied()).chain([0; 6])) ^ 1;
    values.extend((0..6).map(|i| (checksum >> (5 * (5 - i)) & 31) as u8));
    let data: String = values.iter().map(|v| char::from(*ALPHABET.get(usize::from(*v)).unwrap())).collect();
    format!("{prefix}1{data}")
}

// attacks.md 34
#[test]
fn files_of_keys_name_the_line() {
    let text = format!("# mine\r\n\r\n{SECRET}\r\n   \n# the end\n{SECRET}");
    assert_eq!(parse_identities(&text).unwrap().len(), 2);
    let error = parse_identities(&format!("{SECRET}\n{PUBLIC}\n")).err().unwrap();
    assert!(matches!(error, Error::KeyLine { line: 2, reason: KeyError::NotSecret }));
    let error = parse_recipients(&format!("# team\n{PUBLIC}\n{SECRET}\n")).unwrap_err();
    assert!(matches!(error, Error::KeyLine { line: 3, reason: KeyError::SecretKey }));
    assert_eq!(error.to_string(), "line 3: it is a secret key, and a recipient belongs here");
    let error = parse_recipients(&format!("\u{feff}# team\n{PUBLIC}\n")).unwrap_err();
    assert!(matches!(error, Error::KeyLine { line: 1, reason: KeyError::ByteOrderMark }));
    assert!(matches!(parse_recipients("# nobody\n"), Err(Error::NoKeys)));
}

// Identity files under a passphrase, as `age -p` makes them.
#[test]
fn a_sealed_identity_file_opens_with_its_passphrase() {
    use super::super::{ArmorWriter, Passphrase, encrypt};
    use std::io::Write as _;
    let passphrase = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned())).with_work_factor(2).unwrap();
    let locked = |content: &str, armored: bool| {
        let mut sealed = Vec::new();
        if armored {
            let mut writer = encrypt(&passphrase("right"), ArmorWriter::new(&mut sealed)).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
            writer.finish().unwrap().finish().unwrap();
        } else {
            let mut writer = encrypt(&passphrase("right"), &mut sealed).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
            writer.finish().unwrap();
        }
        match IdentityFile::parse(&sealed) {
            Ok(IdentityFile::Locked(locked)) => locked,
            _ => unreachable!("it has a passphrase"),
        }
    };
    for armored in [false, true] {
        let file = locked(&format!("# mine\n{SECRET}\n"), armored);
        let identities = file.unlock(&passphrase("right")).unwrap();
        assert_eq!(identities.first().unwrap().recipient().to_string(), PUBLIC);
        assert!(matches!(file.unlock(&passphrase("wrong")), Err(Error::NotUnlocked)));
        let strict = passphrase("right").with_max_work_factor(1);
        assert!(matches!(file.unlock(&strict), Err(Error::ExcessiveWork { log_n: 2, max_log_n: 1 })), "attacks.md 20");
    }
    let wrong = locked(PUBLIC, false).unlock(&passphrase("right")).err().unwrap();
    assert!(matches!(wrong, Error::KeyLine { line: 1, reason: KeyError::NotSecret }));
    assert!(matches!(IdentityFile::parse(SECRET.as_bytes()), Ok(IdentityFile::Open(open)) if open.len() == 1));
    assert!(matches!(IdentityFile::parse(&[0xff, 0xfe]), Err(Error::Key(KeyError::NotText))));
    assert!(matches!(IdentityFile::parse(&vec![b'#'; MAX_IDENTITY_FILE + 1]), Err(Error::LongKeyFile { .. })));
}
