#![allow(clippy::unwrap_used)]
use super::*;
use pouch_statement::SigningKey;

const CLASSIC: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

pub(crate) fn contact(name: &str, seed: u8, serial: u64) -> Contact {
    contact_for(CLASSIC, name, seed, serial)
}

fn contact_for(recipient: &str, name: &str, seed: u8, serial: u64) -> Contact {
    let key = SigningKey::from_seed(&[seed; 32]);
    let card = Card {
        name: name.parse().unwrap(),
        age_recipient: recipient.parse().unwrap(),
        signing_key: key.public(),
        relay: "https://relay.example".parse().unwrap(),
        relay_pins: vec![],
        mailbox: MailboxId::from_bytes([seed; 16]),
        serial,
        created: Timestamp::EPOCH,
        expires: Timestamp::EPOCH.plus(1),
    };
    let card = SignedCard::sign(card, &key).unwrap();
    Contact::new(name.parse().unwrap(), card, Verified::Link, Timestamp::EPOCH)
}

#[test]
fn attack_36_names_that_look_alike_are_told_apart() {
    let book = AddressBook { contacts: vec![contact("paypal", 1, 1), contact("Bo", 2, 1), contact("modern", 3, 1)] };
    for (name, found) in [
        ("p\u{430}yp\u{430}l", Some("paypal")),
        ("PAYPAL", Some("paypal")),
        ("paypa1", Some("paypal")),
        ("b\u{43e}", Some("Bo")),
        ("b0", Some("Bo")),
        ("rnodern", Some("modern")),
        ("paypal", None),
        ("bob", None),
        ("ada", None),
    ] {
        assert_eq!(book.alike(&name.parse().unwrap()).map(ToString::to_string).as_deref(), found, "{name}");
    }
}

// attacks.md 35: another key under a pinned name is a hard stop; nothing changes.
#[test]
fn attack_35_a_changed_card_is_a_hard_stop() {
    let mut book = AddressBook::default();
    book.add(contact("bo", 1, 1)).unwrap();
    assert!(matches!(book.add(contact("bo", 2, 2)), Err(ContactError::KeyChanged { .. })));
    assert!(matches!(book.add(contact("bob", 1, 1)), Err(ContactError::Pinned(_))));
    assert_eq!(book.named(&"bo".parse().unwrap()).unwrap().fingerprint(), contact("bo", 1, 1).fingerprint());
}

// attacks.md 30, 37: an old classic card, with the same signing key and a higher serial even, takes no hybrid one's
// place; nor the other way round without the user.
#[test]
fn attack_30_a_contact_never_goes_from_hybrid_to_classic() {
    let hybrid = pouch_core::age::Identity::generate().recipient().to_string();
    let mut book = AddressBook::default();
    book.add(contact_for(&hybrid, "bo", 1, 1)).unwrap();
    let error = book.add(contact("bo", 1, 2)).unwrap_err();
    assert!(matches!(error, ContactError::Downgrade { .. }), "{error}");
    let bo = book.named(&"bo".parse().unwrap()).unwrap();
    assert!(bo.card().age_recipient.is_post_quantum() && bo.card().serial == 1);
    book.add(contact("cy", 2, 1)).unwrap();
    let other = pouch_core::age::Identity::generate().recipient().to_string();
    let error = book.add(contact_for(&other, "cy", 2, 2)).unwrap_err();
    assert!(matches!(error, ContactError::KeyChanged { .. }), "{error}");
}

// attacks.md 37: an old card, or a second one under the same serial, replaces nothing.
#[test]
fn attack_37_a_stale_card_is_refused() {
    let mut book = AddressBook::default();
    book.add(contact("bo", 1, 5)).unwrap();
    book.add(contact("bo", 1, 5)).unwrap();
    assert!(matches!(book.add(contact("bo", 1, 4)), Err(ContactError::Stale { .. })));
    book.add(contact("bo", 1, 6)).unwrap();
    assert_eq!(book.all().len(), 1);
    assert_eq!(book.all().first().unwrap().card().serial, 6);
}
