//! The contract of the ledger, against both databases: each case runs on SQLite and, with two nodes, on PostgreSQL.
//!
//! On SQLite the two nodes are one ledger, as one process has the folder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod authority;
mod bounds;
mod cases;
mod faults;
mod pipelines;
mod races;
mod rotations;
mod stores;
mod upkeep;
mod versions;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pouch_protocol::{AccountRole, CardMac, Commit, LinkRole, LinkSecret, MacedCard, NewBundle, NewLink, parts_digest};
use pouch_services::Postgres;
use pouch_statement::{
    Blake3Digest, BundleId, Card, Device, LinkId, MailboxId, Sha256Digest, Signed, SignedCard, SigningKey, Timestamp,
};

use super::check::WrongSum;
use super::*;
use crate::blob::BlobName;

/// The settings of a cluster for a ledger.
const SETTINGS: [&str; 2] = ["max_connections=60", "deadlock_timeout=200ms"];

/// A ledger as two nodes have it open.
struct World {
    nodes: [Arc<Ledger>; 2],
    config: Config,
    now: Timestamp,
    _folder: tempfile::TempDir,
}

/// Somebody with an account.
#[derive(Clone, Copy)]
struct Person {
    account: i64,
    mailbox: MailboxId,
}

fn limits() -> Limits {
    Limits { account_bytes: 1 << 20, total_bytes: 1 << 21, account_bundles: 50, account_ended: 50, lifetime: 1 << 20 }
}

fn once(person: Person) -> Once {
    Once { account: person.account, nonce: pouch_statement::random().unwrap(), device: None }
}

/// Sealed bytes of a request.
fn sealed_as(bytes: &'static [u8]) -> Sealed {
    Sealed { bytes: bytes::Bytes::from_static(bytes), sha256: Sha256Digest::of(bytes) }
}

/// The key of the identity with which whoever has this mailbox joined.
fn identity_of(mailbox: MailboxId) -> SigningKey {
    SigningKey::from_seed(Sha256Digest::of(mailbox.as_bytes()).as_bytes())
}

#[track_caller]
fn refused<T>(outcome: Result<T>, with: ProblemKind) {
    match outcome {
        Err(LedgerError::Refused(kind, _)) if kind == with => {}
        Err(other) => panic!("{other:?} instead of {with:?}"),
        Ok(_) => panic!("granted instead of {with:?}"),
    }
}

