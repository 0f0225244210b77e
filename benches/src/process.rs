//! One run of a command: how long it took and how much memory it held.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::tools::{Tools, line};

/// What one run cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// Peak resident memory in KiB, where it could be measured.
    pub(crate) peak: Option<u64>,
}

/// Runs `command` to its end, its output thrown away. A command that fails ends the measurement.
pub(crate) fn timed(command: &Command, tools: &Tools, scratch: &Path) -> Result<Cost, Failure> {
    let report = scratch.join("peak");
    let mut wrapped = match &tools.time {
        Some(time) => {
            let mut wrapped = Command::new(time);
            wrapped.args(["-q", "-f", "%M", "-o"]).arg(&report).arg(command.get_program());
            wrapped
        }
        None => Command::new(command.get_program()),
    };
    wrapped.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    let start = Instant::now();
    let output = wrapped.output()?;
    let wall = start.elapsed();
    if !output.status.success() {
        return Err(format!("{} failed: {}", line(command), String::from_utf8_lossy(&output.stderr)).into());
    }
    let peak = tools.time.as_ref().and_then(|_| std::fs::read_to_string(&report).ok()?.trim().parse().ok());
    Ok(Cost { wall, peak })
}

/// Runs `command` with `input` and gives what it printed.
pub(crate) fn printed(command: &mut Command, input: &str) -> Result<String, Failure> {
    Ok(String::from_utf8(printed_bytes(command, input.as_bytes())?)?)
}

/// Like [`printed`], for what is no text.
pub(crate) fn printed_bytes(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", line(command), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(output.stdout)
}

/// Makes a file of `size` bytes that nothing can compress, the same each time, and leaves it in the page cache.
pub(crate) fn make_file(path: &Path, size: u64) -> Result<(), Failure> {
    const BLOCK: usize = 1 << 20;
    let mut file = File::create_new(path)?;
    let mut block = vec![0; BLOCK];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut left = size;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let count = left.min(BLOCK as u64);
        file.write_all(block.get(..count as usize).unwrap_or_default())?;
        left -= count;
    }
    // Written back now, so that it does not happen during a measurement.
    file.sync_all()?;
    warm(path)
}

/// Reads a file once, so that its pages are in memory.
pub(crate) fn warm(path: &Path) -> Result<(), Failure> {
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 20];
    while file.read(&mut block)? > 0 {}
    Ok(())
}
