//! Calls about pipelines, and the journal that an account keeps on the relay.

use bytes::Bytes;
use pouch_protocol::limits::{MAX_JOURNAL, MAX_LISTING};
use pouch_protocol::{NewPipeline, Pipelines, route};
use pouch_statement::{MailboxId, Sha256Digest};

use super::{Call, RelayApi, Result};

impl RelayApi {
    /// Makes an account that sends in my name.
    pub async fn new_pipeline(&self, pipeline: &NewPipeline) -> Result<()> {
        self.tell(Call::with_json("POST", route::PIPELINES, route::PIPELINES.into(), pipeline)?).await
    }

    /// Those that I made.
    pub async fn pipelines(&self) -> Result<Pipelines> {
        self.ask(Call::get(route::PIPELINES, route::PIPELINES.into(), MAX_LISTING), true).await
    }

    /// Has the requests of one refused for good.
    pub async fn revoke_pipeline(&self, mailbox: MailboxId) -> Result<()> {
        self.tell(Call::delete(route::PIPELINE, route::pipeline(mailbox))).await
    }

    /// The journal that I keep there, sealed.
    pub async fn journal(&self) -> Result<Bytes> {
        Ok(self.send(Call::get(route::JOURNAL, route::JOURNAL.into(), MAX_JOURNAL as usize), true).await?.body)
    }

    /// Stores it in place of the one with the digest `before`, or as the first one.
    pub async fn put_journal(&self, before: Option<Sha256Digest>, sealed: Bytes) -> Result<()> {
        // RFC 9110 §13.1.1, §13.1.2. The digest is the tag.
        let condition = match before {
            Some(before) => ("if-match", format!("\"{before}\"")),
            None => ("if-none-match", "*".to_owned()),
        };
        let call = Call::put_whole(route::JOURNAL, route::JOURNAL.into(), sealed);
        self.tell(Call { conditions: vec![condition], ..call }).await
    }
}
