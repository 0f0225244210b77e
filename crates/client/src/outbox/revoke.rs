//! Taking a bundle of mine back.

use pouch_protocol::{Delivery, DeliveryState, ProblemKind};
use pouch_statement::Name;

use super::receipt::is_news;
use super::{Progress, Sent, load};
use crate::api::RelayApi;
use crate::error::{Error, Result};
use crate::journal::{Action, Ended, Event};
use crate::party::Party;
use crate::transfer;

/// Withdraws a bundle: the relay deletes what it has. Gives the recipients who had the envelope before; from them it cannot
/// be called back.
///
/// # Errors
/// The relay cannot be reached, or does not know the bundle.
pub async fn revoke(party: &Party, api: &RelayApi, sent: &mut Sent) -> Result<Vec<Name>> {
    // Before a send commits it, or after: that looks again in its turn.
    let _turn = party.home.sending_turn().await?;
    *sent = load(party, sent.bundle)?.ok_or_else(|| Error::NoBundle(sent.bundle.to_string()))?;
    let event = Event { bundle: Some(sent.bundle), ..Event::new(Action::Revoked, Ended::Done) };
    let before = api.bundle(sent.bundle).await;
    let deliveries = before.as_ref().map_or_else(|_| Vec::new(), |status| status.deliveries.clone());
    let released: Vec<Name> = deliveries
        .iter()
        .filter(|d| d.state != DeliveryState::Waiting)
        .filter_map(|d| sent.recipients.iter().find(|r| r.mailbox == d.mailbox).map(|r| r.name.clone()))
        .collect();
    let result = match before {
        // An upload that never began leaves nothing to withdraw.
        Err(e) if e.refused() == Some(ProblemKind::NotFound) && sent.progress == Progress::Sending => Ok(()),
        Err(e) => Err(e),
        Ok(_) => api.delete_bundle(sent.bundle).await,
    };
    party.journal().append(&event.ended(&result))?;
    result?;
    // The number is used up, whoever has the envelope.
    sent.advance(party)?;
    sent.change(party, |sent| {
        sent.progress = Progress::Revoked;
        sent.private = None;
        let is_news = |d: &&Delivery| d.receipt.as_ref().is_some_and(|receipt| is_news(sent, &d.mailbox, receipt));
        let news: Vec<_> = deliveries.iter().filter(is_news).map(|d| d.mailbox).collect();
        sent.recipients.iter_mut().for_each(|r| r.unfetched = news.contains(&r.mailbox));
    })?;
    transfer::discard(party, sent.bundle)?;
    Ok(released)
}
