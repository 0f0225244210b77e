#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Write as _;

use sha2::Sha256 as Digest256;

use super::super::{Error, KeyKind, Recipient as AnyRecipient};
use super::*;

fn hex<const N: usize>(text: &str) -> [u8; N] {
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Digest256::digest(bytes).into()
}

fn file_key() -> FileKey {
    FileKey::new(Box::new([3; FILE_KEY_BYTES]))
}

/// Keys from the seed of the vector below.
fn identity() -> Identity {
    let seed = "b3f98b03126a431ccecc62ae0f68e102c2d8e1cc7b21ba85d821d8e31761e0f8";
    Identity::from_seed(Box::new(Zeroizing::new(hex(seed)))).unwrap()
}

// draft-ietf-hpke-pq-03, test vectors: mode base, MLKEM768-X25519, HKDF-SHA256, ChaCha20Poly1305.
#[test]
fn the_vector_of_the_draft() {
    let identity = identity();
    let public = [identity.recipient.ml_kem.as_slice(), &identity.recipient.point].concat();
    assert_eq!(sha256(&public), hex("120b60e0ae3c00c1c9def1c61aeb12de710bfa49646ae6f99a7e564b25ace493"));
    let drawn = hex("a3a869097e0241158eca5dc6c9e695f9e0d2ee5db51c09c435aab69d56509a43\
         d94ff76d7d47cf79ecf75394261236cec024bd849cc782e14f7f0738af83daed");
    let (share, shared) = identity.recipient.encapsulate(&drawn).unwrap();
    assert_eq!(sha256(&share), hex("3a7ef30fb815e75b7f0f16f5bab5c36250882d94ea0f776cc2241cdd3b36b480"));
    assert_eq!(*shared, hex("b90cf181d95351d1091569487caaf6c3434eeb181a2c4c04631980ce139afa67"));
    let keys = expand(&identity.seed).unwrap();
    assert_eq!(keys.decapsulate(&share, &identity.recipient.point).unwrap(), shared);

    let (key, nonce) = key_schedule(SUITE, &shared, b"4f6465206f6e2061204772656369616e2055726e").unwrap();
    assert_eq!(*key, hex("4a4c042267e8ec360c83b2baf0d5e3dcca73a86531cdf67ec41d95bccfe12387"));
    assert_eq!(nonce, hex("5ddfaaee10a4dfd0d8e1b49f"));
}

// RFC 9180, appendix A.2.1: another KEM, the same KDF and AEAD.
#[test]
fn the_key_schedule_of_the_rfc() {
    let shared = Zeroizing::new(hex("0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7"));
    let suite = b"HPKE\x00\x20\x00\x01\x00\x03";
    let (key, nonce) = key_schedule(suite, &shared, b"Ode on a Grecian Urn").unwrap();
    assert_eq!(*key, hex("ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91"));
    assert_eq!(nonce, hex("5c4d98150661b848853b547f"));
}

#[test]
fn strings_have_their_length_and_come_back() {
    let identity = Identity::generate().unwrap();
    let (secret, public) = (identity.expose_secret_string(), identity.recipient.to_string());
    assert!(secret.starts_with("AGE-SECRET-KEY-PQ-1") && secret.len() == IDENTITY_LEN);
    assert!(public.starts_with("age1pq1") && public.len() == RECIPIENT_LEN);
    assert!(Identity::parse(&secret).unwrap().recipient == identity.recipient);
    assert!(Recipient::parse(&public).unwrap() == identity.recipient);
    let other = Identity::generate().unwrap();
    assert!(other.recipient != identity.recipient && other.seed != identity.seed);
}

#[test]
fn wraps_for_one_and_for_nobody_else() {
    let (bo, stranger) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (one, two) = (bo.recipient.wrap(&file_key()).unwrap(), bo.recipient.wrap(&file_key()).unwrap());
    assert!(one.args != two.args && one.body != two.body, "each stanza draws its own share");
    let theirs = stranger.recipient.wrap(&file_key()).unwrap();
    let both = [theirs, one];
    let opened = bo.unwrap(&both).unwrap().unwrap();
    assert_eq!(opened.expose_secret(), file_key().expose_secret());
    assert!(stranger.unwrap(&both[1..]).unwrap().is_none());
    let unknown = Stanza { tag: "X25519".into(), args: vec![], body: vec![] };
    assert!(bo.unwrap(&[unknown]).unwrap().is_none());
}

