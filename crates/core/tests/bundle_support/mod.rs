//! Two people, bundles between them, and bundles that nobody honest would make.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod compressed;

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pouch_core::age::{Identity, open_part, seal_to_vec, sealed_len};
use pouch_core::bundle::*;
use pouch_statement::{BundleId, Fingerprint, Sha256Digest, Signed, SigningKey, Timestamp};

/// One person's keys.
pub struct Person {
    pub age: Identity,
    pub signs: SigningKey,
    pub card: Fingerprint,
}

impl Person {
    pub fn new() -> Self {
        let (age, signs) = (Identity::generate(), SigningKey::generate().unwrap());
        let card = Fingerprint::of(&age.recipient().to_string(), &signs.public());
        Self { age, signs, card }
    }
}

/// Ada sends to Bo.
pub struct World {
    pub ada: Person,
    pub bo: Person,
}

/// What a relay would hold, and what only the sender knows.
pub struct Carried {
    pub parts: Vec<Vec<u8>>,
    pub index: Vec<u8>,
    pub envelope: Vec<u8>,
    pub manifest: Signed<Manifest>,
    pub key: Identity,
}

pub fn now() -> Timestamp {
    Timestamp::from_unix(1_700_000_000).unwrap()
}

pub const PART: usize = FIRST_PART_SIZE as usize;

pub fn scan(path: &Path) -> Scan {
    Scan::new(&[path.to_owned()], ScanOptions::default()).unwrap()
}

pub fn threads(count: usize) -> NonZeroUsize {
    count.try_into().unwrap()
}

pub fn blake3_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_string()
}

impl World {
    pub fn new() -> Self {
        Self { ada: Person::new(), bo: Person::new() }
    }

    pub fn terms(&self) -> Terms {
        Terms {
            bundle: BundleId::random().unwrap(),
            kind: Kind::Dataset,
            sender: self.ada.card,
            recipient: self.bo.card,
            sequence: 1,
            previous: None,
            revision: 1,
            created: now(),
            expires: now().plus(86_400),
            note: Some("for you".parse().unwrap()),
            due: None,
            answers: None,
        }
    }

