//! Health, readiness and metrics, for this machine alone: HTTP without TLS on a loopback address or a Unix socket.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::OperationsAddress;
use crate::disk;
use crate::metrics::{Looked, TYPE};
use crate::server::App;

/// Connections at once: a few probes and a scraper.
const CONNECTIONS: usize = 16;
/// How long one may last: a request, or a scraper's pause between two.
const LIFE: Duration = Duration::from_secs(120);
const HEAD: Duration = Duration::from_secs(5);
/// How long ledger and blobs may take to answer before the relay counts as not ready.
const PATIENCE: Duration = Duration::from_secs(3);
/// With less free on the disk the ledger itself will soon not be able to write.
const MIN_FREE: u64 = 16 << 20;
/// Owner and group: a scraper is given the group.
const SOCKET_MODE: u32 = 0o660;

/// Where it listens.
pub(crate) enum Operations {
    Tcp(TcpListener),
    Unix(UnixListener, Socket),
}

/// A socket's name, removed when dropped.
pub(crate) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Operations {
    pub(crate) async fn bind(address: &OperationsAddress) -> io::Result<Self> {
        match address {
            OperationsAddress::Loopback(address) => TcpListener::bind(address).await.map(Self::Tcp),
            OperationsAddress::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                let socket = Socket(path.clone());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
                Ok(Self::Unix(listener, socket))
            }
        }
    }

    /// Where it listens, with the port that it got.
    pub(crate) fn address(&self) -> Option<OperationsAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(OperationsAddress::Loopback),
            Self::Unix(_, socket) => Some(OperationsAddress::Unix(socket.0.clone())),
        }
    }

    /// Answers until dropped.
    pub(crate) async fn run(self, app: Arc<App>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let app = Arc::clone(&app);
            let accepted = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
                Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Box::new(stream) as _),
            };
            match accepted {
                Ok(stream) => {
                    tokio::spawn(async move {
                        serve(stream, app).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the operations listener cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A socket that nobody listens on any more was left by a kill.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(data) if data.file_type().is_socket() => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            _ => Err(io::ErrorKind::AddrInUse.into()),
        },
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

async fn serve(stream: Box<dyn Stream>, app: Arc<App>) {
    let service = service_fn(|request: Request<Incoming>| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(answer(&app, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(LIFE, served).await;
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn answer(app: &App, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/live" => text(StatusCode::OK, PLAIN, "live\n"),
        "/ready" => match look(app).await {
            Ok(_) => text(StatusCode::OK, PLAIN, "ready\n"),
            Err((why, _)) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
        },
        "/metrics" => {
            let looked = look(app).await.unwrap_or_else(|(_, looked)| looked);
            match app.metrics.text(looked) {
                Ok(metrics) => text(StatusCode::OK, TYPE, metrics),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the metrics cannot be written\n"),
            }
        }
        _ => text(StatusCode::NOT_FOUND, PLAIN, "/live, /ready, /metrics\n"),
    }
}

/// Looks at ledger, disk and blobs. Not ready is said with the reason.
async fn look(app: &App) -> Result<Looked, (&'static str, Looked)> {
    let (used, writable, blobs) = tokio::join!(
        soon(app.ledger.used()),
        soon(app.ledger.is_writable()),
        // Small, and where the blobs are: what can read it could read them.
        soon(app.blobs.id())
    );
    let space = disk::space(&app.config.data).ok();
    let free = space.map(|space| space.free);
    let read_only = space.is_none_or(|space| space.read_only);
    let looked = Looked {
        connections: app.connections.count(),
        waits: app.waits.count(),
        disk_free: free,
        used,
        total: app.config.total_bytes,
        ready: false,
    };
    let why = if app.is_stopping() {
        "the relay is stopping"
    } else if used.is_none() || writable.is_none() {
        "the ledger does not answer"
    } else if writable == Some(false) {
        "the ledger's database is a standby"
    } else if read_only {
        "the disk cannot be written"
    } else if free.is_none_or(|free| free < MIN_FREE) {
        "the disk is full"
    } else {
        match blobs {
            None => "the blobs do not answer",
            Some(Some(id)) if id == app.store => return Ok(Looked { ready: true, ..looked }),
            Some(_) => "the blobs are not this relay's",
        }
    };
    Err((why, looked))
}

/// What comes without an error, and in time.
async fn soon<T, E>(answer: impl Future<Output = Result<T, E>>) -> Option<T> {
    timeout(PATIENCE, answer).await.ok().and_then(Result::ok)
}
