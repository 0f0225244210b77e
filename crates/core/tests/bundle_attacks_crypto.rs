//! attacks.md, rows 17 to 34 and 59 to 64: cut, flipped, swapped, passed on, re-signed, replayed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::io::Cursor;

use bundle_support::*;
use pouch_core::age::{Identity, seal_to_vec};
use pouch_core::bundle::*;
use pouch_statement::{
    BundleId, Outcome, Receipt, Sha256Digest, SignatureError, Signed, Stage, Statement as _, StatementError, Timestamp,
    sign_detached,
};
use proptest::prelude::*;

/// An envelope of any plaintext, sealed to Bo.
fn envelope_of(world: &World, plain: &[u8]) -> Vec<u8> {
    seal_to_vec(&world.bo.age.recipient(), plain).unwrap()
}

/// The ustar of an envelope with any manifest, signature and key.
fn objects(list: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in list {
        let mut block = Vec::new();
        let kind = ItemKind::File { size: bytes.len() as u64, executable: false };
        header(&Item { path: &name.parse().unwrap(), mtime: 0, kind }, &mut block);
        block[100..108].copy_from_slice(b"0000600\0");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&block);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    let length = padded(out.len() as u64 + 1024).unwrap();
    out.resize(length as usize, 0);
    out
}

fn envelope_with(world: &World, manifest: &[u8], signature: &str, key: &Identity) -> Vec<u8> {
    let key = format!("{}\n", key.expose_secret_string().as_str());
    let list = [("manifest", manifest), ("manifest.sig", signature.as_bytes()), ("bundle.key", key.as_bytes())];
    envelope_of(world, &objects(&list))
}

fn small(world: &World) -> Carried {
    world.seal_stream(b"a small secret")
}

// attacks.md 17: each object, and the whole file, cut at every byte.
#[test]
fn attack_17_truncation_at_every_byte() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    for length in 0..carried.envelope.len() {
        assert!(open_envelope(&carried.envelope[..length], &world.bo.age).is_err(), "{length}");
    }
    for length in 0..carried.index.len() {
        let opened = open_envelope(&carried.envelope, &world.bo.age).unwrap().verify(&world.expected()).unwrap();
        let error = opened.open_index(&carried.index[..length]).err().unwrap();
        assert!(matches!(error, OpenError::SealedIndexSize { .. }), "{length}");
    }
    let staging = Staging::new(&home.path().join("in")).unwrap();
    let mut receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    for length in 0..carried.parts[0].len() {
        let error = receiver.accept(0, &carried.parts[0][..length]).unwrap_err();
        assert!(matches!(error, OpenError::PartSize { .. }), "{length}");
        assert_eq!(error.stage(), Some(Stage::Part));
    }
    assert!(matches!(receiver.finish().err(), Some(OpenError::PartsMissing { missing: 1 })));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);

    carried.write_pouch(&home.path().join("x.pouch"));
    let whole = std::fs::read(home.path().join("x.pouch")).unwrap();
    assert!(PouchFile::open(Cursor::new(&whole)).is_ok());
    for length in 0..whole.len() {
        assert!(PouchFile::open(Cursor::new(&whole[..length])).is_err(), "{length}");
    }
}

// attacks.md 17: of several parts, the last ones missing or cut, at and around every chunk border of one.
#[test]
fn attack_17_truncation_of_a_larger_bundle() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = world.seal_stream(&vec![5; FIRST_PART_SIZE as usize + 300_000]);
    assert_eq!(carried.parts.len(), 2);
    let staging = Staging::new(&home.path().join("in")).unwrap();
    let mut receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    receiver.accept(0, &carried.parts[0]).unwrap();
    let last = &carried.parts[1];
    for border in (184..last.len()).step_by(65_552) {
        for length in [border - 1, border, border + 1] {
            assert!(receiver.accept(1, &last[..length]).is_err());
        }
    }
    assert!(matches!(receiver.finish().err(), Some(OpenError::PartsMissing { missing: 1 })));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    changed
}