    pub fn expected(&self) -> Expected<'_> {
        // The key is made on the way, so it is leaked: this is a test.
        let sender_key = Box::leak(Box::new(self.ada.signs.public()));
        Expected { me: &self.bo.card, sender: &self.ada.card, sender_key, bundle: None, now: now() }
    }

    pub fn seal(&self, content: Content) -> Carried {
        let sealer = Sealer::new(content).unwrap();
        let (mut part, mut parts) = (SealedPart::default(), Vec::new());
        while sealer.next_part(&mut part).unwrap() {
            assert_eq!(part.number as usize, parts.len());
            parts.push(part.sealed.clone());
        }
        self.carried(parts, sealer.finish().unwrap())
    }

    /// What Ada signed and sealed to Bo.
    pub fn carried(&self, parts: Vec<Vec<u8>>, sealed: SealedBundle) -> Carried {
        self.signed(parts, sealed.sealed_index, &sealed.summary, sealed.key)
    }

    fn signed(&self, parts: Vec<Vec<u8>>, index: Vec<u8>, summary: &Summary, key: Identity) -> Carried {
        let manifest = Manifest::new(self.terms(), summary).sign(&self.ada.signs).unwrap();
        let envelope = seal_envelope(&manifest, &key, &self.bo.age.recipient()).unwrap();
        Carried { parts, index, envelope, manifest, key }
    }

    pub fn seal_paths(&self, paths: &[PathBuf]) -> Carried {
        self.seal(Content::Tree(Scan::new(paths, ScanOptions::default()).unwrap()))
    }

    pub fn seal_stream(&self, bytes: &[u8]) -> Carried {
        let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
        self.seal(Content::Stream { name: "stream".parse().unwrap(), mtime: 7, reader })
    }

    /// A bundle with any content and any entry lines, everything else consistent and signed by Ada: what a hostile
    /// sender can make. `edit` changes the whole index text before it is sealed.
    pub fn forge(
        &self,
        kind: ContentKind,
        content: &[u8],
        entries: &[String],
        edit: impl Fn(String) -> String,
    ) -> Carried {
        let layout = Layout::of(content.len() as u64).unwrap();
        let mut padded_content = content.to_vec();
        padded_content.resize(layout.padded_size() as usize, 0);
        self.forge_padded(kind, layout, &padded_content, entries, edit)
    }

    fn forge_padded(
        &self,
        kind: ContentKind,
        layout: Layout,
        padded_content: &[u8],
        entries: &[String],
        edit: impl Fn(String) -> String,
    ) -> Carried {
        let key = Identity::generate_x25519();
        let size = layout.content_size();
        let parts: Vec<Vec<u8>> = padded_content
            .chunks(FIRST_PART_SIZE as usize)
            .map(|plain| seal_to_vec(&key.recipient(), plain).unwrap())
            .collect();
        let name = if kind == ContentKind::Tar { "tar" } else { "stream" };
        let mut text = format!(
            "{{\"type\":\"pouch.index.v1\",\"content\":\"{name}\",\"content_size\":{size},\"padded_size\":{},\"entries\":{},\"parts\":{}}}\n",
            layout.padded_size(),
            entries.len(),
            parts.len(),
        );
        for entry in entries {
            text += entry;
            text.push('\n');
        }
        for (number, part) in parts.iter().enumerate() {
            text += &format!(
                "{{\"part\":{number},\"size\":{},\"sealed_size\":{},\"sealed_blake3\":\"{}\"}}\n",
                layout.part_size(number as u32).unwrap(),
                part.len(),
                blake3_of(part),
            );
        }
        let text = edit(text);
        self.carry(key, parts, kind, layout, text.as_bytes())
    }

    /// As [`World::forge`], with content that is compressed: any bytes as frames, and any change to all of it.
    pub fn forge_frames(
        &self,
        kind: ContentKind,
        raw_size: u64,
        frames: &[Vec<u8>],
        entries: &[String],
        change: impl Fn(&mut Vec<u8>),
        edit: impl Fn(String) -> String,
    ) -> Carried {
        let mut content = frames.concat();
        let layout = Layout::of(content.len() as u64 + 8).unwrap();
        let zeros = layout.padded_size() - layout.content_size();
        content.extend_from_slice(&0x184D_2A50_u32.to_le_bytes());
        content.extend_from_slice(&(zeros as u32).to_le_bytes());
        content.resize(layout.padded_size() as usize, 0);
        change(&mut content);
        let lines: String =
            (0..).zip(frames).map(|(n, frame)| format!("{{\"frame\":{n},\"size\":{}}}\n", frame.len())).collect();
        let head = format!(",\"compression\":\"zstd\",\"raw_size\":{raw_size},\"frames\":{}}}\n", frames.len());
        self.forge_padded(kind, layout, &content, entries, |text| {
            let text = text.replacen("}\n", &head, 1);
            edit(text.replacen("{\"part\":0,", &format!("{lines}{{\"part\":0,"), 1))
        })
    }

    /// Seals any bytes as the index, and signs for them.
    pub fn carry(
        &self,
        key: Identity,
        parts: Vec<Vec<u8>>,
        content: ContentKind,
        layout: Layout,
        text: &[u8],
    ) -> Carried {
        let mut plain = text.to_vec();
        plain.resize(padded(text.len() as u64).unwrap() as usize, 0);
        let index = seal_to_vec(&key.recipient(), &plain).unwrap();
        let summary = Summary {
            content,
            layout,
            index_size: text.len() as u64,
            index_sha256: Sha256Digest::of(text),
            sealed_index_size: index.len() as u64,
            sealed_index_sha256: Sha256Digest::of(&index),
        };
        self.signed(parts, index, &summary, key)
    }

    pub fn open(&self, carried: &Carried) -> Result<Opening, OpenError> {
        let opened = open_envelope(&carried.envelope, &self.bo.age)?;
        opened.verify(&self.expected())?.open_index(&carried.index)
    }

    pub fn receive<S: Sink>(&self, carried: &Carried, sink: S) -> Result<S::Done, OpenError> {
        let receiver = self.open(carried)?.receive(sink)?;
        for (number, part) in (0..).zip(&carried.parts) {
            receiver.accept(number, part)?;
        }
        receiver.finish()
    }

    pub fn receive_into(&self, carried: &Carried, destination: &Path) -> Result<PathBuf, OpenError> {
        let staging = Staging::new(destination).map_err(SinkError::from)?;
        let staged = self.receive(carried, staging)?;
        Ok(staged.publish().map_err(SinkError::from)?)
    }

    /// Receives beside nothing else, expects a refusal, and that it left nothing behind.
    pub fn refused(&self, carried: &Carried) -> OpenError {
        let home = tempfile::tempdir().unwrap();
        let error = self.receive_into(carried, &home.path().join("in")).unwrap_err();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "left behind after: {error}");
        error
    }
}

impl Carried {
    /// The padded content, as its owner with the bundle key sees it.
    pub fn content(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for part in &self.parts {
            let mut plain = Vec::new();
            open_part(&self.key, part, &mut plain).unwrap();
            all.extend_from_slice(&plain);
        }
        all
    }

    pub fn index_text(&self) -> String {
        let mut plain = Vec::new();
        open_part(&self.key, &self.index, &mut plain).unwrap();
        plain.truncate(self.manifest.body().index_size as usize);
        String::from_utf8(plain).unwrap()
    }

