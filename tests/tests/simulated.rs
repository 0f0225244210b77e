//! Exchanges over a network that loses, repeats, brings up again, cuts and changes what is said, by chance from a seed. The
//! users say the same again until it is done. Nothing is lost, nothing comes twice, nothing wrong is accepted.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pouch_client::api::RelayApi;
use pouch_client::contacts::Verified;
use pouch_client::identity::Identity;
use pouch_client::outbox::{self, Progress};
use pouch_client::receive::{self, Placed, Source, Target};
use pouch_client::send::{Request, send};
use pouch_client::transport::{Answer, HttpAnswer, HttpRequest, Https, Network, Transport, TransportError};
use pouch_client::{Class, Error, Party, Unwatched, inbox, transfer};
use pouch_core::bundle::ScanOptions;
use pouch_statement::{BundleId, Outcome, RelayOrigin};
use pouch_tests::{Pair, Random, noise, request, seeds, snapshot};

/// Exchanges in an ordinary run; `POUCH_EXCHANGES` sets another number.
const EXCHANGES: u64 = 500;
/// Pairs of people who exchange at the same time.
const PAIRS: u64 = 12;
/// How often somebody says the same again before the test gives up.
const TRIES: u32 = 200;
/// Sizes that files have: nothing, little, across chunks, across a block of what is packed small.
const SIZES: [usize; 6] = [0, 1, 60, 4096, 70_000, 300_000];

/// A network with faults.
struct Faulty {
    inner: Https,
    relay: RelayOrigin,
    random: Mutex<Random>,
    /// What was said before, as it went over the line.
    old: Mutex<Vec<HttpRequest>>,
    /// One in so many requests meets a fault; none at 0.
    one_in: AtomicU64,
    faults: AtomicU64,
}

/// What happens to a request.
#[derive(Clone, Copy)]
enum Fault {
    Lost,
    AnswerLost,
    Twice,
    OldAgain,
    AnswerCut,
    AnswerChanged,
}

const FAULTS: [Fault; 6] =
    [Fault::Lost, Fault::AnswerLost, Fault::Twice, Fault::OldAgain, Fault::AnswerCut, Fault::AnswerChanged];

impl Faulty {
    fn new(party: &Party, seed: u64) -> Arc<Self> {
        let inner = Https::new(party.relay().clone(), party.relay_pins(), &Network::default()).unwrap();
        Arc::new(Self {
            inner,
            relay: party.relay().clone(),
            random: Mutex::new(Random(seed)),
            old: Mutex::default(),
            one_in: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        })
    }

    fn below(&self, limit: u64) -> u64 {
        self.random.lock().unwrap().below(limit)
    }

    fn chance(&self) -> Option<Fault> {
        let one_in = self.one_in.load(Ordering::Relaxed);
        if one_in == 0 || self.below(one_in) > 0 {
            return None;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        Some(FAULTS[self.below(FAULTS.len() as u64) as usize])
    }

    fn gone<T>(&self) -> Result<T, TransportError> {
        Err(TransportError::Unreachable { relay: self.relay.clone(), reason: "a fault".into() })
    }

    fn changed(&self, mut answer: HttpAnswer, cut: bool) -> HttpAnswer {
        let mut body = answer.body.to_vec();
        if !body.is_empty() {
            let at = self.below(body.len() as u64) as usize;
            if cut { body.truncate(at) } else { body[at] ^= 1 << self.below(8) }
        }
        answer.body = Bytes::from(body);
        answer
    }
}

impl Transport for Faulty {
    fn call(&self, request: HttpRequest) -> Answer<'_> {
        Box::pin(async move {
            self.old.lock().unwrap().push(request.clone());
            match self.chance() {
                None => self.inner.call(request).await,
                Some(Fault::Lost) => self.gone(),
                Some(Fault::AnswerLost) => {
                    self.inner.call(request).await?;
                    self.gone()
                }
                Some(Fault::Twice) => {
                    self.inner.call(request.clone()).await?;
                    self.inner.call(request).await
                }
                Some(Fault::OldAgain) => {
                    let old = {
                        let old = self.old.lock().unwrap();
                        old[self.below(old.len() as u64) as usize].clone()
                    };
                    self.inner.call(old).await?;
                    self.inner.call(request).await
                }
                Some(Fault::AnswerCut) => Ok(self.changed(self.inner.call(request).await?, true)),
                Some(Fault::AnswerChanged) => Ok(self.changed(self.inner.call(request).await?, false)),
            }
        })
    }
}