impl World {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let node = Arc::new(Ledger::create(&config).await.unwrap());
        Self::new([Arc::clone(&node), node], config, folder).await
    }

    async fn postgres(postgres: &Postgres, database: &str) -> Self {
        postgres.create(database);
        let folder = tempfile::tempdir().unwrap();
        let ledger = Some(postgres.url(database));
        let config = Config { data: folder.path().to_owned(), ledger, ..Config::default() };
        let first = Arc::new(Ledger::create(&config).await.unwrap());
        let second = Arc::new(Ledger::open(&config).await.unwrap());
        Self::new([first, second], config, folder).await
    }

    async fn new(nodes: [Arc<Ledger>; 2], config: Config, folder: tempfile::TempDir) -> Self {
        Self { nodes, config, now: crate::clock::at(1_800_000_000), _folder: folder }
    }

    fn a(&self) -> &Ledger {
        &self.nodes[0]
    }

    fn b(&self) -> &Ledger {
        &self.nodes[1]
    }

    async fn close(&self) {
        self.a().close().await;
        self.b().close().await;
    }

    /// A joiner with new keys.
    fn joiner(&self, name: &str, admit_sha256: Sha256Digest, mac: Option<CardMac>) -> Joiner {
        let (mailbox, device) = (MailboxId::random().unwrap(), SigningKey::generate().unwrap());
        let identity = identity_of(mailbox);
        let card = Card {
            name: name.parse().unwrap(),
            age_recipient: format!("age1qqqqqqqqqqqqqqqq{}", name.to_lowercase()).parse().unwrap(),
            signing_key: identity.public(),
            relay: self.config.origin.clone(),
            relay_pins: vec![],
            mailbox,
            serial: 1,
            created: self.now,
            expires: self.now.plus(1 << 20),
        };
        let card = SignedCard::sign(card, &identity).unwrap();
        let device = self.says(&card, &identity, device.public());
        let request_sha256 = Sha256Digest::of(card.fingerprint().as_bytes());
        Joiner { admit_sha256, request_sha256, card, mac, device }
    }

    /// The word of a card's identity for a device key.
    fn says(&self, card: &SignedCard, identity: &SigningKey, device_key: PublicKey) -> Signed<Device> {
        Signed::sign(Device { identity: card.fingerprint(), device_key, created: self.now }, identity).unwrap()
    }

    /// A new device key, on the word of the identity with which somebody joined.
    fn device(&self, of: &Joiner) -> Signed<Device> {
        self.device_as(of, SigningKey::generate().unwrap().public())
    }

    /// That device key, likewise.
    fn device_as(&self, of: &Joiner, key: PublicKey) -> Signed<Device> {
        self.says(&of.card, &identity_of(of.card.card().mailbox), key)
    }

    async fn person(&self, joiner: &Joiner) -> Person {
        let key = joiner.device.body().device_key;
        let device = self.b().device(&key).await.unwrap().unwrap();
        Person { account: device.account, mailbox: device.mailbox }
    }

    async fn owner(&self) -> (Person, Joiner) {
        let admit = Sha256Digest::of(b"owner");
        let link = LinkId::random().unwrap();
        assert!(self.a().put_owner_link(link, &admit, self.now, self.now.plus(60)).await.unwrap());
        let joiner = self.joiner("Ada", admit, None);
        assert_eq!(self.a().join(joiner.clone(), self.now).await.unwrap().role, AccountRole::Owner);
        (self.person(&joiner).await, joiner)
    }

    fn link(&self, inviter: &Joiner) -> (NewLink, LinkSecret) {
        let secret = LinkSecret::random().unwrap();
        let card = inviter.card.detached();
        let mac = CardMac::of(&secret.card_key(), LinkRole::Inviter, &card);
        let link = NewLink {
            link: LinkId::random().unwrap(),
            admit_sha256: secret.admit_sha256(),
            expires: self.now.plus(3600),
            role: AccountRole::Member,
            inviter: MacedCard { card, mac },
        };
        (link, secret)
    }

    async fn member(&self, owner: Person, inviter: &Joiner, name: &str) -> Person {
        self.joined(owner, inviter, name, AccountRole::Member).await.0
    }

    async fn joined(&self, owner: Person, inviter: &Joiner, name: &str, role: AccountRole) -> (Person, Joiner) {
        let (link, secret) = self.link(inviter);
        let link = NewLink { role, ..link };
        self.a().new_link(once(owner), link, inviter.card.clone(), self.now).await.unwrap();
        let joiner = self.invited(name, &secret);
        assert_eq!(self.b().join(joiner.clone(), self.now).await.unwrap().role, role);
        (self.person(&joiner).await, joiner)
    }

    fn invited(&self, name: &str, secret: &LinkSecret) -> Joiner {
        let joiner = self.joiner(name, secret.admit_sha256(), None);
        let mac = CardMac::of(&secret.card_key(), LinkRole::Joiner, &joiner.card.detached());
        Joiner { mac: Some(mac), ..joiner }
    }

    async fn begin(&self, sender: Person, burn: bool) -> BundleId {
        let bundle = BundleId::random().unwrap();
        let new = NewBundle { bundle, expires: self.now.plus(7 * 86_400), burn, recipients: vec![] };
        self.a().begin_bundle(once(sender), new, limits(), self.now).await.unwrap();
        bundle
    }

    /// An object that was begun on one node and is finished on the other.
    async fn put(&self, sender: Person, slot: Slot) -> BlobName {
        let name = BlobName::random().unwrap();
        self.a().begin_object(sender.account, &slot, name, limits(), self.now).await.unwrap();
        self.b().finish_object(sender.account, &slot, name, self.now).await.unwrap();
        name
    }

    async fn fill(&self, sender: Person, bundle: BundleId, to: &[Person]) -> Commit {
        let parts: Vec<Slot> = (0..3).map(|number| slot(bundle, Some(number), 1000)).collect();
        for part in &parts {
            self.put(sender, *part).await;
        }
        let index = slot(bundle, None, 500);
        self.put(sender, index).await;
        for person in to {
            let sealed = sealed_as(b"sealed envelope");
            self.b().put_envelope(once(sender), bundle, person.mailbox, sealed, limits(), self.now).await.unwrap();
        }
        let digests: Vec<_> = parts.iter().map(|p| (p.length, Blake3Digest::from_bytes(p.digest))).collect();
        let mut recipients: Vec<_> = to.iter().map(|person| person.mailbox).collect();
        recipients.sort();
        Commit {
            parts: 3,
            parts_sha256: parts_digest(digests.iter().map(|(length, digest)| (*length, digest))),
            index_sha256: Sha256Digest::from_bytes(index.digest),
            recipients,
        }
    }

    async fn deliver(&self, sender: Person, to: &[Person], burn: bool) -> BundleId {
        let bundle = self.begin(sender, burn).await;
        let commit = self.fill(sender, bundle, to).await;
        let sha256 = Sha256Digest::of(b"commit");
        self.a().commit(once(sender), bundle, commit, sha256, self.now).await.unwrap();
        bundle
    }

    /// As a sweeper does once their files are deleted.
    async fn forget_doomed(&self, now: Timestamp) {
        let doomed = self.b().claim_doomed(0, now).await.unwrap();
        self.a().forget_blobs(doomed).await.unwrap();
    }

    async fn used(&self, person: Person) -> u64 {
        self.b().account(person.account, 0).await.unwrap().used
    }

    /// What the counters say is what the rows say: bytes and bundles of each account, bytes of the relay.
    async fn check_sums(&self) {
        assert_eq!(self.wrong_sums().await, []);
    }

    /// All counters that are wrong, page by page.
    async fn wrong_sums(&self) -> Vec<WrongSum> {
        let (mut all, mut after) = (Vec::new(), Some(Summed::NOTHING));
        while let Some(summed) = after {
            let (wrong, next) = self.b().wrong_sums(summed).await.unwrap();
            all.extend(wrong);
            after = next;
        }
        all
    }

    /// As `relay check --repair` does it.
    async fn repair_sums(&self) {
        let mut after = Some(Summed::NOTHING);
        while let Some(summed) = after {
            let (wrong, next) = self.b().wrong_sums(summed).await.unwrap();
            for sum in &wrong {
                self.a().repair_sum(sum).await.unwrap();
            }
            after = next;
        }
    }

    /// How many rows a statement counts.
    async fn count(&self, sql: &'static str) -> i64 {
        let mut conn = self.a().look().await.unwrap();
        query(sql).fetch_one(&mut conn).await.unwrap().get("n").unwrap()
    }
}