// attacks.md 18: every single bit of the envelope.
#[test]
fn attack_18_every_bit_of_the_envelope() {
    let world = World::new();
    let envelope = small(&world).envelope;
    for bit in 0..envelope.len() * 8 {
        assert!(open_envelope(&flip(&envelope, bit), &world.bo.age).is_err(), "bit {bit}");
    }
}

// attacks.md 18: every single bit of index and part.
#[test]
fn attack_18_every_bit_of_index_and_part() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    for bit in 0..carried.index.len() * 8 {
        // What is compared is the digest, so a bit in each byte and all bits of some tell as much as all of them.
        if bit % 8 == (bit / 8) % 8 || bit < 1024 {
            let opened = open_envelope(&carried.envelope, &world.bo.age).unwrap().verify(&world.expected()).unwrap();
            let error = opened.open_index(&flip(&carried.index, bit)).err().unwrap();
            assert!(matches!(error, OpenError::SealedIndexDigest), "bit {bit}");
        }
    }
    let staging = Staging::new(&home.path().join("in")).unwrap();
    let mut receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    for bit in 0..carried.parts[0].len() * 8 {
        let error = receiver.accept(0, &flip(&carried.parts[0], bit)).unwrap_err();
        assert!(matches!(error, OpenError::PartDigest { number: 0 }), "bit {bit}");
    }
    // A part fetched again after all that is still taken.
    receiver.accept(0, &carried.parts[0]).unwrap();
    receiver.finish().unwrap().publish().unwrap();
}

// attacks.md 18: every single bit of a .pouch file is either refused or gives an object that is not the sealed one.
#[test]
fn attack_18_every_bit_of_a_pouch_file() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    carried.write_pouch(&home.path().join("x.pouch"));
    let whole = std::fs::read(home.path().join("x.pouch")).unwrap();
    let bundle = carried.manifest.body().bundle;
    let mut part = Vec::new();
    for bit in 0..whole.len() * 8 {
        let Ok(mut file) = PouchFile::open(Cursor::new(flip(&whole, bit))) else { continue };
        file.part(0, &mut part).unwrap();
        let same = file.bundle() == bundle
            && part == carried.parts[0]
            && file.index().unwrap() == carried.index
            && file.envelope().unwrap() == carried.envelope;
        assert!(!same, "bit {bit} changed nothing");
    }
}

// attacks.md 18, 31: parts swapped, repeated, or from another bundle; objects of two bundles mixed.
#[test]
fn attack_18_and_31_swapped_repeated_and_spliced_objects() {
    let world = World::new();
    let bytes = vec![9; 2 * FIRST_PART_SIZE as usize];
    let (carried, other) = (world.seal_stream(&bytes), world.seal_stream(&bytes));
    let (one, two) = (carried.parts[0].clone(), carried.parts[1].clone());
    for parts in [
        vec![two.clone(), one.clone()],
        vec![one.clone(), one.clone()],
        vec![other.parts[0].clone(), two.clone()],
        vec![one.clone(), other.parts[1].clone()],
    ] {
        let mixed = Carried { parts, ..world_copy(&carried) };
        assert!(matches!(world.refused(&mixed), OpenError::PartDigest { .. }));
    }
    let missing = Carried { parts: vec![one.clone()], ..world_copy(&carried) };
    assert!(matches!(world.refused(&missing), OpenError::PartsMissing { missing: 1 }));
    let more = Carried { parts: vec![one, two.clone(), two], ..world_copy(&carried) };
    assert!(matches!(world.refused(&more), OpenError::PartOrder { found: 2, .. }));
    let index = Carried { index: other.index.clone(), ..world_copy(&carried) };
    assert!(matches!(world.refused(&index), OpenError::SealedIndexDigest));
    let envelope = Carried { envelope: other.envelope.clone(), ..world_copy(&carried) };
    assert!(matches!(world.refused(&envelope), OpenError::SealedIndexDigest));

    let opened = open_envelope(&other.envelope, &world.bo.age).unwrap();
    let wanted = carried.manifest.body().bundle;
    let error = opened.verify(&Expected { bundle: Some(wanted), ..world.expected() }).err().unwrap();
    assert!(matches!(error, EnvelopeError::OtherBundle { .. }));
}

