//! A command of a pipeline: its secret from where the caller says, its state in a folder that goes with it.

use pouch_client::pipeline::{self, Scratch, Secret};
use pouch_client::{Error, Party};

use crate::run::{Context, Failure, Outcome};
use crate::{exit, prompt, signals};

/// The party of the pipeline whose secret the caller names, with what its runs before have left; `None` if none is named.
pub(crate) fn party(context: &Context) -> Result<Option<Party>, Failure> {
    let Some(line) = prompt::pipeline(&context.global) else { return Ok(None) };
    let line = line.map_err(|error| Failure::Told {
        code: exit::USAGE,
        text: format!("cannot read the pipeline's secret: {error}"),
        hint: None,
        kind: None,
    })?;
    let secret = Secret::parse(&line).map_err(Error::from)?;
    let scratch = Scratch::new()?;
    // For a signal that nobody cleans up after.
    signals::remove_if_stopped(Some(scratch.path()));
    let party = pipeline::party(secret, scratch, context.network()?)?;
    context.run(async { Ok(pipeline::fetch(&party, &party.api()?).await?) })?;
    Ok(Some(party))
}

/// Puts back what a pipeline's command has added to its journal, however it ended; nothing for anybody else.
pub(crate) fn keep<T>(context: &Context, party: &Party, outcome: Result<T, Failure>) -> Result<T, Failure> {
    if !context.is_pipeline() {
        return outcome;
    }
    let kept: Outcome = context.run(async { Ok(pipeline::put(party, &party.api()?).await?) });
    let value = outcome?;
    kept.map(|()| value)
}
