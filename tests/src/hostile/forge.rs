//! Bundles that only somebody with a sender's keys can make, and that nobody honest would.

use std::path::Path;

use pouch_client::clock::now;
use pouch_client::identity::Identity as Keys;
use pouch_core::age::{Identity, Recipient, open_part, seal_to_vec};
use pouch_core::bundle::{
    ContentKind, FIRST_PART_SIZE, Item, ItemKind, Kind, Layout, Manifest, PouchWriter, Summary, Terms, header, padded,
    seal_envelope,
};
use pouch_statement::{BundleId, Fingerprint, Sha256Digest, Signed, sign_detached};

use super::{Answer, Hostile, World};

/// Somebody with keys who sends to somebody else whatever they like.
pub struct Forger {
    pub keys: Keys,
    pub me: Fingerprint,
    pub to: Fingerprint,
    pub recipient: Recipient,
}

/// What a relay would hold, and what only the sender knows.
#[derive(Clone)]
pub struct Carried {
    pub bundle: BundleId,
    pub parts: Vec<Vec<u8>>,
    pub index: Vec<u8>,
    pub envelope: Vec<u8>,
}

/// A bundle in the making, all of it open to change.
pub struct Draft {
    pub key: Identity,
    pub parts: Vec<Vec<u8>>,
    pub content: ContentKind,
    pub layout: Layout,
    pub index: String,
}

impl Draft {
    /// Content and lines of an index that fit each other where they can.
    pub fn new(kind: ContentKind, content: &[u8], entries: &[String]) -> Self {
        let key = Identity::generate_x25519();
        let layout = Layout::of(content.len() as u64).unwrap();
        let mut plain = content.to_vec();
        plain.resize(layout.padded_size() as usize, 0);
        let seal = |plain: &[u8]| seal_to_vec(&key.recipient(), plain).unwrap();
        let parts: Vec<_> = plain.chunks(FIRST_PART_SIZE as usize).map(seal).collect();
        let name = if kind == ContentKind::Tar { "tar" } else { "stream" };
        let mut index = format!(
            "{{\"type\":\"pouch.index.v1\",\"content\":\"{name}\",\"content_size\":{},\"padded_size\":{},\"entries\":{},\"parts\":{}}}\n",
            content.len(),
            layout.padded_size(),
            entries.len(),
            parts.len(),
        );
        for entry in entries {
            index += entry;
            index += "\n";
        }
        for (number, part) in (0..).zip(&parts) {
            index += &format!(
                "{{\"part\":{number},\"size\":{},\"sealed_size\":{},\"sealed_blake3\":\"{}\"}}\n",
                layout.part_size(number).unwrap(),
                part.len(),
                blake3::hash(part),
            );
        }
        Self { key, parts, content: kind, layout, index }
    }

    /// A tree of these files, with the archive that belongs to them.
    pub fn tree(entries: &[(&str, Option<&[u8]>)]) -> Self {
        let lines: Vec<_> = entries.iter().map(|(path, bytes)| line(path, *bytes)).collect();
        Self::new(ContentKind::Tar, &archive(entries), &lines)
    }

    /// One stream, compressed: any frames, of which the index says that they hold `raw_size` bytes.
    pub fn frames(raw_size: u64, frames: &[Vec<u8>], entry: String) -> Self {
        let mut content = frames.concat();
        let layout = Layout::of(content.len() as u64 + 8).unwrap();
        content.extend_from_slice(&0x184D_2A50_u32.to_le_bytes());
        content.extend_from_slice(&((layout.padded_size() - layout.content_size()) as u32).to_le_bytes());
        let mut draft = Self::new(ContentKind::Stream, &content, &[entry]);
        let head = format!(",\"compression\":\"zstd\",\"raw_size\":{raw_size},\"frames\":{}}}\n", frames.len());
        let lines: String =
            (0..).zip(frames).map(|(n, frame)| format!("{{\"frame\":{n},\"size\":{}}}\n", frame.len())).collect();
        draft.index = draft.index.replacen("}\n", &head, 1);
        draft.index = draft.index.replacen("{\"part\":0,", &format!("{lines}{{\"part\":0,"), 1);
        draft
    }

    /// One stream.
    pub fn stream(bytes: &[u8]) -> Self {
        Self::new(ContentKind::Stream, bytes, &[line("stream", Some(bytes))])
    }
}

/// An entry's line in the index; `None` is a folder.
pub fn line(path: &str, bytes: Option<&[u8]>) -> String {
    let path = serde_json::to_string(path).unwrap();
    match bytes {
        None => format!("{{\"path\":{path},\"kind\":\"folder\",\"mtime\":0}}"),
        Some(bytes) => format!(
            "{{\"path\":{path},\"kind\":\"file\",\"size\":{},\"executable\":false,\"mtime\":0,\"blake3\":\"{}\"}}",
            bytes.len(),
            blake3::hash(bytes),
        ),
    }
}

