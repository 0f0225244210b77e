//! What encrypt and decrypt read: a file or standard input, without a buffer in between; once, or from its start again.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Chain, Cursor, IsTerminal as _, Read, Seek as _, Take};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pouch_client::Watch as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::progress::Bar;
use crate::run::Failure;

/// The last line of an armored file (C2SP age, "ASCII armor").
const ARMOR_END: &[u8] = b"-----END AGE ENCRYPTED FILE-----\n";
/// The most that is taken from a terminal, in bytes.
const MAX_TYPED: usize = 16 << 20;

/// Standard input, which can serve one purpose in a run.
#[derive(Default)]
pub(crate) struct Stdin {
    taken: Cell<bool>,
}

impl Stdin {
    /// Standard input, if nothing else reads it.
    pub(crate) fn take(&self) -> Result<File, Failure> {
        if self.taken.replace(true) {
            return Err(Failure::usage("standard input is used for several things", "name files for all but one"));
        }
        // A duplicate: std's own handle has a buffer, and looks for nothing but line ends in it.
        Ok(io::stdin().as_fd().try_clone_to_owned().map_err(Failure::other)?.into())
    }

    /// The file, or standard input where it is `-`.
    pub(crate) fn or_file(&self, path: &Path) -> Result<File, Failure> {
        if is_dash(path) { self.take() } else { File::open(path).map_err(|e| cannot_read(path, &e)) }
    }
}

/// `-`, which is standard input or output.
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A file that is not there or not ours to read.
pub(crate) fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::other(format_args!("cannot read {}: {error}", path.display()))
}

/// Lets a pipe hold as much as any user's may by default (pipe(7), "Pipe capacity"): with the usual 64 KiB its two ends
/// wait for each other at every chunk. What is no pipe, or may not, stays as it is.
pub(crate) fn widen(file: &File) {
    const CAPACITY: usize = 1 << 20;
    let _ = rustix::pipe::fcntl_setpipe_size(file, CAPACITY);
}

/// How often a read that waits looks whether it is still wanted.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A file that is read without a buffer. If it may stall, a read that waits ends soon after `unwanted` is set: the
/// thread that reads cannot be stopped otherwise, and a failure met by another would have to wait for it.
pub(crate) struct Source {
    file: File,
    stalls: bool,
    unwanted: Arc<AtomicBool>,
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stalls {
            self.wait()?;
        }
        self.file.read(out)
    }
}

impl Source {
    /// Until there is something to read, or its end.
    fn wait(&self) -> io::Result<()> {
        loop {
            if self.unwanted.load(Ordering::Relaxed) {
                return Err(io::Error::other("something else failed"));
            }
            // What poll cannot judge is read: errors come out of the reading.
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&LOOK)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

/// What is to be encrypted or decrypted.
pub(crate) struct Input {
    /// Its bytes.
    pub(crate) source: Source,
    /// To be set when no more of it is wanted.
    pub(crate) unwanted: Arc<AtomicBool>,
    /// How much is left in it, in bytes, where that is known.
    pub(crate) length: Option<u64>,
    /// Somebody types it.
    pub(crate) typed: bool,
}

impl Input {
    /// Opens the file, or standard input where none is named.
    pub(crate) fn open(path: Option<&Path>, stdin: &Stdin) -> Result<Self, Failure> {
        let (mut file, name) = match path.filter(|path| !is_dash(path)) {
            None => (stdin.take()?, Path::new("standard input")),
            Some(path) => (stdin.or_file(path)?, path),
        };
        let data = file.metadata().map_err(|e| cannot_read(name, &e))?;
        if data.is_dir() {
            let text = format!("{} is a folder", name.display());
            return Err(Failure::usage(text, "`pouch send` takes folders; here, pipe a tar of it"));
        }
        let length = if data.is_file() {
            // A shell may hand over a file of which something was read already.
            let begun = file.stream_position().map_err(|e| cannot_read(name, &e))?;
            Some(data.len().saturating_sub(begun))
        } else {
            None
        };
        let typed = file.is_terminal();
        widen(&file);
        let unwanted = Arc::new(AtomicBool::new(false));
        let source = Source { file, stalls: !data.is_file(), unwanted: unwanted.clone() };
        Ok(Self { source, unwanted, length, typed })
    }

    /// A reader that can be begun again. What is typed is read now, to the last line of an armor, so that a prompt does
    /// not come in between.
    pub(crate) fn replay(self) -> io::Result<Replay<Source>> {
        let mut replay = Replay::new(self.source);
        while self.typed && replay.kept.len() < MAX_TYPED && !replay.kept.ends_with(ARMOR_END) {
            let mut line = [0; 4096];
            if replay.read(&mut line)? == 0 {
                break;
            }
        }
        if self.typed {
            replay.inner.set_limit(0);
        }
        replay.rewind();
        Ok(replay)
    }
}

/// A reader that keeps what was read of it, to be read once more: a header is judged before it is known who opens it.
pub(crate) struct Replay<R> {
    inner: Take<R>,
    kept: Vec<u8>,
    position: usize,
}

impl<R: Read> Replay<R> {
    fn new(inner: R) -> Self {
        Self { inner: inner.take(u64::MAX), kept: Vec::new(), position: 0 }
    }

    /// Begins again.
    pub(crate) fn rewind(&mut self) {
        self.position = 0;
    }

    /// The whole, from its start; nothing more is kept.
    pub(crate) fn into_whole(self) -> Chain<Cursor<Vec<u8>>, Take<R>> {
        Cursor::new(self.kept).chain(self.inner)
    }
}

impl<R: Read> Read for Replay<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let again = self.kept.get(self.position..).unwrap_or_default();
        let count = if again.is_empty() {
            let count = self.inner.read(out)?;
            self.kept.extend_from_slice(out.get(..count).unwrap_or_default());
            count
        } else {
            let count = again.len().min(out.len());
            if let (Some(to), Some(from)) = (out.get_mut(..count), again.get(..count)) {
                to.copy_from_slice(from);
            }
            count
        };
        self.position += count;
        Ok(count)
    }
}