fn world_copy(carried: &Carried) -> Carried {
    Carried {
        parts: carried.parts.clone(),
        index: carried.index.clone(),
        envelope: carried.envelope.clone(),
        manifest: carried.manifest.clone(),
        key: carried.key.expose_secret_string().parse().unwrap(),
    }
}

// attacks.md 19: something behind an object, or two of them in a row.
#[test]
fn attack_19_trailing_data() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    for tail in [vec![0], vec![0; 16], carried.envelope.clone()] {
        let longer = [carried.envelope.clone(), tail.clone()].concat();
        assert!(open_envelope(&longer, &world.bo.age).is_err());
        let index = [carried.index.clone(), tail.clone()].concat();
        assert!(matches!(world.refused(&Carried { index, ..world_copy(&carried) }), OpenError::SealedIndexSize { .. }));
        let parts = vec![[carried.parts[0].clone(), tail.clone()].concat()];
        assert!(matches!(world.refused(&Carried { parts, ..world_copy(&carried) }), OpenError::PartSize { .. }));
    }
    carried.write_pouch(&home.path().join("x.pouch"));
    let whole = std::fs::read(home.path().join("x.pouch")).unwrap();
    for tail in [vec![0], vec![0; 512], whole.clone()] {
        let longer = [whole.clone(), tail.clone()].concat();
        let error = PouchFile::open(Cursor::new(longer)).err().unwrap();
        assert!(matches!(error, FileError::Trailing { bytes } if bytes == tail.len() as u64), "{error}");
    }
    // Plaintext that goes on behind the objects: a longer padding than the padded length, or not zeros.
    let opened = objects(&[
        ("manifest", carried.manifest.bytes()),
        ("manifest.sig", carried.manifest.signature().as_bytes()),
        ("bundle.key", format!("{}\n", carried.key.expose_secret_string().as_str()).as_bytes()),
    ]);
    assert!(open_envelope(&envelope_of(&world, &opened), &world.bo.age).is_ok());
    for wrong in [[opened.clone(), vec![0; 512]].concat(), opened[..opened.len() - 1].to_vec(), {
        let mut changed = opened.clone();
        *changed.last_mut().unwrap() = 1;
        changed
    }] {
        let error = open_envelope(&envelope_of(&world, &wrong), &world.bo.age).err().unwrap();
        assert!(matches!(error, EnvelopeError::Object(_)), "{error}");
    }
}

// attacks.md 23: a co-recipient knows the bundle key, and still cannot change what the sender signed.
#[test]
fn attack_23_a_co_recipient_rewrites_a_part_or_the_index() {
    let world = World::new();
    let carried = small(&world);
    let mut plain = carried.content();
    plain[0] ^= 1;
    let parts = vec![seal_to_vec(&carried.key.recipient(), &plain).unwrap()];
    assert_eq!(parts[0].len(), carried.parts[0].len());
    let rewritten = Carried { parts, ..world_copy(&carried) };
    assert!(matches!(world.refused(&rewritten), OpenError::PartDigest { number: 0 }));

    let mut index = carried.index_text().into_bytes();
    index.resize(4096, 0);
    let index = seal_to_vec(&carried.key.recipient(), &index).unwrap();
    let rewritten = Carried { index, ..world_copy(&carried) };
    let error = world.refused(&rewritten);
    assert!(matches!(error, OpenError::SealedIndexDigest));
    assert_eq!(error.stage(), Some(Stage::Index));
}

