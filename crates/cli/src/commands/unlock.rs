use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;
use pouch_client::{Home, Party, agent};
use serde_json::json;
use zeroize::Zeroizing;

use crate::exit;
use crate::run::{Context, Failure, Outcome, printing};
use crate::show::{iso, local, parse_span};

/// The longest time that an identity is kept for, in seconds: a week.
const LONGEST: u64 = 7 * 86_400;
/// The longest text of an identity, in bytes; the agent checks it.
const MAX_TEXT: u64 = 4096;
/// What the agent says when it listens.
const READY: &[u8] = b"ready\n";

/// Keep the identity open for a time, so that no command asks for the passphrase
///
/// A process in the background keeps it in memory and gives it to commands of the same user, until the time is over, until
/// `pouch lock`, or until the machine is suspended.
#[derive(Args)]
pub(crate) struct Unlock {
    /// For so long, like 30m or 8h; 7d at most
    #[arg(long = "for", value_name = "TIME", value_parser = parse_span, default_value = "8h")]
    time: u64,
    /// Be that process: the identity comes on standard input
    #[arg(long, hide = true)]
    serve: bool,
}

/// Have the identity forgotten that `pouch unlock` keeps open
#[derive(Args)]
pub(crate) struct Lock {}

impl Unlock {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        if self.time > LONGEST {
            return Err(Failure::usage("an identity is kept open for 7d at most", "pouch unlock --for 8h"));
        }
        if self.serve {
            return self.serve(&context.home()?);
        }
        let party = context.party()?;
        if !party.is_protected() {
            return Err(Failure::usage("this identity has no passphrase", "there is nothing to unlock"));
        }
        // By the passphrase, whatever is open already; that goes only when this one is right.
        let identity = party.unlock_anew(|| context.asker().passphrase())?;
        let _ = agent::forget(&party.home);
        self.start(&party, context.global.home.as_deref(), &identity.to_text())?;
        let until = pouch_client::clock::now().plus(agent::left(&party.home).unwrap_or_default());
        context.show.object(&json!({ "type": "unlocked", "until": iso(until) })).map_err(printing)?;
        context.show.essence(iso(until)).map_err(printing)?;
        context.show.line(format_args!("unlocked until {}; `pouch lock` ends it", local(until))).map_err(printing)
    }

    /// Starts the agent and waits until it listens. Its ends of the pipes are all that it has of the terminal.
    fn start(&self, party: &Party, home: Option<&Path>, text: &str) -> Outcome {
        let failed = |error: std::io::Error| Failure::other(format_args!("cannot start the agent: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        if let Some(home) = home {
            command.arg("--home").arg(std::path::absolute(home).map_err(failed)?);
        }
        command.args(["unlock", "--serve", "--for"]).arg(format!("{}s", self.time)).current_dir("/");
        for name in ["POUCH_PASSPHRASE_FILE", "POUCH_PASSPHRASE_COMMAND", "POUCH_PASSPHRASE_FD", "POUCH_UNLOCK_FOR"] {
            command.env_remove(name);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // What it does not take it says below.
            let _ = stdin.write_all(text.as_bytes());
        }
        let mut said = [0; READY.len()];
        let listens = child.stdout.take().is_some_and(|mut out| out.read_exact(&mut said).is_ok()) && said == READY;
        if listens && agent::left(&party.home).is_some() {
            return Ok(());
        }
        let _ = child.kill();
        let mut reason = String::new();
        if let Some(err) = child.stderr.take() {
            let _ = err.take(MAX_TEXT).read_to_string(&mut reason);
        }
        let _ = child.wait();
        Err(Failure::other(format_args!("the agent did not start: {}", reason.trim())))
    }

    /// The agent's life.
    fn serve(&self, home: &Home) -> Outcome {
        // The end of a terminal or of its session is not its end. Refused to the leader of a group, which is no child of
        // ours.
        let _ = rustix::process::setsid();
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_TEXT as usize));
        std::io::stdin().take(MAX_TEXT).read_to_end(&mut text).map_err(Failure::other)?;
        let ready = || {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(READY).and_then(|()| out.flush());
        };
        agent::serve(home, &text, self.time, ready).map_err(|error| Failure::Told {
            code: exit::STATE,
            text: error.to_string(),
            hint: None,
            kind: None,
        })
    }
}

impl Lock {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let was = agent::forget(&context.home()?);
        context.show.object(&json!({ "type": "locked", "was_unlocked": was })).map_err(printing)?;
        context.show.line(if was { "locked" } else { "nothing was unlocked" }).map_err(printing)
    }
}
