//! A relay, or several nodes of one, with accounts on it, in a folder that goes with it.

use std::path::Path;
use std::sync::Arc;

use pouch_statement::BundleId;
use pouch_tests::{Ceph, Cluster, Party, Postgres, Relay};
use tempfile::TempDir;

use crate::Failure;
use crate::load::Client;

/// No account and no address is kept from its speed.
const UNLIMITED: &str = "account_requests_per_second = 1000000\naccount_requests_burst = 1000000\n\
                         address_requests_per_second = 1000000\naddress_requests_burst = 1000000\n";

/// The processes that serve.
enum Served {
    One(Box<Relay>),
    Many { cluster: Box<Cluster>, postgres: Box<Postgres> },
}

/// What is measured, and who asks it.
pub(crate) struct Site {
    served: Served,
    /// The first is the owner, who invited all others.
    pub(crate) clients: Vec<Arc<Client>>,
    // Last, so that the processes are stopped before their folder goes.
    folder: TempDir,
}

impl Site {
    /// One relay on a folder in `dir`, with `lines` in its configuration, started behind a piece of shell.
    pub(crate) fn start(dir: &Path, accounts: usize, lines: &str, before: &str) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("pouch-benches-").tempdir_in(dir)?;
        let mut relay = Relay::start_configured_under(folder.path(), &format!("{UNLIMITED}{lines}"), before);
        as_operated(&mut relay);
        let owner = Party::new(folder.path(), "ada");
        owner.join(relay.owner_link());
        let clients = populate(&folder, &owner, accounts)?;
        Ok(Self { served: Served::One(Box::new(relay)), clients, folder })
    }

    /// As many nodes over one PostgreSQL and one bucket of Ceph, behind a balancer; `None` where these are not there.
    pub(crate) fn nodes(dir: &Path, nodes: usize, accounts: usize) -> Result<Option<Self>, Failure> {
        let (Some(ceph), Some(postgres)) = (Ceph::shared(), Postgres::start(&[])) else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("pouch-benches-").tempdir_in(dir)?;
        postgres.create("relay");
        let blobs = ceph.config(&BundleId::random()?.to_string(), &folder.path().join("s3.key"));
        let mut cluster = Cluster::start(nodes, &postgres.url("relay"), &format!("{UNLIMITED}{blobs}"));
        cluster.nodes.iter_mut().for_each(as_operated);
        let clients = populate(&folder, &cluster.ada, accounts)?;
        let served = Served::Many { cluster: Box::new(cluster), postgres: Box::new(postgres) };
        Ok(Some(Self { served, clients, folder }))
    }

    /// Whom all deliver to.
    pub(crate) fn owner(&self) -> Result<&Arc<Client>, Failure> {
        self.clients.first().ok_or_else(|| "no accounts".into())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the first of them listens.
    pub(crate) fn port(&self) -> u16 {
        self.relays().first().map_or(0, Relay::port)
    }

    fn relays(&self) -> &[Relay] {
        match &self.served {
            Served::One(relay) => std::slice::from_ref(relay.as_ref()),
            Served::Many { cluster, .. } => &cluster.nodes,
        }
    }

    /// The highest peak of resident memory among the processes that serve, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        self.relays().iter().map(|relay| relay.process().peak()).max().unwrap_or(0)
    }

    /// What they hold now, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        self.relays().iter().map(|relay| resident(relay.process().id())).sum()
    }

    /// The processor time that they have used, in seconds.
    pub(crate) fn processor(&self) -> f64 {
        self.relays().iter().map(|relay| processor(relay.process().id())).sum()
    }

    /// Bytes of the ledger: its file with the log beside it, or the database.
    pub(crate) fn ledger(&self) -> u64 {
        match &self.served {
            Served::One(relay) => {
                let length = |name| std::fs::metadata(relay.data().join(name)).map_or(0, |data| data.len());
                length("ledger.sqlite") + length("ledger.sqlite-wal")
            }
            Served::Many { postgres, .. } => {
                postgres.sql("relay", "SELECT pg_database_size('relay');").trim().parse().unwrap_or(0)
            }
        }
    }
}

/// Starts a relay again as it runs at an operator's, who reads no remarks for its makers.
pub(crate) fn as_operated(relay: &mut Relay) {
    relay.set("POUCH_LOG", "info");
    relay.stop().ok();
    relay.serve();
}

/// The owner's client, and those of whom the owner invites.
fn populate(folder: &TempDir, owner: &Party, accounts: usize) -> Result<Vec<Arc<Client>>, Failure> {
    let mut clients = vec![Arc::new(Client::of(owner)?)];
    for number in 1..accounts {
        let name = format!("guest{number}");
        let party = Party::new(folder.path(), &name);
        party.join(&owner.invite_as(&name, "member"));
        clients.push(Arc::new(Client::of(&party)?));
    }
    Ok(clients)
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// User and system time of a process (proc(5), stat, fields 14 and 15), in hundredths of a second as on all Linux.
fn processor(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum();
    ticks / 100.0
}
