//! What the pages say that an acknowledgement survives is what the relay says, and what tests show.

use std::path::Path;

use dormouse_relay::log::claims::{ALL_LOGS, Claim, Claims, Evidence};

use crate::files::{names, text};

/// A table of Markdown with a row for each log.
fn table(head: &str, cell: impl Fn(&Claim) -> String) -> String {
    let row = |claims: &Claims| {
        let cells: Vec<String> = claims.all().iter().map(|(_, claim)| cell(claim)).collect();
        format!("| {} | {} |\n", claims.log, cells.join(" | "))
    };
    let rows: Vec<String> = ALL_LOGS.iter().map(row).collect();
    format!("| log | {head} |\n|---|---|---|---|---|\n{}", rows.concat())
}

fn shown() -> String {
    table("an acknowledged write is | a process is killed | a machine is lost | the log is wiped", |it| {
        it.says.to_owned()
    })
}

fn evidence() -> String {
    table("acknowledged | killed process | lost machine | wiped log", |it| match it.because {
        Evidence::Test(name) => format!("`{name}`"),
        Evidence::Source(source) => source.to_owned(),
    })
}

/// Whether a file of that name is Rust.
fn is_rust(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == "rs")
}

#[test]
fn the_readme_says_what_the_relay_says() {
    let readme = text("README.md");
    assert!(readme.contains(&shown()), "the README should have\n\n{}", shown());
}

#[test]
fn each_claim_names_its_test_or_its_source() {
    let page = text("deploy/claims.md");
    assert!(page.contains(&evidence()), "deploy/claims.md should have\n\n{}", evidence());
}

#[test]
fn every_test_that_a_claim_names_is_there() {
    let sources = ["tests", "relay/src"].map(names).concat();
    let sources: Vec<String> = sources.iter().filter(|name| is_rust(name)).map(|name| text(name)).collect();
    let mut found = 0;
    for claims in ALL_LOGS {
        for (_, claim) in claims.all() {
            let Evidence::Test(name) = claim.because else { continue };
            let is_there = sources.iter().any(|source| source.contains(&format!("fn {name}(")));
            assert!(is_there, "{}: no test is called {name}", claims.log);
            found += 1;
        }
    }
    assert!(found >= 8, "only {found} tests");
}