// attacks.md 22: every bit of the share and of the body counts, and their form is checked first
#[test]
fn attack_22_altered_stanzas_do_not_open() {
    let bo = identity();
    let good = bo.recipient.wrap(&file_key()).unwrap();
    let share = BASE64_STANDARD_NO_PAD.decode(&good.args[0]).unwrap();
    for at in [0, 500, 1087, 1088, 1119] {
        let mut bad = share.clone();
        bad[at] ^= 1;
        let args = vec![BASE64_STANDARD_NO_PAD.encode(bad)];
        let bad = Stanza { tag: STANZA_TAG.into(), args, body: good.body.clone() };
        assert!(bo.unwrap(&[bad]).unwrap().is_none(), "{at}");
    }
    let refused = |args: Vec<String>, body: Vec<u8>| {
        let error = bo.unwrap(&[Stanza { tag: STANZA_TAG.into(), args, body }]).err().unwrap();
        assert!(matches!(error, Error::HeaderFailure(HeaderError::Stanza)), "{error:?}");
    };
    let arg = || good.args[0].clone();
    refused(vec![], good.body.clone());
    refused(vec![arg(), String::new()], good.body.clone());
    refused(vec![format!("{}=", arg())], good.body.clone());
    refused(vec![BASE64_STANDARD_NO_PAD.encode(&share[1..])], good.body.clone());
    refused(vec![arg()], good.body[1..].to_vec());
    refused(vec![arg()], [good.body.as_slice(), &[0]].concat());
}

/// The points of order 1, 2, 4 and 8 in their first encodings.
fn low_order_points() -> Vec<[u8; 32]> {
    let one = std::array::from_fn(|i| u8::from(i == 0));
    let minus_one = std::array::from_fn(|i| match i {
        0 => 0xec,
        31 => 0x7f,
        _ => 0xff,
    });
    vec![
        [0; 32],
        one,
        minus_one,
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ]
}

// attacks.md 22: a weak X25519 share inside the hybrid stanza is an error of the header, before ML-KEM has its say
#[test]
fn attack_22_low_order_shares_are_refused() {
    let bo = identity();
    let mut stanza = bo.recipient.wrap(&file_key()).unwrap();
    let mut share = BASE64_STANDARD_NO_PAD.decode(&stanza.args[0]).unwrap();
    for point in low_order_points() {
        share.splice(1088.., point);
        stanza.args[0] = BASE64_STANDARD_NO_PAD.encode(&share);
        let error = bo.unwrap(std::slice::from_ref(&stanza)).err().unwrap();
        assert!(matches!(error, Error::HeaderFailure(HeaderError::Stanza)), "{error:?}");
    }
}

// attacks.md 22: nor is anything sealed for such a recipient
#[test]
fn attack_22_low_order_recipients_are_refused() {
    for point in low_order_points() {
        let weak = Recipient { point, ..identity().recipient };
        assert_eq!(weak.to_string().parse::<AnyRecipient>(), Err(KeyError::LowOrder));
        assert!(matches!(weak.wrap(&file_key()), Err(Error::Key(KeyError::LowOrder))));
    }
}

// attacks.md 22, 27: FIPS 203 wants each coefficient reduced; the same key must not have two strings
#[test]
fn unreduced_coefficients_are_refused() {
    let mut recipient = identity().recipient;
    // The first coefficient becomes 4095, twelve bits of ones.
    recipient.ml_kem[0] = 0xff;
    recipient.ml_kem[1] |= 0x0f;
    assert_eq!(Recipient::parse(&recipient.to_string()), Err(KeyError::NotCanonical));
}

// attacks.md 34
#[test]
fn attack_34_wrong_strings_have_distinct_errors() {
    let identity = identity();
    let (secret, public) = (identity.expose_secret_string(), identity.recipient.to_string());
    let recipient = |text: &str| text.parse::<AnyRecipient>().unwrap_err();
    assert_eq!(recipient(&secret), KeyError::SecretKey);
    assert_eq!(recipient(&public.to_uppercase()), KeyError::Uppercase);
    let mut mixed = public.clone();
    mixed.replace_range(100..101, "Q");
    assert_eq!(recipient(&mixed), KeyError::Uppercase);
    assert_eq!(recipient(&public[..1958]), KeyError::WrongLength { expected: 1959, found: 1958 });
    assert_eq!(recipient(&format!("{public}q")), KeyError::WrongLength { expected: 1959, found: 1960 });
    assert_eq!(recipient(&swapped(&public)), KeyError::Checksum);
    assert_eq!(recipient(&format!("{public}\n")), KeyError::Whitespace);
    let secret_error = |text: &str| text.parse::<super::super::Identity>().err().unwrap();
    assert_eq!(secret_error(&public), KeyError::NotSecret);
    assert_eq!(secret_error(&secret.to_lowercase()), KeyError::Lowercase);
    assert_eq!(secret_error(&secret[..76]), KeyError::WrongLength { expected: 77, found: 76 });
    assert_eq!(secret_error(&swapped(&secret)), KeyError::Checksum);
    assert_eq!(secret.parse::<super::super::Identity>().unwrap().kind(), KeyKind::Hybrid);
    assert_eq!(public.parse::<AnyRecipient>().unwrap().kind(), KeyKind::Hybrid);
}

/// The text with two different neighbours exchanged.
fn swapped(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = (30..).find(|at| bytes[*at] != bytes[*at + 1]).unwrap();
    bytes.swap(at, at + 1);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_debug_form_is_the_public_string() {
    let mut text = String::new();
    write!(text, "{:?}", identity().recipient).unwrap();
    assert_eq!(text, identity().recipient.to_string());
}
