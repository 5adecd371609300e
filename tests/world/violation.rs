//! What the check found: the name of the invariant and the story.

/// A broken invariant. Its text begins with the invariant's number where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// A broken invariant.
pub fn violation(what: impl Into<String>) -> Violation {
    Violation(what.into())
}

/// Checks an invariant.
pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(what())) }
}
