//! `pouch encrypt` and `decrypt` against the age programs: one file in the page cache, output thrown away.

use std::path::Path;
use std::process::Command;

use crate::options::Options;
use crate::process::{make_file, printed, timed, warm};
use crate::rounds::{Contender, run};
use crate::tools::{POUCH, Tool, Tools};
use crate::{Failure, say, table};

pub(crate) fn measure(options: &Options, tools: &Tools) -> Result<(), Failure> {
    let Some(keygen) = &tools.age_keygen else {
        say("encrypt and decrypt: left out, because age-keygen is not installed\n");
        return Ok(());
    };
    let folder = tempfile::Builder::new().prefix("pouch-benches-").tempdir_in(&options.dir)?;
    let (plain, sealed, key) = (folder.path().join("plain"), folder.path().join("sealed"), folder.path().join("key"));
    make_file(&plain, options.size)?;
    let recipient = make_key(keygen, &key)?;
    let all: Vec<&Tool> = [Some(&tools.pouch), tools.age.as_ref(), tools.rage.as_ref()].into_iter().flatten().collect();

    let contend = |verb: &str, command: &dyn Fn(&Tool) -> Command| -> Result<(), Failure> {
        let mut contenders: Vec<Contender<'_>> = all
            .iter()
            .map(|tool| {
                let command = command(tool);
                let folder = folder.path();
                Contender::new(tool.name, move || timed(&command, tools, folder))
            })
            .collect();
        run(&mut contenders, options.rounds)?;
        table::print(&format!("{verb} {} MiB", options.size >> 20), options.size, &contenders);
        Ok(())
    };
    contend("encrypt", &|tool| encryption(tool, &recipient, &plain, None))?;
    // One and the same file for all, made by the peer where there is one.
    let maker = tools.age.as_ref().unwrap_or(&tools.pouch);
    printed(&mut encryption(maker, &recipient, &plain, Some(&sealed)), "")?;
    warm(&sealed)?;
    contend("decrypt", &|tool| decryption(tool, &key, &sealed, None))
}

/// Makes a key and gives its recipient.
pub(crate) fn make_key(keygen: &Tool, key: &Path) -> Result<String, Failure> {
    printed(Command::new(&keygen.path).arg("-o").arg(key), "")?;
    Ok(printed(Command::new(&keygen.path).arg("-y").arg(key), "")?.trim().to_owned())
}

/// The file comes last: age reads no flag after it. Without `out`, standard output.
pub(crate) fn encryption(tool: &Tool, recipient: &str, plain: &Path, out: Option<&Path>) -> Command {
    let mut command = Command::new(&tool.path);
    if tool.name == POUCH {
        command.arg("encrypt");
    }
    command.args(["-r", recipient]);
    into(&mut command, out);
    command.arg(plain);
    command
}

pub(crate) fn decryption(tool: &Tool, key: &Path, sealed: &Path, out: Option<&Path>) -> Command {
    let mut command = Command::new(&tool.path);
    command.arg(if tool.name == POUCH { "decrypt" } else { "-d" });
    command.arg("-i").arg(key);
    into(&mut command, out);
    command.arg(sealed);
    command
}

fn into(command: &mut Command, out: Option<&Path>) {
    if let Some(out) = out {
        command.arg("-o").arg(out);
    }
}
