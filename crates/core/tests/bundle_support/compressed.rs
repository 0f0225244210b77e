//! Compressed bundles: content for them, and sealing and opening on several threads.

use std::io::Cursor;
use std::path::Path;

use pouch_core::bundle::*;

use super::{Carried, World, scan, threads};

pub const FRAME: usize = FRAME_SIZE as usize;
pub const ZSTD: Option<Compression> = Some(Compression::Zstd);

/// Bytes that nothing compresses, the same each time.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| b"compressible, but not all the same; "[i % 36] ^ ((i >> 16) % 7) as u8).collect()
}

pub fn stream(bytes: &[u8]) -> Content {
    Content::Stream { name: "stream".parse().unwrap(), mtime: 7, reader: Box::new(Cursor::new(bytes.to_vec())) }
}

pub fn tree(path: &Path) -> Content {
    Content::Tree(scan(path))
}

pub fn seal_on(world: &World, count: usize, content: Content) -> Result<Carried, SealError> {
    let sealer = Sealer::compressing(content, ZSTD)?;
    let mut parts = Vec::new();
    sealer.seal_all(threads(count), |part| {
        assert_eq!(part.number as usize, parts.len());
        parts.push(std::mem::take(&mut part.sealed));
        Ok::<_, SealError>(())
    })?;
    Ok(world.carried(parts, sealer.finish()?))
}

pub fn open_on<S: Sink>(world: &World, count: usize, carried: &Carried, sink: S) -> Result<S::Done, OpenError> {
    let receiver = world.open(carried)?.receive(sink)?;
    receiver.accept_all(threads(count), |number, out: &mut Vec<u8>| {
        out.clone_from(&carried.parts[number as usize]);
        Ok::<_, OpenError>(true)
    })?;
    receiver.finish()
}

pub fn written(world: &World, count: usize, carried: &Carried) -> Vec<u8> {
    open_on(world, count, carried, Released::new(Vec::new())).unwrap()
}
