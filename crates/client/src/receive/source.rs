//! Where a bundle's objects come from: a relay, or a file that somebody carried.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use pouch_core::bundle::{OpenError, PouchFile};
use pouch_statement::BundleId;
use tokio::sync::mpsc;

use crate::api::{ApiError, RelayApi};
use crate::error::{Error, Result};
use crate::lanes::Lanes;
use crate::send::{again, ride_out};
use crate::transport::TransportError;
use crate::watch::Watch;

/// A part to fetch: number, sealed and plain size.
pub(super) type Wanted = (u32, u64, u64);
/// Where fetched parts go, in order.
pub(super) type Queue = mpsc::Sender<(u32, Bytes)>;

/// Where a bundle's objects come from.
pub enum Source<'a> {
    /// A relay.
    Relay(&'a RelayApi, BundleId),
    /// A `.pouch` file.
    File(Box<PouchFile<File>>),
}

impl Source<'_> {
    /// A `.pouch` file that somebody carried here.
    ///
    /// # Errors
    /// Not readable, or not one.
    pub fn file(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        Ok(Self::File(Box::new(PouchFile::open(file)?)))
    }

    /// The bundle that it claims to hold.
    #[must_use]
    pub fn bundle(&self) -> BundleId {
        match self {
            Self::Relay(_, bundle) => *bundle,
            Self::File(file) => file.bundle(),
        }
    }

    pub(super) async fn envelope(&mut self) -> Result<Bytes> {
        match self {
            Self::Relay(api, bundle) => Ok(again(|| api.release(*bundle)).await?),
            Self::File(file) => Ok(file.envelope()?.into()),
        }
    }

    pub(super) async fn index(&mut self, size: u64) -> Result<Bytes> {
        match self {
            Self::Relay(api, bundle) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                Ok(again(|| api.get_index(*bundle, size)).await?)
            }
            Self::File(file) => Ok(file.index()?.into()),
        }
    }
}

impl Source<'_> {
    /// Fetches the parts and gives them on, in order, until all are there or nobody takes them any more.
    pub(super) async fn feed(&mut self, wanted: &[Wanted], parts: &Queue, watch: &dyn Watch) -> Result<()> {
        match self {
            Self::Relay(api, bundle) => feed_from_relay(api, *bundle, wanted, parts, watch).await,
            Self::File(file) => feed_from_file(file, wanted, parts, watch).await,
        }
    }
}

/// What is longer than all that was read of it is of the wrong size, and the sender is to know.
fn beyond(limit: usize) -> u64 {
    (limit as u64).saturating_add(1)
}

async fn feed_from_relay(
    api: &RelayApi,
    bundle: BundleId,
    specs: &[Wanted],
    parts: &Queue,
    watch: &dyn Watch,
) -> Result<()> {
    let fetch = async |&(number, wanted, size): &Wanted| {
        let most = usize::try_from(wanted).unwrap_or(usize::MAX);
        let sealed =
            ride_out(api, watch, || api.get_part(bundle, number, most)).await.map_err(|error| match error {
                ApiError::Transport(TransportError::TooLong(limit)) => {
                    Error::Open(OpenError::PartSize { number, found: beyond(limit), wanted })
                }
                other => other.into(),
            })?;
        Ok::<_, Error>((number, sealed, size))
    };
    let (mut wanted, mut lanes) = (specs.iter(), Lanes::new());
    let mut fetched = FuturesOrdered::new();
    loop {
        fetched.extend(wanted.by_ref().take(lanes.open().saturating_sub(fetched.len())).map(fetch));
        let Some(part) = fetched.next().await else { return Ok(()) };
        let (number, sealed, size) = part?;
        lanes.through(sealed.len() as u64, fetched.len());
        if parts.send((number, sealed)).await.is_err() {
            return Ok(());
        }
        watch.advance(size);
    }
}

async fn feed_from_file(file: &mut PouchFile<File>, specs: &[Wanted], parts: &Queue, watch: &dyn Watch) -> Result<()> {
    for (number, _, size) in specs {
        let mut sealed = Vec::new();
        file.part(*number, &mut sealed)?;
        if parts.send((*number, sealed.into())).await.is_err() {
            return Ok(());
        }
        watch.advance(*size);
    }
    Ok(())
}
