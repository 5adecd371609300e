//! The files of `deploy/`, as text and as what a YAML reader makes of them.

use std::{collections::BTreeMap, fs, path::Path};

use dormouse_relay::config::{Config, ConfigError};
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::Value;

/// What all releases of the workspace are called, and so the images.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The memory that a relay with the settings of `compose.yaml` and `kubernetes/` may use.
pub(crate) const MEMORY: u64 = 4 << 30;

/// The text of a file, named from the top of the repository.
pub(crate) fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The names of all files in a folder and the folders below it, from the top of the repository.
pub(crate) fn names(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).unwrap_or_else(|error| panic!("{folder}: {error}")) {
        let entry = entry.expect("a readable folder");
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() { names.extend(self::names(&name)) } else { names.push(name) }
    }
    names.sort();
    names
}

/// The documents of a YAML file. A key that stands twice is refused.
pub(crate) fn documents(name: &str) -> Vec<Value> {
    let text = text(name);
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(!documents.is_empty(), "{name} is empty");
    documents.iter().map(json).collect()
}

/// The only document of a YAML file.
pub(crate) fn document(name: &str) -> Value {
    let documents = documents(name);
    assert_eq!(documents.len(), 1, "{name}");
    documents.into_iter().next().unwrap_or_default()
}

fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(it)) => (*it).into(),
        Yaml::Value(Scalar::Integer(it)) => (*it).into(),
        Yaml::Value(Scalar::FloatingPoint(it)) => it.0.into(),
        Yaml::Value(Scalar::String(it)) => it.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(json).collect(),
        Yaml::Mapping(entries) => {
            let key = |key: &Yaml| key.as_str().unwrap_or_else(|| panic!("{key:?} is no name")).to_owned();
            entries.iter().map(|(name, value)| (key(name), json(value))).collect()
        }
        other => panic!("{other:?} is nothing that these files need"),
    }
}

/// What stands at that JSON pointer, or the test fails.
pub(crate) fn at<'a>(document: &'a Value, pointer: &str) -> &'a Value {
    document.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer} in {document:#}"))
}

/// The text that stands there.
pub(crate) fn word<'a>(document: &'a Value, pointer: &str) -> &'a str {
    let found = at(document, pointer);
    found.as_str().unwrap_or_else(|| panic!("{pointer} is {found}, which is no text"))
}

/// The number that stands there.
pub(crate) fn number(document: &Value, pointer: &str) -> u64 {
    let found = at(document, pointer);
    found.as_u64().unwrap_or_else(|| panic!("{pointer} is {found}, which is no number"))
}

/// The list that stands there.
pub(crate) fn list<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    let found = at(document, pointer);
    found.as_array().unwrap_or_else(|| panic!("{pointer} is {found}, which is no list"))
}

/// Every word of a text that begins like this, in order and once each; a word has capitals or small letters, digits and `_`.
pub(crate) fn words_with(text: &str, prefix: &str) -> Vec<String> {
    let in_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let mut words: Vec<String> =
        text.split(|it| !in_word(it)).filter(|word| word.starts_with(prefix)).map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// What a relay makes of this environment.
pub(crate) fn relay_with<'a>(
    env: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Config, ConfigError> {
    Config::from_sources(env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())), None)
}

/// The instructions of the Dockerfile with their arguments, lines that go on joined.
pub(crate) fn dockerfile() -> Vec<(String, String)> {
    let text = text("deploy/Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter_map(|line| line.trim().split_once(' '));
    instructions.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect()
}

/// The variables that the image sets.
pub(crate) fn image_variables() -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (_, rest) in dockerfile().into_iter().filter(|(name, _)| name == "ENV") {
        let set = rest.split(' ').filter_map(|it| it.split_once('='));
        variables.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    variables
}
