//! HTTP to the S3 service: TLS with the system's authorities, bounded times, no redirects; and the one listing that
//! `object_store` lacks, that of unfinished uploads.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use object_store::ClientOptions;
use object_store::aws::AmazonS3;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use pouch_statement::Timestamp;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::Deserialize;

use super::{StoreError, short};

const CONNECT: Duration = Duration::from_secs(5);
/// From the first byte of a request to the beginning of the answer, and from one piece of the answer to the next.
const SILENCE: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(30);
/// How long a signature for a listing is good.
const SIGNED_FOR: Duration = Duration::from_secs(60);
/// A page of a listing, and how many of them are read: more unfinished uploads are collected the next time.
const MAX_LISTING: usize = 4 << 20;
const MAX_PAGES: usize = 100;

/// The connections to S3.
#[derive(Clone, Debug)]
pub(super) struct Wire(reqwest::Client);

impl Wire {
    /// With `plain`, also for http, and then past any proxy: it is this machine's.
    pub(super) fn new(plain: bool) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier())
            .map_err(|error| error.to_string())?
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(!plain)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("pouch-relay/", env!("CARGO_PKG_VERSION")));
        let builder = if plain { builder.no_proxy() } else { builder };
        builder.build().map(Self).map_err(|error| error.to_string())
    }

    /// All unfinished uploads of keys that begin with `prefix` (S3, "ListMultipartUploads").
    pub(super) async fn uploads(&self, store: &AmazonS3, prefix: &str) -> Result<Vec<BegunUpload>, StoreError> {
        let mut all = Vec::new();
        let mut after: Option<(String, String)> = None;
        for _ in 0..MAX_PAGES {
            let mut query = vec![("uploads", ""), ("prefix", prefix)];
            if let Some((key, upload)) = &after {
                query.extend([("key-marker", key.as_str()), ("upload-id-marker", upload.as_str())]);
            }
            let options = SignedUrlOptions::default().with_query(query);
            let url = store
                .signed_url_opts(Method::GET, &Path::default(), SIGNED_FOR, &options)
                .await
                .map_err(|error| StoreError::Broken(short(&error)))?;
            let page = Uploads::parse(&self.listing(url).await?)?;
            all.extend(page.upload.into_iter().filter_map(UploadRow::read));
            match (page.is_truncated, page.next_key_marker, page.next_upload_id_marker) {
                (true, Some(key), Some(upload)) => after = Some((key, upload)),
                _ => break,
            }
        }
        Ok(all)
    }

    /// Fetches a short text. The address is itself a credential and gets into no error.
    async fn listing(&self, url: impl reqwest::IntoUrl) -> Result<Vec<u8>, StoreError> {
        let unavailable = |error: reqwest::Error| StoreError::Unavailable(told(error));
        let mut answer = self.0.get(url).send().await.map_err(unavailable)?;
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(unavailable)? {
            if body.len() + bytes.len() > MAX_LISTING {
                return Err(StoreError::Broken("a listing of unfinished uploads does not end".to_owned()));
            }
            body.extend_from_slice(&bytes);
        }
        let status = answer.status();
        if status.is_success() {
            return Ok(body);
        }
        let text = format!("{status}: {}", short(&String::from_utf8_lossy(&body)));
        Err(if status.is_server_error() { StoreError::Unavailable(text) } else { StoreError::Broken(text) })
    }
}

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let address = head.uri.to_string();
        let mut request = self.0.request(head.method, address).headers(head.headers);
        if !body.is_end_stream() {
            request = request.body(reqwest::Body::wrap(body));
        }
        let answer = request.send().await.map_err(kind)?;
        let (head, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body.map_err(kind))))
    }
}

/// Sorts an error, so that `object_store` knows what may be tried again.
fn kind(error: reqwest::Error) -> HttpError {
    let mut kind = HttpErrorKind::Unknown;
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(hyper) = inner.downcast_ref::<hyper::Error>()
            && (hyper.is_closed()
                || hyper.is_incomplete_message()
                || hyper.is_canceled()
                || hyper.is_body_write_aborted())
        {
            kind = HttpErrorKind::Request;
        } else if inner.is::<std::io::Error>() && kind == HttpErrorKind::Unknown {
            kind = HttpErrorKind::Interrupted;
        }
        source = inner.source();
    }
    if error.is_connect() {
        kind = HttpErrorKind::Connect;
    } else if error.is_timeout() {
        kind = HttpErrorKind::Timeout;
    }
    HttpError::new(kind, WireError(told(error)))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WireError(String);

/// The whole chain of an error, without the address, which may be a credential.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// An upload that was begun.
pub(super) struct BegunUpload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) begun: Timestamp,
}

/// S3's `ListMultipartUploadsResult`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default)]
    upload: Vec<UploadRow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadRow {
    key: String,
    upload_id: String,
    initiated: String,
}

impl Uploads {
    fn parse(body: &[u8]) -> Result<Self, StoreError> {
        let bad = |error: &dyn std::fmt::Display| {
            StoreError::Broken(format!("a listing of unfinished uploads cannot be read: {error}"))
        };
        let text = std::str::from_utf8(body).map_err(|error| bad(&error))?;
        quick_xml::de::from_str(text).map_err(|error| bad(&error))
    }
}

impl UploadRow {
    fn read(self) -> Option<BegunUpload> {
        let begun: jiff::Timestamp = self.initiated.parse().ok()?;
        let begun = Timestamp::from_unix(u64::try_from(begun.as_second()).ok()?).ok()?;
        Some(BegunUpload { key: self.key, upload_id: self.upload_id, begun })
    }
}
