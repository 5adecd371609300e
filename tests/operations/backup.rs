//! A backup is the state at one revision, and what an empty log can begin with.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dormouse::{Freshness, MemberFilter, Node, Reason, Relay, Slept, Value, delta, replica::message::Rows};
use dormouse_proto::backup::{BadBackup, Reader};
use dormouse_relay::{
    config::Config,
    log::{LogId, memory::Memory},
};

use crate::{
    files::{fill, read, restore, take},
    harness::Served,
    relay::{Outcome, PATIENCE, RelayProcess},
};

/// Callers that write at once.
const WRITERS: u64 = 4;
/// Writes before the backup begins.
const BEFORE: u64 = 60;

/// A write that was acknowledged.
struct Write {
    id: String,
    revision: u64,
}

fn load_delta() -> Vec<dormouse::Delta> {
    vec![delta::counter_add(&"load/total".parse().expect("valid"), 1)]
}

async fn write_on(url: String, writer: u64, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Vec<Write> {
    let relay = Relay::builder().url(url).build().expect("valid");
    let mut writes = Vec::new();
    while !stop.load(Relaxed) {
        let id = format!("w{writer}-{}", writes.len());
        let written = relay.write(Some(&id), load_delta()).await.expect("the relay serves");
        writes.push(Write { id, revision: written.revision });
        done.fetch_add(1, Relaxed);
    }
    writes
}

async fn total(relay: &Relay) -> Outcome<i64> {
    let reading = relay.read(&["load/total"]).await?;
    let value = reading.keys.iter().find_map(|it| match &it.rows {
        Rows::Counter { value, .. } => Some(*value),
        _ => None,
    });
    Ok(value.unwrap_or(0))
}

/// What the node sees of the counter; only a view that is current counts.
async fn seen(node: &Node) -> i64 {
    let awake = node.wake(Duration::from_secs(60)).await;
    let (freshness, value) = (awake.freshness(), awake.counter("load/total").value());
    assert!(!matches!(awake.sleep().await, Slept::Unsaved { .. }));
    assert!(matches!(freshness, Freshness::Current), "{freshness:?}");
    value
}

/// Everything that the backup holds is there again, to the last increment, and nothing that came later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_under_load_is_backed_up_and_an_empty_log_begins_with_that() -> Outcome {
    let mut process = RelayProcess::start(&[])?;
    fill(&process.url()).await?;
    let relay = Relay::builder().url(process.url()).build()?;
    let node = Node::builder().url(process.url()).group("ads").follow("load").build()?;
    seen(&node).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|it| tokio::spawn(write_on(process.url(), it, Arc::clone(&stop), Arc::clone(&done))))
        .collect();
    let more = async |than: u64| {
        while done.load(Relaxed) < than {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    more(BEFORE).await;
    let acknowledged = done.load(Relaxed);
    let file = take(&relay).await?;
    more(done.load(Relaxed) + BEFORE).await;
    stop.store(true, Relaxed);
    let mut writes = Vec::new();
    for writer in writers {
        writes.extend(writer.await?);
    }
    let of_later = seen(&node).await;
    assert_eq!(of_later, i64::try_from(writes.len())?);

    let (header, fold) = read(&file)?;
    assert_eq!(header.hash.as_ref(), fold.hash().0.to_be_bytes());
    let held: Vec<&Write> = writes.iter().filter(|it| it.revision <= header.revision).collect();
    assert!(held.len() as u64 >= acknowledged, "what was acknowledged before is in it");
    assert!(held.len() < writes.len(), "and something came later");
    assert_eq!((header.namespaces, header.members), (2, 1));

    process.stop()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("backup");
    fs::write(&path, &file)?;
    let dir = process.move_to_an_empty_folder()?.to_owned();
    let restored = restore(&path, &dir)?;
    let said = String::from_utf8_lossy(&restored.stdout);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert!(said.contains(&format!("restored revision {}", header.revision)), "{said}");
    process.restart()?;

    assert_eq!(total(&relay).await?, i64::try_from(held.len())?, "as of the backup's revision");
    relay.write(Some(&held[0].id), load_delta()).await?;
    assert_eq!(total(&relay).await?, i64::try_from(held.len())?, "what was bound is not bound again");
    let shop = Relay::builder().url(process.url()).namespace("shop").build()?;
    assert_eq!(shop.read(&["stock/*"]).await?.keys.len(), 5);
    let members = relay.members(&MemberFilter::default()).await?;
    assert_eq!(members.len(), 1, "{members:?}");

    // The node has seen what is gone: it is told, starts over under its own name, and goes on.
    assert_eq!(seen(&node).await, i64::try_from(held.len())?);
    let awake = node.wake(Duration::from_secs(60)).await;
    awake.counter("load/total").add(1)?;
    let slept = awake.sleep().await;
    assert!(matches!(slept, Slept::Saved { .. }), "{slept:?}");
    assert_eq!(total(&relay).await?, i64::try_from(held.len())? + 1);
    let now = relay.members(&MemberFilter::default()).await?;
    assert_eq!((now.len(), &now[0].node_id), (1, &members[0].node_id));
    // And what was restored can be started from again, and backed up.
    process.stop()?;
    process.restart()?;
    assert_eq!(total(&relay).await?, i64::try_from(held.len())? + 1);
    assert!(read(&take(&relay).await?)?.0.revision > header.revision);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_whole_backup_is_refused_and_nothing_is_written() -> Outcome {
    let process = RelayProcess::start(&[])?;
    fill(&process.url()).await?;
    let file = take(&Relay::builder().url(process.url()).build()?).await?;
    let changed = |at: usize, to: u8| {
        let mut changed = file.clone();
        changed[at] = to;
        changed
    };
    let middle = file.len() / 2;
    let folder = tempfile::tempdir()?;
    let (path, dir) = (folder.path().join("backup"), folder.path().join("data"));
    for (bad, says) in [
        (file[..middle].to_vec(), "cut short"),
        (file[..file.len() - 1].to_vec(), "cut short"),
        (Vec::new(), "cut short"),
        (changed(middle, !file[middle]), "does not match its checksum"),
        (changed(30, !file[30]), "header is damaged"),
        (changed(16, 2), "format 2"),
        (b"CREATE TABLE members (id bigint);".to_vec(), "no backup of Dormouse"),
        ([&file[..], b"more"].concat(), "not as many pieces"),
    ] {
        fs::write(&path, bad)?;
        let refused = restore(&path, &dir)?;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains(says) && said.contains("nothing was"),
            "{says}: {said}"
        );
        assert!(!dir.exists(), "{says}");
    }
    fs::write(&path, &file)?;
    assert!(restore(&path, &dir)?.status.success(), "it was whole");
    let again = restore(&path, &dir)?;
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("is not empty"), "{said}");
    // Whoever says something else than `restore FILE` gets no relay that nobody asked for.
    let unknown = std::process::Command::new(crate::relay::relay_binary()).arg("--restore").output()?;
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("usage:"));
    Ok(())
}