// attacks.md 13, 18: the plain index is held against the manifest too, and its padding is checked.
#[test]
fn attack_18_the_plain_index_is_the_signed_one() {
    let world = World::new();
    let carried = small(&world);
    let resigned = |index: &[u8], change: &dyn Fn(&mut Manifest)| {
        let mut manifest = carried.manifest.body().clone();
        manifest.sealed_index_sha256 = Sha256Digest::of(index);
        change(&mut manifest);
        let signed = manifest.sign(&world.ada.signs).unwrap();
        let envelope = seal_envelope(&signed, &carried.key, &world.bo.age.recipient()).unwrap();
        world.refused(&Carried { envelope, index: index.to_vec(), ..world_copy(&carried) })
    };
    let changes: [&dyn Fn(&mut Manifest); 3] =
        [&|m| m.index_sha256 = Sha256Digest::of(b"x"), &|m| m.index_size -= 1, &|m| m.index_size += 1];
    for change in changes {
        assert!(matches!(resigned(&carried.index, change), OpenError::IndexDigest));
    }
    let mut plain = carried.index_text().into_bytes();
    plain.resize(4095, 0);
    plain.push(1);
    let index = seal_to_vec(&carried.key.recipient(), &plain).unwrap();
    assert!(matches!(resigned(&index, &|_| {}), OpenError::IndexDigest));
}

// attacks.md 13: a part of the right sealed length, with a second stanza and less content in it.
#[test]
fn attack_13_a_part_with_another_length_inside() {
    use std::io::Write as _;
    let world = World::new();
    let key = Identity::generate();
    let both = [key.recipient(), Identity::generate().recipient()];
    let mut writer = pouch_core::age::encrypt(both.as_slice(), Vec::new()).unwrap();
    // A stanza more takes 98 bytes.
    writer.write_all(&[0; 4096 - 98]).unwrap();
    let part = writer.finish().unwrap();
    assert_eq!(part.len() as u64, sealed_size(4096));
    let text = format!(
        "{{\"type\":\"pouch.index.v1\",\"content\":\"tar\",\"content_size\":1024,\"padded_size\":4096,\"entries\":0,\"parts\":1}}\n\
         {{\"part\":0,\"size\":4096,\"sealed_size\":{},\"sealed_blake3\":\"{}\"}}\n",
        part.len(),
        blake3_of(&part)
    );
    let carried = world.carry(key, vec![part], ContentKind::Tar, Layout::of(1024).unwrap(), text.as_bytes());
    assert!(matches!(world.refused(&carried), OpenError::Part { number: 0, .. }));
}

// attacks.md 24: Bo seals Ada's signed manifest to Cy, who would think that Ada sent it.
#[test]
fn attack_24_a_manifest_passed_on_is_refused() {
    let (world, cy) = (World::new(), Person::new());
    let carried = small(&world);
    let envelope = seal_envelope(&carried.manifest, &carried.key, &cy.age.recipient()).unwrap();
    let opened = open_envelope(&envelope, &cy.age).unwrap();
    assert_eq!(opened.claimed_sender(), world.ada.card);
    let error = opened.verify(&Expected { me: &cy.card, ..world.expected() }).err().unwrap();
    assert!(matches!(error, EnvelopeError::NotForMe), "{error}");
    assert_eq!(OpenError::from(error).stage(), None, "no receipt leaves");
    // Nor does Bo's own envelope open for Cy.
    assert!(matches!(open_envelope(&carried.envelope, &cy.age), Err(EnvelopeError::Age(_))));
}

