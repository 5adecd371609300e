//! `grafana.json` and the numbers that it draws, against a relay that runs and has had something to do.

use std::{collections::BTreeSet, fs, time::Duration};

use dormouse::Node;
use serde_json::Value;

use crate::{
    alerts::{Wanted, alerts, is_there, wanted},
    checked_by,
    files::{at, list, number, text, word},
    process::{Outcome, PATIENCE, RelayProcess},
};

fn dashboard() -> Value {
    serde_json::from_str(&text("deploy/grafana.json")).unwrap_or_else(|error| panic!("grafana.json: {error}"))
}

/// The panels that draw something, with the title of each, and their expressions.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let drawn = list(dashboard, "/panels").iter().filter(|it| word(it, "/type") != "row");
    let with_title = |panel: &Value| {
        let title = word(panel, "/title").to_owned();
        let targets = list(panel, "/targets").iter();
        targets.map(|it| (title.clone(), word(it, "/expr").to_owned())).collect::<Vec<_>>()
    };
    drawn.flat_map(with_title).collect()
}

/// As Grafana sends it, for all relays.
fn filled_in(expression: &str) -> String {
    let filled =
        expression.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*");
    assert!(!filled.contains('$'), "{expression} has a variable that is not known");
    filled
}

/// The numbers of a relay with a floor, a member that has pushed and pulled, and a caller that was refused.
fn numbers_of_a_running_relay() -> Outcome<String> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("dormouse.toml");
    fs::write(&config, "[floor.workers]\ngroup = \"demo\"\nby = \"room\"\nminimum = 2\n")?;
    let relay = RelayProcess::start(&[("DORMOUSE_CONFIG", config.to_str().ok_or("a path in UTF-8")?)])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node =
            Node::builder().url(relay.url()).group("demo").tag("room", "a").budget(PATIENCE).build()?;
        for _ in 0..2 {
            let awake = node.wake(PATIENCE).await;
            awake.counter("demo/seen").add(1)?;
            awake.sleep().await.warn_if_unsaved();
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    let shown =
        |page: &str| page.contains("dormouse_floor_live{") && page.contains("dormouse_group_members{");
    for _ in 0..500 {
        let page = relay.get_accepting("/metrics", "text/plain;version=0.0.4")?;
        if shown(&page) {
            return Ok(page.split_once("\r\n\r\n").ok_or("no body")?.1.to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("the floor was not looked at".into())
}

#[test]
fn a_running_relay_has_every_number_that_is_drawn_or_watched_and_prometheus_likes_their_names() -> Outcome {
    let page = numbers_of_a_running_relay()?;
    let drawn =
        expressions(&dashboard()).into_iter().map(|(title, expression)| (title, filled_in(&expression)));
    let watched =
        alerts().into_iter().map(|it| (word(&it, "/alert").to_owned(), word(&it, "/expr").to_owned()));
    let mut metrics = BTreeSet::new();
    for (title, expression) in drawn.chain(watched) {
        for Wanted { metric, labels } in wanted(&expression) {
            // Which relay it is, Prometheus says itself.
            let own = labels.into_iter().filter(|(name, _)| !["job", "instance"].contains(name)).collect();
            let it = Wanted { metric, labels: own };
            assert!(is_there(&it, &page), "{title}: {it:?} is not in:\n{page}");
            metrics.insert(metric.to_owned());
        }
    }
    assert!(metrics.len() >= 40, "only {} metrics", metrics.len());
    let declared = page.lines().filter(|line| line.starts_with("# TYPE dormouse_")).count();
    assert_eq!(declared, page.lines().filter(|line| line.starts_with("# HELP dormouse_")).count());
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("numbers");
    fs::write(&file, &page)?;
    let read = format!("exec \"$0\" check metrics < '{}'", file.display());
    let promtool = crate::program("promtool");
    let promtool = promtool.to_str().ok_or("a path in UTF-8")?;
    if checked_by("promtool", &["--version"]).is_some() {
        let (well, said) = checked_by("sh", &["-c", &read, promtool]).ok_or("a shell")?;
        assert!(well && said.is_empty(), "{said}");
    }
    Ok(())
}

#[test]
fn prometheus_understands_every_expression_of_the_dashboard() -> Outcome {
    let expressions = expressions(&dashboard());
    assert!(expressions.len() >= 40, "only {} expressions", expressions.len());
    let rule = |(nth, (_, expression)): (usize, &(String, String))| {
        let expression = filled_in(expression);
        format!("      - record: panel:expression:{nth}\n        expr: |\n          {expression}\n")
    };
    let rules: Vec<String> = expressions.iter().enumerate().map(rule).collect();
    let rules = format!("groups:\n  - name: dashboard\n    rules:\n{}", rules.concat());
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("rules.yaml");
    fs::write(&file, rules)?;
    if let Some((well, said)) =
        checked_by("promtool", &["check", "rules", file.to_str().ok_or("a path in UTF-8")?])
    {
        assert!(well && said.contains(&format!("{} rules found", expressions.len())), "{said}");
    }
    Ok(())
}

#[test]
fn the_dashboard_has_what_grafana_needs_to_import_it() {
    let dashboard = dashboard();
    assert_eq!((word(&dashboard, "/uid"), word(&dashboard, "/title")), ("dormouse", "Dormouse"));
    assert!(number(&dashboard, "/schemaVersion") >= 36, "older ones name data sources otherwise");
    assert!(dashboard.get("id").is_none(), "the id is that of one Grafana");
    let variables: Vec<(&str, &str)> = list(&dashboard, "/templating/list")
        .iter()
        .map(|it| (word(it, "/name"), word(it, "/type")))
        .collect();
    assert_eq!(variables, [("datasource", "datasource"), ("job", "query"), ("instance", "query")]);
    let panels = list(&dashboard, "/panels");
    let ids: BTreeSet<u64> = panels.iter().map(|it| number(it, "/id")).collect();
    assert_eq!(ids.len(), panels.len(), "two have one id");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = ["x", "y", "w", "h"].map(|it| number(panel, &format!("/gridPos/{it}")));
        let [x, y, w, h] = place;
        assert!(x + w <= 24 && w > 0 && h > 0, "{place:?} is no place: {panel:#}");
        for square in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(square), "{} lies on another one", word(panel, "/title"));
        }
        if word(panel, "/type") == "row" {
            continue;
        }
        let targets = list(panel, "/targets");
        assert!(!targets.is_empty() && !word(panel, "/title").is_empty());
        for source in [panel].into_iter().chain(targets) {
            assert_eq!(word(source, "/datasource/uid"), "${datasource}", "{panel:#}");
            assert_eq!(word(source, "/datasource/type"), "prometheus");
        }
        let names: BTreeSet<&str> = targets.iter().map(|it| word(it, "/refId")).collect();
        assert_eq!(names.len(), targets.len(), "{}", at(panel, "/title"));
    }
}
