//! Runs a verb: one place where errors get their hint and exit code, and signals stop things cleanly.

use std::fmt;
use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use pouch_client::api::RelayApi;
use pouch_client::invite::{self, Answered};
use pouch_client::transport::{Network, NetworkError};
use pouch_client::{Class, Error, Hindrance, Home, Party, Span};
use pouch_core::age;
use pouch_core::bundle::{EnvelopeError, OpenError, SinkError, StageError};
use pouch_statement::Escaped;

use crate::args::{Cli, Global};
use crate::prompt::Asker;
use crate::show::{Show, joined, size};
use crate::{commands, exit, pipeline, signals};

/// How long an interrupted transfer may take to clean up after itself.
const CLEANUP: Duration = Duration::from_secs(10);

/// What ends a verb early.
pub(crate) enum Failure {
    /// Told with its class's code and a hint.
    Client(Error),
    /// Told as it is, with this code and hint.
    Told {
        /// Exit code.
        code: u8,
        /// What happened.
        text: String,
        /// What to do.
        hint: Option<String>,
        /// What a script tells failures apart by, where the code is too coarse.
        kind: Option<String>,
    },
    /// Nothing more to tell: the code of a child process, or a verdict that was printed.
    Code(u8),
}

impl Failure {
    /// Called wrongly, in a way that the parser cannot see.
    pub(crate) fn usage(text: impl Into<String>, hint: &str) -> Self {
        Self::Told { code: exit::USAGE, text: text.into(), hint: Some(hint.to_owned()), kind: None }
    }

    /// With another hint than the one of its kind.
    pub(crate) fn with_hint(self, hint: String) -> Self {
        match self {
            Self::Client(error) => Self::hinted(&error, hint),
            Self::Told { code, text, kind, .. } => Self::Told { code, text, hint: Some(hint), kind },
            code @ Self::Code(_) => code,
        }
    }

    /// Something that is not done, though nothing is wrong with how it was asked for.
    pub(crate) fn refused(text: &str, hint: &str) -> Self {
        Self::Told { code: exit::code(Class::Refused), text: text.into(), hint: Some(hint.to_owned()), kind: None }
    }

    /// An error of the client's, with another hint than it has.
    pub(crate) fn hinted(error: &Error, hint: String) -> Self {
        Self::Told { code: exit::code(error.class()), text: tell(error), hint: Some(hint), kind: None }
    }

    /// Whether a signal was the reason.
    pub(crate) fn is_interruption(&self) -> bool {
        match self {
            Self::Client(error) => error.class() == Class::Interrupted,
            Self::Told { code, .. } | Self::Code(code) => *code == exit::INTERRUPTED,
        }
    }

    /// Says it, and gives the exit code. A `wrapper` has those of its child, and one of its own for all failures but a
    /// wrong command line and an interruption.
    pub(crate) fn report(self, show: Show, wrapper: bool) -> u8 {
        let code = match self {
            Self::Code(code) => return code,
            Self::Told { code, text, hint, kind } => {
                show.error(code, kind.as_deref(), &text, hint.as_deref());
                // What the parser would refuse; the same class from within is a failure.
                if code == exit::USAGE {
                    return code;
                }
                code
            }
            Self::Client(error) => {
                let code = exit::code(error.class());
                show.error(code, None, &tell(&error), hint(&error).as_deref());
                code
            }
        };
        if wrapper && code != exit::INTERRUPTED { exit::WRAPPER } else { code }
    }

    /// Anything else.
    pub(crate) fn other(text: impl fmt::Display) -> Self {
        Self::Told { code: exit::OTHER, text: text.to_string(), hint: None, kind: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => write!(f, "{error}"),
            Self::Told { text, .. } => f.write_str(text),
            Self::Code(code) => write!(f, "ended with code {code}"),
        }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Client(error.into())
    }
}

/// The result of a verb.
pub(crate) type Outcome = Result<(), Failure>;

