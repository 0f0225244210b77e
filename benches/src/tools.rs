//! The programs that are measured. One that is not installed is left out and named.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, remark};

/// The program that this is all about.
pub(crate) const POUCH: &str = "pouch";

/// A program and what it says of its version.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

/// What there is to measure and to measure with.
pub(crate) struct Tools {
    pub(crate) pouch: Tool,
    pub(crate) age: Option<Tool>,
    pub(crate) age_keygen: Option<Tool>,
    pub(crate) rage: Option<Tool>,
    pub(crate) nginx: Option<Tool>,
    pub(crate) curl: Option<Tool>,
    pub(crate) wormhole: Option<Tool>,
    /// What runs the servers of magic-wormhole.
    pub(crate) twistd: Option<Tool>,
    pub(crate) sshd: Option<Tool>,
    /// What slows fsyncs down.
    pub(crate) strace: bool,
    /// GNU time, which reports a child's peak memory from `wait4`.
    pub(crate) time: Option<PathBuf>,
}

impl Tools {
    pub(crate) fn find() -> Result<Self, Failure> {
        let time = PathBuf::from("/usr/bin/time");
        Ok(Self {
            pouch: build_pouch()?,
            age: on_path("age"),
            age_keygen: on_path("age-keygen"),
            rage: on_path("rage"),
            nginx: on_path("nginx"),
            curl: on_path("curl"),
            wormhole: on_path("wormhole"),
            twistd: on_path("twistd"),
            sshd: on_path("sshd"),
            strace: on_path("strace").is_some(),
            time: time.is_file().then_some(time),
        })
    }

    /// The machine, the versions, and what is missing.
    pub(crate) fn describe(&self) -> String {
        let mut text = machine();
        let peers = [&self.age, &self.rage, &self.nginx, &self.curl, &self.wormhole, &self.sshd];
        for tool in std::iter::once(&self.pouch).chain(peers.into_iter().flatten()) {
            let _ = writeln!(text, "- {}: {}", tool.name, tool.version);
        }
        let missing = [
            ("age", self.age.is_none()),
            ("age-keygen", self.age_keygen.is_none()),
            ("rage", self.rage.is_none()),
            ("nginx", self.nginx.is_none()),
            ("curl", self.curl.is_none()),
            ("magic-wormhole", self.wormhole.is_none()),
            ("twistd with magic-wormhole's two servers", self.twistd.is_none()),
            ("sshd", self.sshd.is_none()),
            ("strace (so no slowed fsync)", !self.strace),
            ("/usr/bin/time (so no peak memory)", self.time.is_none()),
        ];
        for (name, _) in missing.iter().filter(|(_, missing)| *missing) {
            let _ = writeln!(text, "- not installed, left out: {name}");
        }
        text
    }
}

/// Builds `pouch` as it is in the tree, next to this program, so that no stale one is measured.
fn build_pouch() -> Result<Tool, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    remark("building pouch");
    let built = Command::new(cargo).args(["build", "--release", "--quiet", "-p", POUCH]).status()?;
    if !built.success() {
        return Err("pouch does not build".into());
    }
    let path = std::env::current_exe()?.with_file_name(POUCH);
    if !path.is_file() {
        return Err(format!("no {}; start this with cargo run", path.display()).into());
    }
    Ok(Tool { name: POUCH, version: version(&path), path })
}

fn on_path(name: &'static str) -> Option<Tool> {
    let path = std::env::var_os("PATH")?;
    let path = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())?;
    Some(Tool { name, version: version(&path), path })
}

/// The first line of what it says of itself; nginx knows the short option alone, and answers on standard error.
fn version(path: &Path) -> String {
    let option = match path.file_name().and_then(OsStr::to_str) {
        Some("nginx") => "-v",
        Some("sshd") => "-V",
        _ => "--version",
    };
    let output = Command::new(path).arg(option).output();
    let said = output.map(|o| [o.stdout, o.stderr].concat()).unwrap_or_default();
    let first = String::from_utf8_lossy(&said).lines().next().map(|line| line.trim().to_owned());
    first.filter(|line| !line.is_empty()).unwrap_or_else(|| "of unknown version".to_owned())
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_else(|| "unknown memory".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("- machine: {cpu}, {cores} cores, {memory}\n")
}

/// A command line, for reports.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let short = |word: &OsStr| {
        let path = Path::new(word);
        let name = if path.is_absolute() { path.file_name().unwrap_or(word) } else { word };
        name.to_string_lossy().into_owned()
    };
    words.map(short).collect::<Vec<_>>().join(" ")
}
