//! What a person types of an id.

use pouch_statement::{BundleId, matches_prefix};

use crate::error::{Error, Result};

/// The only one of these whose id begins with what was typed; `none` makes the error where there is no such one.
pub(crate) fn only<T>(
    all: impl IntoIterator<Item = T>,
    id: impl Fn(&T) -> BundleId,
    typed: &str,
    none: impl FnOnce(String) -> Error,
) -> Result<T> {
    let mut found = all.into_iter().filter(|one| matches_prefix(&id(one).to_string(), typed));
    let one = found.next().ok_or_else(|| none(typed.to_owned()))?;
    let others: Vec<BundleId> = found.map(|other| id(&other)).collect();
    match others.is_empty() {
        true => Ok(one),
        false => Err(Error::Ambiguous { prefix: typed.to_owned(), found: [vec![id(&one)], others].concat() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_none_or_several() {
        let ids = [[0x10; 16], [0x11; 16], [0xf0; 16]].map(BundleId::from_bytes);
        let find = |typed: &str| only(ids, |id| *id, typed, Error::NoRequest);
        let [first, second, third] = ids.map(|id| id.to_string());
        assert_eq!(find(&third[..1]).unwrap(), ids[2]);
        assert_eq!(find(&first).unwrap(), ids[0]);
        assert!(matches!(find("!"), Err(Error::NoRequest(typed)) if typed == "!"));
        assert_eq!(first[..1], second[..1]);
        let several = find(&first[..1]);
        assert!(
            matches!(several, Err(Error::Ambiguous { prefix, found }) if prefix == first[..1] && found == ids[..2])
        );
    }
}
