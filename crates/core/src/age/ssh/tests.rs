#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::Read;

use super::super::{
    Identity as AnyIdentity, IdentityFile, KeyKind, Passphrase, Recipient as AnyRecipient, decrypt, parse_identities,
    parse_recipients, seal_to_vec,
};
use super::*;

// Made by ssh-keygen for these tests.
const PUBLIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEizfs8fQzTvkKhXyjzViGShFedwAolMp0UeiXz4BlYz bo@laptop";
const PRIVATE: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACBIs37PH0M075CoV8o81YhkoRXncAKJTKdFHol8+AZWMwAAAJB5ZR3aeWUd
2gAAAAtzc2gtZWQyNTUxOQAAACBIs37PH0M075CoV8o81YhkoRXncAKJTKdFHol8+AZWMw
AAAEBbuuAn/T6Q+ig82qqoR8cfN7RPIFufZni2E34uCLX1tkizfs8fQzTvkKhXyjzViGSh
FedwAolMp0UeiXz4BlYzAAAACWJvQGxhcHRvcAECAwQ=
-----END OPENSSH PRIVATE KEY-----
";
/// Its passphrase is `correct horse`.
const LOCKED_PUBLIC: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJIDgzY8J/YNODy6GaBo9L5zNCaSdnIv8xRMrdJUjvR1 bo@laptop";
const LOCKED: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABChiVH54M
hvXjKqv5cgH2WOAAAAAQAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIJIDgzY8J/YNODy6
GaBo9L5zNCaSdnIv8xRMrdJUjvR1AAAAkGRcoSVOEtyvMj6rz4IyhNt267LYAuoEXNMiUA
wkuzaRknePOZQThtQQWMYmSxop6MORGJsK9uZQgAl1gKfp4d3seXfgNfUG7+K8Du5GYWGR
IzKBsGvVOKoKArN+Wr5UZABsi4kQM1y1NIm2ajDPsVtda25Sge9AWtpgrHkB4IR2lZlWaA
gUKHmYl1AFXeCUIg==
-----END OPENSSH PRIVATE KEY-----
";
/// `for bo`, sealed by the age command for [`PUBLIC`].
const SEALED: &str = "\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNzaC1lZDI1NTE5IEtnM1lpZyBmdVJ3
S1ROZGRiM2NjSEhXbTlGUHlXMEJsblkxaWpKcVdFQWIvV3dWVUYwCmtheEdBK2RD
dytVaDdRdmJQajZ1SnJDWEkwZitiZTN3SGt1OVUwK2dWN3cKLS0tIDMzV1RDQ0sr
clFINklXN1dZdEdtTDVDZEV6Tno2TFNjQVowWjFEc1Z2WjAKLl7fFkB6U0vfizD8
2O2BPawwfOg9z/cuZ29PbNYF6Lw7ANaVFCs=
-----END AGE ENCRYPTED FILE-----
";

fn file_key() -> FileKey {
    FileKey::new(Box::new([3; FILE_KEY_BYTES]))
}

fn open(text: &str) -> Identity {
    match parse_private(text) {
        Ok(PrivateFile::Open(identity)) => *identity,
        _ => panic!("it has no passphrase"),
    }
}

fn refused(text: &str) -> KeyError {
    parse_private(text).err().unwrap()
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned()))
}

/// The file with its bytes changed.
fn changed(pem: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut bytes = BASE64_STANDARD.decode(body).unwrap();
    change(&mut bytes);
    let text = BASE64_STANDARD.encode(bytes);
    let lines: Vec<&str> = text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", lines.join("\n"))
}

#[test]
fn what_the_age_command_sealed_opens() {
    let identity: AnyIdentity = PRIVATE.parse().unwrap();
    assert_eq!(identity.kind(), KeyKind::SshEd25519);
    let mut plain = String::new();
    decrypt(&identity, SEALED.as_bytes()).unwrap().read_to_string(&mut plain).unwrap();
    assert_eq!(plain, "for bo");
}

#[test]
fn public_and_private_halves_belong_together() {
    let recipient: AnyRecipient = PUBLIC.parse().unwrap();
    let identity: AnyIdentity = PRIVATE.parse().unwrap();
    assert_eq!(identity.recipient(), recipient);
    assert_eq!(format!("{recipient} bo@laptop"), PUBLIC);
    assert_eq!(recipient, recipient.to_string().parse().unwrap());
    assert!(!recipient.kind().is_post_quantum());
    let again: AnyIdentity = identity.expose_secret_string().parse().unwrap();
    assert_eq!(again.recipient(), recipient);
    // X25519 sees the same point from both sides.
    let inner = open(PRIVATE);
    assert_eq!(Point::from(&StaticSecret::from(*inner.scalar)).to_bytes(), inner.recipient.point);
}

