//! Measures `pouch` against its peers on this machine and prints Markdown tables. `README.md` says how to read them.

mod aead;
mod bundles;
mod crowd;
mod encrypt;
mod load;
mod nginx;
mod options;
mod peers;
mod process;
mod relay;
mod rounds;
mod server;
mod site;
mod soak;
mod table;
mod tools;
mod transfer;
mod tree;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::options::{Options, What};
use crate::tools::Tools;

/// What went wrong, for the person who started the measurement.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr().lock(), "pouch-benches: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    if let Some(done) = tree::contend(&std::env::args_os().skip(1).collect::<Vec<_>>()) {
        return done;
    }
    let options = Options::parse(std::env::args().skip(1))?;
    if cfg!(debug_assertions) {
        return Err("figures of an unoptimised build mean nothing: cargo run --release -p pouch-benches".into());
    }
    let tools = Tools::find()?;
    say(tools.describe());
    match options.what {
        What::Aead => aead::measure(&options),
        What::Encrypt => encrypt::measure(&options, &tools),
        What::Transfer => transfer::measure(&options, &tools),
        What::Tree => tree::measure(&options, &tools),
        What::Relay => relay::measure(&options, &tools),
        What::Bundles => bundles::measure(&options, &tools),
        What::Crowd => crowd::measure(&options),
        What::Soak => soak::measure(&options),
        What::All => {
            aead::measure(&options)?;
            encrypt::measure(&options, &tools)?;
            transfer::measure(&options, &tools)?;
            tree::measure(&options, &tools)?;
            relay::measure(&options, &tools)?;
            bundles::measure(&options, &tools)?;
            crowd::measure(&options)
        }
    }
}

/// A line of the report.
fn say(text: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A remark that does not belong to the report.
fn remark(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
