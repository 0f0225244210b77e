//! Half an hour of all verbs at once: does the relay's memory stay where it is, and does anything fail?

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pouch_client::api::ApiError;
use pouch_client::clock::now;
use pouch_protocol::ProblemKind;
use pouch_statement::BundleId;
use tokio::task::JoinSet;

use crate::load::{Client, Object, runtime};
use crate::options::Options;
use crate::site::Site;
use crate::{Failure, remark, say};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// The lives of those bundles that nobody ends: they expire while the soak lasts.
const SHORT: u64 = 60;

/// How often each verb was done.
type Done = Mutex<BTreeMap<&'static str, u64>>;

/// Who does it, with what, and what was done.
struct Worker {
    me: Arc<Client>,
    to: Arc<Client>,
    small: Object,
    large: Object,
    done: Arc<Done>,
}

pub(crate) fn measure(options: &Options) -> Result<(), Failure> {
    let site =
        Site::start(&options.dir, options.clients.max(2), "backup_seconds = 0\nlifetime_seconds = 3600\n", "exec")?;
    let done = Arc::new(Done::default());
    let (runtime, begun) = (runtime()?, Instant::now());
    let end = begun + Duration::from_secs(60 * u64::from(options.minutes));
    let mut looks: Vec<(u64, u64)> = vec![];
    runtime.block_on(async {
        let mut workers = JoinSet::new();
        for (number, me) in site.clients.iter().enumerate() {
            let to = if number == 0 { site.clients.last() } else { site.clients.first() };
            let worker = Worker {
                me: Arc::clone(me),
                to: Arc::clone(to.ok_or("nobody")?),
                small: Object::new("small", 4096),
                large: Object::new("large", 2 << 20),
                done: Arc::clone(&done),
            };
            workers.spawn(async move {
                let mut turn = number as u64;
                while Instant::now() < end {
                    worker.turn(turn).await?;
                    turn += 1;
                }
                Ok::<_, ApiError>(())
            });
        }
        while Instant::now() < end {
            tokio::time::sleep(LOOK.min(end.saturating_duration_since(Instant::now()))).await;
            looks.push((begun.elapsed().as_secs(), site.resident()));
            if let Some((at, kib)) = looks.last().filter(|_| looks.len().is_multiple_of(30)) {
                remark(format_args!("after {at} s: {} MiB", kib.div_ceil(1024)));
            }
            while let Some(ended) = workers.try_join_next() {
                ended??;
            }
        }
        while let Some(ended) = workers.join_next().await {
            ended??;
        }
        Ok::<_, Failure>(())
    })?;
    report(options, &looks, &site, &done)
}

fn report(options: &Options, looks: &[(u64, u64)], site: &Site, done: &Done) -> Result<(), Failure> {
    say(format_args!("## a soak of {} minutes, {} accounts\n", options.minutes, site.clients.len()));
    say("| minutes | RSS, lowest | highest |");
    say("| --- | ---: | ---: |");
    for tenth in looks.chunks(looks.len().div_ceil(10).max(1)) {
        let (from, to) = (tenth.first().map_or(0, |l| l.0 / 60), tenth.last().map_or(0, |l| l.0.div_ceil(60)));
        let mib = |kib: Option<u64>| kib.unwrap_or(0).div_ceil(1024);
        let (low, high) = (mib(tenth.iter().map(|l| l.1).min()), mib(tenth.iter().map(|l| l.1).max()));
        say(format_args!("| {from}–{to} | {low} MiB | {high} MiB |"));
    }
    let done = done.lock().map_err(|_| "a worker panicked")?;
    let total: u64 = done.values().sum();
    let each: Vec<_> = done.iter().map(|(verb, count)| format!("{verb} {count}")).collect();
    say(format_args!(
        "\npeak {} MiB; {total} requests that did what they should: {}\n",
        site.peak().div_ceil(1024),
        each.join(", ")
    ));
    Ok(())
}

impl Worker {
    /// One request; what went wrong in a way that must not be ends the soak.
    async fn did<T>(&self, verb: &'static str, call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        let answer = call.await?;
        self.count(verb);
        Ok(answer)
    }

    fn count(&self, verb: &'static str) {
        if let Ok(mut done) = self.done.lock() {
            *done.entry(verb).or_default() += 1;
        }
    }

