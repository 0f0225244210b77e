//! age version 1 files (C2SP age): seal for recipients or a passphrase, and open again.
//!
//! A file is a textual header, which wraps a fresh file key once for each recipient, and a payload in
//! chunks of 64 KiB (STREAM). Everything here is synchronous over [`std::io`]; there is no network, no
//! clock and no `$HOME`. Only plaintext that its chunk's tag vouches for ever leaves a reader, and a
//! header is bounded before it is parsed.
//!
//! ```
//! use std::io::{Read, Write};
//! use pouch_core::age::{Identity, decrypt, encrypt};
//!
//! let identity = Identity::generate();
//! let recipient = identity.recipient();
//!
//! let mut writer = encrypt(&recipient, Vec::new())?;
//! writer.write_all(b"for one person")?;
//! let sealed = writer.finish()?; // without it the file is cut short, and nothing opens it
//!
//! let mut plain = String::new();
//! decrypt(&identity, sealed.as_slice())?.read_to_string(&mut plain)?;
//! assert_eq!(plain, "for one person");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | file | concept |
//! | --- | --- |
//! | `header` | the textual header: strict parser with caps, writer, MAC |
//! | `keys`, `hybrid`, `ssh`, `passphrase` | recipients, identities and passphrases, and the stanzas they make |
//! | `recipient` | the file key: wrapped for whom, unwrapped with what |
//! | `stream`, `aead` | chunk arithmetic, nonces, the payload key, the one AEAD |
//! | `write`, `read`, `part`, `chunks` | the payload as a writer, as a reader, in memory, and chunk by chunk in place |
//! | `parallel`, `pipeline` | whole streams on several threads, and how their order is kept |
//! | `seek` | any range of the content |
//! | `armor` | the textual encoding of a whole file |

mod aead;
mod armor;
mod chunks;
mod error;
mod header;
mod hybrid;
mod keys;
mod parallel;
mod part;
mod passphrase;
mod pipeline;
mod read;
mod recipient;
mod seek;
mod ssh;
mod stream;
mod write;

pub use aead::TAG_LEN;
pub use armor::{ArmorError, ArmorReader, ArmorWriter, Encoding};
pub(crate) use chunks::{make_room, open_chunks, rooms, seal_filled};
pub use error::{Error, Kind, Result};
pub use header::{HeaderError, MAX_HEADER_LEN, MAX_HEADER_LINE_LEN, MAX_STANZAS};
pub use keys::{
    Identity, IdentityFile, KeyError, KeyKind, LockedIdentity, MAX_IDENTITY_FILE, Recipient, parse_identities,
    parse_recipients,
};
pub use parallel::{decrypt_stream, encrypt_stream};
pub use part::{PART_OVERHEAD, open_part, open_sole, plain_len, seal_part, seal_to_vec, sealed_len};
pub use passphrase::{DEFAULT_WORK_FACTOR, MAX_WORK_FACTOR, Passphrase};
pub use pipeline::Workers;
pub use read::{DecryptReader, decrypt, decrypt_encoded};
pub use recipient::{Opener, Sealer};
pub use seek::{SeekableReader, decrypt_seekable};
pub use stream::{CHUNK_LEN, PayloadError};
pub use write::{EncryptWriter, encrypt};
