use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use crate::run::{Context, Failure, Outcome, printing};

/// Print what a shell completes command lines with
///
/// For bash: `pouch completions bash > ~/.local/share/bash-completion/completions/pouch`.
#[derive(Args)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

/// Write the manual pages into a folder: one for pouch, and one for each command
#[derive(Args)]
pub(crate) struct Man {
    /// The folder, which must exist; pages of the same names are replaced
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Completions {
    pub(crate) fn run(self, _: &Context) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::args::command(), "pouch", &mut script);
        std::io::stdout().lock().write_all(&script).map_err(printing)
    }
}

impl Man {
    pub(crate) fn run(self, _: &Context) -> Outcome {
        clap_mangen::generate_to(crate::args::command(), &self.folder).map_err(|error| {
            pouch_client::Error::File(format!("cannot write pages into {}", self.folder.display()), error)
        })?;
        Ok::<(), Failure>(())
    }
}
