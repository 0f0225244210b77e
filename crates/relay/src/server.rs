//! The relay as a whole: opened, served, stopped.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pouch_statement::Sha256Digest;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::accept::{self, Server};
use crate::access::{self, AccessRecord, AccessWriter};
use crate::blob::{self, Blobs, BlobsOpenError, S3Error, StoreId};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, OperationsAddress};
use crate::connections::Connections;
use crate::disk::{self, Disk, DiskHook, FolderLock};
use crate::ledger::{Ledger, LedgerOpenError, Limits};
use crate::metrics::Metrics;
use crate::operations::Operations;
use crate::rate::Rates;
use crate::setup::LOCK;
use crate::shares::Shares;
use crate::store::{self, StoreIdError};
use crate::tls::{self, Certificate, TlsError};
use crate::waits::Waits;
use crate::{orphans, sweep};

/// Why a relay does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration's values.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No relay was set up there.
    #[error("{} is no relay's data folder; `pouch relay init` makes one", .0.display())]
    NotInitialised(PathBuf),
    /// Another process serves it.
    #[error("{} is in use by another relay process", .0.display())]
    Locked(PathBuf),
    /// The data folder.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys or certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerOpenError),
    /// The bucket.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// Blobs that are not this ledger's.
    #[error(transparent)]
    Store(#[from] StoreIdError),
    /// The operations listener.
    #[error("cannot listen for operations on {address}: {source}")]
    Operations {
        /// Where.
        address: OperationsAddress,
        /// Why.
        source: io::Error,
    },
    /// The uploads that an interrupted run left cannot be given up.
    #[error("the uploads that an interrupted run left cannot be given up: {0}")]
    Recover(String),
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Where tests reach in: a clock that they move, a disk whose calls they let fail.
#[derive(Clone)]
pub struct Seams {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Called before each disk call.
    pub disk: Option<DiskHook>,
}

impl Default for Seams {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), disk: None }
    }
}

/// What handlers share.
pub(crate) struct App {
    pub(crate) config: Config,
    /// `@authority` and `Host` of every good request.
    pub(crate) authority: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger: Ledger,
    pub(crate) blobs: Blobs,
    pub(crate) access: AccessRecord,
    pub(crate) sweep: Notify,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) accounts: Rates,
    pub(crate) addresses: Rates,
    pub(crate) waits: Arc<Waits>,
    /// Works in the ledger, for each account.
    pub(crate) turns: Arc<Shares>,
    /// What the blobs' store must have as its id.
    pub(crate) store: StoreId,
    stopping: AtomicBool,
    running: Mutex<Option<mpsc::Sender<()>>>,
    _lock: FolderLock,
}

impl App {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            account_bytes: self.config.account_bytes,
            total_bytes: self.config.total_bytes,
            account_bundles: self.config.account_bundles,
            account_ended: self.config.account_ended_bundles,
            lifetime: self.config.lifetime_seconds,
        }
    }

    pub(crate) fn wake_sweeper(&self) {
        self.sweep.notify_one();
    }

    /// From the moment that it was told to stop: it is not ready any more, and its clients are sent elsewhere.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Held by each request that is being answered; `None` once the relay waits for the last of them.
    pub(crate) fn running(&self) -> Option<mpsc::Sender<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An opened relay: its folder locked, its ledger checked, ready to serve.
pub struct Relay {
    app: Arc<App>,
    writer: AccessWriter,
    all_answered: mpsc::Receiver<()>,
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
    reload: Arc<Notify>,
    operations: Option<Operations>,
    pins: Vec<Sha256Digest>,
}

/// Has the certificate's files read again, as a change of them does.
#[derive(Clone)]
pub struct Reloader(Arc<Notify>);

impl Reloader {
    /// Reads them soon.
    pub fn reload(&self) {
        self.0.notify_one();
    }
}

