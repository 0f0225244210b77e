//! Bundles that a delegate sends in Ada's name: what Bo, who has pinned Ada alone, takes, and what he refuses whatever a relay
//! lets through.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use bundle_support::{Carried, Person, World, now};
use pouch_core::bundle::*;
use pouch_statement::{Delegation, DelegationError, Signed, StatementError};

const DAY: u64 = 86_400;

/// What Ada says of the delegate.
fn delegation(world: &World, delegate: &Person) -> Delegation {
    Delegation {
        identity: world.ada.card,
        name: "nightly".parse().unwrap(),
        age_recipient: delegate.age.recipient().to_string().parse().unwrap(),
        signing_key: delegate.signs.public(),
        recipients: vec![world.bo.card],
        created: now(),
        expires: now().plus(30 * DAY),
    }
}

/// The carried bundle as the delegate would send it, with a manifest that `change` has changed.
fn sent(
    world: &World,
    carried: &Carried,
    by: &Person,
    said: &Signed<Delegation>,
    change: impl FnOnce(&mut Manifest),
) -> Result<Verified, EnvelopeError> {
    let mut manifest = Manifest { sender: by.card, ..carried.manifest.body().clone() };
    change(&mut manifest);
    let manifest = manifest.sign(&by.signs).unwrap();
    let envelope = seal_delegated(&manifest, &carried.key, Some(said), &world.bo.age.recipient()).unwrap();
    let opened = open_envelope(&envelope, &world.bo.age).unwrap();
    // Whom it counts as from, and whose key is looked up.
    assert_eq!(opened.claimed_sender(), said.body().identity);
    opened.verify(&world.expected())
}

#[test]
fn a_delegate_sends_in_the_name_of_who_said_so() {
    let (world, nightly) = (World::new(), Person::new());
    let carried = world.seal_stream(b"dump");
    let said = Signed::sign(delegation(&world, &nightly), &world.ada.signs).unwrap();
    let verified = sent(&world, &carried, &nightly, &said, |_| {}).unwrap();
    assert_eq!(verified.manifest().body().sender, nightly.card);
    assert_eq!(verified.delegation().unwrap().digest(), said.digest());
    assert!(verified.open_index(&carried.index).is_ok());
    // Without a delegation nobody but Ada does, and with one nothing else changes.
    let plain = open_envelope(&carried.envelope, &world.bo.age).unwrap().verify(&world.expected()).unwrap();
    assert!(plain.delegation().is_none());
    let manifest = Manifest { sender: nightly.card, ..carried.manifest.body().clone() }.sign(&nightly.signs).unwrap();
    let bare = seal_envelope(&manifest, &carried.key, &world.bo.age.recipient()).unwrap();
    let error = open_envelope(&bare, &world.bo.age).unwrap().verify(&world.expected()).err().unwrap();
    assert!(matches!(error, EnvelopeError::OtherSender), "{error}");
}

#[test]
fn a_delegation_counts_for_whom_until_when_and_by_whom_it_says() {
    let (world, nightly, mallory) = (World::new(), Person::new(), Person::new());
    let carried = world.seal_stream(b"dump");
    let good = delegation(&world, &nightly);
    let sign = |said: Delegation| Signed::sign(said, &world.ada.signs).unwrap();
    let refused = |said: Delegation| sent(&world, &carried, &nightly, &sign(said), |_| {}).err().unwrap();
    let delegated = |error: EnvelopeError, why: DelegationError| match error {
        EnvelopeError::Delegation(found) => assert_eq!(found, why),
        other => panic!("{other} instead of {why}"),
    };
    // For another recipient.
    delegated(refused(Delegation { recipients: vec![mallory.card], ..good.clone() }), DelegationError::Recipient);
    // Over, though the manifest says that it was made in time; or for what lasts longer; or for too long.
    let (created, expires) = (now().plus(0), now());
    delegated(
        refused(Delegation {
            created: pouch_statement::Timestamp::EPOCH.plus(created.unix() - DAY),
            expires,
            ..good.clone()
        }),
        DelegationError::Expired,
    );
    delegated(refused(Delegation { expires: now().plus(100), ..good.clone() }), DelegationError::Expired);
    delegated(refused(Delegation { expires: now().plus(91 * DAY), ..good.clone() }), DelegationError::Validity);
    // For another key: the delegation stands in every envelope, and Cy could have kept it from one of his.
    let error = sent(&world, &carried, &mallory, &sign(good.clone()), |_| {}).err().unwrap();
    assert!(matches!(error, EnvelopeError::OtherSender), "{error}");
    let error = sent(&world, &carried, &mallory, &sign(good.clone()), |m| m.sender = nightly.card).err().unwrap();
    assert!(matches!(error, EnvelopeError::Statement(StatementError::Signature(_))), "{error}");
    // By somebody else who says that they are Ada, and by the delegate itself.
    for by in [&mallory, &nightly] {
        let said = Signed::sign(good.clone(), &by.signs).unwrap();
        let error = sent(&world, &carried, &nightly, &said, |_| {}).err().unwrap();
        assert!(matches!(error, EnvelopeError::Statement(StatementError::Signature(_))), "{error}");
    }
    // A delegate makes no delegates: what it signed names another identity than the one that is looked up.
    let deeper = Delegation { identity: nightly.card, ..delegation(&world, &mallory) };
    let said = Signed::sign(deeper, &nightly.signs).unwrap();
    let error = sent(&world, &carried, &mallory, &said, |_| {}).err().unwrap();
    assert!(matches!(error, EnvelopeError::Statement(_)), "{error}");
    // Passed on to somebody else, or asked for as another bundle, as ever.
    let error = sent(&world, &carried, &nightly, &sign(good.clone()), |m| m.recipient = mallory.card).err().unwrap();
    assert!(matches!(error, EnvelopeError::NotForMe), "{error}");
}

#[test]
fn every_flipped_bit_of_a_delegation_is_refused() {
    let (world, nightly) = (World::new(), Person::new());
    let carried = world.seal_stream(b"dump");
    let said = Signed::sign(delegation(&world, &nightly), &world.ada.signs).unwrap();
    for bit in (0..said.bytes().len() * 8).step_by(13) {
        let mut bytes = said.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let key = world.ada.signs.public();
        assert!(Signed::<Delegation>::verify(&bytes, said.signature(), &key).is_err(), "bit {bit}");
    }
    // Cut off, the manifest is nobody's whom Bo knows.
    let manifest = Manifest { sender: nightly.card, ..carried.manifest.body().clone() }.sign(&nightly.signs).unwrap();
    let envelope = seal_delegated(&manifest, &carried.key, None, &world.bo.age.recipient()).unwrap();
    assert_eq!(open_envelope(&envelope, &world.bo.age).unwrap().claimed_sender(), nightly.card);
}
