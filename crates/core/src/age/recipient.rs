//! The file key: made, wrapped for those who may open a file, and unwrapped by one of them.

use std::io::{self, BufRead};
use std::slice;

use age_core::format::FileKey;

use super::error::{Error, Result};
use super::header::{self, Header, HeaderError, MAX_STANZAS};
use super::keys::{Identity, Recipient};
use super::passphrase::{self, Passphrase};
use super::stream::{PAYLOAD_NONCE_LEN, PayloadKey};

/// For whom a file is sealed.
///
/// A passphrase is never mixed with recipients (C2SP age, "The scrypt recipient type").
#[derive(Clone, Copy)]
pub enum Sealer<'a> {
    /// Each of these alone can open the file; at least one, at most [`MAX_STANZAS`]. Hybrid and classic ones are
    /// never mixed, for the file would be no safer than the weakest of them (C2SP age, the label `postquantum`).
    Recipients(&'a [Recipient]),
    /// Whoever knows the passphrase can open the file.
    Passphrase(&'a Passphrase),
}

/// What opens a file.
#[derive(Clone, Copy)]
pub enum Opener<'a> {
    /// The first of these that fits opens the file.
    Identities(&'a [Identity]),
    /// A passphrase that a person knows.
    Passphrase(&'a Passphrase),
}

impl<'a> From<&'a Recipient> for Sealer<'a> {
    fn from(recipient: &'a Recipient) -> Self {
        Self::Recipients(slice::from_ref(recipient))
    }
}

impl<'a> From<&'a [Recipient]> for Sealer<'a> {
    fn from(recipients: &'a [Recipient]) -> Self {
        Self::Recipients(recipients)
    }
}

impl<'a> From<&'a Passphrase> for Sealer<'a> {
    fn from(passphrase: &'a Passphrase) -> Self {
        Self::Passphrase(passphrase)
    }
}

impl<'a> From<&'a Identity> for Opener<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self::Identities(slice::from_ref(identity))
    }
}

impl<'a> From<&'a [Identity]> for Opener<'a> {
    fn from(identities: &'a [Identity]) -> Self {
        Self::Identities(identities)
    }
}

impl<'a> From<&'a Passphrase> for Opener<'a> {
    fn from(passphrase: &'a Passphrase) -> Self {
        Self::Passphrase(passphrase)
    }
}

/// Draws a fresh file key and nonce: gives the bytes in front of the first chunk, and the payload key.
pub(super) fn start(to: &Sealer<'_>) -> Result<(Vec<u8>, PayloadKey)> {
    let file_key = FileKey::try_init_with_mut(|key| getrandom::fill(key)).map_err(|_| Error::Random)?;
    let mut nonce = [0; PAYLOAD_NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|_| Error::Random)?;
    let mut bytes = header::encode(&to.wrap(&file_key)?, &file_key)?;
    bytes.extend_from_slice(&nonce);
    Ok((bytes, PayloadKey::derive(&file_key, &nonce)?))
}

/// Reads a file up to its first chunk, and gives the payload key.
pub(super) fn open_header(with: &Opener<'_>, input: &mut impl BufRead) -> Result<PayloadKey> {
    let header = Header::read(input)?;
    open_payload(with, &header, input)
}

/// As [`open_header`], for a file that is sealed for `identity` and for nobody else: one stanza, of its kind. Not even
/// one that no known key could open may stand beside it.
pub(super) fn open_sole_header(identity: &Identity, input: &mut impl BufRead) -> Result<PayloadKey> {
    let header = Header::read(input)?;
    match header.stanzas.as_slice() {
        [_] => open_payload(&identity.into(), &header, input),
        _ => Err(HeaderError::NotSole.into()),
    }
}

