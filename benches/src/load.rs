//! A client that speaks the relay's protocol and does nothing else: what is measured with it is the relay.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pouch_client::api::{ApiError, RelayApi};
use pouch_client::clock::now;
use pouch_protocol::{Commit, NewBundle, PartField, ReceiptMessage, parts_digest};
use pouch_statement::{Blake3Digest, BundleId, MailboxId, Outcome, Sha256Digest};
use pouch_tests::{Party, noise};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Failure;

/// How long bundles live unless they are ended.
const LIFE: u64 = 3600;

/// An object as a relay takes it: it begins like an age file, and the rest says nothing. With its digest, which sealing
/// gives for nothing.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) sealed: Bytes,
    blake3: Blake3Digest,
}

impl Object {
    pub(crate) fn new(seed: &str, length: usize) -> Self {
        let mut sealed = b"age-encryption.org/v1\n".to_vec();
        let rest = length.saturating_sub(sealed.len());
        sealed.extend(noise(seed, rest));
        let blake3 = Blake3Digest::from_bytes(*blake3::hash(&sealed).as_bytes());
        Self { sealed: sealed.into(), blake3 }
    }

    pub(crate) fn field(&self, number: u32) -> PartField {
        PartField { number, length: self.sealed.len() as u64, blake3: self.blake3 }
    }
}

/// An account, as one device of it.
pub(crate) struct Client {
    pub(crate) api: RelayApi,
    pub(crate) mailbox: MailboxId,
    /// Of the relay's certificate.
    pub(crate) pins: Vec<Sha256Digest>,
}

impl Client {
    pub(crate) fn of(party: &Party) -> Result<Self, Failure> {
        let (party, _) = party.client();
        Ok(Self { api: party.api()?, mailbox: party.card().card().mailbox, pins: party.relay_pins().to_vec() })
    }

    /// Begins a bundle that lives for `seconds`.
    pub(crate) async fn begin(&self, seconds: u64, burn: bool) -> Result<BundleId, ApiError> {
        let bundle = BundleId::random()?;
        self.api.new_bundle(&NewBundle { bundle, expires: now().plus(seconds), burn, recipients: vec![] }).await?;
        Ok(bundle)
    }

    /// Delivers `parts` to one recipient.
    pub(crate) async fn deliver(&self, parts: &[Object], index: &Object, to: MailboxId) -> Result<BundleId, ApiError> {
        let bundle = self.begin(LIFE, false).await?;
        for (number, part) in (0..).zip(parts) {
            self.api.put_part(bundle, part.field(number), part.sealed.clone()).await?;
        }
        self.finish(bundle, parts, index, to).await?;
        Ok(bundle)
    }

    /// Index, envelope and commit.
    pub(crate) async fn finish(
        &self,
        bundle: BundleId,
        parts: &[Object],
        index: &Object,
        to: MailboxId,
    ) -> Result<(), ApiError> {
        self.api.put_index(bundle, index.sealed.clone()).await?;
        self.api.put_envelope(bundle, to, index.sealed.clone()).await?;
        let digests = parts.iter().map(|part| (part.sealed.len() as u64, &part.blake3));
        let commit = Commit {
            parts: parts.len() as u32,
            parts_sha256: parts_digest(digests),
            index_sha256: Sha256Digest::of(&index.sealed),
            recipients: vec![to],
        };
        self.api.commit(bundle, &commit).await
    }

    /// Says that a bundle was verified, after its release.
    pub(crate) async fn receipt(&self, bundle: BundleId, sealed: &Object) -> Result<(), ApiError> {
        let commitment = Sha256Digest::of(&sealed.sealed);
        let sealed = STANDARD.encode(&sealed.sealed);
        self.api.put_receipt(bundle, &ReceiptMessage { outcome: Outcome::Verified, commitment, sealed }).await
    }
}

/// Runs `task` for each number below `count`, at most `at_once` of them at a time. The first failure ends it.
pub(crate) async fn each<F, E>(count: usize, at_once: usize, task: impl Fn(usize) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(at_once));
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let place = Arc::clone(&places).acquire_owned().await?;
        let task = task(number);
        tasks.spawn(async move {
            let done = task.await;
            drop(place);
            done
        });
        while let Some(done) = tasks.try_join_next() {
            done?.map_err(Into::into)?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done?.map_err(Into::into)?;
    }
    Ok(())
}

/// The value below which `share` of the sorted times lie.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len().saturating_sub(1)) as f64 * share;
    sorted.get(at.round() as usize).copied().unwrap_or_default()
}

/// Where all of a measurement's requests are made.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let times: Vec<_> = (0..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&times, 0.5), Duration::from_millis(50));
        assert_eq!(quantile(&times, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn each_bounds_its_tasks_and_tells_of_a_failure() {
        let runtime = runtime().unwrap();
        let most = Arc::new(std::sync::Mutex::new((0, 0)));
        let task = |_| {
            let most = Arc::clone(&most);
            async move {
                {
                    let mut count = most.lock().unwrap();
                    count.0 += 1;
                    count.1 = count.1.max(count.0);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                most.lock().unwrap().0 -= 1;
                Ok::<_, Failure>(())
            }
        };
        runtime.block_on(each(20, 4, task)).unwrap();
        assert_eq!(most.lock().unwrap().1, 4);
        let fails = |n| async move { if n == 7 { Err(Failure::from("no")) } else { Ok(()) } };
        assert!(runtime.block_on(each(20, 4, fails)).is_err());
    }
}