// attacks.md 24: an envelope sealed to more than its one recipient.
#[test]
fn attack_24_an_envelope_for_several_is_refused() {
    use std::io::Write as _;
    let (world, cy) = (World::new(), Person::new());
    let carried = small(&world);
    let plain = objects(&[
        ("manifest", carried.manifest.bytes()),
        ("manifest.sig", carried.manifest.signature().as_bytes()),
        ("bundle.key", format!("{}\n", carried.key.expose_secret_string().as_str()).as_bytes()),
    ]);
    let both = [world.bo.age.recipient(), cy.age.recipient()];
    let mut writer = pouch_core::age::encrypt(both.as_slice(), Vec::new()).unwrap();
    writer.write_all(&plain).unwrap();
    let envelope = writer.finish().unwrap();
    assert!(matches!(open_envelope(&envelope, &world.bo.age), Err(EnvelopeError::Recipients)));
}

// attacks.md 25: the signature stripped, or replaced by the attacker's own.
#[test]
fn attack_25_a_signature_stripped_or_replaced() {
    let (world, eve) = (World::new(), Person::new());
    let carried = small(&world);
    let bytes = carried.manifest.bytes();
    let own = sign_detached(Manifest::TYPE, bytes, &eve.signs).unwrap();
    for signature in ["", own.as_str()] {
        let envelope = envelope_with(&world, bytes, signature, &carried.key);
        let error = world.refused(&Carried { envelope, ..world_copy(&carried) });
        assert!(
            matches!(error, OpenError::Envelope(EnvelopeError::Statement(StatementError::Signature(_)))),
            "{error}"
        );
    }
    // Eve's own bundle in her own name is not Ada's either.
    let mut manifest = carried.manifest.body().clone();
    manifest.sender = eve.card;
    let signed = manifest.sign(&eve.signs).unwrap();
    let envelope = seal_envelope(&signed, &carried.key, &world.bo.age.recipient()).unwrap();
    let error = world.refused(&Carried { envelope, ..world_copy(&carried) });
    assert!(matches!(error, OpenError::Envelope(EnvelopeError::OtherSender)));
}

// attacks.md 26: Ada's signature under another kind of statement.
#[test]
fn attack_26_a_signature_of_another_kind() {
    let world = World::new();
    let carried = small(&world);
    let signature = sign_detached(Receipt::TYPE, carried.manifest.bytes(), &world.ada.signs).unwrap();
    let envelope = envelope_with(&world, carried.manifest.bytes(), &signature, &carried.key);
    let error = world.refused(&Carried { envelope, ..world_copy(&carried) });
    assert!(matches!(
        error,
        OpenError::Envelope(EnvelopeError::Statement(StatementError::Signature(SignatureError::Namespace { .. })))
    ));
    // A receipt, well signed, where the manifest belongs.
    let receipt = Receipt {
        bundle: carried.manifest.body().bundle,
        manifest_sha256: carried.manifest.digest(),
        sender: world.ada.card,
        recipient: world.bo.card,
        outcome: Outcome::Verified,
        stage: None,
        created: now(),
    };
    let receipt = Signed::sign(receipt, &world.ada.signs).unwrap();
    let envelope = envelope_with(&world, receipt.bytes(), receipt.signature(), &carried.key);
    let error = open_envelope(&envelope, &world.bo.age).err().unwrap();
    assert!(matches!(error, EnvelopeError::Statement(StatementError::Type { .. })));
}