fn open_payload(with: &Opener<'_>, header: &Header, input: &mut impl BufRead) -> Result<PayloadKey> {
    let file_key = with.unwrap(header)?;
    header.verify(&file_key)?;
    let mut nonce = [0; PAYLOAD_NONCE_LEN];
    input.read_exact(&mut nonce).map_err(|error| match error.kind() {
        // What an input says that is ours, such as a file within a file that is cut, stays what it is.
        io::ErrorKind::UnexpectedEof if Error::of(&error).is_none() => HeaderError::NoNonce.into(),
        _ => Error::from(error),
    })?;
    PayloadKey::derive(&file_key, &nonce)
}

impl Sealer<'_> {
    fn wrap(&self, file_key: &FileKey) -> Result<Vec<age_core::format::Stanza>> {
        match self {
            Self::Passphrase(passphrase) => Ok(vec![passphrase.wrap(file_key)?]),
            Self::Recipients([]) => Err(Error::NoKeys),
            Self::Recipients(recipients) if recipients.len() > MAX_STANZAS => {
                Err(Error::TooManyRecipients { count: recipients.len(), limit: MAX_STANZAS })
            }
            Self::Recipients(recipients) if is_mixed(recipients) => Err(Error::MixedRecipients),
            Self::Recipients(recipients) => recipients.iter().map(|recipient| recipient.wrap(file_key)).collect(),
        }
    }
}

/// Whether a file for these would be closed to a quantum computer by some stanzas and open to it by others.
fn is_mixed(recipients: &[Recipient]) -> bool {
    let mut kinds = recipients.iter().map(|recipient| recipient.kind().is_post_quantum());
    let first = kinds.next();
    kinds.any(|kind| Some(kind) != first)
}

