//! Many small bundles by many clients: how many a second, how long each takes, what stays in the ledger, and what group
//! commit is worth where each fsync takes its time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::load::{Object, each, quantile, runtime};
use crate::options::Options;
use crate::site::Site;
use crate::tools::Tools;
use crate::{Failure, remark, say};

/// Bytes of the one part; index and envelope have as many.
const SIZE: usize = 4096;
/// How long an fsync takes where it is slowed.
const DELAY: Duration = Duration::from_millis(5);

/// What one run gave.
struct Load {
    name: String,
    bundles: usize,
    clients: usize,
    wall: Duration,
    /// Of each bundle, from its beginning to its commit; sorted.
    times: Vec<Duration>,
    /// What the ledger grew by, in bytes.
    grown: u64,
    /// Processor time of the relay, in seconds.
    processor: f64,
    peak: u64,
}

impl Load {
    fn rate(&self) -> f64 {
        self.bundles as f64 / self.wall.as_secs_f64()
    }
}

pub(crate) fn measure(options: &Options, tools: &Tools) -> Result<(), Failure> {
    let (bundles, clients) = (options.bundles, options.clients);
    let mut loads = vec![];
    {
        let site = Site::start(&options.dir, clients, "", "exec")?;
        loads.push(load("1 node, SQLite, folder", &site, bundles, clients)?);
        loads.push(load("the same, one at a time", &site, bundles.div_ceil(10), 1)?);
    }
    if tools.strace {
        let site = Site::start(&options.dir, clients, "", &slowed())?;
        let slow = format!("1 node, {} ms more for each fsync", DELAY.as_millis());
        let one = load(&format!("{slow}, one at a time"), &site, bundles.div_ceil(100), 1)?;
        let many = load(&slow, &site, bundles, clients)?;
        remark(format_args!("group commit: {:.1} times the rate of one at a time", many.rate() / one.rate()));
        loads.extend([many, one]);
    }
    match Site::nodes(&options.dir, 3, clients)? {
        Some(site) => loads.push(load("3 nodes, PostgreSQL, Ceph", &site, bundles, clients)?),
        None => say("3 nodes are left out: POUCH_POSTGRES and POUCH_CEPH name what they need\n"),
    }
    print(&loads);
    Ok(())
}

/// The shell that has strace delay the relay's fsyncs; it follows the relay from a process of its own.
fn slowed() -> String {
    let delay = DELAY.as_micros();
    format!(
        "exec strace -D -f -q --seccomp-bpf -o /dev/null -e trace=fsync,fdatasync \
         -e inject=fsync,fdatasync:delay_exit={delay}"
    )
}

fn load(name: &str, site: &Site, bundles: usize, clients: usize) -> Result<Load, Failure> {
    let to = site.owner()?.mailbox;
    let (part, index) = (Object::new("part", SIZE), Object::new("index", SIZE));
    let times = Arc::new(Mutex::new(Vec::with_capacity(bundles)));
    let (ledger, processor) = (site.ledger(), site.processor());
    remark(format_args!("{name}: {bundles} bundles by {clients}"));
    let begun = Instant::now();
    runtime()?.block_on(each(clients, clients, |number| {
        let client = site.clients.get(number % site.clients.len()).cloned();
        let (part, index, times) = (part.clone(), index.clone(), Arc::clone(&times));
        let mine = bundles / clients + usize::from(number < bundles % clients);
        async move {
            let client = client.ok_or("no client")?;
            let parts = [part];
            for _ in 0..mine {
                let begun = Instant::now();
                client.deliver(&parts, &index, to).await?;
                times.lock().map_err(|_| "a client panicked")?.push(begun.elapsed());
            }
            Ok::<_, Failure>(())
        }
    }))?;
    let wall = begun.elapsed();
    let mut times = std::mem::take(&mut *times.lock().map_err(|_| "a client panicked")?);
    times.sort();
    Ok(Load {
        name: name.to_owned(),
        bundles,
        clients,
        wall,
        times,
        grown: site.ledger().saturating_sub(ledger),
        processor: site.processor() - processor,
        peak: site.peak(),
    })
}

fn print(loads: &[Load]) {
    say(format_args!("## bundles of one part of {SIZE} bytes (5 requests each)\n"));
    say(
        "| | bundles | clients | bundles/s | p50 | p99 | ledger for each | relay's CPU for each | peak RSS of a node |",
    );
    say("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for load in loads {
        let ms = |share| quantile(&load.times, share).as_secs_f64() * 1e3;
        say(format_args!(
            "| {} | {} | {} | {:.0} | {:.1} ms | {:.1} ms | {} B | {:.2} ms | {} MiB |",
            load.name,
            load.bundles,
            load.clients,
            load.rate(),
            ms(0.5),
            ms(0.99),
            load.grown / load.bundles.max(1) as u64,
            load.processor * 1e3 / load.bundles.max(1) as f64,
            load.peak.div_ceil(1024),
        ));
    }
    say("");
}
