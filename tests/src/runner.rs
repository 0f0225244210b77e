//! A machine that keeps nothing: a job runs on it, with a pipeline's secret.

use std::fs;
use std::path::PathBuf;

use pouch_client::pipeline::{self, Scratch, Secret};
use pouch_client::transport::Network;

use crate::{Pair, Party, Run};

/// A job's machine: it has a secret in a file, and is empty otherwise.
pub struct Runner {
    pub party: Party,
    /// Where the secret lies.
    pub secret: PathBuf,
}

impl Runner {
    /// A new one for this secret.
    #[must_use]
    pub fn new(pair: &Pair, name: &str, secret: &str) -> Self {
        let party = pair.stranger(name);
        let path = pair.root().join(format!("{name}.secret"));
        fs::write(&path, format!("{secret}\n")).unwrap();
        Self { party, secret: path }
    }

    /// `pouch` with these words and the secret, and no home.
    #[must_use]
    pub fn pouch(&self, words: &[&str]) -> Run {
        self.party.pouch(words).without_env("POUCH_HOME").env("POUCH_PIPELINE_FILE", &self.secret)
    }

    /// What is left when a run is over, beside what the job itself wrote.
    #[track_caller]
    pub fn leaves_nothing(&self) {
        assert!(fs::read_dir(self.party.temporary()).unwrap().next().is_none(), "{:?}", self.party.lying_around());
        assert!(!self.party.home().exists());
        let hidden = self.party.lying_around().into_iter().filter(|name| name.starts_with('.'));
        assert_eq!(hidden.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

/// The relay as whoever has the secret sees it.
#[must_use]
pub fn as_pipeline(secret: &str) -> pouch_client::Party {
    pipeline::party(Secret::parse(secret).unwrap(), Scratch::new().unwrap(), Network::default()).unwrap()
}
