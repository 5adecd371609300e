//! What whoever runs a relay asks of it.

use dormouse_proto::wire::v1::{self, operations_client::OperationsClient};
use tonic::Streaming;

use super::Relay;
use crate::error::Reason;

/// The whole state of a relay at one revision, as the bytes of a file.
#[derive(Debug)]
pub struct Backup(Streaming<v1::BackupResponse>);

impl Backup {
    /// The next bytes, at most 1 MiB; `None`: that was all. The file ends with a checksum, and is not whole without.
    ///
    /// # Errors
    /// When the relay refuses, stops or is not reached any more; what came until then is no backup.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Reason> {
        Ok(self.0.message().await?.map(|message| message.data.into()))
    }
}

impl Relay {
    /// Takes a backup while the relay serves: every namespace, as of one revision. It takes an admin's token that is good
    /// everywhere, where the relay asks for tokens.
    ///
    /// ```no_run
    /// # async fn doc(relay: dormouse::Relay, mut file: impl std::io::Write) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut backup = relay.backup().await?;
    /// while let Some(bytes) = backup.next().await? {
    ///     file.write_all(&bytes)?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `BUSY` while another one is being taken, or when the relay refuses or is not reached.
    pub async fn backup(&self) -> Result<Backup, Reason> {
        let stream = self
            .call(|channel, attempt| {
                let request = attempt.stream(v1::BackupRequest {});
                async move { OperationsClient::new(channel).backup(request).await }
            })
            .await?;
        Ok(Backup(stream))
    }
}