#[test]
fn wraps_for_one_and_for_nobody_else() {
    let (bo, other) = (open(PRIVATE), Recipient::parse(LOCKED_PUBLIC).unwrap());
    let stanzas = [other.wrap(&file_key()).unwrap(), bo.recipient.wrap(&file_key()).unwrap()];
    let opened = bo.unwrap(&stanzas).unwrap().unwrap();
    assert_eq!(opened.expose_secret(), file_key().expose_secret());
    assert!(bo.unwrap(&stanzas[..1]).unwrap().is_none());
    // The same four bytes on a stanza that is somebody else's.
    let mut taken = other.wrap(&file_key()).unwrap();
    taken.args[0] = bo.recipient.tag();
    assert!(bo.unwrap(&[taken]).unwrap().is_none());
    assert_ne!(stanzas[1].args[1], bo.recipient.wrap(&file_key()).unwrap().args[1], "a share of its own each time");
}

// attacks.md 22
#[test]
fn attack_22_malformed_and_weak_stanzas_are_refused() {
    let bo = open(PRIVATE);
    let good = bo.recipient.wrap(&file_key()).unwrap();
    let refused = |args: &[&str], body: &[u8]| {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let error = bo.unwrap(&[Stanza { tag: STANZA_TAG.into(), args, body: body.to_vec() }]).err().unwrap();
        assert!(matches!(error, Error::HeaderFailure(HeaderError::Stanza)), "{error:?}");
    };
    let (tag, share) = (good.args[0].as_str(), good.args[1].as_str());
    refused(&[tag], &good.body);
    refused(&[tag, share, ""], &good.body);
    refused(&["AAA", share], &good.body);
    refused(&[tag, &share[1..]], &good.body);
    refused(&[tag, &format!("{share}=")], &good.body);
    refused(&[tag, share], &good.body[1..]);
    // Points of order 1, 2 and 4 of the curve.
    let one: [u8; 32] = std::array::from_fn(|i| u8::from(i == 0));
    for weak in [[0; 32], one] {
        refused(&[tag, &BASE64_STANDARD_NO_PAD.encode(weak)], &good.body);
    }
}

// attacks.md 22, 34: other types by their name, and lines that are no key of this type
#[test]
fn attack_34_other_public_keys_are_refused_by_name() {
    let error = |text: &str| text.parse::<AnyRecipient>().unwrap_err();
    for kind in ["ssh-rsa", "ssh-dss", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"] {
        assert_eq!(error(&format!("{kind} AAAA bo@laptop")), KeyError::SshType { kind });
    }
    let said = error("ssh-ed25519-cert-v01@openssh.com AAAA").to_string();
    assert!(said.contains("ssh-ed25519-cert-v01@openssh.com") && said.contains("only ssh-ed25519"), "{said}");
    let key = PUBLIC.split(' ').nth(1).unwrap();
    for bad in [
        "ssh-ed25519".to_owned(),
        format!("ssh-ed25519 {}", &key[..key.len() - 4]),
        format!("ssh-ed25519 {key}AAAA"),
        format!("ssh-ed25519 {}", key.replace("AAAAC3", "AAAAC4")),
        format!("ssh-ed25519 {key}\nssh-ed25519 {key}"),
        "ssh-foo AAAA".to_owned(),
    ] {
        assert_eq!(error(&bad), KeyError::SshLine, "{bad:?}");
    }
    assert_eq!(error(&format!(" {PUBLIC}")), KeyError::Whitespace);
    let of = |point: &[u8; 32]| {
        let wire = BASE64_STANDARD.encode([WIRE_PREFIX.as_slice(), point].concat());
        error(&format!("ssh-ed25519 {wire}"))
    };
    assert_eq!(of(&std::array::from_fn(|i| u8::from(i == 0))), KeyError::LowOrder);
    assert_eq!(of(&[0xff; 32]), KeyError::NotCanonical);
    assert_eq!(error(PRIVATE), KeyError::SecretKey);
    assert_eq!(PUBLIC.parse::<AnyIdentity>().err(), Some(KeyError::NotSecret));
}

#[test]
fn files_of_keys_take_ssh_keys() {
    let list = format!("# Bo's\n{PUBLIC}\n{LOCKED_PUBLIC}\n");
    assert_eq!(parse_recipients(&list).unwrap().len(), 2);
    let error = parse_recipients(&format!("{PUBLIC}\nssh-rsa AAAA x\n")).unwrap_err();
    assert!(matches!(error, Error::KeyLine { line: 2, reason: KeyError::SshType { kind: "ssh-rsa" } }));
    assert_eq!(parse_identities(PRIVATE).unwrap().len(), 1);
    assert_eq!(parse_identities(&PRIVATE.replace('\n', "\r\n")).unwrap().len(), 1);
    assert!(matches!(parse_identities(LOCKED), Err(Error::Key(KeyError::Locked))));
}