/// A reader whose progress is shown.
pub(crate) struct Watched<'a, R> {
    inner: R,
    bar: &'a Bar,
}

impl<'a, R: Read> Watched<'a, R> {
    /// Tells `bar` of each read.
    pub(crate) fn new(inner: R, bar: &'a Bar) -> Self {
        Self { inner, bar }
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.bar.advance(count as u64);
        Ok(count)
    }
}

/// Reads a small file to its end; more than `limit` bytes are refused, not cut off.
pub(crate) fn read_small(mut file: File, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let expected = file.metadata().map_or(0, |data| usize::try_from(data.len()).unwrap_or(limit));
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected.min(limit)));
    let mut piece = Zeroizing::new([0; 4096]);
    loop {
        let read = match file.read(piece.as_mut_slice()) {
            Ok(0) => return Ok(bytes),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read > limit - bytes.len() {
            return Err(io::Error::other(format!("it is longer than {limit} bytes")));
        }
        append(&mut bytes, piece.get(..read).unwrap_or_default());
    }
}

/// Appends to what may be secret: memory that becomes too small is wiped before it is given back.
pub(crate) fn append(to: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let needed = to.len() + more.len();
    if needed > to.capacity() {
        let larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * to.capacity())));
        // The old one is wiped as it is dropped.
        let old = std::mem::replace(to, larger);
        to.extend_from_slice(&old);
    }
    to.extend_from_slice(more);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_read_again() {
        let mut replay = Replay::new(&b"0123456789"[..]);
        let mut some = [0; 4];
        for expected in [b"0123", b"4567"] {
            replay.read_exact(&mut some).unwrap();
            assert_eq!(&some, expected);
        }
        replay.rewind();
        let mut more = [0; 6];
        replay.read_exact(&mut more).unwrap();
        assert_eq!(&more, b"012345");
        let mut whole = Vec::new();
        replay.into_whole().read_to_end(&mut whole).unwrap();
        assert_eq!(whole, b"0123456789");
    }

    #[test]
    fn appending_keeps_what_is_there() {
        let mut held = Zeroizing::new(Vec::new());
        for number in 0..1000_u32 {
            append(&mut held, &number.to_be_bytes());
        }
        assert!(held.chunks(4).zip(0..).all(|(bytes, number): (_, u32)| bytes == number.to_be_bytes()));
        assert_eq!(held.len(), 4000);
    }

    #[test]
    fn a_small_file_is_read_whole_or_refused() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &[7; 9000]).unwrap();
        for (limit, fits) in [(9001, true), (9000, true), (8999, false)] {
            file.rewind().unwrap();
            let read = read_small(file.try_clone().unwrap(), limit);
            assert_eq!(read.is_ok_and(|bytes| bytes[..] == [7; 9000]), fits, "{limit}");
        }
    }
}
