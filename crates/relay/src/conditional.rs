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
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    /// The head of a request.
    pub(crate) fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn preconditions() {
        let (m, n) = ("if-match", "if-none-match");
        for (fields, expected) in [
            (vec![], Outcome::Met),
            (vec![(n, "\"a\"")], Outcome::NotModified),
            (vec![(n, "W/\"a\"")], Outcome::NotModified),
            (vec![(n, "*")], Outcome::NotModified),
            (vec![(n, "\"b\", \"a\"")], Outcome::NotModified),
            (vec![(n, "\"b,c\",W/\"x\" ,\t\"a\"")], Outcome::NotModified),
            (vec![(n, "\"b\""), (n, "\"a\"")], Outcome::NotModified),
            (vec![(n, "\"b\"")], Outcome::Met),
            (vec![(n, "a")], Outcome::Met),
            (vec![(n, "\"a")], Outcome::Met),
            (vec![(n, "\"x, \"a\"")], Outcome::Met),
            (vec![(n, "")], Outcome::Met),
            (vec![(m, "\"a\"")], Outcome::Met),
            (vec![(m, "*")], Outcome::Met),
            (vec![(m, "\"b\", \"a\"")], Outcome::Met),
            // Strong comparison, and what cannot be read matches nothing.
            (vec![(m, "W/\"a\"")], Outcome::Failed),
            (vec![(m, "\"b\"")], Outcome::Failed),
            (vec![(m, "a")], Outcome::Failed),
            (vec![(m, "")], Outcome::Failed),
            (vec![(m, "\"b\""), (n, "\"a\"")], Outcome::Failed),
            (vec![(m, "\"a\""), (n, "\"a\"")], Outcome::NotModified),
        ] {
            assert_eq!(outcome(&headers(&fields), "\"a\""), expected, "{fields:?}");
        }
    }
}
