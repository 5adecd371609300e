//! `alerts.yaml`: whether what it asks for is on the relay's own page.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    checked_by,
    files::{at, document, list, text, word, words_with},
    pages::page,
};

/// A metric that an expression names, with what it wants of its labels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    pub(crate) metric: &'a str,
    /// Name, and each of the values one of which it must have.
    pub(crate) labels: Vec<(&'a str, Vec<&'a str>)>,
}

/// The metrics of ours in an expression. Matchers that exclude are passed over.
pub(crate) fn wanted(expression: &str) -> Vec<Wanted<'_>> {
    let mut found = Vec::new();
    for (begin, _) in expression.match_indices("dormouse_") {
        let rest = &expression[begin..];
        let end = rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_').unwrap_or(rest.len());
        let matchers = rest[end..].strip_prefix('{').and_then(|it| it.split('}').next()).unwrap_or("");
        let labels = matchers.split(',').filter_map(|matcher| {
            let (name, value) = matcher.split_once('=').filter(|it| !it.0.ends_with('!'))?;
            Some((name.trim(), value.trim_matches(['~', '"']).split('|').collect()))
        });
        found.push(Wanted { metric: &rest[..end], labels: labels.collect() });
    }
    found
}

/// Whether the page has what is wanted, for each of the values that may be.
pub(crate) fn is_there(wanted: &Wanted, page: &str) -> bool {
    let series: Vec<&str> = page
        .lines()
        .filter(|line| line.strip_prefix(wanted.metric).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .collect();
    let has =
        |name: &str, value: &str| series.iter().any(|line| line.contains(&format!("{name}=\"{value}\"")));
    !series.is_empty()
        && wanted.labels.iter().all(|(name, values)| values.iter().all(|value| has(name, value)))
}

/// Every alert, with the name of its group.
pub(crate) fn alerts() -> Vec<Value> {
    let file = document("deploy/alerts.yaml");
    list(&file, "/groups").iter().flat_map(|group| list(group, "/rules").to_vec()).collect()
}

/// The names of all alerts.
pub(crate) fn alert_names() -> Vec<String> {
    alerts().iter().map(|alert| word(alert, "/alert").to_owned()).collect()
}

#[test]
fn an_expression_is_read_as_far_as_it_names_metrics() {
    let both = "sum(increase(dormouse_mail_total{outcome=~\"expired|sent\",job!=\"x\"}[1h])) > dormouse_rows";
    let mail = Wanted { metric: "dormouse_mail_total", labels: vec![("outcome", vec!["expired", "sent"])] };
    assert_eq!(wanted(both), [mail, Wanted { metric: "dormouse_rows", labels: Vec::new() }]);
    let page = "dormouse_rows_sent_total 1\ndormouse_mail_total{outcome=\"sent\"} 0\n";
    assert!(wanted(both).iter().all(|it| !is_there(it, page)));
    assert!(is_there(&wanted("dormouse_mail_total{outcome=\"sent\"}")[0], page));
}

#[test]
fn every_metric_in_the_alerts_is_on_the_page() {
    let page = page("/metrics");
    let mut asked = 0;
    for alert in alerts() {
        let expression = word(&alert, "/expr");
        for wanted in wanted(expression) {
            assert!(is_there(&wanted, &page), "{}: {wanted:?}", word(&alert, "/alert"));
            asked += 1;
        }
    }
    assert!(asked >= 15, "only {asked} metrics");
}

#[test]
fn every_metric_in_the_manual_is_on_the_page() {
    let page = page("/metrics");
    let manual = text("deploy/README.md");
    // The target of its log lines is called like one.
    for metric in words_with(&manual, "dormouse_").into_iter().filter(|it| it != "dormouse_relay") {
        // A histogram is named without what its series end with.
        let sum = format!("{metric}_sum");
        let known = |metric: &str| is_there(&Wanted { metric, labels: Vec::new() }, &page);
        assert!(known(&metric) || known(&sum), "{metric}");
    }
}

#[test]
fn every_alert_says_how_grave_it_is_and_what_it_means() {
    let alerts = alerts();
    let names: BTreeSet<&str> = alerts.iter().map(|alert| word(alert, "/alert")).collect();
    assert_eq!(names.len(), alerts.len(), "two have one name");
    for alert in &alerts {
        let severity = word(alert, "/labels/severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{alert:#}");
        for text in ["summary", "description"] {
            assert!(word(alert, &format!("/annotations/{text}")).ends_with('.'), "{alert:#}");
        }
        let is_length = |it: &str| it.strip_suffix('m').is_some_and(|it| it.parse::<u32>().is_ok());
        assert!(alert.get("for").is_none_or(|it| it.as_str().is_some_and(is_length)), "{alert:#}");
        let known = ["alert", "expr", "for", "labels", "annotations"];
        assert!(alert.as_object().is_some_and(|it| it.keys().all(|key| known.contains(&key.as_str()))));
    }
}

#[test]
fn the_quota_that_is_watched_is_the_one_that_is_set() {
    let compose = document("deploy/compose.yaml");
    let set = word(&compose, "/services/relay/environment/DORMOUSE_BYTES_MAX");
    let alerts = alerts();
    let near = alerts.iter().find(|alert| word(alert, "/alert") == "DormouseNearQuota").expect("an alert");
    assert!(word(near, "/expr").ends_with(&format!("> 0.8 * {set}")), "{}", at(near, "/expr"));
}

#[test]
fn prometheus_takes_the_rules_and_fires_them_when_it_should() {
    let top = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for arguments in [
        ["check", "rules", &format!("{top}/deploy/alerts.yaml")],
        ["test", "rules", &format!("{top}/tests/deploy/alerts.yaml")],
    ] {
        if let Some((well, said)) = checked_by("promtool", &arguments) {
            assert!(well, "{said}");
        }
    }
}
