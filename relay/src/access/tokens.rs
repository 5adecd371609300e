//! The tokens file: `token-hash namespace role`, a token on each line.

use std::{collections::HashMap, fmt, sync::Arc};

use ring::digest;
use subtle::ConstantTimeEq as _;

use super::{Holder, Role, Scope};

/// What a hash begins with in the file, so that another one can follow one day.
const SCHEME: &str = "sha256:";
/// What tokens begin with, so that those who search for leaked secrets know one when they see it.
const TOKEN: &str = "dm_";

/// The hash of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Of a token as it travels.
    pub fn of(token: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
        Self(hash)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(SCHEME)?;
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return None;
        }
        let mut hash = [0; 32];
        for (nth, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * nth..2 * nth + 2)?, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// Where it is looked for. That this takes longer for some than for others tells eight bytes of a hash, of which
    /// nobody can make a token.
    fn place(&self) -> [u8; 8] {
        let mut place = [0; 8];
        place.copy_from_slice(&self.0[..8]);
        place
    }

    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Its first four bytes: enough to find the line, and nothing to call with.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("...")
    }
}

/// Why a tokens file is not used. It names lines and never what stands in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// A line that breaks its rule.
    #[error("line {line}: {rule}")]
    Line {
        /// From 1.
        line: usize,
        /// What it must be.
        rule: String,
    },
    /// With it nobody could call. It is also what a file looks like that is being written.
    #[error("there is no token in it")]
    Empty,
    /// More lines than a relay holds.
    #[error("there are {0} tokens in it, at most {max} may be", max = TokenTable::MOST)]
    TooMany(usize),
}

/// All tokens of a relay.
#[derive(Clone, Debug, Default)]
pub struct TokenTable {
    /// Nearly always one at each place.
    holders: HashMap<[u8; 8], Vec<Arc<Holder>>>,
}

impl TokenTable {
    /// Tokens of one relay.
    pub const MOST: usize = 10_000;

    /// Reads the text of a file. Lines that are empty or begin with `#` say nothing.
    ///
    /// # Errors
    /// The first line that breaks a rule; nothing of the file is used then.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let lines = text.lines().enumerate().map(|(nth, line)| (nth + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (mut table, mut count) = (Self::default(), 0);
        for (line, content) in lines {
            let holder = holder(content).map_err(|rule| TokensError::Line { line, rule })?;
            // Its second line would grant what nobody sees who looks for the first.
            if table.find(&holder.hash).is_some() {
                return Err(TokensError::Line {
                    line,
                    rule: "this token stands in a line before".to_owned(),
                });
            }
            table.holders.entry(holder.hash.place()).or_default().push(Arc::new(holder));
            count += 1;
        }
        match count {
            0 => Err(TokensError::Empty),
            _ if count > Self::MOST => Err(TokensError::TooMany(count)),
            _ => Ok(table),
        }
    }

    /// What the token with that hash stands for.
    pub fn find(&self, hash: &Hash) -> Option<&Arc<Holder>> {
        self.holders.get(&hash.place())?.iter().find(|holder| holder.hash.is(hash))
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.holders.values().map(Vec::len).sum()
    }

    /// Whether nobody may call.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

fn holder(line: &str) -> Result<Holder, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.first().is_some_and(|word| word.starts_with(TOKEN)) {
        return Err(
            "holds a token where its hash belongs; take the line that `dormouse token new` prints, and give up this token"
                .to_owned(),
        );
    }
    let [hash, namespace, role] = words[..] else {
        return Err("must be token-hash, namespace and role, with blanks between them".to_owned());
    };
    let hash = Hash::parse(hash).ok_or("a token-hash is `sha256:` and 64 of [0-9a-f]")?;
    let role: Role = role.parse().map_err(|()| "the role must be reader, node or admin".to_owned())?;
    let scope = match namespace {
        "*" if role == Role::Admin => Scope::All,
        "*" => return Err("only an admin's token may be good in every namespace".to_owned()),
        name => Scope::One(
            name.parse()
                .map_err(|_| "a namespace must be 1-64 of [a-z0-9._-]; `*` stands for all".to_owned())?,
        ),
    };
    Ok(Holder { hash, scope, role })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash of "abc" in the standard's own example.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn wrong(text: &str) -> String {
        TokenTable::parse(text).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    }

    #[test]
    fn a_token_is_found_by_its_hash() {
        let text = format!("# shop\n\n  {ABC}  shop\tnode\n{} * admin\n", ABC.replace("ba78", "0000"));
        let table = TokenTable::parse(&text).expect("valid");
        let found = table.find(&Hash::of(b"abc")).expect("there");
        assert_eq!((found.role, &found.scope), (Role::Node, &Scope::One("shop".parse().expect("valid"))));
        assert_eq!(table.len(), 2);
        assert!(table.find(&Hash::of(b"abd")).is_none());
    }

    #[test]
    fn two_tokens_that_begin_alike_are_told_apart() {
        let other = format!("{}00", &ABC[..ABC.len() - 2]);
        let table = TokenTable::parse(&format!("{other} ads reader\n{ABC} shop node\n")).expect("valid");
        assert_eq!(table.find(&Hash::of(b"abc")).map(|it| it.role), Some(Role::Node));
        let alone = TokenTable::parse(&format!("{other} ads reader\n")).expect("valid");
        assert!(alone.find(&Hash::of(b"abc")).is_none());
    }

    #[test]
    fn a_line_that_breaks_its_rule_is_named_by_its_number_alone() {
        let secret = format!("dm_{}", "5e".repeat(32));
        for (text, said) in [
            (format!("# one\n{secret} shop node"), "line 2: holds a token where its hash belongs"),
            (format!("{ABC} {secret}"), "line 1: must be token-hash, namespace and role"),
            (format!("{ABC} shop node {secret}"), "line 1: must be token-hash, namespace and role"),
            (format!("sha256:{secret} shop node"), "line 1: a token-hash is"),
            (format!("{} shop node", ABC.to_uppercase()), "line 1: a token-hash is"),
            (format!("{ABC} shop {secret}"), "line 1: the role must be reader, node or admin"),
            (format!("{ABC} {}! node", secret.to_uppercase()), "line 1: a namespace must be"),
            (format!("{ABC} * node"), "line 1: only an admin's token"),
            (format!("{ABC} shop node\n{ABC} ads node"), "line 2: this token stands in a line before"),
        ] {
            let wrong = wrong(&text);
            assert!(wrong.starts_with(said), "{wrong}");
            assert!(!wrong.to_lowercase().contains(&secret[3..]) && !wrong.contains(&ABC[7..20]), "{wrong}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        assert_eq!(wrong("# nothing\n"), "there is no token in it");
    }

    #[test]
    fn a_hash_is_not_printed_whole() {
        assert_eq!(format!("{:?}", Hash::of(b"abc")), "sha256:ba7816bf...");
    }
}
