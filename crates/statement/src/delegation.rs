//! Delegations: the identity's word that another key may send in its name, to whom and until when.

use serde::{Deserialize, Serialize};

use crate::{AgeRecipient, Fingerprint, Name, PublicKey, Statement, Timestamp};

/// The longest that a delegation may count, in seconds: 90 days. There is no way to call one back from those whom it is shown
/// to, so it ends soon.
pub const MAX_DELEGATION: u64 = 90 * 24 * 3600;
/// The most recipients of a delegation.
pub const MAX_DELEGATED: usize = 100;

/// Why a delegation was refused, however well it is signed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DelegationError {
    /// For somebody else.
    #[error("the delegation is not for this recipient")]
    Recipient,
    /// By somebody else.
    #[error("the delegation is by another identity")]
    Issuer,
    /// Of another key.
    #[error("the delegation is for another key")]
    Delegate,
    /// Ends before it begins, or too late.
    #[error("the delegation counts for longer than one may, or not at all")]
    Validity,
    /// Nobody, or too many.
    #[error("the delegation names nobody, or more than it may")]
    Recipients,
    /// After its end, or used for what lasts longer.
    #[error("the delegation is over, or what is sent under it lasts longer")]
    Expired,
    /// Used before it was made.
    #[error("the delegation is dated in the future, or what is sent under it is older")]
    NotYetValid,
}

/// What an identity lets another key do (docs/format.md, "Delegation").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// Who signs this.
    pub identity: Fingerprint,
    /// What the issuer calls the delegate.
    pub name: Name,
    /// Where receipts for what the delegate sends are sealed to.
    pub age_recipient: AgeRecipient,
    /// What the delegate's manifests are signed with.
    pub signing_key: PublicKey,
    /// To whom the delegate may send, in ascending order.
    pub recipients: Vec<Fingerprint>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

impl Statement for Delegation {
    const TYPE: &'static str = "pouch.delegation.v1";
}

/// A manifest, as far as a delegation must cover it.
#[derive(Clone, Copy, Debug)]
pub struct Delegated {
    /// Who sends.
    pub sender: Fingerprint,
    /// To whom.
    pub recipient: Fingerprint,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

impl Delegation {
    /// The fingerprint of the delegate's two keys.
    #[must_use]
    pub fn delegate(&self) -> Fingerprint {
        Fingerprint::of(self.age_recipient.as_str(), &self.signing_key)
    }

    /// The delegation's own rules, for whoever signs one and whoever reads one.
    ///
    /// # Errors
    /// It contradicts itself.
    pub fn check(&self) -> Result<(), DelegationError> {
        if self.expires <= self.created || self.expires.since(self.created) > MAX_DELEGATION {
            return Err(DelegationError::Validity);
        }
        let ascending = |two: &[Fingerprint]| matches!(two, [a, b] if a.as_bytes() < b.as_bytes());
        if self.recipients.is_empty()
            || self.recipients.len() > MAX_DELEGATED
            || !self.recipients.windows(2).all(ascending)
        {
            return Err(DelegationError::Recipients);
        }
        if self.delegate() == self.identity { Err(DelegationError::Delegate) } else { Ok(()) }
    }

    /// Whether it is `identity`'s and covers this manifest at `now`, with clocks that may be `tolerance` seconds apart.
    ///
    /// # Errors
    /// It does not.
    pub fn covers(
        &self,
        identity: &Fingerprint,
        manifest: &Delegated,
        now: Timestamp,
        tolerance: u64,
    ) -> Result<(), DelegationError> {
        self.check()?;
        if self.identity != *identity {
            return Err(DelegationError::Issuer);
        }
        if self.delegate() != manifest.sender {
            return Err(DelegationError::Delegate);
        }
        if !self.recipients.contains(&manifest.recipient) {
            return Err(DelegationError::Recipient);
        }
        if manifest.expires > self.expires || now >= self.expires {
            return Err(DelegationError::Expired);
        }
        let early = manifest.created.plus(tolerance) < self.created || self.created.since(now) > tolerance;
        if early { Err(DelegationError::NotYetValid) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::SigningKey;

    const DAY: u64 = 24 * 3600;

    fn at(day: u64) -> Timestamp {
        Timestamp::EPOCH.plus(10_000 * DAY + day * DAY)
    }

    fn sample() -> (Delegation, Delegated) {
        let (ada, bo) = (Fingerprint::from_bytes([1; 32]), Fingerprint::from_bytes([2; 32]));
        let delegation = Delegation {
            identity: ada,
            name: "nightly".parse().unwrap(),
            age_recipient: "age1example".parse().unwrap(),
            signing_key: SigningKey::from_seed(&[3; 32]).public(),
            recipients: vec![bo],
            created: at(0),
            expires: at(90),
        };
        let sender = delegation.delegate();
        (delegation, Delegated { sender, recipient: bo, created: at(1), expires: at(8) })
    }

    #[test]
    fn what_it_says_and_nothing_else() {
        let (good, manifest) = sample();
        let ada = good.identity;
        good.covers(&ada, &manifest, at(2), 300).unwrap();
        let refused = |delegation: &Delegation, manifest: &Delegated, now| {
            delegation.covers(&ada, manifest, now, 300).unwrap_err()
        };
        let other = Fingerprint::from_bytes([9; 32]);
        assert_eq!(good.covers(&other, &manifest, at(2), 300), Err(DelegationError::Issuer));
        assert_eq!(refused(&good, &Delegated { sender: other, ..manifest }, at(2)), DelegationError::Delegate);
        assert_eq!(refused(&good, &Delegated { recipient: other, ..manifest }, at(2)), DelegationError::Recipient);
        assert_eq!(refused(&good, &Delegated { expires: at(91), ..manifest }, at(2)), DelegationError::Expired);
        assert_eq!(refused(&good, &manifest, at(90)), DelegationError::Expired);
        let early = Delegated { created: Timestamp::EPOCH.plus(at(0).unix() - 301), ..manifest };
        assert_eq!(refused(&good, &early, at(2)), DelegationError::NotYetValid);
        assert_eq!(refused(&good, &manifest, Timestamp::EPOCH.plus(at(0).unix() - 301)), DelegationError::NotYetValid);
    }

    #[test]
    fn rules_of_its_own() {
        let (good, _) = sample();
        let bo = good.recipients.first().copied().unwrap();
        for (bad, why) in [
            (Delegation { expires: at(0), ..good.clone() }, DelegationError::Validity),
            (Delegation { expires: at(91), ..good.clone() }, DelegationError::Validity),
            (Delegation { recipients: vec![], ..good.clone() }, DelegationError::Recipients),
            (Delegation { recipients: vec![bo, bo], ..good.clone() }, DelegationError::Recipients),
            (Delegation { identity: good.delegate(), ..good.clone() }, DelegationError::Delegate),
        ] {
            assert_eq!(bad.check(), Err(why));
        }
    }
}
