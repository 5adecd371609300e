//! Where the relay's own words go: lines of text on the standard error, filtered as the configuration says.

use std::io::{self, IsTerminal as _};

use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt};

/// Why nothing can be logged.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is no tracing filter.
    #[error(
        "log = {filter:?}: must be a tracing filter, like \"info\" or \"info,dormouse_relay=debug\": {source}"
    )]
    Filter {
        /// What was set.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// This process logs already.
    #[error("the log of this process is set up already: {0}")]
    Twice(Box<dyn std::error::Error + Send + Sync>),
}

/// Begins to log, once in a process.
pub fn start(filter: &str) -> Result<(), TelemetryError> {
    // Colours are for people: a terminal, unless its owner wants none (no-color.org).
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .try_init()
        .map_err(TelemetryError::Twice)
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let refused = |source| TelemetryError::Filter { filter: filter.to_owned(), source };
    let parsed = EnvFilter::builder().parse(filter).map_err(refused)?;
    // The NATS library calls it an error when it may not connect a second time, which is how it is told to give up.
    let is_named = filter.contains("async_nats");
    let quiet = "async_nats::connector=off".parse().map_err(refused)?;
    Ok(if is_named { parsed } else { parsed.add_directive(quiet) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_by_the_name_of_its_setting() {
        for filter in ["info", "warn,dormouse_relay=debug", "off"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        let refused = parse("dormouse_relay=loud").map_or_else(|error| error.to_string(), |_| String::new());
        assert!(refused.starts_with("log = \"dormouse_relay=loud\": must be"), "{refused}");
    }

    #[test]
    fn a_second_start_is_an_error_and_no_panic() {
        let outcomes = [start("off"), start("off")];
        assert!(matches!(outcomes[1], Err(TelemetryError::Twice(_))));
    }
}
