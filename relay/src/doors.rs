//! What stands between a network and the relay: its certificate and the tokens, both read from files while it runs.
//!
//! A file is read again every ten seconds, and when the process is told to (SIGHUP). It is compared by its content,
//! because a certificate that a cluster mounts changes through a link, and clocks of file systems are coarse. One that
//! cannot be used is logged and counted once, and what was read before stays in force: a slip in a file must not lock a
//! running fleet out. When the relay starts there is nothing before, and it refuses to.

mod kept;
mod tls;
mod tokens;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::MissedTickBehavior;

use crate::{access::TokensError, config::Config, metrics::Metrics};

pub use tls::Tls;
pub use tokens::{Standing, Tokens};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Why a file is not used.
#[derive(Debug, Error)]
pub enum DoorsError {
    /// It is not there, or may not be read.
    #[error("{setting} = {path}: cannot be read: {source}")]
    Unreadable {
        /// Which setting names it.
        setting: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tokens file breaks its rules.
    #[error("tokens_file = {path}: {source}")]
    Tokens {
        /// Where.
        path: PathBuf,
        /// The line and the rule.
        source: TokensError,
    },
    /// A certificate or a key that makes no TLS.
    #[error("{setting} = {path}: {why}")]
    Tls {
        /// Which setting names it.
        setting: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong, without anything of the key.
        why: String,
    },
}

/// Certificate and tokens, as far as there are any. Cheap to clone; every clone sees what is read anew.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    /// `None`: callers speak plaintext.
    pub tls: Option<Arc<Tls>>,
    /// `None`: nobody is asked who they are.
    pub tokens: Option<Arc<Tokens>>,
}

impl Doors {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn open(config: &Config) -> Result<Self, DoorsError> {
        let tokens = config.tokens_file.clone().map(Tokens::open).transpose()?;
        Ok(Self { tls: Tls::open(config)?.map(Arc::new), tokens: tokens.map(Arc::new) })
    }

    /// Reads what has changed. Waits for the disk, and for nothing else.
    pub fn refresh(&self, metrics: &Metrics) {
        if let Some(outcome) = self.tls.as_ref().and_then(|tls| tls.refresh()) {
            metrics.tls_read(outcome);
        }
        if let Some(outcome) = self.tokens.as_ref().and_then(|tokens| tokens.refresh()) {
            metrics.tokens_read(outcome);
        }
    }

    /// [`refresh`](Self::refresh), away from the threads that serve.
    pub async fn refresh_aside(&self, metrics: &Arc<Metrics>) {
        let (doors, metrics) = (self.clone(), Arc::clone(metrics));
        // It fails only when the process ends.
        let _ = tokio::task::spawn_blocking(move || doors.refresh(&metrics)).await;
    }

    /// Looks at the files every ten seconds, for ever.
    pub async fn keep_current(&self, metrics: &Arc<Metrics>) {
        if self.tls.is_none() && self.tokens.is_none() {
            return std::future::pending().await;
        }
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.tick().await;
        loop {
            looks.tick().await;
            self.refresh_aside(metrics).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes of "abc" and of nothing at all, in the standard's own examples.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const NOTHING: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[tokio::test(start_paused = true)]
    async fn a_file_that_changes_is_read_within_two_looks() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("tokens");
        std::fs::write(&path, format!("{NOTHING} shop node\n"))?;
        let doors = Doors::open(&Config { tokens_file: Some(path.clone()), ..Config::default() })?;
        let (watching, metrics) = (doors.clone(), Arc::new(Metrics::default()));
        let looks = tokio::spawn(async move { watching.keep_current(&metrics).await });
        let knows = || doors.tokens.as_ref().is_some_and(|tokens| tokens.find(b"abc").is_some());
        tokio::time::sleep(LOOK * 2).await;
        assert!(!knows());
        // As it is written beside the old one and renamed, with a length that is the same.
        std::fs::write(dir.path().join("next"), format!("{ABC} shop node\n"))?;
        std::fs::rename(dir.path().join("next"), &path)?;
        tokio::time::sleep(LOOK * 2).await;
        assert!(knows());
        looks.abort();
        Ok(())
    }
}
