//! The pages beside the manual: logs on a broker, and what a relay on one says.

use std::path::Path;

use crate::files::{names, text};

const PAGES: &[&str] = &["nats.md", "rabbitmq.md", "sizing.md", "upgrading.md", "claims.md"];

/// All that the relay is made of, with the lines that a text goes on over put together.
fn sources() -> String {
    let rust = |name: &String| Path::new(name).extension().is_some_and(|it| it == "rs");
    let all: Vec<String> =
        names("relay/src").iter().filter(|name| rust(name)).map(|name| text(name)).collect();
    let joined = all.concat();
    joined.split("\\\n").map(str::trim_start).collect::<Vec<_>>().concat()
}

/// The words in the first column of the tables below `## When it says`.
fn said(page: &str) -> Vec<String> {
    let text = text(page);
    let section = text.split("\n## When it says\n").nth(1).expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next().map(str::to_owned)).collect()
}

#[test]
fn the_relay_says_what_the_guides_have_a_cure_for() {
    let sources = sources();
    for page in ["deploy/nats.md", "deploy/rabbitmq.md"] {
        let said = said(page);
        assert!(said.len() >= 18, "{page}: {said:?}");
        for words in said {
            assert!(sources.contains(&words), "{page}: the relay does not say {words:?}");
        }
    }
}

/// The longest piece of a message that holds nothing which is filled in.
fn fixed_words(message: &str) -> &str {
    let pieces = message.split(['{', '}']).step_by(2).map(|it| it.trim_matches([' ', ':', ';', ',']));
    pieces.max_by_key(|it| it.len()).unwrap_or_default()
}

#[test]
fn the_guides_have_a_cure_for_every_refusal_of_a_broker_and_every_warning() {
    for (page, folder, at_least) in
        [("deploy/nats.md", "relay/src/log/nats", 14), ("deploy/rabbitmq.md", "relay/src/log/rabbitmq", 11)]
    {
        let guide = text(page);
        let refusals = text(&format!("{folder}/mod.rs"));
        let refusals = refusals.split("#[error(").skip(1).filter_map(|it| it.split('"').nth(1));
        let files: String = names(folder).iter().map(|name| text(name)).collect();
        let calls = ["tracing::warn!(", "tracing::error!("]
            .map(|call| files.split(call).skip(1))
            .into_iter()
            .flatten();
        // The last text of a call is its message.
        let warnings = calls.filter_map(|it| it.split(");").next()?.rsplit('"').nth(1));
        let mut looked_at = 0;
        for message in refusals.chain(warnings) {
            let words = fixed_words(message);
            // What the kernel or the supervisor is asked about elsewhere, and what is told again behind "the log has lost frames".
            if ["no random numbers", "/varz"].contains(&words) || words.starts_with("the log has ended") {
                continue;
            }
            looked_at += 1;
            let begins: String = words.split_inclusive(' ').take(5).collect();
            assert!(guide.contains(begins.trim()), "{page} has no cure for {message:?}");
        }
        assert!(looked_at >= at_least, "{page}: only {looked_at} messages");
    }
}

#[test]
fn every_link_of_the_guides_leads_somewhere() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for page in PAGES {
        let name = format!("deploy/{page}");
        let mut followed = 0;
        let page_text = text(&name);
        for link in page_text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) =
                link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let path = deploy.join(file);
            assert!(path.is_file(), "{name}: {link}");
            if let Some(anchor) = anchor {
                let target = std::fs::read_to_string(&path).expect("readable");
                let titles = target.lines().filter_map(|line| line.strip_prefix("## "));
                let is_there = titles.map(|it| it.to_lowercase().replace(' ', "-")).any(|it| it == anchor);
                assert!(is_there, "{name}: {link}");
            }
            followed += 1;
        }
        assert!(followed >= 1, "{name}: no links");
        assert!(
            text("deploy/README.md").contains(&format!("({page})")),
            "the manual does not lead to {page}"
        );
    }
}
