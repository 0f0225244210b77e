//! Sends that came to no end.

use pouch_protocol::ProblemKind;

use super::{Progress, Sent};
use crate::api::{ApiError, RelayApi};
use crate::error::{Error, Result};
use crate::journal::{Action, Ended, Event};
use crate::party::Party;
use crate::transfer::{self, Standing};

/// Forgets a send that was interrupted, or that the relay says was not delivered: what the relay has of it is deleted, and
/// what is kept here to go on with it. `false` if the relay could not be told; it forgets by itself what was not finished.
///
/// # Errors
/// It is delivered, may be, or is being sent; or the relay refuses.
pub async fn forget(party: &Party, api: Option<&RelayApi>, sent: &Sent) -> Result<bool> {
    let no = |why| Err(Error::NotForgotten(sent.bundle, why));
    match sent.progress {
        Progress::Sending | Progress::Undelivered => {}
        Progress::Committing => return no("it is not known whether it is delivered"),
        Progress::Sent => return no("it is delivered"),
        Progress::Carried => return no("it is in a file"),
        Progress::Revoked => return no("it is revoked"),
    }
    if transfer::standing(party, sent.bundle)? == Standing::Running {
        return no("it is being sent");
    }
    let told = match api {
        Some(api) => api.delete_bundle(sent.bundle).await,
        None => return over(party, sent).map(|()| false),
    };
    let told = match told {
        Ok(()) => true,
        Err(error) if error.refused() == Some(ProblemKind::NotFound) => true,
        Err(ApiError::Transport(_)) => false,
        Err(error) if error.is_passing() => false,
        Err(error) => return Err(error.into()),
    };
    over(party, sent).map(|()| told)
}

fn over(party: &Party, sent: &Sent) -> Result<()> {
    for to in &sent.recipients {
        let event = Event { bundle: Some(sent.bundle), ..Event::new(Action::Forgotten, Ended::Done) };
        party.journal().append(&event.with_peer(&to.name, to.fingerprint))?;
    }
    sent.forget(party)?;
    transfer::discard(party, sent.bundle)
}