/// Output that cannot be written: a closed pipe ends the command, not zero.
pub(crate) fn printing(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe { Failure::Code(exit::OTHER) } else { Failure::other(error) }
}

/// What every verb gets.
pub(crate) struct Context {
    /// The global flags.
    pub(crate) global: Global,
    /// How to print.
    pub(crate) show: Show,
}

impl Context {
    /// Where the state is.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        Ok(Home::open(self.global.home.as_deref())?)
    }

    /// The party of this home.
    pub(crate) fn party(&self) -> Result<Party, Failure> {
        match pipeline::party(self)? {
            Some(party) => Ok(party),
            None => Ok(Party::open(&self.home()?)?.over(self.network()?)),
        }
    }

    /// Whether a pipeline's secret is named.
    pub(crate) fn is_pipeline(&self) -> bool {
        let Global { pipeline_file, pipeline_fd, pipeline_command, .. } = &self.global;
        pipeline_file.is_some() || pipeline_fd.is_some() || pipeline_command.is_some()
    }

    /// How relays are reached.
    pub(crate) fn network(&self) -> Result<Network, Failure> {
        let mut network = Network::default();
        let Global { ca_file, client_certificate, client_key, limit_rate, retry_for, .. } = &self.global;
        network.retry_for(Duration::from_secs(*retry_for));
        let wrong = |e: NetworkError| Failure::Told { code: exit::USAGE, text: e.to_string(), hint: None, kind: None };
        if let Some(file) = ca_file {
            network.trust(file).map_err(wrong)?;
        }
        if let (Some(certificate), Some(key)) = (client_certificate, client_key) {
            network.show(certificate, key).map_err(wrong)?;
        }
        if let Some(rate) = limit_rate {
            network.limit(*rate);
        }
        Ok(network)
    }

    /// Who asks for passphrases.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker(&self.global)
    }

    /// Opens the identity, asking for the passphrase if it has one.
    pub(crate) fn unlock(&self, party: &Party) -> pouch_client::Result<pouch_client::identity::Identity> {
        party.unlock(|| self.asker().passphrase())
    }

    /// The relay, after whoever answered my invitations was pinned and told of. A card that was put in by somebody else
    /// is a hard stop (attacks.md 35).
    pub(crate) async fn relay(&self, party: &Party) -> Result<RelayApi, Failure> {
        let api = party.api()?;
        let mut substituted = None;
        for answered in invite::collect(party, &api).await? {
            match answered {
                Answered::Pinned(contact) => {
                    self.show.remark(format_args!(
                        "{} joined and is pinned: {}",
                        contact.name,
                        contact.fingerprint().words()
                    ));
                }
                Answered::Later { name, error } => {
                    self.show.warn(format_args!("{name} joined but is not pinned yet: {error}"));
                }
                Answered::Expired(name) => {
                    self.show.warn(format_args!("the invitation for {name} was not used in time"))
                }
                Answered::Refused { name, error } => {
                    self.show.warn(format_args!(
                        "somebody answered the invitation for {name}, but {error}; nobody was pinned"
                    ));
                    if error.class() == Class::Evidence {
                        substituted = Some(*error);
                    }
                }
            }
        }
        if let Some(error) = substituted {
            return Err(error.into());
        }
        pouch_client::receive::send_pending_receipts(party, &api).await?;
        Ok(api)
    }

    /// Runs `work` on an async runtime until it is done or a signal comes. What it began is dropped then, and cleans up.
    pub(crate) fn run<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        // One thread speaks with the relay: sealing and opening have threads of their own, and each piece that changed threads
        // on its way would cost more than it gains.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
        let result = runtime.block_on(async {
            tokio::select! {
                result = work => result,
                () = signals::first() => Err(Error::Interrupted.into()),
            }
        });
        runtime.shutdown_timeout(CLEANUP);
        signals::no_longer_awaited();
        result
    }
}

