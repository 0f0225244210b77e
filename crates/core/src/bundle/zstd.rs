//! One frame of Zstandard (RFC 8878): made, and opened into exactly the bytes that it was said to hold.

use zeroize::Zeroizing;
use zstd_safe::{CCtx, CParameter, DCtx, find_frame_compressed_size, get_error_name};

use super::frames::{FRAME_SIZE, max_frame};

/// docs/decisions/0012-zstd-frames.md has the figures.
const LEVEL: i32 = 3;
/// What a frame begins with (RFC 8878, §3.1.1).
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// As long as a frame at most, so that the window of each one is its content.
const WINDOW_LOG: u32 = FRAME_SIZE.ilog2();

/// Why bytes are not the frame that they have to be.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// Skippable, of another format, with a dictionary, or with bits that nothing defines.
    #[error("it is not a plain frame")]
    Header,
    /// It says that it holds another number of bytes, or does not say how many.
    #[error("it does not say that it holds the bytes that it should")]
    Size,
    /// Its window is said apart. Decoders differ in whether they hold a frame to that, so one would take what another
    /// refuses; where the content itself is the window, all agree.
    #[error("its window is not its content")]
    Window,
    /// It ends before its bytes do, or after them.
    #[error("it has another length than the index says")]
    Length,
    /// It does not decompress, or to more or less than it says, or to bytes of another checksum.
    #[error("it does not decompress: {0}")]
    Damaged(&'static str),
}

/// Compresses frames, with memory that is used again: about 10 MiB.
pub(super) struct Packer {
    context: CCtx<'static>,
    raw: Zeroizing<Vec<u8>>,
    packed: Zeroizing<Vec<u8>>,
}

impl Packer {
    /// With memory for any frame; in error what zstd says.
    pub(super) fn new() -> Result<Self, &'static str> {
        let mut context = CCtx::try_create().ok_or("there is not enough memory")?;
        // The content is checked by its digests, so no checksum; there is never a dictionary.
        for parameter in [
            CParameter::CompressionLevel(LEVEL),
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            context.set_parameter(parameter).map_err(get_error_name)?;
        }
        let raw = Zeroizing::new(vec![0; FRAME_SIZE as usize]);
        let packed = Zeroizing::new(vec![0; max_frame(FRAME_SIZE) as usize]);
        Ok(Self { context, raw, packed })
    }

    /// Room for `len` bytes of content, at most a frame.
    pub(super) fn room(&mut self, len: u64) -> &mut [u8] {
        self.raw.get_mut(..len as usize).unwrap_or_default()
    }

    /// The frame of the first `len` bytes of that room.
    pub(super) fn pack(&mut self, len: usize) -> Result<&[u8], &'static str> {
        let raw = self.raw.get(..len).unwrap_or_default();
        let size = self.context.compress2(self.packed.as_mut_slice(), raw).map_err(get_error_name)?;
        Ok(self.packed.get(..size).unwrap_or_default())
    }
}

/// Decompresses frames into memory for one, which is used again. Beside it the library takes less than 256 KiB, whatever
/// the frame says: opened in one piece, the output is the window.
pub(super) struct Unpacker {
    context: DCtx<'static>,
    raw: Zeroizing<Vec<u8>>,
}

impl Unpacker {
    /// `None` without memory.
    pub(super) fn new() -> Option<Self> {
        Some(Self { context: DCtx::try_create()?, raw: Zeroizing::new(vec![0; FRAME_SIZE as usize]) })
    }

    /// The `len` bytes that `frame` holds. There is no room for one more (attacks.md 12).
    pub(super) fn unpack(&mut self, frame: &[u8], len: u64) -> Result<&[u8], FrameError> {
        check_header(frame, len)?;
        let length = find_frame_compressed_size(frame).map_err(|_| FrameError::Length)?;
        if length != frame.len() {
            return Err(FrameError::Length);
        }
        let room = usize::try_from(len).ok().and_then(|len| self.raw.get_mut(..len)).ok_or(FrameError::Size)?;
        let found = self.context.decompress(room, frame).map_err(|code| FrameError::Damaged(get_error_name(code)))?;
        if found == room.len() { Ok(room) } else { Err(FrameError::Size) }
    }
}

/// Holds a frame's header (RFC 8878, §3.1.1.1) against what it must say.
fn check_header(frame: &[u8], len: u64) -> Result<(), FrameError> {
    let rest = frame.strip_prefix(&MAGIC).ok_or(FrameError::Header)?;
    let (descriptor, rest) = rest.split_first().ok_or(FrameError::Header)?;
    const SINGLE_SEGMENT: u8 = 0x20;
    const CHECKSUM: u8 = 0x04;
    // What is left are the unused bit, the reserved one, and the length of a dictionary's id.
    if descriptor & 0x1f & !CHECKSUM != 0 {
        return Err(FrameError::Header);
    }
    if descriptor & SINGLE_SEGMENT == 0 {
        return Err(FrameError::Window);
    }
    let (width, more) = match descriptor >> 6 {
        0 => (1, 0),
        1 => (2, 256),
        2 => (4, 0),
        _ => (8, 0),
    };
    let field = rest.get(..width).ok_or(FrameError::Header)?;
    let said = field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)) + more;
    if said == len { Ok(()) } else { Err(FrameError::Size) }
}
