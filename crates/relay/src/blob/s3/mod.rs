//! Blobs in an S3 bucket, one object each, through `object_store`.
//!
//! A blob of up to [`SINGLE`] bytes is collected, checked and sent in one `PUT`; of a longer one pieces of [`PIECE`] are sent
//! as they come, and the upload is completed, which makes the object appear, after the digest has matched. What S3
//! answers with success is durable and can be read everywhere (S3 is strongly consistent since 2020, and so is Ceph's gateway).
//! No request carries a condition: a name is used once.

mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{BackoffConfig, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, RetryConfig};
use pouch_statement::Timestamp;
use tokio::task::JoinSet;

use self::wire::Wire;
use super::admission::{Admission, Admitted};
use super::{
    Announced, BlobFuture, BlobName, BlobStore, BlobStream, ID, Listed, Page, ReceiveError, StoreError, StoreId,
    Unfinished, first_batch,
};
use crate::body::Upload;
use crate::config::S3Config;

/// The longest blob that is sent in one request.
pub(crate) const SINGLE: u64 = 16 << 20;
/// Of a longer one, what is sent in one request; S3 takes no less than 5 MiB but for the last one.
const PIECE: u64 = 8 << 20;
/// Pieces of one blob in memory: one is filled while another one is sent.
const PIECES: usize = 2;
/// Read of a body before it is known to begin as an age file, and before room is asked for.
const BEGINNING: usize = 1;
/// Read of an object that is read whole.
const MAX_SMALL: u64 = 4 << 10;
const RETRIES: usize = 3;
/// From the first try of a request to the last one.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// Beneath the prefix.
const FOLDER: &str = "blobs";
const PROBE: &str = "probe";
const PROBE_CONTENT: &[u8] = b"pouch relay: can this bucket be used?\n";
/// Of the text of an error, which may hold a page of XML.
const MAX_ERROR: usize = 400;

/// Why the bucket is not used.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The keys.
    #[error("no credentials for S3: {0}")]
    Credentials(String),
    /// TLS, or a value of the configuration.
    #[error("S3 cannot be set up: {0}")]
    Setup(String),
    /// It was tried.
    #[error("the bucket {bucket} at {endpoint} cannot be used: {step} failed: {why}")]
    Probe {
        /// The bucket.
        bucket: String,
        /// Where.
        endpoint: String,
        /// What was tried.
        step: &'static str,
        /// What came of it.
        why: String,
    },
}

/// The bucket.
pub(super) struct S3 {
    store: Arc<AmazonS3>,
    wire: Wire,
    /// Ends in `/` or is empty.
    prefix: String,
    admission: Admission,
}

impl S3 {
    /// Opens the bucket and tries it: a small object is stored, read, listed and deleted.
    pub(super) async fn open(config: &S3Config) -> Result<Self, S3Error> {
        let s3 = Self::connect(config)?;
        s3.probe().await.map_err(|(step, error)| S3Error::Probe {
            bucket: config.bucket.clone(),
            endpoint: config.endpoint.to_string(),
            step,
            why: error.to_string(),
        })?;
        Ok(s3)
    }