/// Somebody behind such a network.
struct Person {
    party: Party,
    identity: Identity,
    network: Arc<Faulty>,
    /// Where it remembers what it received, once that is journaled.
    received: PathBuf,
}

impl Person {
    fn new(of: &pouch_tests::Party, seed: u64) -> Self {
        let (party, identity) = of.client();
        let network = Faulty::new(&party, seed);
        Self { party: party.with_transport(network.clone()), identity, network, received: of.home().join("received") }
    }

    fn api(&self) -> RelayApi {
        self.party.api().unwrap()
    }

    /// Does it again and again until it is done. Now and then it is dropped in the middle, as if the process had died; then
    /// the next time is told so.
    async fn until_done<T>(&self, what: &str, mut step: impl AsyncFnMut(bool) -> Result<T, Error>) -> T {
        let (mut last, mut died) = (String::new(), false);
        for _ in 0..TRIES {
            let dies = if self.network.below(8) == 0 { self.network.below(60) } else { 60_000 };
            match tokio::time::timeout(Duration::from_millis(dies), step(died)).await {
                Ok(Ok(done)) => return done,
                Ok(Err(error)) => (last, died) = (error.to_string(), false),
                Err(_) => died = true,
            }
        }
        panic!("{what} does not come to an end: {last}");
    }
}

/// Files of sizes by chance, now and then more of them than one part holds.
fn plant(folder: &Path, random: &mut Random) {
    std::fs::create_dir_all(folder).unwrap();
    for number in 0..=random.below(4) {
        let size = SIZES[random.below(SIZES.len() as u64) as usize];
        std::fs::write(folder.join(format!("file {number}")), noise(&format!("{number} {}", random.0), size)).unwrap();
    }
    if random.below(60) == 0 {
        std::fs::write(folder.join("parts"), noise("parts", 9 << 20)).unwrap();
    }
}

/// Tells the seed if the exchange fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulated: seed {} failed", self.0);
        }
    }
}

async fn exchange(ada: &Person, bo: &Person, root: &Path, seed: u64) {
    let mut random = Random(seed);
    let (source, target) = (root.join(format!("source {seed}")), root.join(format!("target {seed}")));
    plant(&source, &mut random);
    let before: Vec<_> = outbox::list(&ada.party).unwrap().iter().map(|sent| sent.bundle).collect();
    let bundle = ada
        .until_done("a send", async |died| {
            // Whoever died when it was delivered and noted, and had only to say so, looks into the outbox.
            let sent = if died { outbox::list(&ada.party)? } else { Vec::new() };
            let sent = sent.into_iter().find(|s| s.progress == Progress::Sent && !before.contains(&s.bundle));
            if let Some(sent) = sent {
                return Ok(sent.bundle);
            }
            let again = transfer::Source::new(std::slice::from_ref(&source), ScanOptions::default()).unwrap();
            let request = Request { source: Some(again), ..request(&source) };
            Ok(send(&ada.party, &ada.api(), &ada.identity, request, Arc::new(Unwatched)).await?.sent.bundle)
        })
        .await;
    bo.until_done("a receive", async |_| {
        let api = bo.api();
        let mut from = Source::Relay(&api, bundle);
        if target.exists() {
            // It had died when all was done but its last words.
            return Ok(());
        }
        let ready = receive::open(&bo.party, &bo.identity, &mut from, None).await?;
        assert_ne!(ready.from.contact.verified, Verified::No);
        let to = Target::Folder(target.clone());
        let taken = receive::take(&bo.party, &bo.identity, from, ready, &[], to, Arc::new(Unwatched)).await?;
        assert!(matches!(taken.placed, Placed::Folder(_)));
        Ok(())
    })
    .await;
    assert!(snapshot(&source) == snapshot(&target), "seed {seed}: what arrived is not what was sent");
    // The receipt: kept where the relay could not be told, and delivered by a later command.
    ada.until_done("a receipt", async |_| {
        bo_says_the_rest(bo, bundle, &target).await?;
        let mut sent = outbox::find(&ada.party, &bundle.to_string())?;
        outbox::refresh(&ada.party, &ada.api(), &mut sent, || Ok(&ada.identity)).await?;
        // A changed answer made one receive fail: the receipt of the one that did not comes after that one's.
        let verdict = sent.verdict(&sent.recipients[0]).filter(|verdict| verdict.outcome == Outcome::Verified);
        verdict.map(drop).ok_or(Error::NoReceipt(0))
    })
    .await;
    std::fs::remove_dir_all(source).unwrap();
    std::fs::remove_dir_all(target).unwrap();
}

