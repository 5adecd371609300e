//! Where the relay's own words go: lines on the standard error, filtered as the configuration says, and spans to a
//! collector where a build can do that and one is named.

#[cfg(feature = "otlp")]
pub(crate) mod otlp;

use std::io::{self, IsTerminal as _};

use thiserror::Error;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::config::{Config, LogFormat};

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
    /// Spans cannot be sent there.
    #[error("otlp_endpoint = {endpoint:?}: {why}")]
    Collector {
        /// What was set.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// This process logs already.
    #[error("the log of this process is set up already: {0}")]
    Twice(Box<dyn std::error::Error + Send + Sync>),
}

/// What is told until this is dropped; the last spans go out then.
#[derive(Debug)]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    _spans: Option<otlp::Spans>,
}

/// A layer of which it is not said what it does.
type Told = Box<dyn Layer<Registry> + Send + Sync>;

/// Begins to log, once in a process and within a tokio runtime: `log`, `log_format` and `otlp_endpoint` of the settings.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(config: &Config) -> Result<Telemetry, TelemetryError> {
    let lines = lines(config.log_format).with_filter(parse(&config.log)?).boxed();
    let spans = collector(config.otlp_endpoint.as_deref())?;
    #[cfg(feature = "otlp")]
    let (spans, kept) = spans.map_or((None, None), |(layer, spans)| (Some(layer), Some(spans)));
    let layers: Vec<Told> = [Some(lines), spans].into_iter().flatten().collect();
    let said = tracing_subscriber::registry().with(layers).try_init();
    said.map_err(|error| TelemetryError::Twice(Box::new(error)))?;
    Ok(Telemetry {
        #[cfg(feature = "otlp")]
        _spans: kept,
    })
}

fn lines(format: LogFormat) -> Told {
    // Colours are for people: a terminal, unless its owner wants none (no-color.org).
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let lines = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    }
}

#[cfg(feature = "otlp")]
fn collector(endpoint: Option<&str>) -> Result<Option<(Told, otlp::Spans)>, TelemetryError> {
    let refused = |endpoint: &str, why| TelemetryError::Collector { endpoint: endpoint.to_owned(), why };
    endpoint.map(|it| otlp::open(it).map_err(|why| refused(it, why))).transpose()
}

#[cfg(not(feature = "otlp"))]
fn collector(endpoint: Option<&str>) -> Result<Option<Told>, TelemetryError> {
    let why = || "this build sends no spans; build the relay with --features otlp".to_owned();
    endpoint.map_or(Ok(None), |it| Err(TelemetryError::Collector { endpoint: it.to_owned(), why: why() }))
}

/// What libraries call an error and is none: they report it to us as well, and we say what it means.
const QUIET: &[(&str, &str)] = &[
    // It may not connect a second time, which is how it is told to give up.
    ("async_nats", "async_nats::connector=off"),
    // A broker that starts closes channels until its queues are there.
    ("lapin", "lapin=off"),
];

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let refused = |source| TelemetryError::Filter { filter: filter.to_owned(), source };
    let mut parsed = EnvFilter::builder().parse(filter).map_err(refused)?;
    for (_, off) in QUIET.iter().filter(|(library, _)| !filter.contains(library)) {
        parsed = parsed.add_directive(off.parse().map_err(refused)?);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(log: &str, otlp_endpoint: Option<&str>) -> Config {
        let otlp_endpoint = otlp_endpoint.map(str::to_owned);
        Config { log: log.to_owned(), otlp_endpoint, ..Config::default() }
    }

    fn refusal(config: &Config) -> String {
        start(config).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn a_filter_that_is_none_is_refused_by_the_name_of_its_setting() {
        for filter in ["info", "warn,dormouse_relay=debug", "off"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        let refused = refusal(&with("dormouse_relay=loud", None));
        assert!(refused.starts_with("log = \"dormouse_relay=loud\": must be"), "{refused}");
    }

    #[test]
    fn a_library_is_quiet_unless_it_is_named() {
        let quiet = parse("info").map(|it| it.to_string()).unwrap_or_default();
        assert!(quiet.contains("lapin=off") && quiet.contains("async_nats::connector=off"), "{quiet}");
        let named = parse("info,lapin=debug").map(|it| it.to_string()).unwrap_or_default();
        assert!(named.contains("lapin=debug") && !named.contains("lapin=off"), "{named}");
    }

    #[test]
    fn a_collector_that_cannot_be_one_is_refused_by_the_name_of_its_setting() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _within = runtime.enter();
        let refused = refusal(&with("off", Some("not a url")));
        assert!(refused.starts_with("otlp_endpoint = \"not a url\": "), "{refused}");
    }

    #[test]
    fn a_second_start_is_an_error_and_no_panic() {
        let outcomes = [start(&with("off", None)), start(&with("off", None))];
        assert!(matches!(outcomes[1], Err(TelemetryError::Twice(_))));
    }
}
