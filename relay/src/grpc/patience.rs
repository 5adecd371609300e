//! How long a call may wait: half of the time that its caller gave it.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// What a caller has who does not say.
const UNSAID: Duration = Duration::from_secs(10);
/// Nobody waits longer for a log.
const LONGEST: Duration = Duration::from_secs(30);

/// Half of the call's time.
pub(super) fn of(metadata: &MetadataMap) -> Duration {
    let said = metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
    (said.unwrap_or(UNSAID) / 2).min(LONGEST)
}

/// A number of at most eight digits and a unit, as the gRPC protocol has it.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_of_grpc_are_understood() {
        let seconds = |text| parse(text).map(|it| it.as_secs_f64());
        assert_eq!(seconds("2H"), Some(7_200.0));
        assert_eq!(seconds("150m"), Some(0.15));
        assert_eq!(seconds("99999999n"), Some(0.099_999_999));
        for text in ["", "m", "1", "1x", "-1S", "123456789S", "1é"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