    fn connect(config: &S3Config) -> Result<Self, S3Error> {
        let keys = config.keys().map_err(S3Error::Credentials)?;
        let wire = Wire::new(config.endpoint.is_plain()).map_err(S3Error::Setup)?;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 3.0,
            },
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
        };
        let store = AmazonS3Builder::new()
            .with_endpoint(config.endpoint.for_bucket(&config.bucket, config.path_style))
            .with_virtual_hosted_style_request(!config.path_style)
            .with_region(&config.region)
            .with_bucket_name(&config.bucket)
            .with_access_key_id(keys.id)
            .with_secret_access_key(keys.secret.as_str())
            .with_allow_http(config.endpoint.is_plain())
            .with_disable_bulk_delete(true)
            .with_disable_tagging(true)
            .with_retry(retry)
            .with_http_connector(wire.clone())
            .build()
            .map_err(|error| S3Error::Setup(short(&error)))?;
        let prefix = if config.prefix.is_empty() { String::new() } else { format!("{}/", config.prefix) };
        Ok(Self {
            store: Arc::new(store),
            wire,
            prefix,
            admission: Admission::new(config.memory_bytes as usize, SINGLE as usize),
        })
    }

    fn folder(&self) -> String {
        format!("{}{FOLDER}/", self.prefix)
    }

    /// `PREFIX/blobs/N`
    fn path(&self, name: BlobName) -> Path {
        Path::from(format!("{}{}", self.folder(), name.text()))
    }

    /// `PREFIX/blobs/store`
    fn id_path(&self) -> Path {
        Path::from(format!("{}{ID}", self.folder()))
    }

    /// The name of a key; `None` for what the relay did not make.
    fn name(&self, key: &str) -> Option<BlobName> {
        key.strip_prefix(&self.folder()).and_then(BlobName::parse)
    }

    async fn probe(&self) -> Result<(), (&'static str, StoreError)> {
        let name = BlobName::random().map_err(|e| ("a random name", StoreError::Broken(e.to_string())))?;
        let folder = format!("{}{PROBE}/", self.prefix);
        let path = Path::from(format!("{folder}{}", name.text()));
        self.store.put(&path, PROBE_CONTENT.into()).await.map_err(|e| ("put", failed(e)))?;
        let read = async { self.store.get(&path).await?.bytes().await };
        let read = read.await.map_err(|e| ("get", failed(e)))?;
        if read != PROBE_CONTENT {
            return Err(("get", StoreError::Broken("what was stored is not what is read".to_owned())));
        }
        let options = PaginatedListOptions::default();
        let listed = self.store.list_paginated(Some(path.as_ref()), options).await.map_err(|e| ("list", failed(e)))?;
        if listed.result.objects.is_empty() {
            return Err(("list", StoreError::Broken("what was stored is not listed".to_owned())));
        }
        self.wire.uploads(&self.store, &folder).await.map_err(|e| ("list of unfinished uploads", e))?;
        self.store.delete(&path).await.map_err(|e| ("delete", failed(e)))
    }

    /// Fills a buffer from the body: `rest` of what was read before, then as much as comes, `length` bytes at most.
    async fn fill(
        &self,
        body: &Upload,
        announced: &mut Announced,
        rest: &mut Bytes,
        length: u64,
        admitted: &Admitted,
    ) -> Result<Bytes, ReceiveError> {
        let length = length as usize;
        // Copied into one buffer: frames keep the connection's buffers alive, of which nobody knows the size.
        let mut filled = BytesMut::with_capacity(length);
        let fill = async {
            while filled.len() < length {
                if rest.is_empty() {
                    match body.next().await? {
                        Some(bytes) => *rest = bytes,
                        None => return Err(ReceiveError::Digest),
                    }
                }
                let taken = rest.split_to(rest.len().min(length - filled.len()));
                announced.take(&taken)?;
                filled.extend_from_slice(&taken);
                admitted.is_filled(filled.len());
            }
            Ok(())
        };
        let slow = StoreError::Unavailable("the upload is too slow while others wait".to_owned());
        tokio::select! {
            outcome = fill => outcome?,
            () = self.admission.give_way(admitted) => return Err(slow.into()),
        }
        Ok(filled.freeze())
    }

    /// Nothing may follow what was announced.
    async fn end(body: &Upload, rest: &Bytes) -> Result<(), ReceiveError> {
        if !rest.is_empty() || body.next().await?.is_some() {
            return Err(ReceiveError::Digest);
        }
        Ok(())
    }

    async fn single(
        &self,
        path: &Path,
        body: &Upload,
        mut announced: Announced,
        mut rest: Bytes,
    ) -> Result<(), ReceiveError> {
        let length = announced.length;
        let admitted = self.admission.admit(announced.account, length as usize).await?;
        let bytes = self.fill(body, &mut announced, &mut rest, length, &admitted).await?;
        Self::end(body, &rest).await?;
        announced.check()?;
        if let Err(error) = self.store.put(path, bytes.into()).await {
            // It may have been stored all the same.
            self.delete(path).await;
            return Err(failed(error).into());
        }
        Ok(())
    }

    async fn pieces(&self, path: &Path, body: &Upload, announced: Announced, rest: Bytes) -> Result<(), ReceiveError> {
        let upload = self.store.create_multipart(path).await.map_err(failed)?;
        let outcome = self.send_pieces(path, &upload, body, announced, rest).await;
        match outcome {
            Ok(parts) => match self.store.complete_multipart(path, &upload, parts).await {
                Ok(_) => Ok(()),
                Err(error) => {
                    self.abort(path, &upload).await;
                    // Completed, and only the answer was lost?
                    self.delete(path).await;
                    Err(failed(error).into())
                }
            },
            Err(error) => {
                self.abort(path, &upload).await;
                Err(error)
            }
        }
    }

    /// Sends all of a body in pieces; returns when S3 has them all and the digest has matched.
    async fn send_pieces(
        &self,
        path: &Path,
        upload: &str,
        body: &Upload,
        mut announced: Announced,
        mut rest: Bytes,
    ) -> Result<Vec<PartId>, ReceiveError> {
        // Dropped with the error that ends the loop, it stops what is under way.
        let mut sending = JoinSet::new();
        let mut parts = Vec::new();
        let mut number = 0usize;
        while announced.missing() > 0 {
            if sending.len() == PIECES {
                parts.push(sent(&mut sending).await?);
            }
            let length = announced.missing().min(PIECE);
            // The piece that is being sent comes free by itself, so waiting here for room ends.
            let admitted = self.admission.admit(announced.account, length as usize).await?;
            let bytes = self.fill(body, &mut announced, &mut rest, length, &admitted).await?;
            let (store, path, upload) = (Arc::clone(&self.store), path.clone(), upload.to_owned());
            sending.spawn(async move {
                let part = store.put_part(&path, &upload, number, bytes.into()).await;
                drop(admitted);
                part.map(|part| (number, part))
            });
            number += 1;
        }
        Self::end(body, &rest).await?;
        announced.check()?;
        while !sending.is_empty() {
            parts.push(sent(&mut sending).await?);
        }
        parts.sort_by_key(|(number, _)| *number);
        Ok(parts.into_iter().map(|(_, part)| part).collect())
    }

    async fn abort(&self, path: &Path, upload: &str) {
        if let Err(error) = gone(self.store.abort_multipart(path, &upload.to_owned()).await) {
            tracing::warn!(%error, "an unfinished upload to S3 stays until it is collected");
        }
    }

    async fn delete(&self, path: &Path) {
        if let Err(error) = gone(self.store.delete(path).await) {
            tracing::warn!(%error, "what is left of an upload to S3 stays until it is collected");
        }
    }
}

