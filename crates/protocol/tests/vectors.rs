//! Links and request signatures are pinned by tests/vectors/protocol.json.
//!
//! `POUCH_WRITE_VECTORS=1` writes the file anew; a diff of it is a change of format.
#![allow(clippy::unwrap_used, clippy::panic)]

use pouch_protocol::*;
use pouch_statement::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Vectors {
    /// A link as it is given to somebody, with its derived values.
    link: String,
    admit: String,
    admit_sha256: Sha256Digest,
    card_key: String,
    card: Detached,
    mac_inviter: CardMac,
    mac_joiner: CardMac,
    parts_sha256: Sha256Digest,
    requests: Vec<SignedVector>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct SignedVector {
    method: String,
    path: String,
    query: Option<String>,
    covering_field: Option<String>,
    signature_input: String,
    signature: String,
}

const LINK: &str = "https://127.0.0.1:36531/j#040ej1ajkywc9s6kcg2w2qbqmtc5w0k3gstdja3ycg3g9c1s9adyaba9m3ajp2y7zehk9v570c1xx2f4ss0xz3qks178evqf5ggvtadsg91yx6rmswgjp9evyvx0ymzmyhf95er8anfg";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn request(method: &str, path: &str, query: Option<&str>, covered: Covered) -> SignedVector {
    let key = SigningKey::from_seed(&[8; 32]);
    let request = Request { method, authority: "pouch.acme.example", path, query, covered };
    let created = Timestamp::from_unix(1_700_000_000).unwrap();
    let fields = sign_request(&request, &key, [9; 16], created);
    fields.verify(&request, created).unwrap();
    SignedVector {
        method: method.into(),
        path: path.into(),
        query: query.map(str::to_owned),
        covering_field: match covered {
            Covered::Nothing => None,
            Covered::Digest(digest) => Some(content_digest(&digest)),
            Covered::Part(part) => Some(part.to_value()),
        },
        signature_input: fields.input,
        signature: fields.signature,
    }
}

fn make() -> Vectors {
    let link: Link = LINK.parse().unwrap();
    let key = link.secret.card_key();
    let card = Detached { statement: "{}\n".into(), signature: "armor\n".into() };
    let bundle = BundleId::from_bytes(*b"0123456789abcdef");
    let part = PartField { number: 3, length: 8_389_000, blake3: Blake3Digest::from_bytes([5; 32]) };
    Vectors {
        link: link.expose_text().to_string(),
        admit: hex(link.secret.admit().as_ref()),
        admit_sha256: link.secret.admit_sha256(),
        card_key: hex(key.as_ref()),
        mac_inviter: CardMac::of(&key, LinkRole::Inviter, &card),
        mac_joiner: CardMac::of(&key, LinkRole::Joiner, &card),
        card,
        parts_sha256: parts_digest([(part.length, &part.blake3), (1, &part.blake3)]),
        requests: vec![
            request("GET", route::INBOX, Some("after=7"), Covered::Nothing),
            request("POST", route::BUNDLES, None, Covered::Digest(Sha256Digest::of(b"{}"))),
            request("PUT", &route::part(bundle, 3), None, Covered::Part(part)),
        ],
    }
}

#[test]
fn the_wire_is_what_it_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/protocol.json");
    let made = make();
    assert_eq!(made.link, LINK, "a link has one spelling");
    if std::env::var_os("POUCH_WRITE_VECTORS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let stored: Vectors = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(stored, made);
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");

/// The block of docs/protocol.md that begins with this line, and what stands around it.
fn block<'p>(page: &'p str, name: &str) -> (&'p str, &'p str, &'p str) {
    let fence = format!("```text {name}\n");
    let (before, rest) = page.split_once(&fence).unwrap_or_else(|| panic!("no block {name}"));
    let (inside, after) = rest.split_once("\n```").unwrap();
    (page.get(..before.len() + fence.len()).unwrap(), inside, after)
}

/// What docs/protocol.md shows of signing is what is done: fields as they are sent, and a base that gives that signature.
#[test]
fn the_pages_vectors_are_right() {
    let key = SigningKey::from_seed(&[8; 32]);
    let part = PartField { number: 3, length: 8_389_000, blake3: Blake3Digest::from_bytes([5; 32]) };
    let bundle = BundleId::from_bytes(*b"0123456789abcdef");
    let requests = [
        ("post", request("POST", route::BUNDLES, None, Covered::Digest(Sha256Digest::of(b"{}")))),
        ("get", request("GET", route::INBOX, Some("after=7"), Covered::Nothing)),
        ("put", request("PUT", &route::part(bundle, 3), None, Covered::Part(part))),
    ];
    let mut page = std::fs::read_to_string(PAGE).unwrap();
    let write = std::env::var_os("POUCH_WRITE_VECTORS").is_some();
    let mut check = |name: &str, must: &str| {
        if write {
            let (before, _, after) = block(&page, name);
            page = format!("{before}{must}\n```{after}");
            std::fs::write(PAGE, &page).unwrap();
        }
        assert_eq!(block(&page, name).1, must, "{name}");
    };
    check("seed", &format!("{}\n{}", hex(&[8; 32]), base64(key.public().as_bytes())));
    for (name, signed) in &requests {
        let covering = signed.covering_field.as_ref().map(|value| {
            let field = if *name == "put" { PartField::NAME } else { "content-digest" };
            (field, value)
        });
        let shown = |(field, value): &(&str, &String)| format!("{field}: {value}\n");
        let fields = covering.as_ref().map(shown).unwrap_or_default();
        let fields = format!("{fields}signature-input: {}\nsignature: {}", signed.signature_input, signed.signature);
        check(&format!("{name}-fields"), &fields);
        // Written here once more, by the RFC and not by the code.
        let quoted = covering.map(|(field, value)| format!("\"{field}\": {value}\n")).unwrap_or_default();
        let params = signed.signature_input.strip_prefix("pouch=").unwrap();
        let base = format!(
            "\"@method\": {}\n\"@authority\": pouch.acme.example\n\"@path\": {}\n\"@query\": ?{}\n{quoted}\"@signature-params\": {params}",
            signed.method,
            signed.path,
            signed.query.as_deref().unwrap_or(""),
        );
        check(&format!("{name}-base"), &base);
        assert_eq!(format!("pouch=:{}:", base64(&key.sign_raw(base.as_bytes()))), signed.signature, "{name}");
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// RFC 9421, appendix B.2.6: Ed25519 over that base by the key of appendix B.1.4 gives that signature, so what we sign
/// with is what the RFC means by `ed25519`.
#[test]
fn rfc_9421_b_2_6() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let pkcs8 = STANDARD.decode("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF").unwrap();
    let key = SigningKey::from_seed(pkcs8.last_chunk().unwrap());
    let base = "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\
                \"@method\": POST\n\
                \"@path\": /foo\n\
                \"@authority\": example.com\n\
                \"content-type\": application/json\n\
                \"content-length\": 18\n\
                \"@signature-params\": (\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
                ;created=1618884473;keyid=\"test-key-ed25519\"";
    let signature = STANDARD.encode(key.sign_raw(base.as_bytes()));
    assert_eq!(signature, "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==");
    // And the relay's side of it, with the public key as appendix B.1.4 has it.
    assert_eq!(base64(key.public().as_bytes()), "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=");
    let signature = STANDARD.decode(signature).unwrap().try_into().unwrap();
    assert!(key.public().verify_raw(base.as_bytes(), &signature));
    assert!(!key.public().verify_raw(base.replace("/foo", "/fou").as_bytes(), &signature));
}
