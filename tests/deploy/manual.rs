//! `README.md` of `deploy/`: whoever is woken at night looks there for the words on the screen.

use std::{collections::BTreeSet, path::Path};

use dormouse_proto::{backup::BadBackup, wire::v1::relay_info::Condition};
use dormouse_relay::{
    config::Config,
    log::{Position, embedded::OpenError},
    sequencer::{NotRestored, StartError, Unwritten},
    telemetry,
};

use crate::{alerts::alert_names, files::text, pages::page};

/// Checks that a relay says it in these words, and that the manual has the words.
fn assert_told(said: &str, words: &str) {
    assert!(said.contains(words), "the relay does not say {words:?} any more, but: {said}");
    assert!(text("deploy/README.md").contains(words), "the manual has nothing on {words:?}: {said}");
}

/// What a relay says when it is started like that.
fn refusal(variables: &[(&str, &str)], file: &str) -> String {
    let env = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let outcome = Config::from_sources(env, Some((Path::new("dormouse.toml"), file)));
    outcome.map_or_else(|error| error.to_string(), |_| panic!("{variables:?} and {file:?} are accepted"))
}

#[test]
fn the_manual_knows_why_settings_are_refused() {
    let floors = (0..65).map(|nth| format!("[floor.f{nth}]\nminimum = 1\n")).collect::<Vec<_>>().concat();
    for (variables, file, words) in [
        (&[("DORMOUSE_LISTN", "127.0.0.1:1")][..], "", "is no setting of the relay; did you mean "),
        (&[("DORMOUSE_QUEUE_MAX", "0")][..], "", "must be "),
        (&[][..], "queue_max = ", "TOML parse error at line "),
        (
            &[("DORMOUSE_LISTEN", "0.0.0.0:7400")][..],
            "",
            "is reached from other machines: set tls_cert, tls_key and tokens_file",
        ),
        (&[("DORMOUSE_TLS_CERT", "cert.pem")][..], "", "tls_cert and tls_key belong together"),
        (&[("DORMOUSE_TLS_CLIENT_CA", "ca.pem")][..], "", "tls_client_ca asks callers for certificates"),
        (&[("DORMOUSE_LISTEN", "127.0.0.1:7401")][..], "", "listen and admin_listen are both "),
        (&[("DORMOUSE_ANSWER_MS", "1000")][..], "", "answer_ms must not be below request_ms"),
        (&[("DORMOUSE_ASLEEP_LEASE_MS", "10")][..], "", "awake_lease_ms, asleep_lease_ms, "),
        (&[][..], "[group.\"a b\"]", "a group must be "),
        (&[][..], "[floor.\"a b\"]\nminimum = 1", "the name of a floor must be "),
        (&[][..], &floors, "at most 64 may be"),
    ] {
        assert_told(&refusal(variables, file), words);
    }
    let loud = Config { log: "dormouse_relay=loud".to_owned(), ..Config::default() };
    let filter = telemetry::start(&loud).map_or_else(|error| error.to_string(), |_| String::new());
    assert_told(&filter, "must be a tracing filter");
    let source = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let unreadable =
        dormouse_relay::config::ConfigError::Unreadable { path: "d.toml".into(), source: source() };
    assert_told(&unreadable.to_string(), "cannot read the configuration file");
    let bytes = dormouse_relay::config::ConfigError::NotUnicode("DORMOUSE_LOG".to_owned());
    assert_told(&bytes.to_string(), "is not valid Unicode");
}

#[test]
fn the_manual_knows_why_a_log_is_refused() {
    let (path, detail) = (|| "d".into(), || "why".to_owned());
    for (error, words) in [
        (OpenError::InUse { path: path() }, "another relay is using this data directory"),
        (OpenError::NotALog { path: path(), detail: detail() }, "not a Dormouse log"),
        (OpenError::NewerFormat { path: path(), found: 2, supported: 1 }, "written in format"),
        (OpenError::Damaged { path: path(), detail: detail() }, "the log is damaged"),
    ] {
        assert_told(&error.to_string(), words);
    }
    let first = Position(39);
    assert_told(
        &StartError::NoSnapshot { first }.to_string(),
        "no snapshot of it can be used; restore a backup",
    );
    assert_told(&StartError::Open(Unwritten::StoreFull).to_string(), "the session could not be opened");
    // Said by the binary itself.
    let main = text("relay/src/main.rs");
    assert_told(&main, "DORMOUSE_DURABILITY asks for");
    assert_told(&main, "cannot listen on");
}

#[test]
fn the_manual_knows_why_a_backup_is_refused() {
    for (wrong, words) in [
        (BadBackup::Foreign, "it is no backup of Dormouse"),
        (BadBackup::Format(2), "it is a backup of format"),
        (BadBackup::Short(1), "it is cut short"),
        (BadBackup::Header, "its header is damaged"),
        (BadBackup::Piece { piece: 1, at: 2 }, "it is damaged"),
        (BadBackup::Count, "it is damaged"),
    ] {
        assert_told(&wrong.to_string(), words);
    }
    assert_told(&NotRestored::NotEmpty(Position(39)).to_string(), "this log is not empty");
    assert_told(&NotRestored::Overtaken.to_string(), "another relay has written to this log meanwhile");
}

#[test]
fn the_manual_says_what_to_do_about_every_condition() {
    let manual = text("deploy/README.md");
    let conditions: Vec<Condition> = (1..64).filter_map(|number| Condition::try_from(number).ok()).collect();
    assert!(conditions.len() >= 6, "{conditions:?}");
    for condition in conditions {
        let row = format!("\n| `{}` | ", condition.as_str_name());
        assert_eq!(manual.matches(&row).count(), 1, "{row}");
    }
}

#[test]
fn the_manual_says_what_to_do_about_every_refusal() {
    let manual = text("deploy/README.md");
    let refusals =
        manual.split("\n## Refusals\n").nth(1).and_then(|it| it.split("\n## ").next()).expect("a section");
    let page = page("/metrics");
    let reasons: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("dormouse_refusals_total{reason=\"")?.split('"').next())
        .collect();
    assert!(reasons.len() >= 19, "{reasons:?}");
    for reason in reasons {
        assert_eq!(refusals.matches(&format!("`{reason}`")).count(), 1, "{reason}");
    }
}

#[test]
fn the_manual_says_what_to_do_about_every_alert() {
    let manual = text("deploy/README.md");
    let alerts = manual.split("\n## Alerts\n").nth(1).expect("a section");
    let told: BTreeSet<String> = crate::files::words_with(alerts, "Dormouse").into_iter().collect();
    assert_eq!(told, alert_names().into_iter().collect());
}

#[test]
fn every_link_in_the_manual_leads_somewhere() {
    let manual = text("deploy/README.md");
    let anchors: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let links = manual.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let mut followed = 0;
    for link in links {
        match link.strip_prefix('#') {
            Some(anchor) => assert!(anchors.contains(anchor), "{link}"),
            None => assert!(folder.join(link).exists(), "{link}"),
        }
        followed += 1;
    }
    assert!(followed >= 10, "only {followed} links");
}