#[test]
fn a_locked_key_opens_with_its_passphrase() {
    let IdentityFile::Locked(locked) = IdentityFile::parse(LOCKED.as_bytes()).unwrap() else { panic!("locked") };
    assert!(matches!(locked.unlock(&passphrase("wrong horse")), Err(Error::NotUnlocked)));
    let identity = locked.unlock(&passphrase("correct horse")).unwrap().remove(0);
    assert_eq!(identity.recipient(), LOCKED_PUBLIC.parse().unwrap());
    let sealed = seal_to_vec(&identity.recipient(), b"for bo").unwrap();
    assert!(decrypt(&identity, sealed.as_slice()).is_ok());
    // Whether the passphrase is worth asking for shows before.
    assert!(locked.may_open(sealed.as_slice()).unwrap());
    let other = seal_to_vec(&PUBLIC.parse::<AnyRecipient>().unwrap(), b"for another").unwrap();
    assert!(!locked.may_open(other.as_slice()).unwrap());
    assert!(locked.may_open(&sealed[..20]).is_err());
    let IdentityFile::Open(open) = IdentityFile::parse(PRIVATE.as_bytes()).unwrap() else { panic!("open") };
    assert!(matches!(decrypt(open.as_slice(), sealed.as_slice()), Err(Error::NoMatch)));
}

// attacks.md 20: what bcrypt would compute for hours is not begun
#[test]
fn attack_20_excessive_rounds_are_refused_before_the_work() {
    let rounds = |rounds: u32| {
        changed(LOCKED, |bytes| {
            // Behind the magic, `aes256-ctr`, `bcrypt` and the length of the options: a salt of 16 bytes, the rounds.
            let at = 15 + 4 + 10 + 4 + 6 + 4 + 4 + 16;
            assert_eq!(bytes[at..at + 4], 1u32.to_be_bytes());
            bytes.splice(at..at + 4, rounds.to_be_bytes());
        })
    };
    assert_eq!(refused(&rounds(u32::MAX)), KeyError::ExcessiveRounds { rounds: u32::MAX, max: MAX_ROUNDS });
    assert_eq!(refused(&rounds(MAX_ROUNDS + 1)), KeyError::ExcessiveRounds { rounds: 4097, max: 4096 });
    assert!(parse_private(&rounds(MAX_ROUNDS)).is_ok());
}

// attacks.md 29: a public key that is not the private one's
#[test]
fn attack_29_halves_that_do_not_fit_are_refused() {
    let (mine, other) = (open(PRIVATE), Recipient::parse(LOCKED_PUBLIC).unwrap());
    let (from, to) = (mine.recipient.key.as_bytes(), other.key.as_bytes());
    let everywhere = changed(PRIVATE, |bytes| {
        let mut found = 0;
        for at in 0..bytes.len() - 32 {
            if bytes[at..at + 32] == *from {
                bytes.splice(at..at + 32, *to);
                found += 1;
            }
        }
        assert_eq!(found, 3);
    });
    assert_eq!(refused(&everywhere), KeyError::SshPrivate);
}

#[test]
fn other_private_keys_are_refused_by_name_and_damage_as_such() {
    let of_type = |kind: &str| {
        let mut bytes = b"openssh-key-v1\0".to_vec();
        let mut field = |content: &[u8]| {
            bytes.extend_from_slice(&(content.len() as u32).to_be_bytes());
            bytes.extend_from_slice(content);
        };
        field(b"none");
        field(b"none");
        field(b"");
        bytes.extend_from_slice(&1u32.to_be_bytes());
        let public = [&(kind.len() as u32).to_be_bytes(), kind.as_bytes()].concat();
        bytes.extend_from_slice(&(public.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&public);
        changed(PRIVATE, |whole| *whole = bytes)
    };
    for kind in ["ssh-rsa", "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com"] {
        assert_eq!(refused(&of_type(kind)), KeyError::SshType { kind });
    }
    assert_eq!(refused(&of_type("ssh-ed25519")), KeyError::SshPrivate);
    assert_eq!(refused(&PRIVATE.replace("OPENSSH", "RSA")), KeyError::SshType { kind: "ssh-rsa" });
    assert_eq!(refused(&PRIVATE.replace("OPENSSH PRIVATE", "PRIVATE")), KeyError::SshPrivate);
    assert_eq!(refused(&PRIVATE[..PRIVATE.len() - 60]), KeyError::SshPrivate);
    assert_eq!(refused(&PRIVATE.replacen("\n", &"\nAAAA".repeat(5000), 1)), KeyError::SshPrivate);
    // No cut and no single changed byte makes a panic, or another key.
    let mine = open(PRIVATE).recipient;
    let mut length = 0;
    changed(PRIVATE, |bytes| length = bytes.len());
    for at in 0..length {
        assert!(parse_private(&changed(PRIVATE, |bytes| bytes.truncate(at))).is_err(), "{at}");
        if let Ok(PrivateFile::Open(key)) = parse_private(&changed(PRIVATE, |bytes| bytes[at] ^= 1)) {
            assert!(key.recipient == mine, "{at}");
        }
    }
}
