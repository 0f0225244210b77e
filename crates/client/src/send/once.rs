//! A key that names what a send is for, so that the same send twice delivers once (docs/pipelines.md, "Once").

use std::str::FromStr;
use std::time::Duration;

use pouch_core::bundle::{Content, DigestKey};
use pouch_protocol::{DeliveryState, ProblemKind};
use pouch_statement::{Blake3Digest, Fingerprint, Note, Sha256Digest, TextError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::again;
use crate::api::{ApiError, RelayApi};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::outbox::{self, Progress, Sent};
use crate::party::Party;
use crate::transfer::{self, Standing};

const DOMAIN: &[u8] = b"pouch.once.v1\n";
/// How often it is looked whether a send that is under way has ended.
const LOOK: Duration = Duration::from_millis(300);

/// The key, as its user chose it: one line of text, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnceKey(Note);

impl FromStr for OnceKey {
    type Err = TextError;
    fn from_str(text: &str) -> std::result::Result<Self, TextError> {
        // What a variable holds that is not set: it would make all runs of a job one.
        if text.trim().is_empty() { Err(TextError::Empty) } else { text.parse().map(Self) }
    }
}

/// What a key is known by under one identity: nobody tries keys out against it who does not have the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Once(Blake3Digest);

impl Once {
    /// Of a key under this identity.
    #[must_use]
    pub fn new(identity: &Identity, key: &OnceKey) -> Self {
        let seed = identity.signing.to_seed();
        let secret = Zeroizing::new(*Sha256Digest::of_all(&[DOMAIN, seed.as_ref()]).as_bytes());
        Self(DigestKey::from_bytes(*secret).digest(key.0.as_str().as_bytes()))
    }

    /// What a send is marked with that goes to these, in ascending order.
    pub(super) fn to(self, recipients: &[Fingerprint]) -> Blake3Digest {
        let all: Vec<u8> = recipients.iter().flat_map(|to| *to.as_bytes()).collect();
        DigestKey::from_bytes(*self.0.as_bytes()).digest(&all)
    }
}

/// The bundle that was delivered under this mark, if there is one. One that is on its way in another process is waited for,
/// and one whose end is not known is settled.
pub(super) async fn before(
    party: &Party,
    api: &RelayApi,
    identity: &Identity,
    mark: Blake3Digest,
) -> Result<Option<Sent>> {
    loop {
        let mut running = false;
        for mut sent in outbox::list(party)?.into_iter().filter(|sent| sent.once == Some(mark)) {
            match sent.progress {
                Progress::Sent | Progress::Carried => return Ok(Some(sent)),
                // Perhaps by another process, which is waited for then.
                Progress::Committing | Progress::Undelivered => {
                    if arrived(party, api, identity, &mut sent).await? {
                        return Ok(Some(sent));
                    }
                }
                Progress::Sending => running |= transfer::standing(party, sent.bundle)? == Standing::Running,
                // To make room for another.
                Progress::Revoked => {}
            }
        }
        if !running {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a bundle was delivered whose end was not known, or that the relay said was not. If not, it never will be: another
/// run of a pipeline may be about to commit it, from a machine whose turn this is not.
async fn arrived(party: &Party, api: &RelayApi, identity: &Identity, sent: &mut Sent) -> Result<bool> {
    if outbox::settle_as(party, api, Some(identity), sent).await? {
        return Ok(true);
    }
    let is_over = |error: &ApiError| matches!(error.refused(), Some(ProblemKind::NotFound | ProblemKind::Gone));
    match again(|| api.delete_bundle(sent.bundle)).await {
        Err(error) if is_over(&error) => return Ok(false),
        other => other?,
    }
    // It was forgotten, unless the commit came between the two: then it was delivered, and is taken back.
    match again(|| api.bundle(sent.bundle)).await {
        Ok(status) => Ok(status.deliveries.iter().any(|delivery| delivery.state != DeliveryState::Waiting)),
        Err(error) if is_over(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// [`before`], in the caller's turn, when all that is open for these recipients is settled: another process may have been
/// quicker with the same.
pub(super) fn meanwhile(party: &Party, mine: &Sent) -> Result<Option<Sent>> {
    let Some(mark) = mine.once else { return Ok(None) };
    let delivered = |sent: &Sent| sent.once == Some(mark) && sent.progress == Progress::Sent;
    Ok(outbox::list(party)?.into_iter().find(|sent| sent.bundle != mine.bundle && delivered(sent)))
}

/// Reads a stream to its end: whoever writes it is to end well, though nobody wants it.
pub(super) async fn drain(content: Content) -> Result<()> {
    let Content::Stream { mut reader, .. } = content else { return Ok(()) };
    let read = tokio::task::spawn_blocking(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let read = read.await.map_err(|_| Error::Worker)?;
    read.map(drop).map_err(|error| Error::File("cannot read to the end what is not sent again".into(), error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_is_of_one_key_and_one_identity() {
        let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let key = |text: &str| text.parse::<OnceKey>().unwrap();
        assert_eq!(Once::new(&a, &key("run 7")), Once::new(&a, &key("run 7")));
        assert_ne!(Once::new(&a, &key("run 7")), Once::new(&a, &key("run 8")));
        assert_ne!(Once::new(&a, &key("run 7")), Once::new(&b, &key("run 7")));
        let (once, [x, y]) = (Once::new(&a, &key("run 7")), [[1; 32], [2; 32]].map(Fingerprint::from_bytes));
        assert_ne!(once.to(&[x]), once.to(&[x, y]));
    }

    #[test]
    fn a_key_is_one_line_and_not_nothing() {
        for bad in ["", " ", "a\nb", &"x".repeat(1025)] {
            assert!(bad.parse::<OnceKey>().is_err(), "{bad:?}");
        }
        assert!("nightly 2026-11-22 №7".parse::<OnceKey>().is_ok());
    }
}
