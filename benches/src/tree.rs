//! A folder of many small files, sealed to nowhere and opened onto a file system: the bundle code of `pouch-core`
//! against `tar` and `age` in a pipe. Each is a process of its own; ours is this program, started again.

use std::ffi::OsString;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use pouch_core::age::Identity;
use pouch_core::bundle::{
    Content, Expected, FileError, Kind, Manifest, OpenError, PouchFile, PouchWriter, Scan, ScanOptions, SealError,
    Sealer, Staging, Terms, open_envelope, seal_envelope,
};
use pouch_statement::{BundleId, Fingerprint, SigningKey, Timestamp};

use crate::encrypt::make_key;
use crate::options::Options;
use crate::process::{printed, timed};
use crate::rounds::{Contender, run};
use crate::tools::Tools;
use crate::{Failure, say, table};

const FILES: usize = 20_000;
const FILE_SIZE: usize = 4096;
const FILES_IN_FOLDER: usize = 100;
/// All of them.
pub(crate) const BYTES: u64 = (FILES * FILE_SIZE) as u64;
/// What this program is told when it is started again.
const SEAL: &str = "seal-tree";
const OPEN: &str = "open-tree";

pub(crate) fn measure(options: &Options, tools: &Tools) -> Result<(), Failure> {
    let (Some(_), Some(keygen)) = (&tools.age, &tools.age_keygen) else {
        say("tree: left out, because age or age-keygen is not installed\n");
        return Ok(());
    };
    let folder = tempfile::Builder::new().prefix("pouch-benches-").tempdir_in(&options.dir)?;
    let root = folder.path();
    plant(&root.join("source"))?;
    let recipient = make_key(keygen, &root.join("key"))?;
    let own = |word: &str, names: &[&str]| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(word).args(names.iter().map(|name| root.join(name)));
        Ok::<_, Failure>(command)
    };
    let pipe = |script: String| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("cd \"$1\" && {script}"), "sh"]).arg(root);
        command
    };
    let title = title();

    let (ours, theirs) = (own(SEAL, &["source"])?, pipe(format!("tar c -C source . | age -r {recipient} > /dev/null")));
    let mut all = [
        Contender::new("pouch-core, sealed to nowhere", || timed(&ours, tools, root)),
        Contender::new("tar c, age to /dev/null", || timed(&theirs, tools, root)),
    ];
    run(&mut all, options.rounds)?;
    table::print(&format!("seal {title}"), BYTES, &all);

    printed(&mut own(SEAL, &["source", "sealed.pouch"])?, "")?;
    printed(&mut pipe(format!("tar c -C source . | age -r {recipient} > sealed.age")), "")?;
    let ours = own(OPEN, &["sealed.pouch", "ours"])?;
    let theirs = pipe("mkdir theirs && age -d -i key sealed.age | tar x -C theirs".into());
    let mut all = [
        Contender::new("pouch-core, opened into a folder", || {
            let cost = timed(&ours, tools, root)?;
            std::fs::remove_dir_all(root.join("ours"))?;
            Ok(cost)
        }),
        Contender::new("age -d, tar x", || {
            let cost = timed(&theirs, tools, root)?;
            std::fs::remove_dir_all(root.join("theirs"))?;
            Ok(cost)
        }),
    ];
    run(&mut all, options.rounds)?;
    table::print(&format!("open {title}"), BYTES, &all);
    Ok(())
}

pub(crate) fn title() -> String {
    format!("{FILES} files of {FILE_SIZE} bytes")
}

/// Small files, no two the same.
pub(crate) fn plant(root: &Path) -> Result<(), Failure> {
    for number in 0..FILES {
        let folder = root.join(format!("{:04}", number / FILES_IN_FOLDER));
        if number % FILES_IN_FOLDER == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        let bytes: Vec<u8> = (0..FILE_SIZE).map(|at| (at * 31 + number * 7) as u8).collect();
        std::fs::write(folder.join(format!("{number:06}.dat")), bytes)?;
    }
    Ok(())
}

/// What this program does when it is one of the contenders; `None` if it was not told to be.
pub(crate) fn contend(words: &[OsString]) -> Option<Result<(), Failure>> {
    let word = |at: usize| words.get(at).and_then(|word| word.to_str());
    match (word(0), word(1), word(2)) {
        (Some(SEAL), Some(source), None) => Some(seal(Path::new(source))),
        (Some(SEAL), Some(source), Some(out)) => Some(seal_into(Path::new(source), Path::new(out))),
        (Some(OPEN), Some(file), Some(into)) => Some(open(Path::new(file), Path::new(into))),
        _ => None,
    }
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn sealer(source: &Path) -> Result<Sealer, Failure> {
    let scan = Scan::new(&[source.to_owned()], ScanOptions::default())?;
    Ok(Sealer::new(Content::Tree(scan))?)
}

fn seal(source: &Path) -> Result<(), Failure> {
    let sealer = sealer(source)?;
    sealer.seal_all(cores(), |_| Ok::<_, SealError>(()))?;
    sealer.finish()?;
    Ok(())
}

/// Both people's keys are made from nothing here and written beside the file: it is thrown away soon.
fn seal_into(source: &Path, out: &Path) -> Result<(), Failure> {
    let (bo, signs, now) = (Identity::generate(), SigningKey::generate()?, Timestamp::from_unix(1_700_000_000)?);
    let card = Fingerprint::of(&bo.recipient().to_string(), &signs.public());
    let bundle = BundleId::random()?;
    let sealer = sealer(source)?;
    let mut writer = PouchWriter::create(out, bundle)?;
    sealer.seal_all(cores(), |part| Ok::<_, Failing>(writer.add_part(part.number, &part.sealed)?))?;
    let sealed = sealer.finish()?;
    let terms = Terms {
        bundle,
        kind: Kind::Dataset,
        sender: card,
        recipient: card,
        sequence: 1,
        previous: None,
        revision: 1,
        created: now,
        expires: now.plus(86_400),
        note: None,
        due: None,
        answers: None,
    };
    let manifest = Manifest::new(terms, &sealed.summary).sign(&signs)?;
    writer.finish(&sealed.sealed_index, &seal_envelope(&manifest, &sealed.key, &bo.recipient())?)?;
    let keys = format!("{}\n{card}\n{}\n", bo.expose_secret_string().as_str(), signs.public());
    Ok(std::fs::write(out.with_extension("keys"), keys)?)
}

fn open(file: &Path, into: &Path) -> Result<(), Failure> {
    let keys = std::fs::read_to_string(file.with_extension("keys"))?;
    let mut lines = keys.lines();
    let mut line = || lines.next().ok_or("a key is missing");
    let (bo, card, signs): (Identity, Fingerprint, _) = (line()?.parse()?, line()?.parse()?, line()?.parse()?);
    let now = Timestamp::from_unix(1_700_000_000)?;
    let mut file = PouchFile::open(File::open(file)?)?;
    let expected = Expected { me: &card, sender: &card, sender_key: &signs, bundle: Some(file.bundle()), now };
    let verified = open_envelope(&file.envelope()?, &bo)?.verify(&expected)?;
    let receiver = verified.open_index(&file.index()?)?.receive(Staging::new(into)?)?;
    receiver.accept_all(cores(), |number, sealed: &mut Vec<u8>| {
        file.part(number, sealed)?;
        Ok::<_, Failing>(true)
    })?;
    receiver.finish()?.publish()?;
    Ok(())
}

/// What can go wrong between a bundle and a file.
#[derive(Debug, thiserror::Error)]
enum Failing {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Open(#[from] OpenError),
}
