//! The page of numbers as a whole.

use super::*;

fn page(metrics: &Metrics, gauges: &Gauges) -> String {
    metrics.encode(gauges).unwrap_or_default()
}

fn assert_line(page: &str, line: &str) {
    assert!(page.lines().any(|it| it == line), "{line} is not in:\n{page}");
}

#[test]
fn what_was_counted_is_on_the_page() {
    let metrics = Metrics::default();
    let shop = Namespace::try_from("shop".to_owned()).expect("a valid name");
    metrics.pushed(&shop, PushResult::Bound, 3);
    metrics.pushed(&shop, PushResult::Duplicate, 3);
    metrics.pulled(7, 900);
    metrics.joined(Admission::Readmitted);
    metrics.ended(Cause::Evicted);
    metrics.refused("BUSY");
    metrics.appended(12, Duration::from_micros(150));
    metrics.looked_late(Duration::from_millis(3));
    metrics.paused(Duration::from_millis(1_500));
    let page = page(&metrics, &Gauges::default());
    for line in [
        "dormouse_pushes_total{result=\"bound\"} 1",
        "dormouse_pushes_total{result=\"duplicate\"} 1",
        "dormouse_deltas_total 3",
        "dormouse_pulls_total 1",
        "dormouse_rows_sent_total 7",
        "dormouse_chunk_bytes_total 900",
        "dormouse_joins_total{admission=\"readmitted\"} 1",
        "dormouse_ends_total{cause=\"evicted\"} 1",
        "dormouse_refusals_total{reason=\"BUSY\"} 1",
        "dormouse_frames_total 1",
        "dormouse_records_total 12",
        "dormouse_log_append_seconds_count 1",
        "dormouse_log_append_seconds_bucket{le=\"0.0001\"} 0",
        "dormouse_log_append_seconds_bucket{le=\"0.0002\"} 1",
        "dormouse_relay_pause_seconds_total 1.5",
        "dormouse_namespace_pushes_total{namespace=\"shop\"} 2",
        "dormouse_lease_lag_seconds_bucket{le=\"0.001\"} 0",
        "dormouse_lease_lag_seconds_bucket{le=\"0.004\"} 1",
    ] {
        assert_line(&page, line);
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn a_label_whose_values_are_known_is_there_before_its_first_event() {
    let page = page(&Metrics::default(), &Gauges::default());
    assert_line(&page, "dormouse_pushes_total{result=\"fork\"} 0");
    assert_line(&page, "dormouse_joins_total{admission=\"forgotten\"} 0");
    assert_line(&page, "dormouse_ends_total{cause=\"expired\"} 0");
    assert_line(&page, "dormouse_refusals_total{reason=\"STORE_FULL\"} 0");
    assert_line(&page, "dormouse_false_deaths_total 0");
}

#[test]
fn gauges_are_those_of_the_scrape() {
    let metrics = Metrics::default();
    let gauges = Gauges {
        revision: 1 << 60,
        awake: 2,
        suspect: 1,
        expiry_held: true,
        log: ["embedded", "Fsync"],
        conditions: vec![Condition::MassLoss],
        collapsed: [7, 0, 0, 0, 0],
        mail: [9, 8, 0, 1],
        ..Gauges::default()
    };
    let first = page(&metrics, &gauges);
    assert_line(&first, "dormouse_collapsed_total{what=\"dead_rows\"} 7");
    assert_line(&first, "dormouse_mail_total{outcome=\"undelivered\"} 1");
    assert_line(&first, "dormouse_revision 1152921504606846976");
    assert_line(&first, "dormouse_members{state=\"awake\"} 2");
    assert_line(&first, "dormouse_expiry_held 1");
    assert_line(&first, "dormouse_condition{condition=\"MASS_LOSS\"} 1");
    assert_line(&first, "dormouse_condition{condition=\"STORE_FULL\"} 0");
    assert_line(&first, "dormouse_log_info{kind=\"embedded\",durability=\"Fsync\"} 1");
    assert_line(&page(&metrics, &Gauges::default()), "dormouse_members{state=\"awake\"} 0");
}

#[test]
fn every_metric_has_one_name_and_one_description() {
    let page = page(&Metrics::default(), &Gauges::default());
    let mut names: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), all), (47, 47));
    assert!(names.iter().all(|name| name.starts_with("dormouse_")));
}