async fn sent(
    sending: &mut JoinSet<Result<(usize, PartId), object_store::Error>>,
) -> Result<(usize, PartId), StoreError> {
    match sending.join_next().await {
        Some(Ok(part)) => part.map_err(failed),
        Some(Err(error)) => Err(StoreError::Broken(error.to_string())),
        None => Err(StoreError::Broken("a piece was not sent".to_owned())),
    }
}

impl BlobStore for S3 {
    fn receive<'a>(
        &'a self,
        name: BlobName,
        body: &'a Upload,
        announced: Announced,
    ) -> BlobFuture<'a, (), ReceiveError> {
        Box::pin(async move {
            let beginning: Bytes = first_batch(body, BEGINNING).await?.concat().into();
            let path = self.path(name);
            if announced.length <= SINGLE {
                self.single(&path, body, announced, beginning).await
            } else {
                self.pieces(&path, body, announced, beginning).await
            }
        })
    }

    fn read(&self, name: BlobName, offset: u64, length: u64) -> BlobFuture<'_, BlobStream> {
        Box::pin(async move {
            let range = Some(GetRange::Bounded(offset..offset.saturating_add(length)));
            let options = GetOptions { range, ..GetOptions::default() };
            let found = self.store.get_opts(&self.path(name), options).await.map_err(failed)?;
            let stream = found.into_stream().map_err(|error| io::Error::other(short(&error)));
            Ok(Box::pin(stream) as BlobStream)
        })
    }

    fn remove(&self, name: BlobName) -> BlobFuture<'_, ()> {
        Box::pin(async move { gone(self.store.delete(&self.path(name)).await) })
    }

    fn list(&self, after: Option<String>) -> BlobFuture<'_, Page> {
        Box::pin(async move {
            let folder = self.folder();
            let options = PaginatedListOptions { page_token: after, ..PaginatedListOptions::default() };
            let page = self.store.list_paginated(Some(&folder), options).await.map_err(failed)?;
            let listed = |object: object_store::ObjectMeta| {
                let name = self.name(object.location.as_ref())?;
                let seconds = u64::try_from(object.last_modified.timestamp()).ok()?;
                Some(Listed { name, length: object.size, modified: Timestamp::from_unix(seconds).ok()? })
            };
            let blobs = page.result.objects.into_iter().filter_map(listed).collect();
            Ok(Page { blobs, next: page.page_token })
        })
    }

    fn unfinished(&self) -> BlobFuture<'_, Vec<Unfinished>> {
        Box::pin(async move {
            let uploads = self.wire.uploads(&self.store, &self.folder()).await?;
            let unfinished = |u: wire::BegunUpload| {
                Some(Unfinished { name: self.name(&u.key)?, begun: u.begun, upload: u.upload_id })
            };
            Ok(uploads.into_iter().filter_map(unfinished).collect())
        })
    }

    fn discard<'a>(&'a self, unfinished: &'a Unfinished) -> BlobFuture<'a, ()> {
        Box::pin(async move { gone(self.store.abort_multipart(&self.path(unfinished.name), &unfinished.upload).await) })
    }

    fn id(&self) -> BlobFuture<'_, Option<StoreId>> {
        Box::pin(async move {
            let options = GetOptions { range: Some(GetRange::Bounded(0..MAX_SMALL)), ..GetOptions::default() };
            let read = async { self.store.get_opts(&self.id_path(), options).await?.bytes().await };
            match read.await.map_err(failed) {
                Ok(bytes) => StoreId::read(&bytes).map(Some),
                Err(StoreError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn set_id(&self, id: StoreId) -> BlobFuture<'_, ()> {
        Box::pin(async move { self.store.put(&self.id_path(), id.line().into()).await.map(drop).map_err(failed) })
    }

    fn is_mine(&self) -> bool {
        false
    }
}

/// The text of an error, shortened; of an answer in XML only its code.
fn short(error: &dyn std::fmt::Display) -> String {
    let mut text = error.to_string();
    if let Some((before, xml)) = text.split_once("<?xml").or_else(|| text.split_once("<Error")) {
        let code = xml.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
        text = format!("{before}{}", code.unwrap_or("(XML without a code)"));
    }
    match text.char_indices().nth(MAX_ERROR) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// What is to go and is not there has gone.
fn gone(outcome: object_store::Result<()>) -> Result<(), StoreError> {
    match outcome.map_err(failed) {
        Err(StoreError::NotFound(_)) => Ok(()),
        outcome => outcome,
    }
}

fn failed(error: object_store::Error) -> StoreError {
    use object_store::Error as E;
    let text = short(&error);
    match error {
        E::NotFound { .. } => StoreError::NotFound(text),
        // What Ceph and others say to a full bucket, with the status 403.
        _ if text.contains("QuotaExceeded") => StoreError::Full(text),
        E::Generic { .. } => StoreError::Unavailable(text),
        _ => StoreError::Broken(text),
    }
}

#[cfg(test)]
mod tests;
