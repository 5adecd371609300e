//! A backup of one kind of log begins one of another kind.

use std::{fs, sync::Arc};

use dormouse::Relay as Client;
use dormouse_relay::{
    config::Config,
    log::{
        Log, LogId,
        memory::Memory,
        nats::{self, Nats},
        rabbitmq::{self, RabbitMq},
    },
    relay::Relay,
    restore,
};

use crate::{
    files::{fill, read, take},
    harness::Served,
    nats_server::{NatsServer, Release, Settings},
    rabbitmq_server::RabbitServer,
    relay::Outcome,
};

/// Restores a backup into that empty log, and compares what a relay on it says with what the backup's own relay says.
async fn begins_with_a_backup(log: Arc<dyn Log>) -> Outcome {
    let source = Served::default().await?;
    fill(&source.url).await?;
    let client = Client::builder().url(&source.url).build()?;
    let (file, wanted) = (take(&client).await?, client.read(&["stock/*"]).await?.keys);
    source.stop().await;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("backup");
    fs::write(&path, &file)?;

    let checked = restore::check(&path).await?;
    let restored = restore::restore(&checked, &*log).await?;
    let (header, _) = read(&file)?;
    assert_eq!((restored.counts.rows, restored.counts.namespaces), (header.rows, header.namespaces));
    let again = restore::restore(&checked, &*log).await.expect_err("it is not empty any more");
    assert!(again.to_string().contains("is not empty"), "{again}");

    let served = Served::new(Config::default(), Arc::clone(&log)).await?;
    assert_eq!(Client::builder().url(&served.url).build()?.read(&["stock/*"]).await?.keys, wanted);
    let hash = served.relay().sequencer.read().fold.hash();
    // Whoever reads the log a second time comes to the same.
    let another = Relay::start(Config::default(), Arc::clone(&log)).await?;
    let revision = another.relay.sequencer.read().fold.revision();
    assert!(served.relay().sequencer.reached(revision, std::time::Duration::from_secs(30)).await);
    assert_ne!(served.relay().sequencer.read().fold.hash(), hash, "it has opened a session");
    another.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_memory_begins_with_a_backup() -> Outcome {
    begins_with_a_backup(Arc::new(Memory::new(LogId(11)).shared())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_nats_begins_with_a_backup() -> Outcome {
    let Some(server) = NatsServer::start(Release::Current, Settings::default()) else { return Ok(()) };
    begins_with_a_backup(Arc::new(Nats::open(server.address("empty"), nats::Options::default()).await?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_rabbitmq_begins_with_a_backup() -> Outcome {
    let Some(server) = RabbitServer::start() else { return Ok(()) };
    let log = RabbitMq::open(server.address("empty"), rabbitmq::Options::default()).await?;
    begins_with_a_backup(Arc::new(log)).await
}
