//! The tokens file, and whether somebody's token still stands in it.

use std::{fmt, path::PathBuf, str, sync::Arc};

use tokio::sync::watch;

use super::{
    DoorsError,
    kept::{Kept, Named},
};
use crate::{
    access::{Caller, Hash, Holder, TokenTable, TokensError},
    metrics::FileRead,
};

/// The longest token that is looked at; ours have 67 bytes.
const TOKEN_BYTES: usize = 512;

/// The tokens in force.
pub struct Tokens {
    table: Kept<TokenTable>,
    /// Counts the times that the table has changed.
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.table.get().len())
    }
}

impl Tokens {
    pub(super) fn open(path: PathBuf) -> Result<Self, DoorsError> {
        let table = Kept::open(vec![Named { setting: "tokens_file", path }], |files, contents| {
            let wrong = |source| DoorsError::Tokens { path: files[0].path.clone(), source };
            let text = str::from_utf8(&contents[0]).map_err(|error| {
                let line = contents[0][..error.valid_up_to()].split(|byte| *byte == b'\n').count();
                wrong(TokensError::Line { line, rule: "must be text in UTF-8".to_owned() })
            })?;
            TokenTable::parse(text).map_err(wrong)
        })?;
        Ok(Self { table, changes: watch::channel(0).0 })
    }

    pub(super) fn refresh(&self) -> Option<FileRead> {
        let outcome = self.table.refresh();
        if outcome == Some(FileRead::Taken) {
            self.changes.send_modify(|count| *count += 1);
        }
        outcome
    }

    /// What a token stands for; `None`: nothing.
    pub fn find(&self, token: &[u8]) -> Option<Arc<Holder>> {
        if token.len() > TOKEN_BYTES {
            return None;
        }
        self.table.get().find(&Hash::of(token)).cloned()
    }

    fn still_holds(&self, holder: &Holder) -> bool {
        self.table.get().find(&holder.hash).is_some_and(|now| **now == *holder)
    }
}

/// A caller's right to an answer that goes on and on.
#[derive(Debug)]
pub struct Standing(Option<Holding>);

#[derive(Debug)]
struct Holding {
    tokens: Arc<Tokens>,
    changes: watch::Receiver<u64>,
    holder: Arc<Holder>,
}

impl Standing {
    /// The right of this caller, from now on.
    pub fn of(caller: &Caller, tokens: Option<&Arc<Tokens>>) -> Self {
        let (Caller::Holder(holder), Some(tokens)) = (caller, tokens) else { return Self(None) };
        let (changes, holder) = (tokens.changes.subscribe(), Arc::clone(holder));
        Self(Some(Holding { tokens: Arc::clone(tokens), changes, holder }))
    }

    /// Returns when the token does not stand for the same any more; without tokens never.
    pub async fn lost(&mut self) {
        let Some(Holding { tokens, changes, holder }) = &mut self.0 else {
            return std::future::pending().await;
        };
        // The table may have changed between the question at the door and this one.
        while tokens.still_holds(holder) {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
