//! The small clients' own tests. Each starts relays of its own from the binary that it is told.

use std::process::Command;

use crate::{
    is_there,
    relay::{Outcome, RelayProcess, relay_binary},
};

/// Runs a program beside a client's files; what it says on standard output is returned.
fn run(folder: &str, program: &str, arguments: &[&str], url: Option<&str>) -> Outcome<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(format!("{}/../client/{folder}", env!("CARGO_MANIFEST_DIR")));
    command.env("DORMOUSE_TEST_RELAY", relay_binary()).env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(url) = url {
        command.env("DORMOUSE_URL", url);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}:\n{said}\n{complaints}");
    Ok(format!("{said}\n{complaints}"))
}

/// The number behind a word.
fn figure(said: &str, word: &str) -> Option<f64> {
    said.split_once(word)?.1.split_whitespace().next()?.parse().ok()
}

#[test]
fn the_python_client_passes_its_tests() -> Outcome {
    if !is_there("python3", "the tests of the Python client") {
        return Ok(());
    }
    let said = run("python", "python3", &["-W", "ignore", "-m", "unittest", "test_dormouse"], None)?;
    assert!(figure(&said, "Ran ").is_some_and(|tests| tests >= 18.0), "{said}");
    assert!(!said.contains("skipped"), "{said}");
    Ok(())
}

#[test]
fn the_node_client_passes_its_tests() -> Outcome {
    if !is_there("node", "the tests of the Node.js client") {
        return Ok(());
    }
    let said = run("node", "node", &["--test", "--test-reporter=tap", "test_dormouse.mjs"], None)?;
    assert!(figure(&said, "# pass ").is_some_and(|tests| tests >= 38.0), "{said}");
    assert_eq!(figure(&said, "# skipped "), Some(0.0), "{said}");
    Ok(())
}

#[test]
fn both_benches_print_their_figures() -> Outcome {
    let relay = RelayProcess::start(&[])?;
    for (folder, program, bench) in [("python", "python3", "bench.py"), ("node", "node", "bench.mjs")] {
        if is_there(program, "a bench") {
            let said = run(folder, program, &[bench], Some(&relay.url()))?;
            let line = format!("{folder}_wake_p50_ms ");
            assert!(figure(&said, &line).is_some_and(|ms| ms > 0.0), "{said}");
        }
    }
    Ok(())
}
