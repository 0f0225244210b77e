//! Connections: taken, given a place, greeted with TLS and served.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connections::{Paced, Place};
use crate::log::Often;
use crate::metrics::Lost;
use crate::server::App;
use crate::{proxied, rate, routes};

/// The head of a request, all fields together (attacks.md 48).
const MAX_HEAD: usize = 16 << 10;
/// Read from or written to a connection at once.
const BUFFER: usize = 64 << 10;
/// Fields of a request's head.
const MAX_FIELDS: usize = 64;

/// What a connection needs.
pub(crate) struct Server {
    app: Arc<App>,
    router: Router,
    acceptor: TlsAcceptor,
    often: Told,
}

/// Lines that strangers can bring about, each with a count of its own.
#[derive(Default)]
struct Told {
    not_accepted: Often,
    refused: Often,
    no_header: Often,
}

/// Takes connections until `shutdown` is done; each is served by a task of its own.
pub(crate) async fn accept(
    server: &Arc<Server>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
    tasks: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let place = match server.place(peer.ip()) {
                    Ok(place) => place,
                    Err(lost) => {
                        server.lose(lost);
                        continue;
                    }
                };
                let (server, stopped) = (Arc::clone(server), stopped.clone());
                tasks.spawn(async move { server.connection(stream, peer, place, stopped).await });
            }
            Err(error) => {
                // Out of descriptors, or a connection that ended before it began: the next one may go well.
                let often = &server.often.not_accepted;
                often.tell(|count| tracing::warn!(%error, count, "connections cannot be accepted"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Server {
    pub(crate) fn new(app: Arc<App>, acceptor: TlsAcceptor) -> Self {
        Self { router: routes::router(Arc::clone(&app)), acceptor, often: Told::default(), app }
    }

    /// Counts a connection that is lost; what a stranger can bring about is told now and then, not each time.
    fn lose(&self, lost: Lost) {
        self.app.metrics.lost(lost);
        match lost {
            Lost::Full | Lost::Address => self.often.refused.tell(|count| {
                tracing::warn!(count, "connections were refused: all places, or all of an address, are taken");
            }),
            Lost::Proxy => self.often.no_header.tell(|count| {
                tracing::warn!(count, "connections of a trusted proxy began without the PROXY protocol");
            }),
            Lost::Evicted | Lost::Tls => tracing::debug!(?lost, "a connection ended early"),
        }
    }

    /// Whether `peer` says before TLS whose a connection is.
    fn tells(&self, peer: IpAddr) -> bool {
        self.app.config.proxy_protocol && self.app.config.trusted_proxies.contain(peer)
    }

    /// A place for a connection of `peer`. A balancer's own connections, and those of which it does not say whose they are,
    /// are not counted together.
    fn place(&self, peer: IpAddr) -> Result<Place, Lost> {
        if self.tells(peer) {
            return Ok(self.app.connections.await_network());
        }
        let balancer = self.app.config.trusted_proxies.contain(peer);
        self.app.connections.admit((!balancer).then(|| rate::network(peer)))
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, place: Place, stopped: watch::Receiver<bool>) {
        let evicted = Arc::clone(&place.connection);
        tokio::select! {
            () = evicted.evicted() => self.lose(Lost::Evicted),
            () = self.speak(stream, peer, &place, stopped) => {}
        }
    }

    /// Up to the end of the TLS handshake. Clients behind our own balancers are told apart as far as these tell.
    async fn greet(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        place: &Place,
    ) -> Result<(TlsStream<Paced<TcpStream>>, SocketAddr), Lost> {
        let config = &self.app.config;
        let _ = stream.set_nodelay(true);
        let mut client = peer;
        if self.tells(peer.ip()) {
            let told = proxied::header(&mut stream).await.map_err(|_| Lost::Proxy)?;
            client = told.unwrap_or(peer);
            place.comes_from(told.map(|told| rate::network(told.ip())))?;
        }
        let paced = Paced::new(stream, config.progress_timeout(), Arc::clone(&self.app.metrics));
        let tls = self.acceptor.accept(paced).await.map_err(|_| Lost::Tls)?;
        Ok((tls, client))
    }

    async fn speak(&self, stream: TcpStream, peer: SocketAddr, place: &Place, mut stopped: watch::Receiver<bool>) {
        let greeting = tokio::time::timeout(self.app.config.handshake_timeout(), self.greet(stream, peer, place));
        let (tls, client) = tokio::select! {
            outcome = greeting => match outcome {
                Ok(Ok(greeted)) => greeted,
                Ok(Err(lost)) => return self.lose(lost),
                Err(_) => return self.lose(Lost::Tls),
            },
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let connection = Arc::clone(&place.connection);
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(client);
            request.extensions_mut().insert(Arc::clone(&connection));
            router.call(request)
        });
        let mut served = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.app.config.header_timeout())
                .max_buf_size(BUFFER)
                .max_header_size(MAX_HEAD)
                .max_headers(MAX_FIELDS)
                .serve_connection(TokioIo::new(tls), service)
        );
        tokio::select! {
            outcome = served.as_mut() => return debug_end(outcome),
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        served.as_mut().graceful_shutdown();
        debug_end(served.await);
    }
}

fn debug_end(outcome: Result<(), hyper::Error>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}
