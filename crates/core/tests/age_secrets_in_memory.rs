//! What stays in a process's memory after a file was sealed and opened: no file key, no payload key, no identity, no
//! passphrase and nothing of the content (attacks.md 59).
//!
//! A child process does the work, drops all of it and waits. Its parent, which knows every secret, reads the child's
//! memory: heap, stacks, everything writable that is mapped. It sees neither registers nor what the kernel holds, and
//! only this one moment. That it can find a secret at all is shown first, on one that the child keeps.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use age::Identity as _;
use age_core::format::Stanza;
use age_core::primitives::bech32_decode;
use age_core::secrecy::ExposeSecret;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hkdf::Hkdf;
use pouch_core::age::{Identity, Passphrase, decrypt_stream, encrypt_stream};
use sha2::{Digest, Sha256, Sha512};
use sha3::Shake256;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use zeroize::Zeroizing;

const CHILD: &str = "POUCH_TEST_CHILD";
const CONTENT_LEN: usize = 3 << 20;
const KEPT: [u8; 32] = *b"something that the child keeps..";

/// Bytes that stand in no program by chance, and not even twice in themselves.
fn content() -> Vec<u8> {
    let mut bytes = vec![0; CONTENT_LEN];
    blake3::Hasher::new_derive_key("a content to look for").finalize_xof().fill(&mut bytes);
    bytes
}

/// The identity's secret is read from standard input, so that it is in no argument or variable; its length is in one.
fn child(length: usize) {
    let kept = std::hint::black_box(KEPT.to_vec());
    let threads = NonZero::new(2).unwrap();
    let mut secret = Zeroizing::new(vec![0; length]);
    // Not through the standard library's buffer, which nobody wipes.
    let mut stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    stdin.read_exact(&mut secret).unwrap();
    let sealed = {
        let identity: Identity = std::str::from_utf8(&secret).unwrap().parse().unwrap();
        let passphrase = Passphrase::new(Zeroizing::new("correct horse battery staple".to_owned()));
        let passphrase = passphrase.with_work_factor(2).unwrap();
        let mut sealed = Vec::new();
        let plain = Zeroizing::new(content());
        encrypt_stream(&identity.recipient(), plain.as_slice(), &mut sealed, threads).unwrap();
        let mut back = Zeroizing::new(Vec::with_capacity(CONTENT_LEN));
        decrypt_stream(&identity, sealed.as_slice(), &mut *back, threads).unwrap();
        assert!(back == plain);
        encrypt_stream(&passphrase, &plain[..100], std::io::sink(), threads).unwrap();
        sealed
    };
    drop(secret);
    // The header and the nonce, which are public.
    println!("{}", BASE64_STANDARD_NO_PAD.encode(&sealed[..512]));
    stdin.read_to_end(&mut Vec::new()).unwrap();
    std::hint::black_box(kept);
}

/// What is found in all that is mapped writable in a process, and whether it was on a thread's stack.
fn memory_holds(pid: u32, needles: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, bool)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    let mut guard_end = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        // A page that nobody may touch lies below every thread's stack.
        let stack = line.ends_with("[stack]") || guard_end == start;
        guard_end = if rights == "---p" && end - start == 4096 { end } else { 0 };
        let mut bytes = vec![0; (end - start) as usize];
        // Some mappings of the kernel cannot be read.
        let Some(read) = rights.starts_with("rw").then(|| memory.read_at(&mut bytes, start).ok()).flatten() else {
            continue;
        };
        for (name, needle) in needles {
            if bytes[..read].windows(needle.len()).any(|window| window == needle) {
                found.push((*name, stack));
            }
        }
    }
    found
}

/// The file key of a file for one X25519 recipient, by the `age` crate, and the payload key from it.
fn keys(head: &[u8], secret: &str) -> (Vec<u8>, Vec<u8>) {
    let lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').collect();
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
    let mut words = text(lines[1]).split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let body = BASE64_STANDARD_NO_PAD.decode(lines[2]).unwrap();
    let stanza = Stanza { tag: words.remove(0), args: words, body };
    let identity: age::x25519::Identity = secret.parse().unwrap();
    let file_key = identity.unwrap_stanzas(&[stanza]).unwrap().ok().unwrap().expose_secret().to_vec();
    let header_len: usize = lines[..4].iter().map(|line| line.len() + 1).sum();
    let mut payload_key = vec![0; 32];
    let nonce = &head[header_len..header_len + 16];
    Hkdf::<Sha256>::new(Some(nonce), &file_key).expand(b"payload", &mut payload_key).unwrap();
    (file_key, payload_key)
}

/// What the parent gave as length, if this is the child.
fn child_length() -> Option<usize> {
    std::env::var(CHILD).ok().map(|length| length.parse().unwrap())
}

