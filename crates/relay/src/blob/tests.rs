//! The contract of [`BlobStore`], tested against each store; S3 where `POUCH_CEPH` names a running gateway.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;

use super::*;

pub(super) fn announced(bytes: &[u8]) -> Announced {
    Announced::new(bytes.len() as u64, Hasher::blake3(), *blake3::hash(bytes).as_bytes())
}

/// A body that comes in pieces.
pub(super) fn frames(bytes: &[u8], size: usize) -> Upload {
    let frames: Vec<_> = bytes.chunks(size).map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece))).collect();
    Upload::new(Body::from_stream(futures_util::stream::iter(frames)), Duration::from_secs(20))
}

pub(super) async fn collect(mut stream: BlobStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}