/// A copy of the state is held for one caller at a time, and not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_backup_is_taken_at_a_time_and_whoever_reads_nothing_of_it_is_cut_off() -> Outcome {
    let config = Config { watch_patience_ms: 1_000, ..Config::default() };
    let served = Served::new(config, Arc::new(Memory::new(LogId(3)))).await?;
    let relay = Relay::builder().url(&served.url).build()?;
    for nth in 0..160 {
        let value = Value::Data(vec![7; 60_000]);
        relay.write(None, vec![delta::register_set(&format!("load/r{nth}").parse()?, Some(value))]).await?;
    }
    let mut slow = relay.backup().await?;
    let mut file = slow.next().await?.ok_or("a first message")?;
    let other = Relay::builder().url(&served.url).build()?;
    match other.backup().await {
        Err(Reason::Refused { word, .. }) => assert_eq!(word, "BUSY"),
        answered => panic!("{answered:?}"),
    }
    let began = Instant::now();
    let whole = loop {
        match other.backup().await {
            Err(Reason::Refused { word, .. }) if word == "BUSY" && began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            backup => break backup?,
        }
    };
    // What was on its way to the slow one ends with the reason, and is no backup.
    let ended = loop {
        match slow.next().await {
            Ok(Some(more)) => file.extend(more),
            Ok(None) => panic!("nobody read it, and it is whole"),
            Err(ended) => break ended,
        }
    };
    assert!(matches!(&ended, Reason::Refused { word, .. } if word == "SLOW_READER"), "{ended:?}");
    let mut reader = Reader::default();
    reader.take(&file, |_| ())?;
    assert!(matches!(reader.finish(), Err(BadBackup::Short(_))));
    drop(whole);
    Ok(())
}

/// No line of a program that nobody looks at moves a cursor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_gets_plain_lines() -> Outcome {
    let process = RelayProcess::start(&[])?;
    fill(&process.url()).await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("backup");
    fs::write(&path, take(&Relay::builder().url(process.url()).build()?).await?)?;
    let restored = restore(&path, &folder.path().join("data"))?;
    for said in [restored.stdout, restored.stderr] {
        assert!(!said.iter().any(|byte| matches!(byte, b'\r' | 0x1b)), "{}", String::from_utf8_lossy(&said));
    }
    Ok(())
}
