//! What remains to be said when all is uploaded: envelopes and commit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pouch_statement::BundleId;

use super::ride_out;
use crate::api::RelayApi;
use crate::error::{Error, Hindrance, Result};
use crate::transfer::{Envelope, Last};
use crate::watch::Watch;

/// Says it. All of it may come twice: a lost answer is asked for again.
///
/// # Errors
/// One of the relay that is final: what it had of the bundle is deleted then. [`Error::Unsettled`]: the commit got no answer.
pub(crate) async fn say(api: &RelayApi, bundle: BundleId, last: &Last, watch: &dyn Watch) -> Result<()> {
    for Envelope { mailbox, sealed } in &last.envelopes {
        let damaged = |_| Error::NotResumable(bundle, Hindrance::Damaged);
        let envelope = Bytes::from(STANDARD.decode(sealed).map_err(damaged)?);
        if let Err(error) = ride_out(api, watch, || api.put_envelope(bundle, *mailbox, envelope.clone())).await {
            if error.is_final() {
                // Some are out of our hands, whatever the relay says of this one.
                let _ = api.delete_bundle(bundle).await;
            }
            return Err(error.into());
        }
    }
    match ride_out(api, watch, || api.commit(bundle, &last.commit)).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_final() => Err(error.into()),
        Err(_) => Err(Error::Unsettled(bundle)),
    }
}
