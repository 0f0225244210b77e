mod check;
mod owner;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pouch_relay::systemd::{self, State};
use pouch_relay::{ConfigError, InitOptions, Loaded, Relay as Server, init, new_owner_link, rotate_key};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use check::Check;
use owner::{Accounts, Restore, Role, Suspend, Takedown};

use crate::run::{Context, Failure, Outcome, printing};
use crate::{args, exit, signals};

/// Run a relay, and see who uses it
#[derive(Args)]
pub(crate) struct Relay {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Init(Init),
    Serve(Serve),
    Config(ShowConfig),
    RotateKey(RotateKey),
    Accounts(Accounts),
    Suspend(Suspend),
    Restore(Restore),
    Role(Role),
    Takedown(Takedown),
    Check(Check),
}

/// Make a relay: folder, keys, ledger, config, and the owner's one-time link
#[derive(Args)]
struct Init {
    /// The name or address under which everybody will reach it
    #[arg(long, value_name = "HOST", required_unless_present = "again", default_value = "", hide_default_value = true)]
    host: String,
    /// The port under which everybody will reach it
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    port: u16,
    /// The address to listen on; all of the machine's at --port if not given
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The certificate's chain, if not self-signed
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The PostgreSQL to keep the ledger in, without a password: postgres://USER@HOST/DATABASE; a file if not given
    #[arg(long, value_name = "URL")]
    ledger: Option<String>,
    /// A file with the password for it
    #[arg(long, value_name = "FILE", requires = "ledger")]
    ledger_password_file: Option<PathBuf>,
    #[command(flatten)]
    data: Data,
    /// A new owner's link for a relay that has no owner yet
    #[arg(long, conflicts_with_all = ["host", "listen", "certificate", "key", "ledger"])]
    again: bool,
}

// Not a doc comment: that would become the help of the commands that it is part of.
#[derive(Args)]
struct Data {
    /// Where it keeps everything; `relay` in the state folder if not given
    #[arg(long = "data", value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Serve until told to stop
#[derive(Args)]
struct Serve {
    #[command(flatten)]
    data: Data,
}

/// Print the configuration that is in force, and where each value comes from
#[derive(Args)]
struct ShowConfig {
    #[command(flatten)]
    data: Data,
}

/// Take the next of the two self-signed keys that clients know into use, and make a new next one
#[derive(Args)]
struct RotateKey {
    #[command(flatten)]
    data: Data,
}

impl Relay {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Init(verb) => verb.run(context),
            Verb::Serve(verb) => verb.run(context),
            Verb::Config(verb) => verb.run(context),
            Verb::RotateKey(verb) => verb.run(context),
            Verb::Accounts(verb) => verb.run(context),
            Verb::Suspend(verb) => verb.run(context),
            Verb::Restore(verb) => verb.run(context),
            Verb::Role(verb) => verb.run(context),
            Verb::Takedown(verb) => verb.run(context),
            Verb::Check(verb) => verb.run(context),
        }
    }
}

impl Data {
    fn folder(self, context: &Context) -> Result<PathBuf, Failure> {
        match self.folder {
            Some(folder) => Ok(folder),
            None => {
                let home = context.home()?;
                home.create()?;
                Ok(home.state("relay"))
            }
        }
    }

    /// The configuration that is in force there.
    fn load(self, context: &Context) -> Result<Loaded, Failure> {
        load(&self.folder(context)?)
    }
}

fn state(error: impl std::fmt::Display) -> Failure {
    Failure::Told { code: exit::STATE, text: error.to_string(), hint: None, kind: None }
}

fn load(data: &std::path::Path) -> Result<Loaded, Failure> {
    Loaded::load(&data.join("relay.toml"), values()).map_err(|e| Failure::Told {
        code: exit::STATE,
        text: e.to_string(),
        hint: match e {
            ConfigError::UnknownVariable(_) => Some("`pouch relay config` lists the values; unset the variable".into()),
            ConfigError::Read { .. } => {
                Some("`pouch relay init --host HOST` makes a relay; --data says where it is".into())
            }
            _ => None,
        },
        kind: None,
    })
}

/// The variables that may be values of the configuration: all but those of this program's flags.
fn values() -> impl Iterator<Item = (OsString, OsString)> {
    let flags = args::variables();
    std::env::vars_os().filter(move |(name, _)| !flags.contains(name))
}