    /// One that must be refused with this word.
    async fn refused<T>(
        &self,
        verb: &'static str,
        kind: ProblemKind,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<(), ApiError> {
        match call.await {
            Err(e) if e.refused() == Some(kind) => {
                self.count(verb);
                Ok(())
            }
            Err(e) => Err(e),
            Ok(_) => Err(ApiError::Protocol { route: verb, reason: "not refused".to_owned() }),
        }
    }

    /// One of the things that people do.
    async fn turn(&self, turn: u64) -> Result<(), ApiError> {
        match turn % 10 {
            0 => self.left_alone().await,
            1 => self.forgotten().await,
            2 => self.revoked().await,
            3 => self.looked_at().await,
            4 => self.nothing_there().await,
            _ => self.delivered(turn % 10 == 5, if turn % 10 == 6 { &self.large } else { &self.small }).await,
        }
    }

    async fn put(&self, bundle: BundleId, parts: &[Object]) -> Result<(), ApiError> {
        for (number, part) in (0..).zip(parts) {
            self.did("put part", self.me.api.put_part(bundle, part.field(number), part.sealed.clone())).await?;
        }
        Ok(())
    }

    /// Sent, fetched in several ways, and receipted.
    async fn delivered(&self, burn: bool, part: &Object) -> Result<(), ApiError> {
        let parts = [part.clone(), self.small.clone()];
        let bundle = self.did("begin", self.me.begin(3600, burn)).await?;
        self.put(bundle, &parts).await?;
        self.did("commit", self.me.finish(bundle, &parts, &self.small, self.to.mailbox)).await?;
        self.did("delivery", self.to.api.delivery(bundle)).await?;
        self.did("release", self.to.api.release(bundle)).await?;
        let got: Bytes = self.did("get part", self.to.api.get_part(bundle, 0, part.sealed.len())).await?;
        if got != part.sealed {
            return Err(ApiError::Protocol { route: "part", reason: "came back different".to_owned() });
        }
        self.did("get index", self.to.api.get_index(bundle, self.small.sealed.len())).await?;
        self.did("receipt", self.to.receipt(bundle, &self.small)).await?;
        self.did("status", self.me.api.bundle(bundle)).await?;
        if burn {
            self.refused("get burnt", ProblemKind::Gone, self.to.api.get_part(bundle, 0, part.sealed.len())).await
        } else {
            self.did("revoke", self.me.api.delete_bundle(bundle)).await
        }
    }

    /// Committed and never fetched: it expires.
    async fn left_alone(&self) -> Result<(), ApiError> {
        let bundle = self.did("begin", self.me.begin(SHORT, false)).await?;
        self.put(bundle, std::slice::from_ref(&self.small)).await?;
        let parts = std::slice::from_ref(&self.small);
        self.did("commit", self.me.finish(bundle, parts, &self.small, self.to.mailbox)).await
    }

    /// Begun, and thought better of.
    async fn forgotten(&self) -> Result<(), ApiError> {
        let bundle = self.did("begin", self.me.begin(3600, false)).await?;
        self.put(bundle, std::slice::from_ref(&self.large)).await?;
        self.did("forget", self.me.api.delete_bundle(bundle)).await
    }

    async fn revoked(&self) -> Result<(), ApiError> {
        let parts = std::slice::from_ref(&self.small);
        let bundle = self.did("deliver", self.me.deliver(parts, &self.small, self.to.mailbox)).await?;
        self.did("revoke", self.me.api.delete_bundle(bundle)).await?;
        self.refused("release revoked", ProblemKind::Gone, self.to.api.release(bundle)).await
    }

    async fn looked_at(&self) -> Result<(), ApiError> {
        self.did("info", self.me.api.info()).await?;
        self.did("account", self.me.api.account()).await?;
        self.did("links", self.me.api.links()).await?;
        self.did("inbox", self.me.api.inbox(None)).await?;
        self.did("wait", self.me.api.inbox(Some(1))).await?;
        if now().unix().is_multiple_of(30) {
            self.did("outbox", self.me.api.outbox()).await?;
            self.did("access", self.me.api.access()).await?;
        }
        Ok(())
    }

    async fn nothing_there(&self) -> Result<(), ApiError> {
        let nothing = BundleId::random()?;
        self.refused("status of nothing", ProblemKind::NotFound, self.me.api.bundle(nothing)).await?;
        self.refused("release of nothing", ProblemKind::NotFound, self.me.api.release(nothing)).await
    }
}
