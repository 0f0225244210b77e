//! Sealing a payload as it is written.

use std::io::{self, Write};

use zeroize::Zeroizing;

use super::aead::TAG_LEN;
use super::error::{Error, Result};
use super::recipient::{Sealer, start};
use super::stream::{CHUNK_LEN, PayloadKey, SEALED_CHUNK_LEN};

/// Writes an age file's header to `output` and returns the writer that seals its content.
///
/// # Errors
///
/// No recipients or too many, no random bytes, or whatever `output` says.
pub fn encrypt<'a, W: Write>(to: impl Into<Sealer<'a>>, mut output: W) -> Result<EncryptWriter<W>> {
    let (header, key) = start(&to.into())?;
    output.write_all(&header)?;
    Ok(EncryptWriter {
        output,
        key,
        chunk: 0,
        buffer: Zeroizing::new(vec![0; SEALED_CHUNK_LEN]),
        filled: 0,
        broken: false,
    })
}

/// Seals what is written to it, 64 KiB at a time.
///
/// Call [`finish`](Self::finish): only that marks the last chunk, and a file without one is refused by every
/// reader. Dropping the writer leaves such a file. A flush cannot push out a chunk that is not full.
///
/// An error of the output is final: a chunk that was already sealed is never sealed again, and every later
/// call fails.
pub struct EncryptWriter<W: Write> {
    output: W,
    key: PayloadKey,
    /// Number of the chunk that is being filled.
    chunk: u64,
    /// Room for one chunk and its tag; holds plaintext until it is sealed in place.
    buffer: Zeroizing<Vec<u8>>,
    filled: usize,
    broken: bool,
}

impl<W: Write> EncryptWriter<W> {
    /// Seals the last chunk, flushes the output and gives it back.
    ///
    /// # Errors
    ///
    /// Whatever the output says, or an earlier failure.
    pub fn finish(mut self) -> io::Result<W> {
        self.usable()?;
        self.seal_buffer(true)?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn usable(&self) -> Result<()> {
        if self.broken { Err(Error::Broken) } else { Ok(()) }
    }

    /// Seals the buffer in place and writes it out.
    fn seal_buffer(&mut self, last: bool) -> Result<()> {
        self.broken = true;
        let sealed = self.buffer.get_mut(..self.filled + TAG_LEN).ok_or(Error::Library)?;
        self.key.seal_in_place(self.chunk, last, sealed)?;
        self.output.write_all(sealed)?;
        self.filled = 0;
        self.next_chunk()
    }

    /// Seals a full chunk that is not the last from the caller's memory, without copying it first.
    fn seal_through(&mut self, plain: &[u8; CHUNK_LEN]) -> Result<()> {
        self.broken = true;
        self.key.seal(self.chunk, false, plain, &mut self.buffer)?;
        self.output.write_all(&self.buffer)?;
        self.next_chunk()
    }

    fn next_chunk(&mut self) -> Result<()> {
        self.chunk = self.chunk.checked_add(1).ok_or(Error::Length { len: u64::MAX })?;
        self.broken = false;
        Ok(())
    }
}

impl<W: Write> Write for EncryptWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.usable()?;
        if data.is_empty() {
            return Ok(0);
        }
        // A full chunk waits until more arrives, for only then is it known not to be the last.
        if self.filled == CHUNK_LEN {
            self.seal_buffer(false)?;
        }
        if self.filled == 0
            && let Some((chunk, rest)) = data.split_first_chunk::<CHUNK_LEN>()
            && !rest.is_empty()
        {
            self.seal_through(chunk)?;
            return Ok(CHUNK_LEN);
        }
        let taken = data.len().min(CHUNK_LEN - self.filled);
        let room = self.buffer.get_mut(self.filled..self.filled + taken);
        let (Some(room), Some(data)) = (room, data.get(..taken)) else {
            return Err(Error::Library.into());
        };
        room.copy_from_slice(data);
        self.filled += taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.usable()?;
        self.output.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::{Identity, decrypt};
    use super::*;
    use std::io::Read;

    /// Fails once after `left` bytes, then accepts everything.
    struct FailsOnce {
        left: usize,
        failed: bool,
    }

    impl Write for FailsOnce {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            if !self.failed && data.len() > self.left {
                self.failed = true;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.left = self.left.saturating_sub(data.len());
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    // attacks.md 33 (one chunk's key and nonce never meet two plaintexts, not even after an error)
    #[test]
    fn nothing_is_sealed_after_a_failed_write() {
        let recipient = Identity::generate_x25519().recipient();
        for data in [vec![0; 3 * CHUNK_LEN], vec![0; 100]] {
            let mut writer = encrypt(&recipient, FailsOnce { left: 300, failed: false }).unwrap();
            writer.write_all(&data[..50]).unwrap();
            let first = writer.write_all(&[0; CHUNK_LEN]).unwrap_err();
            assert_eq!(first.kind(), io::ErrorKind::StorageFull);
            for again in [writer.write(&data).unwrap_err(), writer.flush().unwrap_err(), writer.finish().err().unwrap()]
            {
                assert!(matches!(Error::of(&again), Some(Error::Broken)));
            }
        }
    }

    // attacks.md 17
    #[test]
    fn without_finish_nothing_opens_it() {
        let identity = Identity::generate();
        for len in [0, 1, CHUNK_LEN, CHUNK_LEN + 1] {
            let mut file = Vec::new();
            let mut writer = encrypt(&identity.recipient(), &mut file).unwrap();
            writer.write_all(&vec![1; len]).unwrap();
            drop(writer);
            let error = decrypt(&identity, file.as_slice()).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
