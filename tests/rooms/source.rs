//! Reads a source as far as the rules need it: its words, and the paths that it names, spelt out in full.
//!
//! No parser: comments, literals and what stands under `#[cfg(test)]` are dropped, `use` trees are unfolded, `super` is
//! resolved. A path that a macro puts together is not seen.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Below the top of the repository, with `/`.
    pub(crate) file: String,
    /// The paths that it names, each from its crate on: `crate::state::Fold`, `std::fs::File`.
    pub(crate) paths: BTreeSet<Named>,
    /// The modules that it declares.
    pub(crate) modules: Vec<String>,
}

/// A path that a file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    /// In full.
    pub(crate) path: String,
    /// By `use`, so that shorter paths may follow from it.
    pub(crate) imported: bool,
}

/// Where the repository begins.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every source below these folders that is neither generated nor a test.
pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    let top = top();
    let mut files = Vec::new();
    for folder in folders {
        collect(&top.join(folder), &mut files);
    }
    files.sort();
    let mut sources = Vec::new();
    for path in files {
        let file = path.strip_prefix(&top).expect("below the top").to_string_lossy().replace('\\', "/");
        if !is_test_or_generated(&file) {
            sources.push(Source::read(&file, &fs::read_to_string(&path).expect("a readable source")));
        }
    }
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
}

/// What is declared under `#[cfg(test)]` in another file goes by its name.
fn is_test_or_generated(file: &str) -> bool {
    let inside = file.split_once("/src/").map_or("", |(_, inside)| inside);
    let is_test = |part: &str| part == "tests" || part.ends_with("_tests");
    inside.trim_end_matches(".rs").split('/').any(is_test) || inside.starts_with("wire/dormouse.")
}

impl Source {
    /// A source from its text.
    pub(crate) fn read(file: &str, text: &str) -> Self {
        let words = words(text);
        let mut reader = Reader { words: &words, at: 0, module: module_of(file), inner: Vec::new() };
        let mut source = Self { file: file.to_owned(), paths: BTreeSet::new(), modules: Vec::new() };
        reader.read(&mut source);
        source
    }

    /// Whether it names this path or one below it.
    pub(crate) fn names(&self, path: &str) -> bool {
        self.paths.iter().any(|it| is_below(&it.path, path))
    }
}

/// Whether `path` is `above` or lies below it.
pub(crate) fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module of a file, from its crate on.
fn module_of(file: &str) -> Vec<String> {
    let inside = file.split_once("src/").map_or(file, |(_, inside)| inside);
    let inside = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    let mut module = vec!["crate".to_owned()];
    module.extend(inside.split('/').filter(|it| !["lib", "main", "mod"].contains(it)).map(str::to_owned));
    module
}

/// Words and signs. `::` is one sign; comments and literals are gone.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |it: char| it.is_alphanumeric() || it == '_';
        let taken = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => raw(rest),
            '\'' => character_or_lifetime(rest),
            _ if is_word(first) => {
                let end = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                end
            }
            _ if rest.starts_with("::") => {
                words.push("::".to_owned());
                2
            }
            _ => {
                if !first.is_whitespace() {
                    words.push(first.to_string());
                }
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    words
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, it) in text.char_indices().skip(1) {
        match it {
            '"' if !escaped => return at + 1,
            _ => escaped = it == '\\' && !escaped,
        }
    }
    text.len()
}

fn raw(text: &str) -> usize {
    let end = if text.starts_with("r#") { "\"#" } else { "\"" };
    let start = text.find('"').map_or(text.len(), |at| at + 1);
    text[start..].find(end).map_or(text.len(), |at| start + at + end.len())
}

fn character_or_lifetime(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    let (first, second) = (inside.next(), inside.next());
    match (first, second) {
        (Some('\\'), Some(escaped)) => {
            let start = 2 + escaped.len_utf8();
            text[start..].find('\'').map_or(text.len(), |at| start + at + 1)
        }
        (Some(it), Some('\'')) => 2 + it.len_utf8(),
        _ => 1,
    }
}

struct Reader<'a> {
    words: &'a [String],
    at: usize,
    module: Vec<String>,
    /// Modules that are open in the file, each with the number of braces open inside it.
    inner: Vec<(String, usize)>,
}