/// Runs the parsed command line.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let show = Show { json: cli.global.json, quiet: cli.global.quiet };
    let context = Context { global: cli.global, show };
    let wrapper = cli.verb.wraps_a_child();
    let outcome = match context.is_pipeline() && !cli.verb.is_for_pipelines() {
        true => Err(Failure::usage(
            "a pipeline's secret cannot do this: a pipeline sends, and shows what it has sent",
            "`send`, `log` without --relay, and `outbox` without a verb take it; for all else leave the secret out",
        )),
        false => commands::run(cli.verb, &context),
    };
    match outcome {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(failure) => ExitCode::from(failure.report(show, wrapper)),
    }
}

/// The error's text; what the relay said is somebody else's words and is shown escaped.
fn tell(error: &Error) -> String {
    use pouch_client::api::ApiError;
    match error {
        Error::Api(ApiError::Refused { detail: Some(detail), .. }) => {
            let detail: String = detail.chars().take(300).collect();
            format!("{error} ({})", Escaped(&detail))
        }
        Error::Open(OpenError::Sink(SinkError::Stage(StageError::NoRoom { needed, free, .. }))) => {
            format!(
                "{} more are needed, and the disk has {} free; nothing more was fetched",
                size(*needed),
                size(*free)
            )
        }
        Error::NoRoomToKeep { free, reserve } => {
            format!(
                "there is no room to keep more of what is piped in: the disk has {} free, and {} are left to others",
                size(*free),
                size(*reserve)
            )
        }
        other => other.to_string(),
    }
}

