//! The command line: verbs in groups, a `POUCH_` variable for each flag, defaults from the config file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _, Parser};

use crate::commands::Verb;
use crate::show::{parse_rate, parse_span};
use crate::{config, exit, show};

/// Sealed, signed and receipted file exchange with people outside.
#[derive(Parser)]
#[command(name = "pouch", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every verb takes.
#[derive(Args, Clone)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Keep all state in this folder instead of the XDG folders
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Print one JSON object a line on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print only what a script needs
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Read the passphrase from the first line of this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Run this command with sh and read the passphrase from its first line
    #[arg(long, global = true, value_name = "CMD")]
    pub(crate) passphrase_command: Option<String>,
    /// Read the passphrase from this file descriptor
    #[arg(long, global = true, value_name = "FD")]
    pub(crate) passphrase_fd: Option<u32>,
    /// Be the pipeline whose secret is the first line of this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) pipeline_file: Option<PathBuf>,
    /// Be the pipeline whose secret is the first line that this command, run with sh, prints
    #[arg(long, global = true, value_name = "CMD")]
    pub(crate) pipeline_command: Option<String>,
    /// Be the pipeline whose secret is read from this file descriptor
    #[arg(long, global = true, value_name = "FD")]
    pub(crate) pipeline_fd: Option<u32>,
    /// Certificate authorities (PEM) that count beside the system's, for relays and proxies
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A certificate (PEM) for a proxy or balancer that asks for one
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// The private key (PEM) of that certificate
    #[arg(long, global = true, value_name = "FILE", requires = "client_certificate")]
    pub(crate) client_key: Option<PathBuf>,
    /// In the middle of a transfer, ask a relay that does not answer again for so long
    #[arg(long, global = true, value_name = "TIME", default_value = "2m", value_parser = parse_span)]
    pub(crate) retry_for: u64,
    /// Bytes a second at most, sent and received together: 500K, 2M
    #[arg(long, global = true, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) limit_rate: Option<NonZeroU64>,
}

/// Which verbs stand under which heading of `pouch --help`.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Start", &["join", "invite", "card", "contact", "device", "identity", "unlock", "lock"]),
    ("Exchange", &["send", "outbox", "inbox", "receive", "request", "pipeline", "encrypt", "decrypt"]),
    ("Guard", &[]),
    ("Prove", &["log", "demo"]),
    ("Serve", &["relay"]),
    ("Shell", &["completions", "man"]),
];

/// The command with help in groups and a variable for each flag.
pub(crate) fn command() -> Command {
    let command = with_variables(Cli::command(), None);
    let mut template = String::from("{about}\n\n{usage-heading} {usage}\n");
    for (heading, verbs) in GROUPS {
        let rows: Vec<_> = command.get_subcommands().filter(|c| verbs.contains(&c.get_name())).collect();
        if rows.is_empty() {
            continue;
        }
        template.push_str(&format!("\n{heading}:\n"));
        for verb in rows {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            template.push_str(&format!("  {:<11} {about}\n", verb.get_name()));
        }
    }
    template.push_str("\nEverywhere:\n{options}\n\n");
    template.push_str(
        "Each flag also has a variable, POUCH_<COMMAND>_<FLAG> or POUCH_<FLAG>, and a default in the\n\
         config file; a flag beats the variable, which beats the file.\n\
         Exit codes: 0 done, 1 other, 2 usage, 3 not found, 4 bad signature or digest, 5 refused\n\
         or suspended, 6 expired, revoked or taken down, 7 unreachable or too many requests, 8 full,\n\
         9 local state, or findings of `relay check`; 130 interrupted.\n",
    );
    command.help_template(template)
}

/// Gives every flag of `command` and below its variable: `POUCH_` and the verbs and the flag in capitals.
fn with_variables(command: Command, verbs: Option<&str>) -> Command {
    let prefix = verbs.map_or_else(|| "POUCH".to_owned(), str::to_owned);
    let command = command.mut_args(|arg| {
        let Some(long) = arg.get_long().filter(|l| !matches!(*l, "help" | "version")) else { return arg };
        let global = arg.is_global_set();
        let stem = if global { "POUCH" } else { prefix.as_str() };
        let name = format!("{stem}_{}", long.to_uppercase().replace('-', "_"));
        let flag = matches!(arg.get_action(), ArgAction::SetTrue);
        let arg = arg.env(OsString::from(name)).hide_env_values(true).hide_env(true);
        if flag { arg.value_parser(FalseyValueParser::new()) } else { arg }
    });
    command.mut_subcommands(|sub| {
        let below = format!("{prefix}_{}", sub.get_name().to_uppercase().replace('-', "_"));
        with_variables(sub, Some(&below))
    })
}