impl Init {
    fn run(self, context: &Context) -> Outcome {
        let data = self.data.folder(context)?;
        let link = if self.again {
            let config = load(&data)?.config;
            context.run(async { new_owner_link(&config).await.map_err(state) })?
        } else {
            let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
            let origin =
                format!("https://{host}:{}", self.port).parse().map_err(|e: pouch_statement::OriginError| {
                    Failure::usage(e.to_string(), "--host takes a name or address")
                })?;
            let listen = self.listen.unwrap_or((IpAddr::V6(Ipv6Addr::UNSPECIFIED), self.port).into());
            let certificate = self.certificate.zip(self.key);
            let (ledger, ledger_password_file) = (self.ledger, self.ledger_password_file);
            let data = data.clone();
            let options = InitOptions { data, origin, listen, certificate, ledger, ledger_password_file };
            context.run(async { init(options).await.map_err(state) })?.link
        };
        let text = link.expose_text();
        context
            .show
            .object(&json!({ "type": "relay", "data": data, "relay": link.relay, "pins": link.pins, "link": *text }))
            .map_err(printing)?;
        context
            .show
            .line(format_args!("relay made in {}; owner link (once, 24 h):\n\n{}\n", data.display(), *text))
            .map_err(printing)?;
        context.show.remark("next: `pouch relay serve` here, `pouch join` at the owner's");
        context.show.essence(&*text).map_err(printing)
    }
}

impl Serve {
    fn run(self, context: &Context) -> Outcome {
        let config = self.data.load(context)?.config;
        let filter = tracing_subscriber::EnvFilter::builder()
            .with_default_directive(tracing::Level::INFO.into())
            .with_env_var("POUCH_LOG")
            .from_env_lossy();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        let started = if context.show.json { log.json().try_init() } else { log.try_init() };
        started.map_err(Failure::other)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::other)?;
        let descriptors = enough_descriptors(config.connections);
        runtime.block_on(async {
            if let Some(limit) = descriptors {
                tracing::warn!(
                    limit,
                    connections = config.connections,
                    "the limit of open files (LimitNOFILE) is too low"
                );
            }
            let server = Server::open(config).await.map_err(state)?;
            let listener = server.bind().await.map_err(Failure::other)?;
            let reloader = server.reloader();
            // Whoever hears that it is ready may send signals at once.
            let reloading = tokio::spawn(signals::on_hangup(move || reloader.reload()));
            let stopped = signals::first();
            let origin = server.config().origin.clone();
            context.show.object(&json!({ "type": "ready", "relay": origin })).map_err(printing)?;
            context.show.line(format_args!("relay ready: {origin}")).map_err(printing)?;
            std::io::stdout().flush().map_err(printing)?;
            tell_manager(State::Ready);
            let stop = async {
                stopped.await;
                tell_manager(State::Stopping);
            };
            let served = server.serve(listener, stop).await.map_err(Failure::other);
            reloading.abort();
            served
        })
    }
}

/// Raises the number of files that may be open to what the system allows; the limit, if that is too low for so many
/// connections.
fn enough_descriptors(connections: usize) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    // Each may read or write a file; the rest is for ledger, listeners and libraries.
    let needed = 2 * connections as u64 + 128;
    getrlimit(Resource::Nofile).current.filter(|current| *current < needed)
}

/// A service manager that does not hear of it lets the relay run.
fn tell_manager(state: State) {
    if let Err(error) = systemd::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

impl RotateKey {
    fn run(self, context: &Context) -> Outcome {
        let config = self.data.load(context)?.config;
        let pins = rotate_key(&config).map_err(state)?;
        context.show.object(&json!({ "type": "rotated", "pins": pins })).map_err(printing)?;
        for pin in pins {
            context.show.essence(pin).map_err(printing)?;
        }
        context
            .show
            .line("the next key is in use now, and a new next one is made; keep a copy of keys/next.key elsewhere")
            .map_err(printing)?;
        context.show.remark(
            "who joined before the last rotation does not know the new next key: see docs/operating-a-relay.md",
        );
        Ok(())
    }
}

impl ShowConfig {
    fn run(self, context: &Context) -> Outcome {
        let loaded = self.data.load(context)?;
        for value in loaded.in_force() {
            let source = value.source.to_string();
            let shown = value.value.as_deref();
            context
                .show
                .object(&json!({ "type": "value", "name": value.name, "value": shown, "source": source }))
                .map_err(printing)?;
            let line = match shown {
                Some(shown) => format!("{} = {shown}  # {source}", value.name),
                None => format!("# {} is not set", value.name),
            };
            context.show.line(&line).map_err(printing)?;
            context.show.essence(&line).map_err(printing)?;
        }
        Ok(())
    }
}
