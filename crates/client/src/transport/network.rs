//! How relays are reached, beside what the system's proxy variables say.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why what a file says about the network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Not there, not to be read, not PEM, or without what is asked of it.
    #[error("{}: no {what} in PEM could be read from it", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What it must hold.
        what: &'static str,
    },
}

/// A certificate that is shown to who asks for one, with its key.
pub struct ClientCertificate {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// How the network is used. `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` count besides.
#[derive(Clone)]
pub struct Network {
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    pub(super) rate: Option<NonZeroU64>,
    /// For how long a relay that does not answer is asked again in the middle of a transfer.
    pub(crate) patience: Duration,
}

/// For how long [`Network::retry_for`] lets it be, if nothing else is said.
pub const PATIENCE: Duration = Duration::from_secs(120);

impl Default for Network {
    fn default() -> Self {
        Self { authorities: Vec::new(), certificate: None, rate: None, patience: PATIENCE }
    }
}

impl Network {
    /// Authorities that count beside the system's, for relays that are not pinned and for proxies: all of a PEM file.
    ///
    /// # Errors
    /// The file holds none.
    pub fn trust(&mut self, file: &Path) -> Result<(), NetworkError> {
        self.authorities.extend(certificates(file)?);
        Ok(())
    }

    /// A certificate, with the chain behind it, that is shown to a proxy or balancer that asks for one.
    ///
    /// # Errors
    /// One of the PEM files does not hold what it must.
    pub fn show(&mut self, certificate: &Path, key: &Path) -> Result<(), NetworkError> {
        let chain = certificates(certificate)?;
        let wrong = |_| NetworkError::Pem { file: key.to_owned(), what: "private key" };
        let key = PrivateKeyDer::from_pem_file(key).map_err(wrong)?;
        self.certificate = Some(Arc::new(ClientCertificate { chain, key }));
        Ok(())
    }

    /// In the middle of a transfer, asks a relay that does not answer again for so long.
    pub fn retry_for(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Bytes a second at most, sent and received together.
    pub fn limit(&mut self, rate: NonZeroU64) {
        self.rate = Some(rate);
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, NetworkError> {
    let wrong = || NetworkError::Pem { file: file.to_owned(), what: "certificate" };
    let found = CertificateDer::pem_file_iter(file).map_err(|_| wrong())?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?;
    if found.is_empty() { Err(wrong()) } else { Ok(found) }
}