/// The variables of all flags.
#[cfg(feature = "relay")]
pub(crate) fn variables() -> std::collections::BTreeSet<OsString> {
    fn of(command: &Command, all: &mut std::collections::BTreeSet<OsString>) {
        all.extend(command.get_arguments().filter_map(|arg| arg.get_env()).map(OsString::from));
        command.get_subcommands().for_each(|sub| of(sub, all));
    }
    let mut all = std::collections::BTreeSet::new();
    of(&command(), &mut all);
    all
}

/// Parses the command line, then again with the config file's defaults, where there is one.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    let line: Vec<OsString> = std::env::args_os().collect();
    let home = home_of(&line);
    let defaults = config::load(home.as_deref()).map_err(|text| {
        show::complain(&text, None);
        ExitCode::from(exit::STATE)
    })?;
    let command = with_defaults(command(), &[], &defaults);
    let matches = command.try_get_matches_from(line).map_err(|e| {
        show::parsing(&e);
        ExitCode::from(if e.use_stderr() { exit::USAGE } else { exit::DONE })
    })?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|e| {
        show::parsing(&e);
        ExitCode::from(exit::USAGE)
    })?;
    for what in ["passphrase", "pipeline"] {
        one_source(&mut cli.global, &matches, what).map_err(|text| {
            show::complain(&text, Some(&format!("give one of --{what}-file, --{what}-command, --{what}-fd")));
            ExitCode::from(exit::USAGE)
        })?;
    }
    Ok(cli)
}

/// Keeps the one source of a secret that comes first: flags before variables before the config file. Two on one level
/// contradict each other.
fn one_source(global: &mut Global, matches: &ArgMatches, what: &str) -> Result<(), String> {
    let sources = ["file", "command", "fd"].map(|kind| format!("{what}_{kind}"));
    let (file, command, fd) = match what {
        "pipeline" => (&mut global.pipeline_file, &mut global.pipeline_command, &mut global.pipeline_fd),
        _ => (&mut global.passphrase_file, &mut global.passphrase_command, &mut global.passphrase_fd),
    };
    for level in [ValueSource::CommandLine, ValueSource::EnvVariable, ValueSource::DefaultValue] {
        let given: Vec<&String> = sources.iter().filter(|id| matches.value_source(id) == Some(level)).collect();
        match given.as_slice() {
            [] => {}
            [one] => {
                let is = |kind| one.ends_with(kind);
                *file = file.take().filter(|_| is("_file"));
                *command = command.take().filter(|_| is("_command"));
                *fd = fd.filter(|_| is("_fd"));
                return Ok(());
            }
            _ => return Err(format!("more than one place is named to read the {what} from")),
        }
    }
    Ok(())
}

/// Where the config file may lie, which must be known before the line can be parsed with its defaults.
fn home_of(line: &[OsString]) -> Option<PathBuf> {
    let mut words = line.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--") => break,
            Some("--home") => return words.next().map(PathBuf::from),
            Some(text) => {
                if let Some(value) = text.strip_prefix("--home=") {
                    return Some(PathBuf::from(value));
                }
            }
            None => {}
        }
    }
    std::env::var_os("POUCH_HOME").map(PathBuf::from)
}

fn with_defaults(command: Command, path: &[String], defaults: &config::Defaults) -> Command {
    let mine: BTreeMap<String, String> = defaults.of(path);
    let command = command.mut_args(|arg| {
        let value = arg.get_long().and_then(|long| mine.get(long)).cloned();
        match value {
            Some(value) => arg.default_value(value),
            None => arg,
        }
    });
    command.mut_subcommands(|sub| {
        let below = [path, &[sub.get_name().to_owned()]].concat();
        with_defaults(sub, &below, defaults)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_stands_under_one_heading() {
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
        for sub in command().get_subcommands() {
            assert_eq!(listed.iter().filter(|v| **v == sub.get_name()).count(), 1, "{}", sub.get_name());
        }
    }

    #[test]
    fn every_flag_has_its_variable_and_none_is_a_secret() {
        fn check(command: &Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|l| !matches!(*l, "help" | "version")) else { continue };
                let name = arg.get_env().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
                assert!(name.starts_with("POUCH_"), "--{long} of {}: {name}", command.get_name());
                assert!(name.ends_with(&long.to_uppercase().replace('-', "_")), "{name}");
            }
            command.get_subcommands().for_each(check);
        }
        let mut command = command();
        command.build();
        check(&command);
    }
}
