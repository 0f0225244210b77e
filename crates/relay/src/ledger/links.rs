//! One-time links: made, listed, withdrawn. Redeeming is `Ledger::join`.

use super::accounts::{mac, mac_text};
use super::database::{Conn, Lock, query};
use super::roles::{link_role, member_kind, role};
use super::row::{bytes, time};
use super::{Ledger, Once, Result, int, refuse};
use pouch_protocol::{LinkStatus, Links, MacedCard, NewLink, ProblemKind};
use pouch_statement::{Detached, LinkId, Sha256Digest, SignedCard, Timestamp};

/// Links that one account may have, open and redeemed; with cards of some 4 KiB they fit into one listing.
const MAX_LINKS: i64 = 500;

impl Ledger {
    /// Stores the owner's link in place of an earlier one; `false` if an owner joined.
    pub(crate) async fn put_owner_link(
        &self,
        link: LinkId,
        admit_sha256: &Sha256Digest,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<bool> {
        self.write((link, *admit_sha256), move |conn, (link, admit)| {
            Box::pin(put_owner_link(conn, *link, *admit, now, expires))
        })
        .await
    }

    /// Makes a link; the same one again has no effect.
    pub(crate) async fn new_link(&self, once: Once, link: NewLink, card: SignedCard, now: Timestamp) -> Result<()> {
        self.write_once(once, now, (link, card), move |conn, (link, card)| {
            Box::pin(insert(conn, once.account, link, card, now))
        })
        .await
    }

    /// Mine that are open, or redeemed and not yet forgotten.
    pub(crate) async fn links(&self, account: i64, now: Timestamp) -> Result<Links> {
        let mut conn = self.look().await?;
        let rows = query(
            "SELECT l.id, l.created, l.expires, l.contractor, l.joiner_mac,
                    COALESCE(l.joiner_statement, a.card_statement) AS card_statement,
                    COALESCE(l.joiner_signature, a.card_signature) AS card_signature
             FROM link l LEFT JOIN account a ON a.seq = l.joiner
             WHERE l.inviter = $1 AND (l.joiner IS NOT NULL OR l.expires > $2) ORDER BY l.seq LIMIT $3",
        )
        .bind(account)
        .bind(int(now.unix()))
        .bind(MAX_LINKS)
        .fetch_all(&mut conn)
        .await?;
        let links = rows.iter().map(|row| {
            let statement: Option<String> = row.get("card_statement")?;
            let joiner = match statement {
                Some(statement) => Some(MacedCard {
                    card: Detached { statement, signature: row.get("card_signature")? },
                    mac: mac(row, "joiner_mac")?,
                }),
                None => None,
            };
            Ok(LinkStatus {
                link: LinkId::from_bytes(bytes(row, "id")?),
                created: time(row, "created")?,
                expires: time(row, "expires")?,
                role: link_role(row)?,
                joiner,
            })
        });
        Ok(Links { links: links.collect::<Result<_>>()? })
    }

    /// Withdraws an open link, forgets a redeemed one.
    pub(crate) async fn delete_link(&self, once: Once, link: LinkId, now: Timestamp) -> Result<()> {
        self.write_once(once, now, link, move |conn, link| Box::pin(delete(conn, once.account, *link))).await
    }
}

async fn put_owner_link(
    conn: &mut Conn,
    link: LinkId,
    admit_sha256: Sha256Digest,
    now: Timestamp,
    expires: Timestamp,
) -> Result<bool> {
    conn.lock(Lock::Relay).await?;
    let owner = query("SELECT 1 FROM account WHERE role = 'owner'").fetch_optional(conn).await?;
    if owner.is_some() {
        return Ok(false);
    }
    query("DELETE FROM link WHERE inviter IS NULL").execute(conn).await?;
    query("INSERT INTO link (id, admit_sha256, created, expires) VALUES ($1, $2, $3, $4)")
        .bind(link.as_bytes().as_slice())
        .bind(admit_sha256.as_bytes().as_slice())
        .bind(int(now.unix()))
        .bind(int(expires.unix()))
        .execute(conn)
        .await?;
    Ok(true)
}

async fn insert(conn: &mut Conn, account: i64, link: &NewLink, card: &SignedCard, now: Timestamp) -> Result<()> {
    // Its links are counted below.
    conn.lock(Lock::Account(account)).await?;
    let row = query("SELECT fingerprint, mailbox, role, contractor FROM account WHERE seq = $1");
    let row = row.bind(account).fetch_one(conn).await?;
    let (fingerprint, mailbox) = (bytes(&row, "fingerprint")?, bytes(&row, "mailbox")?);
    // Cards are compared by their fingerprints.
    if *card.fingerprint().as_bytes() != fingerprint || *card.card().mailbox.as_bytes() != mailbox {
        return refuse(ProblemKind::BadRequest, "the link's card is not this account's");
    }
    if !role(&row)?.may_invite(link.role) {
        return refuse(
            ProblemKind::Forbidden,
            "members invite contractors, the owner also members; contractors nobody",
        );
    }
    let same = query("SELECT inviter, admit_sha256, expires, contractor FROM link WHERE id = $1 OR admit_sha256 = $2")
        .bind(link.link.as_bytes().as_slice())
        .bind(link.admit_sha256.as_bytes().as_slice())
        .fetch_optional(conn)
        .await?;
    if let Some(row) = same {
        let again = row.get::<Option<i64>>("inviter")? == Some(account)
            && bytes::<32>(&row, "admit_sha256")? == *link.admit_sha256.as_bytes()
            && time(&row, "expires")? == link.expires
            && link_role(&row)? == link.role;
        return if again { Ok(()) } else { refuse(ProblemKind::Conflict, "there is another link of this name") };
    }
    let row = query("SELECT COUNT(*) AS n FROM link WHERE inviter = $1").bind(account).fetch_one(conn).await?;
    if row.get::<i64>("n")? >= MAX_LINKS {
        return refuse(ProblemKind::Quota, "too many links; withdraw some");
    }
    query(
        "INSERT INTO link (id, inviter, admit_sha256, created, expires, contractor, card_statement, card_signature, card_mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(link.link.as_bytes().as_slice())
    .bind(account)
    .bind(link.admit_sha256.as_bytes().as_slice())
    .bind(int(now.unix()))
    .bind(int(link.expires.unix()))
    .bind(member_kind(link.role))
    .bind(link.inviter.card.statement.as_str())
    .bind(link.inviter.card.signature.as_str())
    .bind(mac_text(&link.inviter.mac)?)
    .execute(conn)
    .await?;
    Ok(())
}

async fn delete(conn: &mut Conn, account: i64, link: LinkId) -> Result<()> {
    let deleted = query("DELETE FROM link WHERE id = $1 AND inviter = $2")
        .bind(link.as_bytes().as_slice())
        .bind(account)
        .execute(conn)
        .await?;
    if deleted == 0 { refuse(ProblemKind::NotFound, "") } else { Ok(()) }
}
