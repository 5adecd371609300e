//! The text of a label selector, taken apart as Kubernetes does it.

use std::{collections::BTreeSet, fmt};

use super::{Selector, Term, Test};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A refusal has 4 KiB for everything.
            Self::Word(word) => match word.char_indices().nth(40) {
                Some((end, _)) => write!(f, "{:?}...", &word[..end]),
                None => write!(f, "{word:?}"),
            },
            Self::Sign(sign) => write!(f, "{sign:?}"),
            Self::End => f.write_str("the end"),
        }
    }
}

const SIGNS: &[&str] = &["==", "!=", "=", "!", "(", ")", ",", "<", ">"];

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// The text that is left.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// The next token and what follows it.
    fn split(&self) -> (Token<'a>, &'a str) {
        let text = self.0.trim_start_matches(blank);
        if text.is_empty() {
            return (Token::End, text);
        }
        if let Some(sign) = SIGNS.iter().find(|sign| text.starts_with(**sign)) {
            return (Token::Sign(sign), &text[sign.len()..]);
        }
        let ends = |c: char| blank(c) || "=!(),<>".contains(c);
        let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        (Token::Word(word), rest)
    }

    fn peek(&self) -> Token<'a> {
        self.split().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.split();
        self.0 = rest;
        token
    }

    /// Takes that sign, if it is next.
    fn take(&mut self, sign: &str) -> bool {
        let there = self.peek() == Token::Sign(sign);
        if there {
            self.next();
        }
        there
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        match self.next() {
            Token::Sign(found) if found == sign => Ok(()),
            other => Err(format!("{other} where {sign:?} was expected")),
        }
    }

    /// A value, or nothing, which is the empty value.
    fn value(&mut self) -> String {
        match self.peek() {
            Token::Word(word) => {
                self.next();
                word.to_owned()
            }
            _ => String::new(),
        }
    }
}

pub(super) fn terms(text: &str) -> Result<Vec<Term>, String> {
    let mut rest = Rest(text);
    let mut terms = Vec::new();
    if rest.peek() == Token::End {
        return Ok(terms);
    }
    loop {
        if terms.len() == Selector::TERMS {
            return Err(format!("more than {} terms", Selector::TERMS));
        }
        terms.push(term(&mut rest)?);
        match rest.next() {
            Token::End => return Ok(terms),
            Token::Sign(",") => {}
            other => return Err(format!("{other} where \",\" or the end was expected")),
        }
    }
}

fn term(rest: &mut Rest<'_>) -> Result<Term, String> {
    let absent = rest.take("!");
    let key = key(rest.next())?;
    if absent {
        return Ok(Term { key, test: Test::Absent });
    }
    let test = match rest.peek() {
        Token::End | Token::Sign(",") => Test::Exists,
        operator => {
            rest.next();
            test(operator, rest)?
        }
    };
    Ok(Term { key, test })
}

fn key(token: Token<'_>) -> Result<String, String> {
    // As for the tags of a node: another key would never match.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    match token {
        Token::Word(word) if word.bytes().all(allowed) => Ok(word.to_owned()),
        Token::Word(_) => Err(format!("{token} is no key: those are of [A-Za-z0-9._/-]")),
        other => Err(format!("{other} where a key was expected")),
    }
}

fn test(operator: Token<'_>, rest: &mut Rest<'_>) -> Result<Test, String> {
    match operator {
        Token::Sign("=" | "==") => Ok(Test::In(BTreeSet::from([rest.value()]))),
        Token::Sign("!=") => Ok(Test::NotIn(BTreeSet::from([rest.value()]))),
        Token::Word("in") => values(rest).map(Test::In),
        Token::Word("notin") => values(rest).map(Test::NotIn),
        Token::Sign("<" | ">") => Err(format!("{operator}: tags are texts and have no order")),
        other => Err(format!("{other} where one of =, ==, !=, in, notin was expected")),
    }
}

fn values(rest: &mut Rest<'_>) -> Result<BTreeSet<String>, String> {
    rest.expect("(")?;
    let mut values = BTreeSet::from([rest.value()]);
    while rest.take(",") {
        values.insert(rest.value());
    }
    rest.expect(")")?;
    Ok(values)
}