// attacks.md 27, 30: other bytes for the same meaning, doubled, unknown or missing members, other versions, well signed.
#[test]
fn attack_27_and_30_one_spelling_of_manifest_and_index() {
    let world = World::new();
    let carried = small(&world);
    let text = String::from_utf8(carried.manifest.bytes().to_vec()).unwrap();
    let manifests = [
        text.replacen("\"kind\"", " \"kind\"", 1),
        text.replacen("\"sequence\":1", "\"sequence\":1.0", 1),
        text.replacen("\"sequence\":1,", "", 1),
        text.replacen("\"sequence\":1,", "\"sequence\":1,\"sequence\":1,", 1),
        text.replacen("\"sequence\":1,", "\"sequence\":1,\"critical\":1,", 1),
        text.replacen("for you", "\\u0066or you", 1),
        text.replacen("manifest.v1", "manifest.v0", 1),
        text.replacen("manifest.v1", "manifest.v2", 1),
        format!("{text}\n"),
        text.trim_end().to_owned(),
    ];
    for manifest in manifests {
        assert_ne!(manifest, text);
        let signature = sign_detached(Manifest::TYPE, manifest.as_bytes(), &world.ada.signs).unwrap();
        let envelope = envelope_with(&world, manifest.as_bytes(), &signature, &carried.key);
        let error = world.refused(&Carried { envelope, ..world_copy(&carried) });
        assert!(matches!(error, OpenError::Envelope(EnvelopeError::Statement(_))), "{manifest}: {error}");
    }

    let content = archive_of(&[("a", Some(b"x")), ("d", None)]);
    let entries = [file_line("a", b"x"), folder_line("d")];
    let edits: [(&str, &str); 14] = [
        ("index.v1", "index.v2"),
        ("index.v1", "index.v0"),
        ("\"content\":\"tar\"", "\"content\":\"zip\""),
        ("\"path\":\"a\"", "\"path\": \"a\""),
        ("\"path\":\"a\"", "\"path\":\"\\u0061\""),
        ("\"path\":\"a\",", "\"path\":\"a\",\"path\":\"a\","),
        ("\"executable\":false", "\"executable\":false,\"link\":\"x\""),
        ("\"executable\":false,", ""),
        ("\"executable\":false", "\"executable\":null"),
        ("\"kind\":\"folder\"", "\"kind\":\"link\""),
        ("\"kind\":\"folder\",", "\"kind\":\"folder\",\"size\":0,"),
        ("\"mtime\":0", "\"mtime\":-0"),
        ("\"part\":0", "\"part\":00"),
        ("\n{\"part\"", "\n\n{\"part\""),
    ];
    for (from, to) in edits {
        let edited = world.forge(ContentKind::Tar, &content, &entries, |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        assert!(matches!(world.refused(&edited), OpenError::Index(_)), "{from} -> {to}");
    }
    let longer = world.forge(ContentKind::Tar, &content, &entries, |text| text + "{}\n");
    assert!(matches!(world.refused(&longer), OpenError::Index(IndexError::Line { .. })));
    let endless = world.forge(ContentKind::Tar, &content, &entries, |text| text.trim_end().to_owned());
    assert!(matches!(world.refused(&endless), OpenError::Index(IndexError::Line { .. })));
    // A stream that is no plain file of one component.
    for line in [folder_line("d"), file_line("d/f", b""), file_line("f", b"").replace("false", "true")] {
        let stream = world.forge(ContentKind::Stream, b"", &[line], |t| t);
        assert!(matches!(world.refused(&stream), OpenError::Index(_)));
    }
}

// attacks.md 27: a manifest that contradicts itself, although it is well signed.
#[test]
fn attack_27_contradictions_that_a_signature_does_not_mend() {
    let world = World::new();
    let carried = small(&world);
    let changes: [fn(&mut Manifest); 11] = [
        |m| m.expires = m.created,
        |m| m.sequence = 0,
        |m| m.sequence = 2,
        |m| m.previous = Some(Sha256Digest::of(b"x")),
        |m| m.revision = 0,
        |m| m.padded_size += 1,
        |m| m.parts += 1,
        |m| m.content_size = u64::MAX,
        |m| m.index_size += 4096,
        |m| m.sealed_index_size += 1,
        |m| m.index_size = u64::MAX,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut manifest = carried.manifest.body().clone();
        change(&mut manifest);
        assert!(manifest.clone().sign(&world.ada.signs).is_err(), "{number}");
        // Around our own check, as a hostile sender would.
        let signed = Signed::sign(manifest, &world.ada.signs).unwrap();
        let envelope = seal_envelope(&signed, &carried.key, &world.bo.age.recipient()).unwrap();
        let error = world.refused(&Carried { envelope, ..world_copy(&carried) });
        assert!(matches!(error, OpenError::Envelope(EnvelopeError::Manifest(_))), "{number}: {error}");
    }
}

// attacks.md 32: a clock that is wrong by years is an explicit error both ways.
#[test]
fn attack_32_expired_and_future_manifests() {
    let world = World::new();
    let carried = small(&world);
    let at = |now: u64| {
        let now = Timestamp::from_unix(now).unwrap();
        open_envelope(&carried.envelope, &world.bo.age).unwrap().verify(&Expected { now, ..world.expected() }).err()
    };
    let (created, years) = (now().unix(), 10 * 365 * 86_400);
    assert!(at(created).is_none());
    assert!(at(created + 86_399).is_none());
    assert!(matches!(at(created + 86_400), Some(EnvelopeError::Expired { ago: 0 })));
    assert!(matches!(at(created + years), Some(EnvelopeError::Expired { .. })));
    assert!(at(created - CLOCK_TOLERANCE).is_none());
    assert!(matches!(at(created - years), Some(EnvelopeError::NotYetValid { ahead }) if ahead == years));
}

// attacks.md 33: the same content sealed again shares no key: no nonce, stanza or ciphertext is the same.
#[test]
fn attack_33_sealing_again_uses_fresh_keys() {
    let world = World::new();
    let (one, two) = (small(&world), small(&world));
    let sealed = [&one.parts[0], &two.parts[0], &one.index, &two.index, &one.envelope, &two.envelope];
    // The ephemeral share stands at byte 32 of the header, the nonce of the payload in front of the first chunk.
    for range in [32..75, 168..184, 184..240] {
        let pieces: std::collections::HashSet<_> = sealed.iter().map(|s| s[range.clone()].to_vec()).collect();
        assert_eq!(pieces.len(), sealed.len());
    }
    assert_ne!(one.key.expose_secret_string().as_str(), two.key.expose_secret_string().as_str());
}

// attacks.md 59: a secret in the wrong place does not come back in an error.
#[test]
fn attack_59_errors_do_not_repeat_secrets() {
    let world = World::new();
    let carried = small(&world);
    let canary = "AGE-SECRET-KEY-1CANARY";
    for key in [canary.to_owned(), format!("{canary}\n"), format!("{}\n", canary.to_lowercase())] {
        let plain = objects(&[
            ("manifest", carried.manifest.bytes()),
            ("manifest.sig", carried.manifest.signature().as_bytes()),
            ("bundle.key", key.as_bytes()),
        ]);
        let error = open_envelope(&envelope_of(&world, &plain), &world.bo.age).err().unwrap();
        assert!(matches!(error, EnvelopeError::Key(_)));
        assert!(!format!("{error} {error:?}").to_lowercase().contains("canary"));
    }
    // Two keys, or a key with something behind it.
    let key = carried.key.expose_secret_string();
    for wrong in [format!("{}\n\n", key.as_str()), format!("{0}\n{0}\n", key.as_str()), key.as_str().to_owned()] {
        let plain = objects(&[
            ("manifest", carried.manifest.bytes()),
            ("manifest.sig", carried.manifest.signature().as_bytes()),
            ("bundle.key", wrong.as_bytes()),
        ]);
        assert!(matches!(open_envelope(&envelope_of(&world, &plain), &world.bo.age), Err(EnvelopeError::Key(_))));
    }
}

// attacks.md 64: standard output sees nothing of up to 32 MiB before all is good; beyond, only good parts.
#[test]
fn attack_64_standard_output_gets_a_verified_prefix_at_most() {
    let world = World::new();
    let received = |size: usize, bad: usize| {
        let mut carried = world.seal_stream(&vec![3; size]);
        let last = carried.parts[bad].len() - 1;
        carried.parts[bad][last] ^= 1;
        let mut out = Vec::new();
        world.receive(&carried, Released::new(&mut out)).unwrap_err();
        out.len()
    };
    let part = FIRST_PART_SIZE as usize;
    assert_eq!(received(HELD_BYTES, 3), 0);
    assert_eq!(received(HELD_BYTES + 4 * part, 4), 0);
    assert_eq!(received(HELD_BYTES + 4 * part, 6), 6 * part);
    // A wrong digest of the whole file, found at its end: what came before was of the sender's parts.
    let bytes = vec![3; HELD_BYTES + 2 * part];
    let wrong = file_line("s", &bytes).replace(&blake3_of(&bytes), &blake3_of(b""));
    let carried = world.forge(ContentKind::Stream, &bytes, &[wrong], |t| t);
    let mut out = Vec::new();
    let error = world.receive(&carried, Released::new(&mut out)).unwrap_err();
    assert!(matches!(error, OpenError::Content(ContentError::Digest { .. })), "{error}");
    assert!(out.len() < bytes.len());
}

// A receiver that met a wrong content stops for good, and its staging folder is gone at once.
#[test]
fn a_receiver_stays_stopped_after_an_error() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = world.forge(ContentKind::Stream, b"abc", &[file_line("s", b"abd")], |t| t);
    let staging = Staging::new(&home.path().join("in")).unwrap();
    let mut receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    assert!(matches!(receiver.accept(0, &carried.parts[0]), Err(OpenError::Content(_))));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    assert!(matches!(receiver.accept(0, &carried.parts[0]), Err(OpenError::Stopped)));
    assert!(receiver.finish().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    // attacks.md 28: whatever the bytes, the answer is an error and never a panic or a success.
    #[test]
    fn attack_28_garbage_never_verifies(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        let world = World::new();
        prop_assert!(Index::decode(&bytes).is_err());
        prop_assert!(open_envelope(&bytes, &world.bo.age).is_err());
        prop_assert!(open_envelope(&envelope_of(&world, &bytes), &world.bo.age).is_err());
        prop_assert!(open_receipt(&envelope_of(&world, &bytes), &world.bo.age).is_err());
        prop_assert!(PouchFile::open(Cursor::new(&bytes)).is_err());
    }

    // attacks.md 28: nor do changes in the middle of something well-formed.
    #[test]
    fn attack_28_mutated_index_never_verifies_as_another(at in 0usize..900, byte: u8) {
        let world = World::new();
        let content = archive_of(&[("a", Some(b"x")), ("d", None), ("d/e", Some(b"y"))]);
        let entries = [file_line("a", b"x"), folder_line("d"), file_line("d/e", b"y")];
        let text = world.forge(ContentKind::Tar, &content, &entries, |t| t).index_text();
        let mut bytes = text.clone().into_bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        if let Ok(index) = Index::decode(&bytes) {
            // What is read is exactly what was there.
            prop_assert_eq!(index.encode().unwrap(), bytes);
        }
    }
}

#[test]
fn bundle_ids_in_the_file_and_the_manifest_are_compared_by_the_caller() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let carried = small(&world);
    let path = home.path().join("x.pouch");
    let other = BundleId::random().unwrap();
    let mut writer = PouchWriter::create(&path, other).unwrap();
    assert!(matches!(writer.add_part(1, b""), Err(FileError::NoPart { number: 1 })));
    writer.add_part(0, &carried.parts[0]).unwrap();
    writer.finish(&carried.index, &carried.envelope).unwrap();
    let mut file = PouchFile::open(std::fs::File::open(&path).unwrap()).unwrap();
    let opened = open_envelope(&file.envelope().unwrap(), &world.bo.age).unwrap();
    let error = opened.verify(&Expected { bundle: Some(file.bundle()), ..world.expected() }).err().unwrap();
    assert!(matches!(error, EnvelopeError::OtherBundle { .. }));
}
