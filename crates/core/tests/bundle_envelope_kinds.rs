//! Envelopes to hybrid and to classic recipients: sealed for one, opened by that one, and never in a weaker way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod bundle_support;
use bundle_support::*;
use pouch_core::age::{self, Identity, KeyKind, seal_to_vec};
use pouch_core::bundle::*;
use pouch_statement::{Fingerprint, SigningKey};

fn classic() -> Person {
    let (age, signs) = (Identity::generate_x25519(), SigningKey::generate().unwrap());
    let card = Fingerprint::of(&age.recipient().to_string(), &signs.public());
    Person { age, signs, card }
}

/// The first lines of an age file, up to its MAC.
fn stanza_tags(file: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(file);
    let header = text.split("\n--- ").next().unwrap();
    let stanzas = header.lines().filter_map(|line| line.strip_prefix("-> "));
    stanzas.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn an_envelope_is_sealed_as_the_card_says() {
    let (hybrid, classic) = (World::new(), World { bo: classic(), ..World::new() });
    for (world, kind, tag) in [(&hybrid, KeyKind::Hybrid, "mlkem768x25519"), (&classic, KeyKind::X25519, "X25519")] {
        assert_eq!(world.bo.age.kind(), kind);
        let carried = small(world);
        assert_eq!(stanza_tags(&carried.envelope), [tag]);
        assert!((carried.envelope.len() as u64) < MAX_ENVELOPE / 8);
        let opened = open_envelope(&carried.envelope, &world.bo.age).unwrap();
        assert!(opened.verify(&world.expected()).is_ok());
        // What the relay stores beside it is sealed to the bundle key, which nobody ever saw: classic, for the sizes.
        assert_eq!(stanza_tags(&carried.parts[0]), ["X25519"]);
        assert_eq!(stanza_tags(&carried.index), ["X25519"]);
    }
}

// attacks.md 30: what is sealed for a weaker key does not open with a hybrid identity, nor the other way round.
#[test]
fn attack_30_a_stanza_of_another_kind_is_refused() {
    let (world, other) = (World::new(), classic());
    let carried = small(&world);
    for (to, with) in [(&other, &world.bo), (&world.bo, &other)] {
        let envelope = seal_envelope(&carried.manifest, &carried.key, &to.age.recipient()).unwrap();
        assert!(matches!(open_envelope(&envelope, &with.age), Err(EnvelopeError::Age(age::Error::NoMatch))));
    }
}

// attacks.md 30: the hybrid stanza taken out, renamed, or doubled: nothing of it opens.
#[test]
fn attack_30_an_edited_header_is_refused() {
    let world = World::new();
    let carried = small(&world);
    let at = |needle: &[u8]| carried.envelope.windows(needle.len()).position(|w| w == needle).unwrap();
    let (start, end) = (at(b"-> mlkem768x25519 "), at(b"--- "));
    let stanza = carried.envelope[start..end].to_vec();
    let with = |stanzas: &[u8]| [&carried.envelope[..start], stanzas, &carried.envelope[end..]].concat();
    assert_eq!(with(&stanza), carried.envelope);

    let classic = seal_to_vec(&Identity::generate_x25519().recipient(), b"").unwrap();
    let classic_stanza = classic[22..classic.windows(4).position(|w| w == b"--- ").unwrap()].to_vec();
    let renamed = [b"-> X25519 ", &stanza[18..]].concat();
    let twice = [stanza.as_slice(), &stanza].concat();
    let first = [classic_stanza.as_slice(), &stanza].concat();
    let last = [stanza.as_slice(), &classic_stanza].concat();
    let refused = |stanzas: &[u8]| open_envelope(&with(stanzas), &world.bo.age).err().unwrap();
    assert!(matches!(refused(b""), EnvelopeError::Age(age::Error::HeaderFailure(_))));
    assert!(matches!(refused(&classic_stanza), EnvelopeError::Age(age::Error::NoMatch)));
    assert!(matches!(refused(&renamed), EnvelopeError::Age(age::Error::NoMatch)));
    for several in [twice, first, last] {
        assert!(matches!(refused(&several), EnvelopeError::Recipients));
    }
}

// The sizes of all parts rest on a classic bundle key; another one is refused on both sides.
#[test]
fn a_bundle_key_of_another_kind_is_refused() {
    let world = World::new();
    let carried = small(&world);
    let hybrid = Identity::generate();
    let sealed = seal_envelope(&carried.manifest, &hybrid, &world.bo.age.recipient());
    assert!(matches!(sealed, Err(EnvelopeError::KeyKind)));
    let bytes = carried.manifest.bytes();
    let envelope = envelope_with(&world, bytes, carried.manifest.signature(), &hybrid);
    assert!(matches!(open_envelope(&envelope, &world.bo.age), Err(EnvelopeError::KeyKind)));
}
