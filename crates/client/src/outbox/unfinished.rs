//! Sends that came to no end.

use pouch_protocol::ProblemKind;
use pouch_statement::BundleId;

use super::{Progress, Sent};
use crate::api::{ApiError, RelayApi};
use crate::error::{Error, Result};
use crate::journal::{Action, Ended, Event};
use crate::party::Party;
use crate::transfer::{self, Held};

/// Forgets a send that was interrupted, or that the relay says was not delivered: what the relay has of it is deleted, and
/// what is kept here to go on with it. `false` if the relay could not be told; it forgets by itself what was not finished.
///
/// # Errors
/// It is delivered, may be, or is being sent; or the relay refuses.
pub async fn forget(party: &Party, api: Option<&RelayApi>, bundle: BundleId) -> Result<bool> {
    let no = |why| Err(Error::NotForgotten(bundle, why));
    // Until it is over nobody else settles it, or goes on with it.
    let _turn = party.home.sending_turn().await?;
    let Some(held) = transfer::hold(party, bundle)? else { return Err(Error::BeingSent(bundle)) };
    // As it is now, and not as it was when the relay was asked for something else.
    let Some(sent) = &super::load(party, bundle)? else { return Err(Error::NoBundle(bundle.to_string())) };
    match sent.progress {
        Progress::Sending | Progress::Undelivered => {}
        Progress::Committing => return no("it is not known whether it is delivered"),
        Progress::Sent => return no("it is delivered"),
        Progress::Carried => return no("it is in a file"),
        Progress::Revoked => return no("it is revoked"),
    }
    let Some(api) = api else { return over(party, sent, held).map(|()| false) };
    // To delete what is delivered would be to withdraw it.
    let told = match api.bundle(bundle).await {
        Ok(status) if status.committed.is_some() => {
            return no("the relay says that it is delivered; `outbox revoke` withdraws it");
        }
        Ok(_) => api.delete_bundle(bundle).await,
        Err(error) => Err(error),
    };
    let told = match told {
        Ok(()) => true,
        Err(error) if error.refused() == Some(ProblemKind::NotFound) => true,
        Err(ApiError::Transport(_)) => false,
        Err(error) if error.is_passing() => false,
        Err(error) => return Err(error.into()),
    };
    over(party, sent, held).map(|()| told)
}

fn over(party: &Party, sent: &Sent, held: Held) -> Result<()> {
    // First, for it may be what fills the disk.
    held.discard(party)?;
    for to in &sent.recipients {
        let event = Event { bundle: Some(sent.bundle), ..Event::new(Action::Forgotten, Ended::Done) };
        party.journal().append(&event.with_peer(&to.name, to.fingerprint))?;
    }
    sent.forget(party)
}
