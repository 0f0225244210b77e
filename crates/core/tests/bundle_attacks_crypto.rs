//! attacks.md, rows 23 to 33, 59 and 64: rewritten, passed on, re-signed, replayed, contradictory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use bundle_support::*;
use pouch_core::age::{Identity, seal_to_vec};
use pouch_core::bundle::*;
use pouch_statement::{
    BundleId, Outcome, Receipt, Sha256Digest, SignatureError, Signed, Stage, Statement as _, StatementError, Timestamp,
    sign_detached,
};

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
    let key = Identity::generate_x25519();
    let both = [key.recipient(), Identity::generate_x25519().recipient()];
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
    let distinct = |sealed: &[&Vec<u8>], ranges: &[std::ops::Range<usize>]| {
        for range in ranges {
            let pieces: std::collections::HashSet<_> = sealed.iter().map(|s| s[range.clone()].to_vec()).collect();
            assert_eq!(pieces.len(), sealed.len());
        }
    };
    // The ephemeral share stands at byte 32 of the header, the nonce of the payload in front of the first chunk.
    distinct(&[&one.parts[0], &two.parts[0], &one.index, &two.index], &[32..75, 168..184, 184..240]);
    // A hybrid header is longer, and its share begins at byte 40.
    distinct(&[&one.envelope, &two.envelope], &[40..1533, 1600..1700]);
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
    let receiver = world.open(&carried).unwrap().receive(staging).unwrap();
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    assert!(matches!(receiver.accept(0, &carried.parts[0]), Err(OpenError::Content(_))));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    assert!(matches!(receiver.accept(0, &carried.parts[0]), Err(OpenError::Stopped)));
    assert!(receiver.finish().is_err());
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
