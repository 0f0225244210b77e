//! `pouch`: sealed, signed, receipted file exchange with people outside.

mod args;
mod commands;
mod config;
mod exit;
mod pipeline;
mod progress;
mod prompt;
mod run;
mod show;
mod signals;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse() {
        Ok(cli) => run::run(cli),
        Err(code) => code,
    }
}