/// What a person would do who sees the folder and no receipt: the same again, elsewhere.
async fn bo_says_the_rest(bo: &Person, bundle: BundleId, target: &Path) -> Result<(), Error> {
    let api = bo.api();
    receive::send_pending_receipts(&bo.party, &api).await?;
    if bo.received.join(format!("{bundle}.json")).exists() {
        return Ok(());
    }
    let mut from = Source::Relay(&api, bundle);
    let ready = receive::open(&bo.party, &bo.identity, &mut from, None).await?;
    let again = target.with_extension("again");
    let _ = std::fs::remove_dir_all(&again);
    let to = Target::Folder(again.clone());
    receive::take(&bo.party, &bo.identity, from, ready, &[], to, Arc::new(Unwatched)).await?;
    std::fs::remove_dir_all(again).unwrap();
    Ok(())
}

#[test]
fn exchanges_over_a_network_with_faults() {
    let count = std::env::var("POUCH_EXCHANGES").ok().map_or(EXCHANGES, |n| n.parse().unwrap());
    let all: Vec<u64> = seeds("simulated", count).collect();
    let faults = AtomicU64::new(0);
    let pair = Pair::new();
    std::thread::scope(|scope| {
        for (number, seeds) in all.chunks(count.div_ceil(PAIRS) as usize).enumerate() {
            let (ada, bo) = (pair.stranger(&format!("ada {number}")), pair.stranger(&format!("bo {number}")));
            let faults = &faults;
            ada.join(&pair.ada.invite_as(&format!("a{number}"), "member"));
            bo.join(&ada.invite("bo"));
            ada.run(&["contact", "list"]).ok();
            let root = pair.root().join(format!("files {number}"));
            scope.spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
                runtime.block_on(exchanges(&ada, &bo, &root, seeds, faults));
            });
        }
    });
    let told = format!("simulated: {count} exchanges, {} faults\n", faults.load(Ordering::Relaxed));
    drop(std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()));
    assert!(count < 100 || faults.load(Ordering::Relaxed) > count);
}

async fn exchanges(ada: &pouch_tests::Party, bo: &pouch_tests::Party, root: &Path, seeds: &[u64], faults: &AtomicU64) {
    let mut delivered = 0;
    for seed in seeds {
        let (from, to) = (Person::new(ada, *seed), Person::new(bo, !*seed));
        for person in [&from, &to] {
            person.network.one_in.store(3 + seed % 8, Ordering::Relaxed);
        }
        let told = Told(*seed);
        exchange(&from, &to, root, *seed).await;
        drop(told);
        delivered += 1;
        for person in [&from, &to] {
            faults.fetch_add(person.network.faults.load(Ordering::Relaxed), Ordering::Relaxed);
            person.network.one_in.store(0, Ordering::Relaxed);
        }
        // Nothing else has come: no send was delivered twice.
        let left = inbox::all(&to.party, &to.api(), None).await;
        assert!(left.is_err_and(|error| error.class() == Class::NotFound), "seed {seed}: one came twice");
    }
    let received = std::fs::read_dir(bo.home().join("received")).unwrap().count();
    assert_eq!(received, delivered);
    for party in [ada, bo] {
        party.run(&["log", "verify"]).ok().says("intact");
    }
}
