//! The fields that sign a request and describe a part.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pouch_protocol::{Covered, PartField, Request, SignatureFields, parse_content_digest};
use pouch_statement::Timestamp;

fuzz_target!(|text: &str| {
    let (input, signature) = text.split_once('\n').unwrap_or((text, ""));
    let fields = SignatureFields { input: input.to_owned(), signature: signature.to_owned() };
    let request =
        Request { method: "GET", authority: "relay.example", path: "/v1/inbox", query: None, covered: Covered::Nothing };
    assert!(fields.verify(&request, Timestamp::from_unix(1_800_000_000).expect("it is in range")).is_err());
    if let Ok(part) = PartField::parse(text) {
        assert_eq!(part.to_value(), text);
    }
    let _ = parse_content_digest(text);
});
