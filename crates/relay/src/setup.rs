//! `relay init`: the data folder, keys, configuration, ledger and the owner's one-time link.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pouch_protocol::limits::OWNER_LINK_LIFETIME;
use pouch_protocol::{Inviter, Link, LinkSecret};
use pouch_statement::{LinkId, RandomError, RelayOrigin};

use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, ConfigError, FILE};
use crate::disk::{self, Disk};
use crate::ledger::{Ledger, LedgerError, LedgerOpenError};
use crate::tls::{self, TlsError};

/// The lock file in the data folder.
pub(crate) const LOCK: &str = "lock";

/// Why nothing was set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is a relay.
    #[error("{} is a relay's data folder already", .0.display())]
    Initialised(PathBuf),
    /// There is something else.
    #[error("{} is not empty; give a new folder", .0.display())]
    NotEmpty(PathBuf),
    /// Another process has it.
    #[error("{} is in use by another relay process; stop it first", .0.display())]
    Locked(PathBuf),
    /// There is an owner; further people are invited.
    #[error("this relay has an owner; `pouch invite` makes further links")]
    OwnerJoined,
    /// Cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The options contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Keys or certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerOpenError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl From<LedgerError> for InitError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error.into())
    }
}

/// What a new relay needs to know.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The folder to make.
    pub data: PathBuf,
    /// Where clients will reach it, with its port.
    pub origin: RelayOrigin,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Certificate chain and key of a public authority; without them the certificate is self-signed.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The PostgreSQL to keep the ledger in ([`Config::ledger`]); without it the ledger is a file in the folder.
    pub ledger: Option<String>,
    /// The file with the password for it.
    pub ledger_password_file: Option<PathBuf>,
}

/// What `init` made.
pub struct InitOutcome {
    /// The commented configuration file.
    pub config_path: PathBuf,
    /// Its content.
    pub config: Config,
    /// The owner's one-time link: to be printed once, it is stored nowhere.
    pub link: Link,
}

/// Makes a relay. The configuration is written last: a folder without it is one where this was interrupted.
///
/// # Errors
/// A folder that is a relay's already or not empty, and everything that can fail on the way.
pub async fn init(options: InitOptions) -> Result<InitOutcome, InitError> {
    let disk = Disk::default();
    let data = &options.data;
    let file = |path: &Path, source| InitError::File { path: path.to_owned(), source };
    if data.join(FILE).exists() {
        return Err(InitError::Initialised(data.clone()));
    }
    let absolute = |p: PathBuf| std::path::absolute(&p).map_err(|e| file(&p, e));
    let (certificate, key) = match options.certificate {
        Some((certificate, key)) => (Some(absolute(certificate)?), Some(absolute(key)?)),
        None => (None, None),
    };
    let ledger_password_file = options.ledger_password_file.map(absolute).transpose()?;
    let written = Config {
        origin: options.origin,
        listen: options.listen,
        certificate,
        key,
        ledger: options.ledger,
        ledger_password_file,
        ..Config::default()
    };
    written.check()?;
    let config = Config { data: data.clone(), ..written.clone() };
    if config.certificate.is_some() {
        // Before anything is made: a slip in the arguments should leave nothing that is in the way of the next try.
        tls::Certificate::open(&config)?;
    }
    Ledger::can_create(&config).await?;
    let named = |path: &&Path| !path.as_os_str().is_empty();
    let made: Vec<&Path> = data.ancestors().filter(named).take_while(|path| !path.exists()).collect();
    if let Some(parent) = data.parent().filter(named) {
        std::fs::create_dir_all(parent).map_err(|e| file(parent, e))?;
    }
    disk.make_folder(data).map_err(|e| file(data, e))?;
    // A folder without a durable name is lost with all that is durable in it.
    for path in made {
        let parent = path.parent().filter(named).unwrap_or(Path::new("."));
        disk.sync_folder(parent).map_err(|e| file(parent, e))?;
    }
    if !disk.list(data).map_err(|e| file(data, e))?.is_empty() {
        return Err(InitError::NotEmpty(data.clone()));
    }
    let _lock = take_lock(data)?;
    if config.certificate.is_none() {
        tls::create_self_signed(&disk, data, &config.origin)?;
        tls::Certificate::open(&config)?;
    }
    let ledger = Ledger::create(&config).await?;
    let link = owner_link(&config, &ledger).await;
    ledger.close().await;
    let config_path = data.join(FILE);
    disk.write_new(&config_path, written.write_commented().as_bytes()).map_err(|e| file(&config_path, e))?;
    Ok(InitOutcome { config_path, config, link: link? })
}

/// A new owner's link in place of one that was lost or is over, as long as no owner joined.
///
/// # Errors
/// An owner is there already, or the relay is running.
pub async fn new_owner_link(config: &Config) -> Result<Link, InitError> {
    let _lock = take_lock(&config.data)?;
    let ledger = Ledger::open(config).await?;
    let link = owner_link(config, &ledger).await;
    ledger.close().await;
    link
}

fn take_lock(data: &Path) -> Result<disk::FolderLock, InitError> {
    let path = data.join(LOCK);
    disk::lock(&path)
        .map_err(|source| InitError::File { path, source })?
        .ok_or_else(|| InitError::Locked(data.to_owned()))
}

async fn owner_link(config: &Config, ledger: &Ledger) -> Result<Link, InitError> {
    let link = Link {
        relay: config.origin.clone(),
        pins: tls::pins(config)?,
        inviter: Inviter::Relay,
        secret: LinkSecret::random()?,
    };
    let now = SystemClock.now();
    let stored = ledger
        .put_owner_link(LinkId::random()?, &link.secret.admit_sha256(), now, now.plus(OWNER_LINK_LIFETIME))
        .await?;
    if stored { Ok(link) } else { Err(InitError::OwnerJoined) }
}
