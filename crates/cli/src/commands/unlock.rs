use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;
use pouch_client::agent::{self, AgentError, Forgotten};
use pouch_client::{Home, Party};
use serde_json::json;

use crate::exit;
use crate::run::{Context, Failure, Outcome, printing};
use crate::show::{iso, local, parse_span};

/// The longest time that an identity is kept for, in seconds: a week.
const LONGEST: u64 = 7 * 86_400;
/// The most that is told of why the agent did not start, in bytes.
const MAX_REASON: u64 = 1024;
/// What the agent says when it listens.
const READY: &[u8] = b"ready\n";
/// Closes what whoever called `unlock` had open, locks and files of passphrases among it, and becomes the agent. A shell does
/// it, for closing by number is not safe Rust. One that knows no number above 9 (dash) leaves those.
const BECOME: &str = r#"
(PATH=/dev/null; eval 'exec 10>&-') 2>/dev/null && any=1
for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    case $fd in
        [3-9]) eval "exec $fd>&-" ;;
        [0-2] | *[!0-9]*) ;;
        *) [ -z "$any" ] || eval "exec $fd>&-" ;;
    esac
done
exec "$0" "$@""#;
/// The shells for that, the better one first.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

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
        let _turn = agent::Starting::wait(&party.home).map_err(refused)?;
        // One that does not answer ends as soon as it sees that its socket is another one's.
        let _ = agent::forget(&party.home);
        self.start(&party, context.global.home.as_deref(), &identity.to_text())?;
        let until = pouch_client::clock::now().plus(agent::left(&party.home).unwrap_or_default());
        context.show.object(&json!({ "type": "unlocked", "until": iso(until) })).map_err(printing)?;
        context.show.essence(iso(until)).map_err(printing)?;
        context.show.line(format_args!("unlocked until {}; `pouch lock` ends it", local(until))).map_err(printing)
    }

    /// Starts the agent and waits until it listens. Its ends of the pipes, and where its home is, are all that it has of
    /// whoever called.
    fn start(&self, party: &Party, home: Option<&Path>, text: &str) -> Outcome {
        let failed = |error: std::io::Error| Failure::other(format_args!("cannot start the agent: {error}"));
        let shell = SHELLS.into_iter().find(|shell| Path::new(shell).exists()).unwrap_or("sh");
        let mut command = Command::new(shell);
        command.args(["-c", BECOME]).arg(std::env::current_exe().map_err(failed)?);
        if let Some(home) = home {
            command.arg("--home").arg(std::path::absolute(home).map_err(failed)?);
        }
        command.args(["unlock", "--serve", "--for"]).arg(format!("{}s", self.time)).current_dir("/");
        let kept = |name: &OsStr| {
            ["HOME", "PATH", "POUCH_HOME"].iter().any(|kept| name == *kept)
                || name.as_encoded_bytes().starts_with(b"XDG_")
        };
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| kept(name)));
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
            let _ = err.take(MAX_REASON).read_to_string(&mut reason);
        }
        let _ = child.wait();
        Err(Failure::other(format_args!("the agent did not start: {}", reason.trim())))
    }

    /// The agent's life.
    fn serve(&self, home: &Home) -> Outcome {
        // The end of a terminal or of its session is not its end. Refused to the leader of a group, which is no child of
        // ours.
        let _ = rustix::process::setsid();
        let ready = || {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(READY).and_then(|()| out.flush());
        };
        agent::serve(home, std::io::stdin(), self.time, ready).map_err(refused)
    }
}

fn refused(error: AgentError) -> Failure {
    Failure::Told { code: exit::STATE, text: error.to_string(), hint: None, kind: None }
}

impl Lock {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let was = match agent::forget(&context.home()?) {
            Forgotten::Done => true,
            Forgotten::Nobody => false,
            Forgotten::NoAnswer => {
                return Err(Failure::Told {
                    code: exit::STATE,
                    text: "the agent does not answer, and may still keep the identity".into(),
                    hint: Some("try again; if it stays so, end the process `pouch unlock --serve`".into()),
                    kind: None,
                });
            }
        };
        context.show.object(&json!({ "type": "locked", "was_unlocked": was })).map_err(printing)?;
        context.show.line(if was { "locked" } else { "nothing was unlocked" }).map_err(printing)
    }
}