/// A child that did its work and waits.
struct Waiting {
    child: Child,
    stdin: ChildStdin,
    /// Held open, for the child still has something to say at its end.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Waiting {
    /// Looks into its memory and lets it end.
    fn holds(mut self, needles: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, bool)> {
        let found = memory_holds(self.child.id(), needles);
        drop(self.stdin);
        self.child.wait().unwrap();
        found
    }
}

/// Starts this test anew as a child with this secret: the child, and the beginning of the file it made.
fn start(test: &str, secret: &str) -> (Waiting, Vec<u8>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(CHILD, secret.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(secret.as_bytes()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let head =
        lines.find_map(|line| BASE64_STANDARD_NO_PAD.decode(line.unwrap()).ok().filter(|head| head.len() == 512));
    (Waiting { child, stdin, _stdout: lines }, head.unwrap())
}

/// Hybrid keys are expanded from a seed each time, and SSH keys are read from a file by another library.
#[test]
fn attack_59_no_hybrid_and_no_ssh_key_stays_in_memory() {
    if let Some(length) = child_length() {
        return child(length);
    }
    let hybrid = Identity::generate().expose_secret_string();
    let seed = bech32_decode(&hybrid, |_| (), |_| Ok(()), |_, bytes| Ok(bytes.collect::<Vec<u8>>())).unwrap();
    // ML-KEM's two seeds and the X25519 secret (draft-ietf-hpke-pq).
    let mut expanded = [0; 96];
    XofReader::read(&mut Shake256::default().chain(&seed).finalize_xof(), &mut expanded);
    let ssh = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACBIs37PH0M075CoV8o81YhkoRXncAKJTKdFHol8+AZWMwAAAJB5ZR3aeWUd
2gAAAAtzc2gtZWQyNTUxOQAAACBIs37PH0M075CoV8o81YhkoRXncAKJTKdFHol8+AZWMw
AAAEBbuuAn/T6Q+ig82qqoR8cfN7RPIFufZni2E34uCLX1tkizfs8fQzTvkKhXyjzViGSh
FedwAolMp0UeiXz4BlYzAAAACWJvQGxhcHRvcAECAwQ=
-----END OPENSSH PRIVATE KEY-----
";
    let ssh_seed = BASE64_STANDARD_NO_PAD.decode("W7rgJ/0+kPooPNqqqEfHHze0TyBbn2Z4thN+Lgi19bY").unwrap();
    let scalar = Sha512::digest(&ssh_seed)[..32].to_vec();
    let cases = [
        (
            hybrid.as_str(),
            vec![
                ("the identity", hybrid.as_bytes()[20..52].to_vec()),
                ("the hybrid seed", seed),
                ("ML-KEM's d", expanded[..32].to_vec()),
                ("ML-KEM's z", expanded[32..64].to_vec()),
                ("the X25519 secret", expanded[64..].to_vec()),
            ],
        ),
        (
            ssh,
            vec![("the ssh seed", ssh_seed), ("the scalar", scalar), ("the file", ssh.as_bytes()[260..300].to_vec())],
        ),
    ];
    for (secret, mut needles) in cases {
        needles.push(("what it keeps", KEPT.to_vec()));
        let (child, head) = start("attack_59_no_hybrid_and_no_ssh_key_stays_in_memory", secret);
        assert!(head.starts_with(b"age-encryption.org/v1\n-> "));
        assert_eq!(child.holds(&needles), [("what it keeps", false)]);
    }
}

#[test]
fn attack_59_no_secret_stays_in_memory_once_it_is_dropped() {
    if let Some(length) = child_length() {
        return child(length);
    }
    let identity = Identity::generate_x25519();
    let secret = identity.expose_secret_string();
    let (child, head) = start("attack_59_no_secret_stays_in_memory_once_it_is_dropped", &secret);
    let (file_key, payload_key) = keys(&head, &secret);
    let content = content();
    let needles = [
        ("what it keeps", KEPT.to_vec()),
        ("the file key", file_key),
        ("the payload key", payload_key),
        ("the identity", secret.as_bytes()[20..52].to_vec()),
        ("the passphrase", b"correct horse battery staple".to_vec()),
        ("the content, its beginning", content[..32].to_vec()),
        ("the content, a chunk's end", content[65_536 - 32..65_536].to_vec()),
        ("the content, its middle", content[CONTENT_LEN / 2..CONTENT_LEN / 2 + 32].to_vec()),
        ("the content, its end", content[CONTENT_LEN - 32..].to_vec()),
    ];
    let found = child.holds(&needles);
    // The assembly of the AEAD spills its key to the stack of the thread and does not wipe it there. It is the key of
    // one file, and docs/threat-model.md says so; nothing else may stay, and this nowhere else.
    let found: Vec<_> = found.into_iter().filter(|found| *found != ("the payload key", true)).collect();
    assert_eq!(found, [("what it keeps", false)]);
}