/// What to do about an error.
fn hint(error: &Error) -> Option<String> {
    use pouch_client::api::ApiError;
    use pouch_client::contacts::ContactError;
    use pouch_client::identity::IdentityError;
    use pouch_protocol::ProblemKind as P;
    let text = match error {
        Error::NotJoined => "run `pouch join` and paste the link that you were given",
        Error::AlreadyJoined => "use another --home for a second identity",
        Error::CardSubstituted | Error::Contact(ContactError::KeyChanged { .. } | ContactError::Downgrade { .. }) => {
            "trust nobody's word for the new key but theirs: compare the twelve words with them on another channel"
        }
        Error::Unverified(name) => {
            return Some(format!("compare the words with them, then run `pouch contact verify {name}`"));
        }
        Error::Contact(ContactError::Unknown(_)) => {
            "`pouch contact list` shows whom you know, `pouch invite NAME` invites somebody"
        }
        Error::Contact(ContactError::NameTaken(_)) => {
            "choose another name, or `pouch contact remove` the old one first"
        }
        Error::PipelineExists(_) => "choose another name, or `pouch pipeline revoke` it first",
        Error::NoPipeline(_) => "`pouch pipeline list` shows them",
        Error::PipelineLifetime(Span(limit)) => return Some(format!("--until {} is the most", Span(*limit))),
        Error::PipelineJournal(_) => "ask whoever runs the relay; whoever made the pipeline can make another one",
        Error::PipelineBusy => "run it again",
        Error::PipelineFull => "`pouch pipeline new` makes one with an empty journal",
        Error::PipelineSecret(_) => "copy it again, whole, as `pouch pipeline new` printed it",
        Error::NotKept(..) => "send it again, if it is still needed",
        Error::LongerForAll(_, why) if !matches!(**why, Error::Contact(ContactError::Revoked(_))) => return hint(why),
        Error::LongerForAll(..) => "send it again to the others, or give it an earlier end",
        Error::BeingSent(_) => "wait for its end, or interrupt it where it runs",
        Error::NotResumable(_, Hindrance::Delivered) => "`pouch outbox add ID --to NAME` delivers it to one more",
        Error::NotResumable(_, Hindrance::NotInterrupted) => "`pouch outbox ID` shows where it stands",
        Error::NotResumable(_, Hindrance::NoContact) => {
            "`pouch outbox resume ID --to NAME` sends what `send - --spool` kept to others, or to who they are now"
        }
        Error::NotResumable(..) => {
            "send it again; `pouch outbox forget ID` clears away what is left of it, also what was piped in and kept"
        }
        Error::NoRoomToKeep { .. } => "make room, or send it without --spool",
        Error::NotForgotten(..) => "`pouch outbox revoke ID` withdraws what is delivered",
        Error::OneRecipient => "write one file for each",
        Error::AlreadyRecipient(_) => "`pouch outbox extend ID` gives it another end",
        Error::NoInvitation(_) => "`pouch invite --list` shows those that are open",
        Error::UnknownSender => {
            "add the sender's card with `pouch contact add` and verify it, or take new keys with `pouch contact rotate`; then receive again"
        }
        Error::Rotation { .. } | Error::TwoRotations(_) => {
            "ask its owner on another channel; if somebody else has their keys: `pouch contact revoke`, then a fresh invitation"
        }
        Error::BegunHybrid => "without --classic the same goes on",
        Error::NoRotation(_) => "they run `pouch card rotate`; the relay has it then, or `--out FILE` writes it",
        Error::Contact(ContactError::Revoked(_)) => {
            "`pouch contact remove` forgets them, so that a new card can be pinned"
        }
        Error::Identity(IdentityError::NoPassphrase(_)) => {
            "give --passphrase-file, --passphrase-command or --passphrase-fd, or run it on a terminal"
        }
        Error::Ambiguous { found, .. } => return Some(format!("say more of it: {}", joined(found))),
        Error::NoEntry { near, .. } if near.is_empty() => "`--list` shows what is in it",
        Error::NoEntry { near, .. } => return Some(format!("near: {}; `--list` shows all", joined(near))),
        Error::Open(OpenError::Envelope(EnvelopeError::Age(age::Error::NoMatch))) => {
            "it was sealed for somebody else, or for an identity that you had before"
        }
        Error::NothingWaiting => "`pouch inbox` shows what waits; `pouch receive --next` waits for it",
        Error::Lifetime(limit) => return Some(format!("--until {limit} is the most there")),
        Error::Unsettled(_) => "`pouch outbox ID` finds out when the relay is there again",
        Error::NeverDelivered(_) => "send it again; if it was piped in with --spool, with `pouch outbox resume ID`",
        Error::OtherSender { .. } => "it stays in the inbox; the relay named the wrong sender, or names changed",
        Error::NoReceipt(_) => "the bundle is delivered; `pouch outbox ID` shows the receipt when it comes",
        Error::BadReceipt(..) => "the journal keeps the evidence; ask the recipient on another channel",
        Error::Api(ApiError::Refused { kind, retry_after, request, .. }) => match kind {
            P::LinkSpent => "ask for a new link; if you did not use this one, say so: somebody else may have",
            P::Quota => "`pouch outbox` shows what takes the space, `pouch outbox revoke ID` gives it back",
            P::Suspended => "ask whoever runs the relay",
            P::Signature => "if this home's device key was revoked, `pouch device rotate` enrols a new one",
            P::Forbidden => "your role on the relay does not allow it: ask whoever runs it (`pouch relay role`)",
            P::PipelineOver => "ask whoever made the pipeline for another one",
            P::NotFound => "`pouch inbox` and `pouch outbox` show what is there",
            P::Gone => "ask the sender to send it again",
            P::Rate | P::Unavailable => match retry_after {
                Some(seconds) => return Some(format!("try again in {seconds} s")),
                None => "try again in a while",
            },
            P::Internal => {
                return request.as_ref().map(|name| format!("tell the relay's operator: request {name} in its log"));
            }
            _ => return None,
        },
        Error::Transport(_) | Error::Api(ApiError::Transport(_)) if error.class() == Class::Unreachable => {
            "check the network and try again"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