fn slot(bundle: BundleId, part: Option<u32>, length: u64) -> Slot {
    Slot { bundle, part, length, digest: pouch_statement::random().unwrap() }
}

type Case = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Every case with its name.
macro_rules! suite {
    ($($module:ident::$case:ident),* $(,)?) => {
        &[$((stringify!($case), |world| Box::pin($module::$case(world)))),*]
    };
}

const SUITE: &[(&str, Case)] = suite![
    cases::a_bundle_from_beginning_to_end,
    cases::a_nonce_is_spent_with_the_effect_and_with_the_refusal,
    cases::quota_is_exact_at_its_borders,
    cases::a_part_put_again_replaces_and_dooms,
    cases::whoever_is_not_in_it_finds_nothing,
    cases::listings_are_in_order,
    cases::listings_go_on_where_a_page_ended,
    cases::links_are_used_once_and_owners_are_one,
    cases::an_account_is_suspended_and_restored,
    authority::a_contractor_sends_to_its_inviter_and_its_senders,
    authority::roles_are_changed_and_count_at_the_commit,
    authority::device_keys_are_enrolled_and_revoked_for_good,
    authority::a_delivered_bundle_is_addressed_again,
    authority::an_envelope_that_was_replaced_does_not_come_back,
    authority::a_bundle_gets_another_end,
    cases::a_bundle_is_taken_down,
    cases::access_is_recorded_and_added_up,
    upkeep::what_is_over_is_ended_and_pruned,
    upkeep::an_upload_that_is_heard_of_outlives_the_sweeper,
    upkeep::blobs_outlive_their_rows_for_as_long_as_backups_are_kept,
    upkeep::wrong_sums_are_found_and_repaired,
    upkeep::a_lost_blob_is_mended,
    upkeep::attack_44_small_objects_cost_a_block,
    upkeep::blobs_of_no_object_are_found_and_doomed,
    bounds::records_are_pruned_in_steps,
    bounds::bundles_are_ended_in_steps_of_objects,
    bounds::sums_are_compared_in_pages,
    stores::a_folder_is_one_ledgers,
    stores::a_bucket_is_one_ledgers,
    stores::nodes_with_folders_of_their_own_are_not_one_relay,
    races::quota_is_not_overdrawn,
    races::the_whole_relay_is_not_overdrawn,
    races::a_nonce_is_spent_once,
    races::a_link_is_used_once,
    races::an_object_is_finished_once,
    races::commit_meets_revoke,
    races::commit_meets_parts,
    races::receipt_meets_revoke,
    races::sweepers_meet,
    races::uploads_meet_sweepers,
    races::one_bundle_begun_twice,
    races::links_are_not_made_beyond_their_number,
    races::device_keys_revoke_each_other,
    races::device_keys_are_not_enrolled_beyond_their_number,
    races::commit_meets_role,
    races::enrolment_meets_rotation,
    rotations::the_identity_that_went_enrols_nothing,
    rotations::pipelines_of_the_identity_that_went_hold_no_room,
    pipelines::a_pipeline_sends_to_those_who_were_named,
    pipelines::a_pipeline_is_over_with_its_time_its_maker_and_its_revocation,
    pipelines::pipelines_of_one_account_are_few,
    pipelines::a_journal_comes_in_place_of_the_one_that_it_follows,
    pipelines::journals_do_not_fork,
];

async fn run(world: World, case: Case) {
    case(&world).await;
    world.check_sums().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conformance_sqlite() {
    for (name, case) in SUITE {
        eprintln!("{name}");
        run(World::sqlite().await, *case).await;
    }
}

#[test]
fn conformance_postgres() {
    let Some(postgres) = Postgres::start(&SETTINGS) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for (number, (name, case)) in SUITE.iter().enumerate() {
        eprintln!("{name}");
        runtime.block_on(async { run(World::postgres(&postgres, &format!("case_{number}")).await, *case).await });
    }
}
