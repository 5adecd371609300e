//! Finds the one number of a detector that makes it as patient as another one.

use std::ops::Range;

/// How often the range is halved.
const STEPS: u32 = 9;

/// The smallest number of the range, to a few percent, with which at most such a rate of the living is taken for dead.
/// The rate must fall as the number grows. If none is patient enough, the largest.
pub fn as_patient(rate: f64, range: Range<f64>, mut rate_of: impl FnMut(f64) -> f64) -> f64 {
    let Range { start: mut hasty, end: mut patient } = range;
    for _ in 0..STEPS {
        // The range spans orders of magnitude, so it is halved in the logarithm.
        let middle = (hasty * patient).sqrt();
        if rate_of(middle) > rate { hasty = middle } else { patient = middle }
    }
    patient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_number_that_is_patient_enough_is_found() {
        let found = as_patient(0.01, 0.1..1_000.0, |it| 1.0 / it);
        assert!((100.0..103.0).contains(&found), "{found}");
    }
}
