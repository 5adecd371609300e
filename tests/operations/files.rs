//! Backups as files, and the relay's own program that restores them.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use dormouse::{Relay, delta};
use dormouse_proto::backup::{BackupHeader, Reader};
use dormouse_relay::state::{Fold, Restore};

use crate::relay::{Outcome, relay_binary};

/// Takes a backup, as a file's bytes.
pub(crate) async fn take(relay: &Relay) -> Outcome<Vec<u8>> {
    let (mut backup, mut file) = (relay.backup().await?, Vec::new());
    while let Some(bytes) = backup.next().await? {
        assert!(bytes.len() <= 1 << 20, "{} bytes in one message", bytes.len());
        file.extend(bytes);
    }
    Ok(file)
}

/// What a backup says of itself, and the state in it.
pub(crate) fn read(file: &[u8]) -> Outcome<(BackupHeader, Fold)> {
    let (mut reader, mut restore, mut wrong) = (Reader::default(), Restore::new(), None);
    reader.take(file, |piece| wrong = restore.take(piece).err().or(wrong.take()))?;
    assert_eq!(wrong, None);
    Ok((reader.finish()?, restore.finish()?))
}

/// `dormouse-relay restore FILE` on an embedded log in that folder.
pub(crate) fn restore(file: &Path, dir: &Path) -> Outcome<Output> {
    let mut command = Command::new(relay_binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DORMOUSE_")) {
        command.env_remove(name);
    }
    command.arg("restore").arg(file).env("DORMOUSE_DATA_DIR", dir).env("DORMOUSE_LOG", "info");
    Ok(command.stdin(Stdio::null()).output()?)
}

/// Some of everything, in two namespaces.
pub(crate) async fn fill(url: &str) -> Outcome {
    for namespace in ["default", "shop"] {
        let relay = Relay::builder().url(url).namespace(namespace).build()?;
        for nth in 0..20 {
            let deltas = vec![
                delta::counter_add(&"stock/sold".parse()?, nth),
                delta::set_add(&"stock/seen".parse()?, [format!("element-{nth}").parse()?]),
                delta::max_offer(&format!("stock/best-{}", nth % 3).parse()?, nth),
            ];
            relay.write(Some(&format!("fill-{nth}")), deltas).await?;
        }
    }
    Ok(())
}
