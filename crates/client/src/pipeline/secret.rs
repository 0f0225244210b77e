//! The one line that a pipeline runs with (docs/format.md, "Pipeline secret").

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use pouch_log::Frontier;
use pouch_statement::{
    Delegation, Detached, Fingerprint, JournalId, Name, Sha256Digest, Signed, SignedCard, SigningKey,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::pack::{pack, unpack};
use crate::identity::Identity;

/// Its beginning, with its version.
const PREFIX: &str = "pouch-pipeline-1.";
/// Bytes of SHA-256 that tell a slip of copying.
const CHECK: usize = 8;
/// The longest text in it. A recipient's card has some 2.6 KB before it is compressed.
const MAX_TEXT: usize = 512 << 10;
const LEVEL: i32 = 19;

/// Why a line is no pipeline's secret. Nothing of the line is repeated.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Something else.
    #[error("this is not a pipeline's secret: it does not begin with {PREFIX}")]
    Other,
    /// Of another version.
    #[error("the pipeline's secret is of another version than this pouch knows")]
    Version,
    /// Cut, or changed in copying.
    #[error("the pipeline's secret is damaged: it was cut, or changed in copying")]
    Damaged,
    /// Whole, and of no use.
    #[error("the pipeline's secret does not hold together: {0}")]
    Inside(&'static str),
}

/// A recipient as the pipeline knows them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipient {
    pub(super) name: Name,
    pub(super) card: Detached,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Text {
    identity: String,
    device: String,
    #[zeroize(skip)]
    card: Detached,
    /// The issuer's card: whose key signed the delegation.
    #[zeroize(skip)]
    issuer: Detached,
    #[zeroize(skip)]
    delegation: Detached,
    #[zeroize(skip)]
    recipients: Vec<Recipient>,
    #[zeroize(skip)]
    journal: JournalId,
    /// The journal's tree when the pipeline was made.
    #[zeroize(skip)]
    head: String,
}

/// What a pipeline is made of. All signatures in it are checked.
pub struct Secret {
    text: Text,
    device: SigningKey,
    pub(super) card: SignedCard,
    pub(crate) delegation: Signed<Delegation>,
    pub(super) head: Frontier,
}

impl Secret {
    /// Of these parts.
    pub(super) fn new(
        (identity, device): (&Identity, &SigningKey),
        card: &SignedCard,
        (issuer, delegation): (&SignedCard, &Signed<Delegation>),
        recipients: Vec<Recipient>,
        (journal, head): (JournalId, &Frontier),
    ) -> Result<Self, SecretError> {
        Self::check(Text {
            identity: identity.to_text().to_string(),
            device: HEXLOWER.encode(device.to_seed().as_ref()),
            card: card.detached(),
            issuer: issuer.detached(),
            delegation: delegation.detached(),
            recipients,
            journal,
            head: head.encode(),
        })
    }

    fn check(text: Text) -> Result<Self, SecretError> {
        let inside = SecretError::Inside;
        let identity = Identity::from_text(&text.identity).ok_or(inside("its identity"))?;
        let seed = HEXLOWER.decode(text.device.as_bytes()).ok().map(Zeroizing::new);
        let seed = seed.and_then(|seed| Some(Zeroizing::new(<[u8; 32]>::try_from(seed.as_slice()).ok()?)));
        let device = SigningKey::from_seed(&*seed.ok_or(inside("its device key"))?);
        let card = SignedCard::verify(&text.card).map_err(|_| inside("its card"))?;
        let issuer = SignedCard::verify(&text.issuer).map_err(|_| inside("its maker's card"))?;
        let Detached { statement, signature } = &text.delegation;
        let delegation = Signed::<Delegation>::verify(statement.as_bytes(), signature, &issuer.card().signing_key);
        let delegation = delegation.map_err(|_| inside("its delegation"))?;
        let me = Fingerprint::of(&identity.age.recipient().to_string(), &identity.signing.public());
        let body = delegation.body();
        let one = card.fingerprint() == me && body.delegate() == me && body.identity == issuer.fingerprint();
        if !one || body.check().is_err() {
            return Err(inside("its keys, card and delegation are not one pipeline's"));
        }
        let head = Frontier::decode(&text.head).map_err(|_| inside("its journal's head"))?;
        Ok(Self { device, card, delegation, head, text })
    }

    /// Reads a line; white space around it is passed over.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn parse(line: &str) -> Result<Self, SecretError> {
        let line = line.trim();
        let Some(body) = line.strip_prefix(PREFIX) else {
            let other = line.starts_with("pouch-pipeline-");
            return Err(if other { SecretError::Version } else { SecretError::Other });
        };
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| SecretError::Damaged)?);
        let (check, packed) = bytes.split_first_chunk::<CHECK>().ok_or(SecretError::Damaged)?;
        if Sha256Digest::of(packed).as_bytes().first_chunk::<CHECK>() != Some(check) {
            return Err(SecretError::Damaged);
        }
        let text = unpack(packed, MAX_TEXT).ok_or(SecretError::Inside("it does not unpack"))?;
        Self::check(serde_json::from_slice(&text).map_err(|_| SecretError::Inside("its text"))?)
    }

    /// The line.
    ///
    /// # Errors
    /// More recipients than a line holds.
    pub fn to_line(&self) -> Result<Zeroizing<String>, SecretError> {
        let text = serde_json::to_vec(&self.text).map_err(|_| SecretError::Inside("its text"))?;
        let text = Zeroizing::new(text);
        if text.len() > MAX_TEXT {
            return Err(SecretError::Inside("it has too many recipients"));
        }
        let packed = pack(&text, LEVEL).ok_or(SecretError::Inside("it does not pack"))?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(CHECK + packed.len()));
        bytes.extend(Sha256Digest::of(&packed).as_bytes().iter().take(CHECK));
        bytes.extend_from_slice(&packed);
        Ok(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes))))
    }

    /// The keys.
    pub(crate) fn identity(&self) -> Option<Identity> {
        Identity::from_text(&self.text.identity)
    }

    pub(crate) fn device(&self) -> SigningKey {
        SigningKey::from_seed(&self.device.to_seed())
    }

    pub(super) fn recipients(&self) -> &[Recipient] {
        &self.text.recipients
    }

    pub(super) fn journal(&self) -> JournalId {
        self.text.journal
    }
}
