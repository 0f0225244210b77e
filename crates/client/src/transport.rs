//! The one boundary to the network: a request goes in, a bounded answer comes out.
//!
//! Everything above speaks through [`Transport`], so that a test can put a faulty network in its place.

mod network;
mod pace;
mod tls;

use std::error::Error as _;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pouch_statement::{RelayOrigin, Sha256Digest};
use rustls::CertificateError;

pub use self::network::{ClientCertificate, Network, NetworkError, PATIENCE};
use self::pace::{Pace, Paced};
pub use self::tls::tls;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an answer may make no progress.
const STALL: Duration = Duration::from_secs(60);
/// The slowest line that a body is sent over, in bytes a second: what is slower is taken for stalled.
const SLOWEST: u64 = 16 << 10;

/// Why no answer could be had.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The certificate is not the relay's.
    #[error("the relay's certificate was refused: {0}")]
    Certificate(String),
    /// Not reachable, or the connection broke.
    #[error("cannot reach the relay at {relay}: {reason}")]
    Unreachable {
        /// The relay.
        relay: RelayOrigin,
        /// What failed, from the outside in.
        reason: String,
    },
    /// The answer is longer than anything this request can have as an answer.
    #[error("the relay's answer is longer than {0} bytes and was not read")]
    TooLong(usize),
    /// The client could not be set up.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

/// A request, signed already.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// `GET`, `PUT`, `POST` or `DELETE`.
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// Header fields.
    pub fields: Vec<(&'static str, String)>,
    /// The body, if there is one.
    pub body: Option<Bytes>,
    /// The longest answer that will be read, in bytes.
    pub max_answer: usize,
}

/// An answer, whole.
#[derive(Debug)]
pub struct HttpAnswer {
    /// HTTP status.
    pub status: u16,
    /// The value of `Content-Type`, if it is text.
    pub content_type: Option<String>,
    /// The seconds of `Retry-After`, if it says some.
    pub retry_after: Option<u64>,
    /// How the relay's log names the request.
    pub request: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// A future that a transport returns.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<HttpAnswer, TransportError>> + Send + 'a>>;

/// Carries requests to one relay.
pub trait Transport: Send + Sync {
    /// Sends `request` and reads the whole answer, at most `max_answer` bytes of it. No redirects, no retries.
    fn call(&self, request: HttpRequest) -> Answer<'_>;
}

/// HTTPS to a real relay: TLS 1.3, HTTP/1.1, the system's proxy settings.
pub struct Https {
    relay: RelayOrigin,
    client: reqwest::Client,
    pace: Option<Arc<Pace>>,
}

impl Https {
    /// For the relay at `relay`, with the TLS of [`tls`].
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(relay: RelayOrigin, pins: &[Sha256Digest], network: &Network) -> Result<Self, TransportError> {
        let tls = tls(&relay, pins, network)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("pouch/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| setup(&e))?;
        Ok(Self { relay, client, pace: network.rate.map(|rate| Arc::new(Pace::new(rate))) })
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpAnswer, TransportError> {
        let method = match request.method {
            "GET" => reqwest::Method::GET,
            "PUT" => reqwest::Method::PUT,
            "POST" => reqwest::Method::POST,
            _ => reqwest::Method::DELETE,
        };
        let mut builder = self.client.request(method, format!("{}{}", self.relay, request.target));
        for (name, value) in request.fields {
            builder = builder.header(name, value);
        }
        let mut patience = STALL;
        if let Some(body) = request.body {
            patience += Duration::from_secs(body.len() as u64 / SLOWEST);
            builder = match &self.pace {
                Some(pace) => {
                    patience += pace.patience(body.len());
                    builder.body(reqwest::Body::wrap(Paced::new(body, Arc::clone(pace))))
                }
                None => builder.body(body),
            };
        }
        let answer = tokio::time::timeout(patience, builder.send()).await;
        let mut answer = answer.map_err(|_| self.stalled())?.map_err(|e| self.unreachable(&e))?;
        let status = answer.status().as_u16();
        let field = |name| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let content_type = field("content-type");
        // A date is possible, too (RFC 9110 §10.2.3); no relay of ours says one.
        let retry_after = field("retry-after").and_then(|text| text.parse().ok());
        let name = field(pouch_protocol::REQUEST_ID).filter(|text| is_request_id(text));
        let announced = answer.content_length().unwrap_or(0);
        if announced > request.max_answer as u64 {
            return Err(TransportError::TooLong(request.max_answer));
        }
        let mut body = Vec::with_capacity(announced as usize);
        while let Some(chunk) = tokio::time::timeout(STALL, answer.chunk())
            .await
            .map_err(|_| self.stalled())?
            .map_err(|e| self.unreachable(&e))?
        {
            if body.len() + chunk.len() > request.max_answer {
                return Err(TransportError::TooLong(request.max_answer));
            }
            if let Some(pace) = &self.pace {
                tokio::time::sleep_until(pace.turn(chunk.len())).await;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpAnswer { status, content_type, retry_after, request: name, body: body.into() })
    }

    fn stalled(&self) -> TransportError {
        let reason = "it does not answer, or the line is too slow".to_owned();
        TransportError::Unreachable { relay: self.relay.clone(), reason }
    }

    fn unreachable(&self, error: &reqwest::Error) -> TransportError {
        let mut reasons = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(rustls::Error::InvalidCertificate(why)) = find_tls(cause) {
                return TransportError::Certificate(certificate_reason(why));
            }
            // What rustls says of it is meant for programmers.
            let cut = cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::UnexpectedEof);
            let text = if cut { "the connection was cut".to_owned() } else { cause.to_string() };
            if reasons.last() != Some(&text) {
                reasons.push(text);
            }
            source = cause.source();
        }
        if reasons.is_empty() {
            reasons.push(if error.is_timeout() { "no answer in time".into() } else { "connection failed".to_owned() });
        }
        TransportError::Unreachable { relay: self.relay.clone(), reason: reasons.join(": ") }
    }
}

/// Somebody else's text that is shown as it is: hexadecimal characters, a bounded number.
fn is_request_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-')
}

/// An I/O error keeps what it was made of from `source`, and the layers below us nest it.
fn find_tls<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match cause.downcast_ref::<rustls::Error>() {
        Some(found) => Some(found),
        None => find_tls(cause.downcast_ref::<std::io::Error>()?.get_ref()?),
    }
}

fn certificate_reason(why: &CertificateError) -> String {
    match why {
        CertificateError::ApplicationVerificationFailure => {
            "its key is not the one that your link and card name; somebody may stand between, or the relay was set up anew"
                .into()
        }
        other => format!("{other:?}").chars().take(200).collect(),
    }
}

impl Transport for Https {
    fn call(&self, request: HttpRequest) -> Answer<'_> {
        Box::pin(self.exchange(request))
    }
}

fn setup(reason: impl std::fmt::Display) -> TransportError {
    TransportError::Setup(reason.to_string())
}
