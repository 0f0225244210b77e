//! A frame of compressed content, under the keys of a sender who signs anything: two bytes say how much comes out of it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pouch_core::age::{Identity, seal_to_vec};
use pouch_core::bundle::{
    ContentKind, Expected, Kind, Layout, Manifest, Released, Summary, Terms, open_envelope, padded, seal_envelope,
};
use pouch_statement::{Blake3Digest, BundleId, Fingerprint, Sha256Digest, SigningKey, Timestamp};

struct World {
    bo: Identity,
    key: Identity,
    signs: SigningKey,
    card: Fingerprint,
    bundle: BundleId,
    now: Timestamp,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (bo, signs) = (Identity::generate_x25519(), SigningKey::from_seed(&[7; 32]));
    let card = Fingerprint::of(&bo.recipient().to_string(), &signs.public());
    let bundle = BundleId::random().expect("there are random bytes");
    let now = Timestamp::from_unix(1_700_000_000).expect("it is in range");
    World { bo, key: Identity::generate_x25519(), signs, card, bundle, now }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((size, frame)) = bytes.split_first_chunk::<2>() else { return };
    let size = u16::from_le_bytes(*size);
    let world = &*WORLD;
    let layout = Layout::of(frame.len() as u64 + 8).expect("it is short");
    let mut content = frame.to_vec();
    content.extend_from_slice(&0x184D_2A50_u32.to_le_bytes());
    content.extend_from_slice(&((layout.padded_size() - layout.content_size()) as u32).to_le_bytes());
    content.resize(layout.padded_size() as usize, 0);
    let part = seal_to_vec(&world.key.recipient(), &content).expect("memory takes it");
    let digest = |bytes: &[u8]| Blake3Digest::from_bytes(*blake3::hash(bytes).as_bytes());
    let text = format!(
        "{{\"type\":\"pouch.index.v1\",\"content\":\"stream\",\"content_size\":{},\"padded_size\":{},\"entries\":1,\"parts\":1,\
         \"compression\":\"zstd\",\"raw_size\":{size},\"frames\":1}}\n\
         {{\"path\":\"stream\",\"kind\":\"file\",\"size\":{size},\"executable\":false,\"mtime\":0,\"blake3\":\"{}\"}}\n\
         {{\"frame\":0,\"size\":{}}}\n\
         {{\"part\":0,\"size\":{},\"sealed_size\":{},\"sealed_blake3\":\"{}\"}}\n",
        layout.content_size(),
        layout.padded_size(),
        digest(b""),
        frame.len(),
        content.len(),
        part.len(),
        digest(&part),
    );
    let mut plain = text.clone().into_bytes();
    plain.resize(padded(text.len() as u64).expect("it is short") as usize, 0);
    let index = seal_to_vec(&world.key.recipient(), &plain).expect("memory takes it");
    let summary = Summary {
        content: ContentKind::Stream,
        layout,
        index_size: text.len() as u64,
        index_sha256: Sha256Digest::of(text.as_bytes()),
        sealed_index_size: index.len() as u64,
        sealed_index_sha256: Sha256Digest::of(&index),
    };
    let terms = Terms {
        bundle: world.bundle,
        kind: Kind::Dataset,
        sender: world.card,
        recipient: world.card,
        sequence: 1,
        previous: None,
        revision: 1,
        created: world.now,
        expires: world.now.plus(1000),
        note: None,
        due: None,
        answers: None,
    };
    let manifest = Manifest::new(terms, &summary).sign(&world.signs).expect("it is short");
    let envelope = seal_envelope(&manifest, &world.key, &world.bo.recipient()).expect("memory takes it");
    let sender_key = world.signs.public();
    let expected =
        Expected { me: &world.card, sender: &world.card, sender_key: &sender_key, bundle: None, now: world.now };
    let verified = open_envelope(&envelope, &world.bo).expect("it is ours").verify(&expected).expect("it is signed");
    // A frame may be longer than any of so many bytes.
    let Ok(opening) = verified.open_index(&index) else { return };
    let mut out = Vec::new();
    let receiver = opening.receive(Released::new(&mut out)).expect("nothing is there yet");
    let _ = receiver.accept(0, &part);
    drop(receiver);
    // The digest is known to nobody, so all that may come out is what nothing is made of.
    assert!(out.len() <= usize::from(size));
});
