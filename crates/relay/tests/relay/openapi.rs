//! Every exchange of these tests is compared with the relay's own description of its API.

use std::sync::LazyLock;

use pouch_statement::{BundleId, Sha256Digest};
use serde_json::Value;

use super::{Draft, Reply};

pub static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../src/openapi.json")).unwrap());

fn resolve(schema: &Value) -> &Value {
    match schema["$ref"].as_str() {
        Some(name) => DESCRIPTION.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name}")),
        None => schema,
    }
}

/// Whether a value is what the schema says; the members of an object are exactly the described ones. Knows the few words
/// of JSON Schema that the description uses, and refuses any other.
pub fn check(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(schema);
    let wrong = |why: &str| Err(format!("{at}: {value} {why} ({schema})"));
    for (word, says) in schema.as_object().unwrap() {
        let good = match word.as_str() {
            "description" | "contentEncoding" | "format" => true,
            "type" => says == kind(value),
            "enum" => says.as_array().unwrap().contains(value),
            "pattern" => value.as_str().is_some_and(|text| matches(text, says.as_str().unwrap())),
            "maxLength" => value.as_str().is_some_and(|text| text.chars().count() as u64 <= says.as_u64().unwrap()),
            "minimum" => value.as_u64() >= says.as_u64(),
            "maximum" => value.as_u64() <= says.as_u64(),
            "minItems" => value.as_array().is_some_and(|list| list.len() as u64 >= says.as_u64().unwrap()),
            "maxItems" => value.as_array().is_some_and(|list| list.len() as u64 <= says.as_u64().unwrap()),
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(item, says, &format!("{at}[{n}]"))?;
                }
                true
            }
            "oneOf" => says.as_array().unwrap().iter().filter(|one| check(value, one, at).is_ok()).count() == 1,
            "required" => says.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
            "additionalProperties" => says == &Value::Bool(false),
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let Some(described) = says.get(name) else { return wrong(&format!("has an undescribed {name}")) };
                    check(member, described, &format!("{at}.{name}"))?;
                }
                true
            }
            other => panic!("the description says {other}, which is not understood here"),
        };
        if !good {
            return wrong(&format!("is not of this {word}"));
        }
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The patterns are those of types that the program has anyway.
fn matches(text: &str, pattern: &str) -> bool {
    match pattern {
        "^[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$" => text.parse::<BundleId>().is_ok(),
        "^[0-9a-f]{64}$" => text.parse::<Sha256Digest>().is_ok(),
        other => panic!("the description has the pattern {other}"),
    }
}

/// The operation that method and path of a request have in the description.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(t, c)| t == c || (t.starts_with('{') && !c.is_empty()))
    };
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    // A path without variables comes first (OpenAPI 3.1, "Path Templating Matching").
    let item = paths.get(path).or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item))?;
    item.get(method.to_lowercase())
}

fn media_type(reply: &Reply) -> Option<&str> {
    reply.headers.get("content-type").map(|value| value.to_str().unwrap().split(';').next().unwrap())
}

/// Panics where the answer, or a request that was granted, is not as described.
pub fn compare(draft: &Draft, reply: &Reply) {
    let Some(operation) = operation(draft.method, &draft.path) else {
        assert!((400..500).contains(&reply.status), "{} {} is not described: {reply:?}", draft.method, draft.path);
        return;
    };
    let at = format!("{} {}", draft.method, draft.path);
    let said = &operation["responses"];
    let described = match said.get(reply.status.to_string()) {
        Some(described) => described,
        None => {
            assert!(reply.status >= 400, "{at}: {} is not described", reply.status);
            resolve(&said["default"])
        }
    };
    match media_type(reply) {
        None => assert!(described.get("content").is_none() && reply.body.is_empty(), "{at}: {reply:?}"),
        Some(kind) => {
            let content = described["content"].get(kind).unwrap_or_else(|| panic!("{at}: {kind} is not described"));
            if kind.ends_with("json") && draft.path != pouch_protocol::route::OPENAPI {
                let body: Value = serde_json::from_slice(&reply.body).unwrap();
                check(&body, &content["schema"], &at).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
    if (200..300).contains(&reply.status) {
        let body = operation.get("requestBody");
        assert_eq!(body.is_some(), !draft.body.is_empty(), "{at}: whether there is a body");
        if let Some(schema) = body.and_then(|body| body["content"].get("application/json")) {
            let sent: Value = serde_json::from_slice(&draft.body).unwrap();
            check(&sent, &schema["schema"], &at).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}
