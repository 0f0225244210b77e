//! Exit codes. Documented in docs/pipelines.md for scripts, and in `pouch --help`.

use pouch_client::Class;

/// Done.
pub(crate) const DONE: u8 = 0;
/// Anything that has no code of its own.
pub(crate) const OTHER: u8 = 1;
/// Called wrongly.
pub(crate) const USAGE: u8 = 2;
/// Local state damaged or locked.
pub(crate) const STATE: u8 = 9;
/// With `--env` and `--exec`: pouch itself failed, not the child.
pub(crate) const WRAPPER: u8 = 125;
/// Interrupted by a signal.
pub(crate) const INTERRUPTED: u8 = 130;

/// The code of a class of errors.
pub(crate) fn code(class: Class) -> u8 {
    match class {
        Class::Other => OTHER,
        Class::Usage => USAGE,
        Class::NotFound => 3,
        Class::Evidence => 4,
        Class::Refused => 5,
        Class::Expired => 6,
        Class::Unreachable => 7,
        Class::Full => 8,
        Class::State => STATE,
        Class::Interrupted => INTERRUPTED,
    }
}