impl Opener<'_> {
    fn unwrap(&self, header: &Header) -> Result<FileKey> {
        // `Header::read` made sure that such a stanza stands alone.
        let scrypt = header.stanzas.iter().find(|stanza| stanza.tag == passphrase::STANZA_TAG);
        match (self, scrypt) {
            (Self::Passphrase(passphrase), Some(stanza)) => passphrase.unwrap(stanza),
            (Self::Passphrase(_), None) => Err(Error::IdentityNeeded),
            (Self::Identities(_), Some(_)) => Err(Error::PassphraseNeeded),
            (Self::Identities(identities), None) => identities
                .iter()
                .find_map(|identity| identity.unwrap(&header.stanzas).transpose())
                .unwrap_or(Err(Error::NoMatch)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::stream::PayloadError;
    use super::super::{decrypt, encrypt};
    use super::*;
    use std::io::{Read, Write};

    fn seal<'a>(to: impl Into<Sealer<'a>>) -> Result<Vec<u8>> {
        let mut writer = encrypt(to, Vec::new())?;
        writer.write_all(b"content").unwrap();
        Ok(writer.finish().unwrap())
    }

    #[test]
    fn any_of_several_opens() {
        let identities: Vec<_> = (0..3).map(|_| Identity::generate()).collect();
        let recipients: Vec<_> = identities.iter().map(Identity::recipient).collect();
        let file = seal(recipients.as_slice()).unwrap();
        for identity in &identities {
            assert!(decrypt(identity, file.as_slice()).is_ok());
        }
        assert!(decrypt(identities.as_slice(), file.as_slice()).is_ok());
        let stranger = Identity::generate();
        assert!(matches!(decrypt(&stranger, file.as_slice()), Err(Error::NoMatch)));
        let none: &[Identity] = &[];
        assert!(matches!(decrypt(none, file.as_slice()), Err(Error::NoMatch)));
    }

    #[test]
    fn a_cut_nonce_is_told_from_an_input_that_is_cut_itself() {
        let identity = Identity::generate();
        let file = seal(&identity.recipient()).unwrap();
        let header = file.len() - "content".len() - 16 - PAYLOAD_NONCE_LEN;
        let cut = &file[..header + 3];
        assert!(matches!(decrypt(&identity, cut), Err(Error::HeaderFailure(HeaderError::NoNonce))));
        let within = io::BufReader::new(cut.chain(Truncated));
        let truncated = Error::PayloadFailure(PayloadError::Truncated).to_string();
        assert_eq!(decrypt(&identity, within).err().unwrap().to_string(), truncated);
    }

    /// The end of an age file that is cut, as its reader tells it.
    struct Truncated;

    impl Read for Truncated {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(Error::PayloadFailure(PayloadError::Truncated).into())
        }
    }

    #[test]
    fn no_recipient_and_too_many_are_refused_and_the_most_opens() {
        let identity = Identity::generate();
        let mut recipients = vec![identity.recipient(); MAX_STANZAS + 1];
        assert!(matches!(seal(recipients.as_slice()), Err(Error::TooManyRecipients { count: 1025, limit: 1024 })));
        recipients.pop();
        assert!(decrypt(&identity, seal(recipients.as_slice()).unwrap().as_slice()).is_ok());
        let none: &[Recipient] = &[];
        assert!(matches!(seal(none), Err(Error::NoKeys)));
    }

    // attacks.md 21: the cap on headers leaves room for the most recipients, with the longest stanzas
    #[test]
    fn attack_21_the_most_hybrid_recipients_fit() {
        let identity = Identity::generate();
        let recipients = vec![identity.recipient(); MAX_STANZAS];
        let file = seal(recipients.as_slice()).unwrap();
        assert!(file.len() > 1500 * MAX_STANZAS && file.len() < header::MAX_HEADER_LEN);
        assert!(decrypt(&identity, file.as_slice()).is_ok());
    }

    // C2SP age: a file for hybrid recipients is not sealed to classic ones too
    #[test]
    fn hybrid_and_classic_recipients_are_not_mixed() {
        let (hybrid, classic) = (Identity::generate().recipient(), Identity::generate_x25519().recipient());
        for mixed in [[hybrid.clone(), classic.clone()], [classic.clone(), hybrid.clone()]] {
            assert!(matches!(seal(mixed.as_slice()), Err(Error::MixedRecipients)));
        }
        assert!(seal([hybrid.clone(), hybrid].as_slice()).is_ok());
        assert!(seal([classic.clone(), classic].as_slice()).is_ok());
    }

    // attacks.md 30: one stanza, of the identity's own kind, and nothing beside it
    #[test]
    fn attack_30_sole_means_one_stanza_of_this_kind() {
        let (hybrid, classic) = (Identity::generate(), Identity::generate_x25519());
        for identity in [&hybrid, &classic] {
            let open = |file: &[u8]| open_sole_header(identity, &mut &*file);
            assert!(open(&seal(&identity.recipient()).unwrap()).is_ok());
            let mut twice = vec![identity.recipient(); 2];
            let error = open(&seal(twice.as_slice()).unwrap()).err();
            assert!(matches!(error, Some(Error::HeaderFailure(HeaderError::NotSole))), "{error:?}");
            twice.pop();
            assert!(open(&seal(twice.as_slice()).unwrap()).is_ok());
            for other in [&hybrid, &classic].into_iter().filter(|other| other.kind() != identity.kind()) {
                let error = open(&seal(&other.recipient()).unwrap()).err();
                assert!(matches!(error, Some(Error::NoMatch)), "{error:?}");
            }
        }
    }

    // attacks.md 30: a stanza that nobody knows the use of, as age writers of old added them, is one too many
    #[test]
    fn attack_30_grease_beside_the_stanza_is_refused() {
        let identity = Identity::generate();
        let file_key = FileKey::new(Box::new([1; 16]));
        let mine = || identity.recipient().wrap(&file_key).unwrap();
        let grease = || age_core::format::Stanza { tag: "x-grease".into(), args: vec![], body: vec![7; 12] };
        for stanzas in [[mine(), grease()], [grease(), mine()]] {
            let mut file = header::encode(&stanzas, &file_key).unwrap();
            file.extend_from_slice(&[0; PAYLOAD_NONCE_LEN]);
            assert!(open_header(&Opener::from(&identity), &mut file.as_slice()).is_ok());
            let error = open_sole_header(&identity, &mut file.as_slice()).err();
            assert!(matches!(error, Some(Error::HeaderFailure(HeaderError::NotSole))), "{error:?}");
        }
    }
}
