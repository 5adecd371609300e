//! What older releases have written still opens, and what this one writes is what it says it is.
//!
//! `tests/golden/README.md` says how each file was made. `DORMOUSE_REGENERATE=1` writes those of this release.
