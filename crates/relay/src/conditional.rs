//! Preconditions of a `GET` (RFC 9110 §13): a client that has the object already is told so.

use http::HeaderMap;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

/// What the preconditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Go on; `If-Range` and `Range` count.
    Met,
    /// 304: the client has it.
    NotModified,
    /// 412: the client wants another one than there is.
    Failed,
}

/// In the order of RFC 9110 §13.2.2. `etag` is strong; there are no dates to compare.
pub(crate) fn outcome(headers: &HeaderMap, etag: &str) -> Outcome {
    if headers.contains_key(IF_MATCH) && !any(headers, &IF_MATCH, |tag| tag == etag) {
        return Outcome::Failed;
    }
    // Compared weakly: a weak tag of the same text is this object as well (§8.8.3.2).
    if any(headers, &IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag) == etag) {
        return Outcome::NotModified;
    }
    Outcome::Met
}

/// Whether one of the listed tags is it, or the field is `*`. A list that cannot be read to its end counts up to there.
fn any(headers: &HeaderMap, name: &HeaderName, is_it: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        let mut rest = list.trim();
        if rest == "*" {
            return true;
        }
        while let Some((tag, behind)) = first(rest) {
            if is_it(tag) {
                return true;
            }
            rest = behind.trim_start_matches([' ', '\t', ',']);
        }
        false
    })
}

/// The first tag of a list, and what stands behind it. A comma may stand within a tag.
fn first(list: &str) -> Option<(&str, &str)> {
    let opaque = list.strip_prefix("W/").unwrap_or(list).strip_prefix('"')?;
    let inside = opaque.find('"')?;
    let end = list.len() - opaque.len() + inside + 1;
    list.split_at_checked(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    #[test]
    fn preconditions() {
        let (m, n) = (IF_MATCH, IF_NONE_MATCH);
        for (fields, expected) in [
            (vec![], Outcome::Met),
            (vec![(n.clone(), "\"a\"")], Outcome::NotModified),
            (vec![(n.clone(), "W/\"a\"")], Outcome::NotModified),
            (vec![(n.clone(), "*")], Outcome::NotModified),
            (vec![(n.clone(), "\"b\", \"a\"")], Outcome::NotModified),
            (vec![(n.clone(), "\"b,c\",W/\"x\" ,\t\"a\"")], Outcome::NotModified),
            (vec![(n.clone(), "\"b\""), (n.clone(), "\"a\"")], Outcome::NotModified),
            (vec![(n.clone(), "\"b\"")], Outcome::Met),
            (vec![(n.clone(), "a")], Outcome::Met),
            (vec![(n.clone(), "\"a")], Outcome::Met),
            (vec![(n.clone(), "\"x, \"a\"")], Outcome::Met),
            (vec![(n.clone(), "")], Outcome::Met),
            (vec![(m.clone(), "\"a\"")], Outcome::Met),
            (vec![(m.clone(), "*")], Outcome::Met),
            (vec![(m.clone(), "\"b\", \"a\"")], Outcome::Met),
            // Strong comparison, and what cannot be read matches nothing.
            (vec![(m.clone(), "W/\"a\"")], Outcome::Failed),
            (vec![(m.clone(), "\"b\"")], Outcome::Failed),
            (vec![(m.clone(), "a")], Outcome::Failed),
            (vec![(m.clone(), "")], Outcome::Failed),
            (vec![(m.clone(), "\"b\""), (n.clone(), "\"a\"")], Outcome::Failed),
            (vec![(m.clone(), "\"a\""), (n.clone(), "\"a\"")], Outcome::NotModified),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(outcome(&headers, "\"a\""), expected, "{fields:?}");
        }
    }
}