impl<'a> Reader<'a> {
    fn word(&self, ahead: usize) -> &'a str {
        self.words.get(self.at + ahead).map_or("", String::as_str)
    }

    fn read(&mut self, source: &mut Source) {
        while self.at < self.words.len() {
            match (self.word(0), self.word(1), self.word(2)) {
                ("#", "[", "cfg") if self.word(4) == "test" => self.skip_item(),
                ("mod", name, "{" | ";") => {
                    source.modules.push(name.to_owned());
                    if self.word(2) == "{" {
                        self.inner.push((name.to_owned(), 0));
                        self.at += 1;
                    }
                    self.at += 2;
                }
                ("use", ..) => {
                    self.at += 1;
                    let mut paths = Vec::new();
                    self.tree(&[], &mut paths);
                    source.paths.extend(paths.into_iter().map(|path| self.named(&path, true)));
                }
                (first, "::", _) if is_start(first) && !self.continues() => {
                    let path = self.path();
                    source.paths.insert(self.named(&path, false));
                }
                _ => self.step(),
            }
        }
    }

    /// One word on, minding the braces.
    fn step(&mut self) {
        match (self.word(0), self.inner.last_mut()) {
            ("{", Some((_, open))) => *open += 1,
            ("}", Some((_, 0))) => drop(self.inner.pop()),
            ("}", Some((_, open))) => *open -= 1,
            _ => {}
        }
        self.at += 1;
    }

    /// Whether the word here goes on with a path: `b` in `a::b`.
    fn continues(&self) -> bool {
        self.at > 0 && self.words[self.at - 1] == "::"
    }

    /// Over an attribute and the item behind it, up to its `;` or the end of its braces.
    fn skip_item(&mut self) {
        let mut open = 0_usize;
        loop {
            match self.word(0) {
                "" => return,
                "{" | "[" | "(" => open += 1,
                "}" | "]" | ")" => {
                    open -= 1;
                    if open == 0 && self.word(0) == "}" {
                        self.at += 1;
                        return;
                    }
                }
                ";" if open == 0 => {
                    self.at += 1;
                    return;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn path(&mut self) -> Vec<String> {
        let mut path = vec![self.word(0).to_owned()];
        self.at += 1;
        while self.word(0) == "::" && is_start(self.word(1)) {
            path.push(self.word(1).to_owned());
            self.at += 2;
        }
        path
    }

    /// Unfolds a `use` tree; ends behind it.
    fn tree(&mut self, above: &[String], paths: &mut Vec<Vec<String>>) {
        let mut path = above.to_vec();
        if self.word(0) == "::" {
            self.at += 1;
        }
        loop {
            match self.word(0) {
                "{" => {
                    self.at += 1;
                    while self.word(0) != "}" && self.at < self.words.len() {
                        self.tree(&path, paths);
                        if self.word(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "self" if !path.is_empty() => {}
                word => path.push(word.to_owned()),
            }
            self.at += 1;
            if self.word(0) != "::" {
                break;
            }
            self.at += 1;
        }
        if self.word(0) == "as" {
            self.at += 2;
        }
        paths.push(path);
    }

    /// The path in full: `super` and `self` are spelt out.
    fn named(&self, path: &[String], imported: bool) -> Named {
        let mut module = self.module.clone();
        module.extend(self.inner.iter().map(|(name, _)| name.clone()));
        let mut rest = path;
        let relative = matches!(rest[0].as_str(), "self" | "super");
        while let Some((first, behind)) = rest.split_first() {
            match first.as_str() {
                "super" => drop(module.pop()),
                "self" => {}
                _ => break,
            }
            rest = behind;
        }
        let full: Vec<String> = if relative { [&module, rest].concat() } else { path.to_vec() };
        Named { path: full.join("::"), imported }
    }
}

fn is_start(word: &str) -> bool {
    word.starts_with(|it: char| it.is_alphabetic() || it == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(file: &str, text: &str) -> Vec<String> {
        Source::read(file, text).paths.into_iter().map(|it| it.path).collect()
    }

    #[test]
    fn a_tree_of_imports_is_unfolded() {
        let text = "use std::{fmt, io::{self, Write as _}, sync::*};";
        assert_eq!(paths("relay/src/a.rs", text), ["std::fmt", "std::io", "std::io::Write", "std::sync::*"]);
    }

    #[test]
    fn super_is_the_module_above() {
        assert_eq!(paths("relay/src/log/line.rs", "use super::super::state::Fold;"), ["crate::state::Fold"]);
        assert_eq!(paths("relay/src/log/mod.rs", "use super::state::Fold;"), ["crate::state::Fold"]);
        let inside = "mod a { fn b() { super::c(); } } fn d() { super::e(); }";
        assert_eq!(paths("relay/src/log/line.rs", inside), ["crate::log::e", "crate::log::line::c"]);
    }

    #[test]
    fn a_path_in_the_middle_of_code_counts() {
        assert_eq!(
            paths("relay/src/a.rs", "let now = std::time::Instant::now();"),
            ["std::time::Instant::now"]
        );
    }

    #[test]
    fn comments_literals_and_tests_do_not_count() {
        let text = r##"
            // std::fs::read
            /* tokio::spawn */
            const A: &str = "redb::Database \" tokio::spawn"; const B: char = '"'; const C: &str = r#"tonic::Status"#;
            #[cfg(test)]
            mod tests { use tokio::time; fn a() { std::fs::read("b"); } }
            #[cfg(test)]
            use proptest::prelude::*;
            fn f<'a>(_: &'a str) -> std::fmt::Result { loop {} }
        "##;
        assert_eq!(paths("relay/src/a.rs", text), ["std::fmt::Result"]);
    }
}
