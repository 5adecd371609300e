//! The lines of the README for `curl`, as somebody cuts and pastes them into a shell, beside a relay that is new.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    is_there,
    relay::{Outcome, RelayProcess},
};

/// A command, and the answer that the README shows below it.
struct Example {
    command: String,
    answer: Value,
}

/// In each block of `sh`: lines up to a comment are a command, the comment is its answer.
fn examples(page: &str) -> Outcome<Vec<Example>> {
    let mut examples = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let mut command = String::new();
        for line in block.split("```").next().unwrap_or_default().lines() {
            if let Some(answer) = line.strip_prefix("# ") {
                let answer = serde_json::from_str(answer)?;
                examples.push(Example { command: std::mem::take(&mut command), answer });
            } else {
                command += line;
                command.push('\n');
            }
        }
        assert_eq!(command.trim(), "", "a command without an answer");
    }
    Ok(examples)
}

/// What differs from one relay to the next is no part of the comparison: revisions, names, tokens and what is left of a lease.
fn without_what_differs(value: &mut Value) {
    const DIFFERS: [&str; 5] = ["revision", "asOf", "nodeId", "token", "ttlMs"];
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if DIFFERS.contains(&name.as_str()) {
                    assert!(value.is_string() || value.is_number(), "{name}: {value}");
                    *value = Value::Null;
                } else {
                    without_what_differs(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(without_what_differs),
        _ => {}
    }
}

#[test]
fn every_curl_line_of_the_readme_answers_what_it_says() -> Outcome {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let examples = examples(&page)?;
    for call in ["Mailbox/Write", "Mailbox/Read", "Mailbox/Sync", "Membership/CountMembers"] {
        assert!(examples.iter().any(|it| it.command.contains(call)), "no {call}");
    }
    if !is_there("curl", "the lines of the README") {
        return Ok(());
    }
    let relay = RelayProcess::start(&[])?;
    for Example { command, mut answer } in examples {
        assert!(command.contains("http://127.0.0.1:7400/"), "{command}");
        let here = command.replace("http://127.0.0.1:7400", &relay.url());
        let output = Command::new("bash").args(["-c", &here]).output()?;
        let mut said: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("{command}{error}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
        })?;
        // True of the first seconds of every relay, and not of one that somebody reads of.
        if said["conditions"] == serde_json::json!(["EXPIRY_HELD"]) {
            said.as_object_mut().and_then(|fields| fields.remove("conditions"));
        }
        without_what_differs(&mut said);
        without_what_differs(&mut answer);
        assert_eq!(said, answer, "{command}");
    }
    Ok(())
}

#[test]
fn an_example_without_its_answer_is_noticed() {
    let page = "```sh\ncurl a \\\n  -d b\n# {\"a\": 1}\n```\ntext\n```sh\ncurl c\n# 2\n```\n";
    let found = examples(page).expect("two examples");
    let found: Vec<_> = found.iter().map(|it| (it.command.as_str(), it.answer.to_string())).collect();
    assert_eq!(found, [("curl a \\\n  -d b\n", "{\"a\":1}".to_owned()), ("curl c\n", "2".to_owned())]);
    assert!(examples("```sh\ncurl a\n# no answer\n```").is_err());
}