    /// The same bundle as one file.
    pub fn write_pouch(&self, path: &Path) {
        let mut writer = PouchWriter::create(path, self.manifest.body().bundle).unwrap();
        for (number, part) in (0..).zip(&self.parts) {
            writer.add_part(number, part).unwrap();
        }
        writer.finish(&self.index, &self.envelope).unwrap();
    }
}

/// The index line and archive bytes of a file.
pub fn file_line(path: &str, bytes: &[u8]) -> String {
    let path = serde_json::to_string(path).unwrap();
    format!(
        "{{\"path\":{path},\"kind\":\"file\",\"size\":{},\"executable\":false,\"mtime\":0,\"blake3\":\"{}\"}}",
        bytes.len(),
        blake3_of(bytes)
    )
}

pub fn folder_line(path: &str) -> String {
    format!("{{\"path\":{},\"kind\":\"folder\",\"mtime\":0}}", serde_json::to_string(path).unwrap())
}

/// The archive of profile 1 of these files and folders (`None`), for paths that are paths.
pub fn archive_of(entries: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, bytes) in entries {
        let kind = match bytes {
            None => ItemKind::Folder,
            Some(bytes) => ItemKind::File { size: bytes.len() as u64, executable: false },
        };
        header(&Item { path: &path.parse().unwrap(), mtime: 0, kind }, &mut out);
        out.extend_from_slice(bytes.unwrap_or_default());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// Everything about a tree that travels: kind, executable, mtime, bytes by path.
pub fn snapshot(root: &Path) -> BTreeMap<String, (bool, bool, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            assert!(!meta.is_symlink());
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let folder = meta.is_dir();
            let bytes = if folder { Vec::new() } else { std::fs::read(&path).unwrap() };
            let executable = !folder && meta.permissions().mode() & 0o100 != 0;
            all.insert(name, (folder, executable, meta.mtime(), bytes));
            if folder {
                open.push(path);
            }
        }
    }
    all
}

pub fn set_mtime(path: &Path, seconds: i64) {
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { SystemTime::UNIX_EPOCH - offset } else { SystemTime::UNIX_EPOCH + offset };
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

pub fn make_executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A tree with a bit of everything.
pub fn sample_tree(root: &Path) {
    let deep = root.join("folder/deeper/deepest");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::create_dir(root.join("empty folder")).unwrap();
    std::fs::write(root.join("a.txt"), "plain").unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::fs::write(root.join("folder.txt"), "by bytes it would stand between folder and what is in it").unwrap();
    std::fs::write(root.join("folder/run.sh"), "#!/bin/sh\n").unwrap();
    make_executable(&root.join("folder/run.sh"));
    std::fs::write(deep.join("x".repeat(200)), vec![7; 513]).unwrap();
    std::fs::write(deep.join("żółw 東京.dat"), vec![8; 512]).unwrap();
    std::fs::create_dir(deep.join("y".repeat(255))).unwrap();
    std::fs::write(root.join("line\nbreak\u{1b}[2J"), "odd").unwrap();
    std::fs::write(root.join("old"), "before 1970").unwrap();
    std::fs::write(root.join("late"), "after 2242").unwrap();
    set_mtime(&root.join("old"), -86_400);
    set_mtime(&root.join("late"), 8_589_934_592);
    set_mtime(&root.join("folder/run.sh"), 1_234_567_890);
    set_mtime(&root.join("folder/deeper"), 1_000_000_000);
    set_mtime(&root.join("empty folder"), 1_111_111_111);
}

pub fn sealed_size(plain: u64) -> u64 {
    sealed_len(plain).unwrap()
}

/// An envelope of any plaintext, sealed to Bo.
pub fn envelope_of(world: &World, plain: &[u8]) -> Vec<u8> {
    seal_to_vec(&world.bo.age.recipient(), plain).unwrap()
}

/// The ustar of an envelope with any manifest, signature and key.
pub fn objects(list: &[(&str, &[u8])]) -> Vec<u8> {
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

pub fn envelope_with(world: &World, manifest: &[u8], signature: &str, key: &Identity) -> Vec<u8> {
    let key = format!("{}\n", key.expose_secret_string().as_str());
    let list = [("manifest", manifest), ("manifest.sig", signature.as_bytes()), ("bundle.key", key.as_bytes())];
    envelope_of(world, &objects(&list))
}

pub fn small(world: &World) -> Carried {
    world.seal_stream(b"a small secret")
}

pub fn world_copy(carried: &Carried) -> Carried {
    Carried {
        parts: carried.parts.clone(),
        index: carried.index.clone(),
        envelope: carried.envelope.clone(),
        manifest: carried.manifest.clone(),
        key: carried.key.expose_secret_string().parse().unwrap(),
    }
}

/// Fails, or panics, after so many bytes.
pub struct Breaks {
    pub left: usize,
    pub panics: bool,
}

impl Read for Breaks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            assert!(!self.panics, "a reader that panics");
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let length = out.len().min(self.left);
        self.left -= length;
        Ok(length)
    }
}
