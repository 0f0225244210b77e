//! `pouch encrypt` and `decrypt` against the age programs: one file in the page cache, output thrown away.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::options::Options;
use crate::process::{Cost, make_file, printed, printed_bytes, timed, warm};
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
    let verbs = Verbs { options, tools, folder: folder.path(), recipient: &recipient, key: &key };
    verbs.contend("encrypt", &plain, Tool::encryption)?;
    verbs.contend_in_pipes("encrypt", &plain, Tool::encryption)?;
    // One and the same file for all, made by the peer where there is one.
    let maker = tools.age.as_ref().unwrap_or(&tools.pouch);
    printed(&mut encryption(maker, &recipient, &plain, &sealed), "")?;
    warm(&sealed)?;
    verbs.contend("decrypt", &sealed, Tool::decryption)?;
    verbs.contend_in_pipes("decrypt", &sealed, Tool::decryption)?;
    start_up(&verbs)
}

/// What the contests have in common.
struct Verbs<'a> {
    options: &'a Options,
    tools: &'a Tools,
    folder: &'a Path,
    recipient: &'a str,
    key: &'a Path,
}

/// The words of one of the two verbs, without files.
type Words = fn(&Tool, &Verbs<'_>) -> Vec<OsString>;

impl Tool {
    fn encryption(&self, verbs: &Verbs<'_>) -> Vec<OsString> {
        let verb = (self.name == POUCH).then(|| "encrypt".into());
        verb.into_iter().chain(["-r".into(), verbs.recipient.into()]).collect()
    }

    fn decryption(&self, verbs: &Verbs<'_>) -> Vec<OsString> {
        let verb = if self.name == POUCH { "decrypt" } else { "-d" };
        vec![verb.into(), "-i".into(), verbs.key.into()]
    }
}

impl Verbs<'_> {
    fn all(&self) -> Vec<&Tool> {
        let tools = [Some(&self.tools.pouch), self.tools.age.as_ref(), self.tools.rage.as_ref()];
        tools.into_iter().flatten().collect()
    }

    /// From a file in the page cache to `/dev/null`; pouch on all cores, and on one.
    fn contend(&self, verb: &str, file: &Path, words: Words) -> Result<(), Failure> {
        let mut contenders: Vec<Contender<'_>> = Vec::new();
        for tool in self.all() {
            let command = || {
                let mut command = Command::new(&tool.path);
                command.args(words(tool, self));
                command
            };
            let mut all_cores = command();
            all_cores.arg(file);
            contenders.push(Contender::new(tool.name, move || timed(&all_cores, self.tools, self.folder)));
            if tool.name == POUCH {
                let mut one = command();
                one.args(["--threads", "1"]).arg(file);
                contenders.push(Contender::new("pouch, 1 thread", move || timed(&one, self.tools, self.folder)));
            }
        }
        run(&mut contenders, self.options.rounds)?;
        table::print(&format!("{verb} {} MiB", self.options.size >> 20), self.options.size, &contenders);
        Ok(())
    }

    /// `cat FILE | TOOL | cat >/dev/null`: no file at either end.
    fn contend_in_pipes(&self, verb: &str, file: &Path, words: Words) -> Result<(), Failure> {
        let contender = |tool: &Tool| {
            let mut command = Command::new("sh");
            command.args(["-c", "file=$1; shift; cat \"$file\" | \"$@\" | cat", "sh"]).arg(file).arg(&tool.path);
            command.args(words(tool, self));
            Contender::new(tool.name, move || timed(&command, self.tools, self.folder))
        };
        let mut contenders: Vec<Contender<'_>> = self.all().into_iter().map(contender).collect();
        run(&mut contenders, self.options.rounds)?;
        table::print(&format!("{verb} {} MiB through pipes", self.options.size >> 20), self.options.size, &contenders);
        Ok(())
    }
}

/// How often a program is started for one figure, which is the mean.
const STARTS: u32 = 100;

/// One byte: what a program costs before it does anything.
fn start_up(verbs: &Verbs<'_>) -> Result<(), Failure> {
    let contender = |tool: &Tool| {
        let (path, words) = (tool.path.clone(), tool.encryption(verbs));
        Contender::new(tool.name, move || {
            let start = Instant::now();
            for _ in 0..STARTS {
                printed_bytes(Command::new(&path).args(&words), b"x")?;
            }
            Ok(Cost { wall: start.elapsed() / STARTS, peak: None })
        })
    };
    let mut contenders: Vec<Contender<'_>> = verbs.all().into_iter().map(contender).collect();
    run(&mut contenders, verbs.options.rounds)?;
    table::print_times("encrypt one byte", &contenders);
    Ok(())
}

/// Makes a key and gives its recipient.
pub(crate) fn make_key(keygen: &Tool, key: &Path) -> Result<String, Failure> {
    printed(Command::new(&keygen.path).arg("-o").arg(key), "")?;
    Ok(printed(Command::new(&keygen.path).arg("-y").arg(key), "")?.trim().to_owned())
}

/// The file comes last: age reads no flag after it.
fn encryption(tool: &Tool, recipient: &str, plain: &Path, out: &Path) -> Command {
    let mut command = Command::new(&tool.path);
    if tool.name == POUCH {
        command.arg("encrypt");
    }
    command.args(["-r", recipient, "-o"]).arg(out).arg(plain);
    command
}
