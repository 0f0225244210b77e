//! What S3 alone can do wrong, against a Ceph gateway where `POUCH_CEPH` names one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Instant;

use futures_util::StreamExt as _;
use pouch_services::Ceph;

use super::wire::Wire;
use super::*;
use crate::blob::tests::{announced, body, collect, content, frames, s3_config};

async fn receive(s3: &S3, bytes: &[u8]) -> Result<BlobName, ReceiveError> {
    let name = BlobName::random().unwrap();
    s3.receive(name, &frames(bytes, 60_000), announced(bytes)).await.map(|()| name)
}

#[tokio::test]
async fn a_bucket_that_cannot_be_used_is_refused_at_start_without_the_secret() {
    let Some(ceph) = Ceph::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let good = s3_config(&ceph, folder.path());
    let refused = async |config: &S3Config| S3::open(config).await.err().unwrap().to_string();
    let error = refused(&S3Config { bucket: "no-such-bucket".to_owned(), ..good.clone() }).await;
    assert!(
        error.contains("no-such-bucket") && error.contains("put failed") && error.contains("NoSuchBucket"),
        "{error}"
    );
    let error = refused(&S3Config { access_key_id: Some("nobody".to_owned()), ..good.clone() }).await;
    assert!(error.contains("InvalidAccessKeyId"), "{error}");
    std::fs::write(folder.path().join("secret"), "another-secret\n").unwrap();
    let error = refused(&good).await;
    assert!(error.contains("SignatureDoesNotMatch") && !error.contains("another-secret"), "{error}");
    let nobody = S3Config { endpoint: "http://127.0.0.1:1".parse().unwrap(), ..good.clone() };
    let error = refused(&nobody).await;
    assert!(error.contains("http://127.0.0.1:1") && error.contains("refused"), "{error}");
    let error = refused(&S3Config { secret_access_key_file: Some("/nowhere".into()), ..good }).await;
    assert!(error.contains("/nowhere"), "{error}");
}