impl Relay {
    /// Opens the relay in the configuration's data folder.
    ///
    /// # Errors
    /// No relay there, another process has it, or what is there cannot be trusted.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        Self::open_with(config, Seams::default()).await
    }

    /// [`Relay::open`] with another clock or disk, for tests.
    ///
    /// # Errors
    /// See [`Relay::open`].
    pub async fn open_with(config: Config, seams: Seams) -> Result<Self, OpenError> {
        config.check()?;
        let lock = take_folder(&config)?;
        tls::recover(&config)?;
        let certificate = Certificate::open(&config)?;
        let acceptor = TlsAcceptor::from(tls::server_config(Arc::clone(&certificate))?);
        let pins = tls::pins(&config)?;
        let ledger = Ledger::open(&config).await?;
        let blobs = blob::open(&config, Disk::new(seams.disk)).await.map_err(|error| blobs_error(&config, error))?;
        let store = store::settle(&ledger, &blobs, &*seams.clock, false).await?;
        let (record, writer) = access::channel();
        let (running, all_answered) = mpsc::channel(1);
        let app = Arc::new(App {
            authority: config.origin.authority(),
            clock: seams.clock,
            turns: Shares::new(ledger.share()),
            store,
            ledger,
            blobs,
            access: record,
            sweep: Notify::new(),
            metrics: Arc::default(),
            connections: Connections::new(config.connections, config.address_connections),
            accounts: Rates::of_accounts(&config),
            addresses: Rates::of_addresses(&config),
            waits: Waits::new(config.waits, config.account_waits),
            stopping: AtomicBool::new(false),
            running: Mutex::new(Some(running)),
            config,
            _lock: lock,
        });
        sweep::recover(&app).await.map_err(|error| OpenError::Recover(error.to_string()))?;
        let operations = match &app.config.operations {
            Some(address) => {
                let bound = Operations::bind(address).await;
                Some(bound.map_err(|source| OpenError::Operations { address: address.clone(), source })?)
            }
            None => None,
        };
        let reload = Arc::default();
        Ok(Self { app, writer, all_answered, acceptor, certificate, reload, operations, pins })
    }

    /// The pins that links and cards of this relay carry; empty with a certificate of a public authority.
    #[must_use]
    pub fn pins(&self) -> &[Sha256Digest] {
        &self.pins
    }

    /// The configuration that it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.app.config
    }

    /// Where it answers for its operator, with the port that it got.
    #[must_use]
    pub fn operations(&self) -> Option<OperationsAddress> {
        self.operations.as_ref().and_then(Operations::address)
    }

    /// What has the certificate's files read again.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.reload))
    }

    /// Listens on the configured address; the listener tells which one it got.
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub async fn bind(&self) -> Result<TcpListener, ServeError> {
        let address = self.app.config.listen;
        TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
    }

    /// Answers until `shutdown` is done; then it is not ready any more, and for the configured time still takes connections;
    /// then requests in flight get time to finish, the access record is written out, and the ledger closed. Dropping the
    /// future stops at once, as a crash would.
    ///
    /// # Errors
    /// The listener breaks.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let Self { app, writer, all_answered, acceptor, certificate, reload, operations, .. } = self;
        tracing::info!(origin = %app.config.origin, listen = ?listener.local_addr().ok(), "serving");
        let mut background = JoinSet::new();
        background.spawn(sweep::run(Arc::clone(&app)));
        background.spawn(orphans::run(Arc::clone(&app)));
        let record = Arc::clone(&app);
        background.spawn(async move { writer.run(&record.ledger, &record.metrics).await });
        background.spawn(watch_certificate(certificate, reload, Arc::clone(&app.metrics)));
        if let Some(operations) = operations {
            background.spawn(operations.run(Arc::clone(&app)));
        }
        let server = Server::new(Arc::clone(&app), acceptor);
        let told = Arc::clone(&app);
        let shutdown = async move {
            shutdown.await;
            told.stopping.store(true, Ordering::Relaxed);
            told.waits.end();
            tokio::time::sleep(told.config.drain_time()).await;
        };
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        accept::accept(&Arc::new(server), listener, shutdown, &mut tasks, &stopped).await;
        tracing::info!(connections = tasks.len(), "stopping");
        let _ = stop.send(true);
        finish(&app, tasks, all_answered).await;
        app.access.flush().await;
        background.shutdown().await;
        app.ledger.close().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// The lock on the data folder, if it is a relay's.
pub(crate) fn take_folder(config: &Config) -> Result<FolderLock, OpenError> {
    let data = &config.data;
    if !data.join(crate::config::FILE).is_file() {
        return Err(OpenError::NotInitialised(data.clone()));
    }
    let path = data.join(LOCK);
    let lock = disk::lock(&path).map_err(|source| OpenError::File { path, source })?;
    lock.ok_or_else(|| OpenError::Locked(data.clone()))
}

/// Why a relay does not open without its blobs.
pub(crate) fn blobs_error(config: &Config, error: BlobsOpenError) -> OpenError {
    match error {
        BlobsOpenError::Folder(source) => OpenError::File { path: config.data.clone(), source },
        BlobsOpenError::S3(error) => error.into(),
    }
}

/// Lets connections and requests end, and ends those that do not within the configured time.
async fn finish(app: &App, mut tasks: JoinSet<()>, mut all_answered: mpsc::Receiver<()>) {
    let ended = async {
        while tasks.join_next().await.is_some() {}
        app.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = all_answered.recv().await;
    };
    if tokio::time::timeout(app.config.shutdown_timeout(), ended).await.is_err() {
        tracing::warn!("requests were cut off: they did not end in time");
        app.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        tasks.shutdown().await;
    }
}

/// Reads the certificate again when its files change, and when somebody asks.
async fn watch_certificate(certificate: Arc<Certificate>, reload: Arc<Notify>, metrics: Arc<Metrics>) {
    loop {
        let asked = tokio::time::timeout(tls::LOOK, reload.notified()).await.is_ok();
        let certificate = Arc::clone(&certificate);
        match tokio::task::spawn_blocking(move || certificate.reload(asked)).await {
            Ok(Ok(true)) => {
                metrics.certificate(true);
                tracing::info!("the certificate was read again");
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                metrics.certificate(false);
                tracing::error!(%error, "the certificate's files changed and cannot be used; the old one stays in force");
            }
            Err(error) => tracing::error!(%error, "the certificate cannot be read"),
        }
    }
}
