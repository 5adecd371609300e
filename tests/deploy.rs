//! What stands in `deploy/`, held against the relay: its settings, its ports and pages, its metrics, and what it says.
//!
//! These files are read by other programs on other machines, so nothing that the compiler sees would notice when a
//! setting, a path or a metric gets another name.

#[path = "deploy/alerts.rs"]
mod alerts;
#[path = "deploy/brokers.rs"]
mod brokers;
#[path = "deploy/claims.rs"]
mod claims;
#[path = "deploy/containers.rs"]
mod containers;
#[path = "deploy/dashboard.rs"]
mod dashboard;
#[path = "deploy/files.rs"]
mod files;
#[path = "deploy/guides.rs"]
mod guides;
#[path = "deploy/manual.rs"]
mod manual;
#[path = "deploy/pages.rs"]
mod pages;
#[path = "processes/relay.rs"]
#[allow(dead_code, reason = "others kill and freeze it")]
mod process;
#[path = "deploy/relays.rs"]
mod relays;
#[path = "deploy/unit.rs"]
mod unit;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use files::{documents, names, relay_with, text, words_with};

/// A program that `tests/tools/install` may have put into the target folder, or the one that is installed.
fn program(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a test has an executable");
    let target = exe.ancestors().nth(3).expect("it lies in target/PROFILE/deps");
    let ours = target.join("tools").join(name);
    if ours.is_file() {
        return ours;
    }
    // Where the tests have to be whole, one of those that is missing is a failure.
    let required = std::env::var_os("REQUIRE_TOOLS").is_some() && name == "promtool";
    assert!(!required, "{} is missing; tests/tools/install puts it there", ours.display());
    name.into()
}

/// Runs a checking program. `None`: it is not installed, which is said.
fn checked_by(name: &str, arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new(program(name)).args(arguments).output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
        Err(error) => {
            eprintln!("skipped: `{name}` would look at this too, if it were installed ({error})");
            None
        }
    }
}

#[test]
fn the_relay_itself_starts_with_the_example_and_says_what_its_log_survives() -> process::Outcome {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/dormouse.toml");
    let relay = process::RelayProcess::start(&[("DORMOUSE_CONFIG", example)])?;
    let page = relay.get("/readyz")?;
    assert!(page.contains("\r\n\r\nok\nlog: embedded, Fsync\nacknowledged: "), "{page}");
    Ok(())
}

#[test]
fn every_yaml_file_parses() {
    let yaml = |name: &String| Path::new(name).extension().is_some_and(|it| it == "yaml" || it == "yml");
    let parsed: usize = names("deploy").into_iter().filter(yaml).map(|name| documents(&name).len()).sum();
    assert!(parsed >= 8, "only {parsed} documents");
}

#[test]
fn every_variable_in_these_files_is_one_that_the_relay_knows() {
    // An empty variable counts as not set, but its name has to be known.
    let is_known = |name: &str| relay_with([(name, "")]).is_ok();
    assert!(!is_known("DORMOUSE_LISTN"));
    let mut found = 0;
    let is_picture = |name: &String| Path::new(name).extension().is_some_and(|it| it == "png");
    for file in names("deploy").into_iter().filter(|name| !is_picture(name)) {
        // The beginning alone is no variable: a comment tells of it.
        for name in words_with(&text(&file), "DORMOUSE_").into_iter().filter(|name| name != "DORMOUSE_") {
            assert!(is_known(&name), "{file}: {name}");
            found += 1;
        }
    }
    assert!(found >= 20, "only {found} names");
}