// Gone and back: what was acknowledged is there, what was not is said and leaves nothing, and then it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_and_comes_back_loses_nothing() {
    let Some(ceph) = Ceph::fragile() else { return };
    let folder = tempfile::tempdir().unwrap();
    let s3 = Arc::new(S3::open(&s3_config(&ceph, folder.path())).await.unwrap());
    let (small, large) = (content(1, 4096), content(2, (24 << 20) + 5));
    let kept = [receive(&s3, &small).await.unwrap(), receive(&s3, &large).await.unwrap()];
    // One upload is between two pieces when it happens.
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let parts: Vec<_> = large.chunks(1 << 20).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let wait = async move {
        let _ = wait.await;
        Ok(Bytes::new())
    };
    let (first, rest) = parts.split_at(12);
    let clone = |parts: &[io::Result<Bytes>]| parts.iter().map(|p| Ok(p.as_ref().unwrap().clone())).collect::<Vec<_>>();
    let frames = futures_util::stream::iter(clone(first))
        .chain(futures_util::stream::once(wait))
        .chain(futures_util::stream::iter(clone(rest)));
    let (cut, upload, announced) = (BlobName::random().unwrap(), body(frames), announced(&large));
    let receiver = Arc::clone(&s3);
    let receiving = tokio::spawn(async move { receiver.receive(cut, &upload, announced).await });
    while s3.unfinished().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let outage = ceph.outage();
    let begun = Instant::now();
    let unavailable = |error: ReceiveError| matches!(error, ReceiveError::Store(StoreError::Unavailable(_)));
    go_on.send(()).unwrap();
    assert!(unavailable(receiving.await.unwrap().unwrap_err()));
    assert!(unavailable(receive(&s3, &small).await.unwrap_err()));
    assert!(unavailable(receive(&s3, &large).await.unwrap_err()));
    assert!(matches!(s3.read(kept[0], 0, 1).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(s3.list(None).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(s3.unfinished().await, Err(StoreError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    drop(outage);
    for (name, bytes) in kept.into_iter().zip([&small, &large]) {
        assert!(collect(s3.read(name, 0, bytes.len() as u64).await.unwrap()).await.unwrap() == *bytes);
    }
    let fresh = receive(&s3, &small).await.unwrap();
    let mut listed: Vec<_> = s3.list(None).await.unwrap().blobs.iter().map(|blob| blob.name.text()).collect();
    let mut expected = [kept[0], kept[1], fresh].map(|name| name.text());
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    // The one that was cut off could not be aborted, and is found.
    let left = s3.unfinished().await.unwrap();
    assert_eq!(left.iter().map(|u| u.name).collect::<Vec<_>>(), [cut]);
    s3.discard(&left[0]).await.unwrap();
    assert!(s3.unfinished().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_wait_for_room_in_memory() {
    let Some(ceph) = Ceph::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = S3Config { memory_bytes: SINGLE, ..s3_config(&ceph, folder.path()) };
    let s3 = Arc::new(S3::open(&config).await.unwrap());
    let large = content(3, SINGLE as usize);
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let beginning = Bytes::copy_from_slice(&large[..1000]);
    let end = Bytes::copy_from_slice(&large[1000..]);
    let wait = async move {
        let _ = wait.await;
        Ok(end)
    };
    let frames = futures_util::stream::iter([Ok(beginning)]).chain(futures_util::stream::once(wait));
    let (upload, announced, name) = (body(frames), announced(&large), BlobName::random().unwrap());
    let receiver = Arc::clone(&s3);
    let first = tokio::spawn(async move { receiver.receive(name, &upload, announced).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let receiver = Arc::clone(&s3);
    let small = tokio::spawn(async move { receive(&receiver, &content(4, 100)).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!small.is_finished(), "all room is taken");
    go_on.send(()).unwrap();
    first.await.unwrap().unwrap();
    small.await.unwrap().unwrap();
    // Pieces of one blob take turns with those of others; nobody holds what another one needs for going on.
    let many = (0..4u8).map(|n| async move { content(n, (24 << 20) + 5) }).map(|bytes| async {
        receive(&s3, &bytes.await).await.unwrap();
    });
    tokio::time::timeout(Duration::from_secs(120), futures_util::future::join_all(many)).await.unwrap();
}

// What the relay did not make is neither listed nor given up; and a second relay under another prefix sees nothing of it.
#[tokio::test]
async fn strangers_in_the_bucket_are_left_alone() {
    let Some(ceph) = Ceph::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = s3_config(&ceph, folder.path());
    let s3 = S3::open(&config).await.unwrap();
    let name = receive(&s3, &content(5, 100)).await.unwrap();
    for key in ["README", &name.text().to_uppercase(), &format!("{}x", name.text())] {
        let path = Path::from(format!("{}{key}", s3.folder()));
        s3.store.put(&path, "x".into()).await.unwrap();
        s3.store.create_multipart(&path).await.unwrap();
    }
    assert_eq!(s3.list(None).await.unwrap().blobs.iter().map(|b| b.name).collect::<Vec<_>>(), [name]);
    assert!(s3.unfinished().await.unwrap().is_empty());
    let inner = S3Config { prefix: format!("{}/inner", config.prefix), ..config.clone() };
    let inner = S3::open(&inner).await.unwrap();
    assert!(inner.list(None).await.unwrap().blobs.is_empty());
    receive(&inner, &content(6, 100)).await.unwrap();
    assert_eq!(s3.list(None).await.unwrap().blobs.len(), 1);
    // More unfinished uploads than the smallest page.
    let many = futures_util::stream::iter(0..1050u128).map(|number| {
        let path = s3.path(BlobName::from_bytes(number.to_be_bytes()));
        let store = Arc::clone(&s3.store);
        async move { store.create_multipart(&path).await.unwrap() }
    });
    many.buffer_unordered(32).collect::<Vec<_>>().await;
    assert_eq!(s3.unfinished().await.unwrap().len(), 1050);
}

// The secret is in no address and in no error.
#[tokio::test]
async fn attack_59_errors_hold_no_signature() {
    let wire = Wire::new(true).unwrap();
    let store = AmazonS3Builder::new()
        .with_endpoint("http://127.0.0.1:1")
        .with_bucket_name("pouch")
        .with_access_key_id("id")
        .with_secret_access_key("CANARY")
        .with_allow_http(true)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .with_http_connector(wire.clone())
        .build()
        .unwrap();
    let listing = wire.uploads(&store, "x").await.err().unwrap().to_string();
    let read = failed(store.get(&Path::from("x")).await.unwrap_err()).to_string();
    for text in [listing, read] {
        assert!(!text.contains("CANARY") && !text.contains("Signature"), "{text}");
    }
    assert!(short(&"é".repeat(1000)).chars().count() == MAX_ERROR + 1);
}