/// The archive of profile 1 of these files and folders, under harmless names where theirs are not paths.
pub fn archive(entries: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, bytes) in entries {
        let kind = bytes.map_or(ItemKind::Folder, |b| ItemKind::File { size: b.len() as u64, executable: false });
        // What is no path has no header of ours: one of the same length stands in for it.
        let path = path.parse().unwrap_or_else(|_| "x".repeat(path.len().clamp(1, 255)).parse().unwrap());
        header(&Item { path: &path, mtime: 0, kind }, &mut out);
        out.extend_from_slice(bytes.unwrap_or_default());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

impl Forger {
    /// Somebody with an account; the recipient is one of their contacts.
    pub fn new(world: &World, who: &str, to: &str) -> Self {
        let (party, keys) = world.party(who).client();
        let book = party.contacts().unwrap();
        let contact = book.named(&to.parse().unwrap()).unwrap();
        let recipient = contact.card().age_recipient.as_str().parse().unwrap();
        Self { keys, me: party.fingerprint(), to: contact.fingerprint(), recipient }
    }

    pub fn terms(&self) -> Terms {
        Terms {
            bundle: BundleId::random().unwrap(),
            kind: Kind::Dataset,
            sender: self.me,
            recipient: self.to,
            sequence: 1,
            previous: None,
            revision: 1,
            created: now(),
            expires: now().plus(3600),
            note: None,
            due: None,
            answers: None,
        }
    }

    /// The manifest for a draft, and its index as it is carried.
    pub fn manifest(&self, draft: &Draft) -> (Manifest, Vec<u8>) {
        let text = draft.index.as_bytes();
        let mut plain = text.to_vec();
        plain.resize(padded(text.len() as u64).unwrap() as usize, 0);
        let index = seal_to_vec(&draft.key.recipient(), &plain).unwrap();
        let summary = Summary {
            content: draft.content,
            layout: draft.layout,
            index_size: text.len() as u64,
            index_sha256: Sha256Digest::of(text),
            sealed_index_size: index.len() as u64,
            sealed_index_sha256: Sha256Digest::of(&index),
        };
        (Manifest::new(self.terms(), &summary), index)
    }

    /// Signs and seals a draft as an honest program would.
    pub fn carry(&self, draft: Draft) -> Carried {
        self.carry_as(draft, |_| {})
    }

    /// As [`Self::carry`], with another manifest.
    pub fn carry_as(&self, draft: Draft, change: impl FnOnce(&mut Manifest)) -> Carried {
        let (mut manifest, index) = self.manifest(&draft);
        change(&mut manifest);
        let signed = manifest.sign(&self.keys.signing).unwrap();
        let envelope = seal_envelope(&signed, &draft.key, &self.recipient).unwrap();
        Carried { bundle: signed.body().bundle, parts: draft.parts, index, envelope }
    }

    /// An envelope of any statement and signature.
    pub fn envelope(&self, statement: &[u8], signature: &str, key: &Identity) -> Vec<u8> {
        let key = format!("{}\n", key.expose_secret_string().as_str());
        let list = [("manifest", statement), ("manifest.sig", signature.as_bytes()), ("bundle.key", key.as_bytes())];
        seal_to_vec(&self.recipient, &objects(&list)).unwrap()
    }

    /// The same statement in other bytes, signed as they are by the forger.
    pub fn respelled(&self, manifest: &Signed<Manifest>, key: &Identity, change: impl Fn(String) -> String) -> Vec<u8> {
        let text = change(String::from_utf8(manifest.bytes().to_vec()).unwrap());
        let signature = sign_detached("pouch.manifest.v1", text.as_bytes(), &self.keys.signing).unwrap();
        self.envelope(text.as_bytes(), &signature, key)
    }
}

/// The ustar of an envelope or receipt with any content.
pub fn objects(list: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in list {
        let mut block = Vec::new();
        let kind = ItemKind::File { size: bytes.len() as u64, executable: false };
        header(&Item { path: &name.parse().unwrap(), mtime: 0, kind }, &mut block);
        // Objects are private: another mode, and the checksum that goes with it.
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

/// The objects of an object archive, without any checks.
pub fn objects_in(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    while bytes.len() > 512 && bytes[0] != 0 {
        let name = String::from_utf8(bytes[..100].iter().copied().take_while(|b| *b != 0).collect()).unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[124..135]).unwrap(), 8).unwrap();
        found.push((name, bytes[512..512 + size].to_vec()));
        bytes = &bytes[512 + size.next_multiple_of(512)..];
    }
    found
}

/// What is in an envelope or receipt that `keys` open: name and bytes of each object.
pub fn opened(keys: &Keys, sealed: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut plain = Vec::new();
    open_part(&keys.age, sealed, &mut plain).unwrap();
    objects_in(&plain)
}

impl Carried {
    /// The bundle as a file.
    pub fn write(&self, path: &Path) {
        let mut writer = PouchWriter::create(path, self.bundle).unwrap();
        for (number, part) in (0..).zip(&self.parts) {
            writer.add_part(number, part).unwrap();
        }
        writer.finish(&self.index, &self.envelope).unwrap();
    }

    /// The hostile relay serves this bundle to whoever asks for any, and takes the receipt.
    pub fn serve(&self, hostile: &Hostile) {
        let envelope = self.envelope.clone();
        hostile.on("POST", "/v1/inbox/*/release", move |_| Answer::object(envelope.clone()).into());
        let index = self.index.clone();
        hostile.on("GET", "/v1/bundles/*/index", move |_| Answer::object(index.clone()).into());
        let parts = self.parts.clone();
        hostile.on("GET", "/v1/bundles/*/parts/*", move |seen| {
            Answer::object(parts[seen.component(4).parse::<usize>().unwrap()].clone()).into()
        });
        hostile.on("POST", "/v1/inbox/*/receipt", |_| Answer::new(204, "text/plain", "").into());
    }
}

/// A bundle as a recipient's own device gets it from the relay.
pub fn fetched(world: &World, who: &str, bundle: BundleId, parts: u32) -> Carried {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let api = world.party(who).client().0.api().unwrap();
        let envelope = api.release(bundle).await.unwrap().to_vec();
        let index = api.get_index(bundle, 16 << 20).await.unwrap().to_vec();
        let mut all = Vec::new();
        for number in 0..parts {
            all.push(api.get_part(bundle, number, 16 << 20).await.unwrap().to_vec());
        }
        Carried { bundle, parts: all, index, envelope }
    })
}
