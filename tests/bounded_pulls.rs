//! A reader that lives for moments only: each invocation is a process that is killed at any instant, and a backlog of a
//! million rows arrives all the same, whole and without being sent over and over.
//!
//! A reader process is this very test binary, run again with a variable that says where its relay and its files are.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

#[path = "processes/relay.rs"]
mod relay;

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dormouse_proto::wire::v1::{
    self, delta::Change, key_state::State, mailbox_client::MailboxClient, sync_request::Next,
    sync_response::PullResult,
};
use fastrand::Rng;
use prost::Message as _;
use relay::{Outcome, RelayProcess};
use tonic::transport::Channel;

const READER: &str = "DORMOUSE_TEST_READER";
const SEED: &str = "DORMOUSE_BOUNDED_PULLS_SEED";
const ROWS: u64 = 1_000_000;
/// Elements of one write, as many as one may name.
const TOGETHER: u64 = 1_024;
const CHUNK: u32 = 64 << 10;
const LEAST: u32 = 16 << 10;
/// An invocation ends by itself after this long, if it is not killed before.
const INVOCATION: Duration = Duration::from_millis(50);
/// Far more than are needed, so that a reader that makes no progress fails the test.
const INVOCATIONS_MAX: u32 = 4_000;

type Mailbox = MailboxClient<Channel>;

// ---- by hand ----

/// The `nth` element: 16 bytes, in no order.
fn element(nth: u64) -> String {
    format!("{:016x}", nth.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn set_of(elements: Vec<String>) -> v1::Delta {
    let change = Change::Set(v1::SetDelta { add: elements, remove: Vec::new() });
    v1::Delta { collection: "backlog".into(), key: "seen".into(), change: Some(change) }
}

/// A relay that is busy is asked again: the id makes that harmless.
async fn write(mailbox: &mut Mailbox, request_id: String, delta: v1::Delta) -> Outcome {
    let request = v1::WriteRequest { request_id, deltas: vec![delta], ..Default::default() };
    let mut tries = 0;
    while let Err(status) = mailbox.write(request.clone()).await {
        tries += 1;
        if tries == 20 {
            return Err(status.into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Writes so many rows, some writes at a time.
async fn fill(url: &str, rows: u64) -> Outcome {
    const WRITERS: u64 = 8;
    let mut writers = Vec::new();
    for first in 0..WRITERS {
        let mut mailbox = Mailbox::connect(url.to_owned()).await?;
        writers.push(tokio::spawn(async move {
            let mine = (0..rows.div_ceil(TOGETHER)).filter(|nth| nth % WRITERS == first);
            for nth in mine {
                let elements = (nth * TOGETHER..rows.min((nth + 1) * TOGETHER)).map(element).collect();
                write(&mut mailbox, format!("w{nth}"), set_of(elements)).await.expect("written");
            }
        }));
    }
    for writer in writers {
        writer.await?;
    }
    Ok(())
}

/// One pull, by a node that nobody has seen before.
async fn pull(mailbox: &mut Mailbox, token: &[u8], max_bytes: u32) -> Outcome<v1::Chunk> {
    let request = v1::SyncRequest {
        node: Some(v1::NodeIdentity {
            boot_id: fastrand::u128(..).to_be_bytes().to_vec().into(),
            group: "readers".into(),
            ..Default::default()
        }),
        pull: Some(v1::Pull {
            token: token.to_vec().into(),
            collections: vec!["backlog".into()],
            max_bytes,
            ..Default::default()
        }),
        beat: 1,
        call_id: fastrand::u64(..).to_be_bytes().to_vec().into(),
        next: Some(Next::Awake(v1::Awake::default())),
        ..Default::default()
    };
    match mailbox.sync(request).await?.into_inner().pull_result {
        Some(PullResult::Chunk(chunk)) => Ok(chunk),
        other => Err(format!("no chunk: {other:?}").into()),
    }
}

fn elements(chunk: &v1::Chunk) -> impl Iterator<Item = &str> {
    let sets = chunk.keys.iter().filter_map(|key| match &key.state {
        Some(State::Set(set)) => Some(set.present.iter().map(String::as_str)),
        _ => None,
    });
    sets.flatten()
}

/// Encoded bytes of a chunk's rows.
fn bytes_of_rows(chunk: &v1::Chunk) -> usize {
    v1::Chunk { keys: chunk.keys.clone(), ..Default::default() }.encoded_len()
}

// ---- the reader process ----

/// What a reader has on its disk: rows, and a place of which it is certain. The rows are appended first; those behind
/// the place are of a chunk that it did not finish, and it forgets them when it wakes.
struct Disk {
    rows: File,
    length: u64,
    token: Vec<u8>,
    caught_up: bool,
    place: PathBuf,
}

impl Disk {
    fn open(dir: &Path) -> Outcome<Self> {
        let place = dir.join("place");
        let words = fs::read(&place).unwrap_or_default();
        let (length, caught_up, token) = match words.split_first_chunk::<9>() {
            Some((head, token)) => (u64::from_be_bytes(head[..8].try_into()?), head[8] == 1, token.to_vec()),
            None => (0, false, Vec::new()),
        };
        let rows = OpenOptions::new().create(true).append(true).open(dir.join("rows"))?;
        rows.set_len(length)?;
        Ok(Self { rows, length, token, caught_up, place })
    }

    /// A chunk, with its rows and its token or not at all.
    fn keep(&mut self, chunk: &v1::Chunk) -> Outcome {
        let rows: String = elements(chunk).collect();
        self.rows.write_all(rows.as_bytes())?;
        self.rows.sync_data()?;
        self.length += u64::try_from(rows.len())?;
        (self.token, self.caught_up) = (chunk.token.to_vec(), chunk.caught_up);
        let mut words = self.length.to_be_bytes().to_vec();
        words.push(u8::from(self.caught_up));
        words.extend(&self.token);
        let new = self.place.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&words)?;
        file.sync_data()?;
        fs::rename(new, &self.place)?;
        Ok(())
    }
}

/// Not a test of its own: one invocation. However short its time is, it asks for one chunk at least.
#[test]
fn a_reader_process() -> Outcome {
    let Ok(told) = std::env::var(READER) else { return Ok(()) };
    let (url, dir) = told.split_once(' ').ok_or("an address and a folder")?;
    let mut disk = Disk::open(Path::new(dir))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("@ awake");
    let began = Instant::now();
    runtime.block_on(async {
        let mut mailbox = Mailbox::connect(url.to_owned()).await?;
        while !disk.caught_up {
            disk.keep(&pull(&mut mailbox, &disk.token, CHUNK).await?)?;
            if began.elapsed() > INVOCATION {
                break;
            }
        }
        Ok(())
    })
}

struct Reader(Child);

impl Reader {
    /// Starts an invocation and waits until it has begun.
    fn wake(url: &str, dir: &Path) -> Outcome<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", "a_reader_process", "--nocapture"])
            .env(READER, format!("{url} {}", dir.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut reader = Self(child);
        let lines = BufReader::new(reader.0.stdout.take().expect("piped")).lines();
        let awake = lines.map_while(Result::ok).any(|line| line.contains("@ awake"));
        if awake { Ok(reader) } else { Err("the reader did not wake".into()) }
    }

    /// SIGKILL; `false`: the invocation had ended by itself.
    fn kill(mut self) -> Outcome<bool> {
        if self.0.try_wait()?.is_some() {
            return Ok(false);
        }
        self.0.kill()?;
        self.0.wait()?;
        Ok(true)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- what they do together ----

/// Pulls everything without a break: the rows, and how many chunks they came in.
async fn uninterrupted(url: &str, max_bytes: u32) -> Outcome<(Vec<String>, u64)> {
    let mut mailbox = Mailbox::connect(url.to_owned()).await?;
    let (mut rows, mut token, mut chunks) = (Vec::new(), Vec::new(), 0);
    loop {
        let chunk = pull(&mut mailbox, &token, max_bytes).await?;
        rows.extend(elements(&chunk).map(str::to_owned));
        token = chunk.token.to_vec();
        chunks += 1;
        if chunk.caught_up {
            return Ok((rows, chunks));
        }
    }
}

fn chunk_bytes(relay: &RelayProcess) -> Outcome<u64> {
    relay.metric("dormouse_chunk_bytes_total")
}

/// Wakes a reader and kills it, over and over, until it has everything: invocations and kills.
fn until_caught_up(url: &str, dir: &Path, rng: &mut Rng) -> Outcome<(u32, u64)> {
    let mut kills = 0;
    for invocation in 1..=INVOCATIONS_MAX {
        let reader = Reader::wake(url, dir)?;
        thread::sleep(Duration::from_micros(rng.u64(0..60_000)));
        kills += u64::from(reader.kill()?);
        if Disk::open(dir)?.caught_up {
            return Ok((invocation, kills));
        }
    }
    Err(format!("{INVOCATIONS_MAX} invocations were not enough").into())
}

fn seed() -> u64 {
    let seed = std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with {SEED}={seed} cargo test -p dormouse-tests --test bounded_pulls");
    seed
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

#[test]
fn a_reader_that_is_killed_over_and_over_gets_a_million_rows_and_hardly_more_bytes_than_they_have() -> Outcome
{
    let seed = seed();
    let relay = RelayProcess::start(&[])?;
    let runtime = runtime()?;
    runtime.block_on(fill(&relay.url(), ROWS))?;
    let (mut expected, chunks) = runtime.block_on(uninterrupted(&relay.url(), CHUNK))?;
    let whole = chunk_bytes(&relay)?;

    let dir = tempfile::tempdir()?;
    let (invocations, kills) = until_caught_up(&relay.url(), dir.path(), &mut Rng::with_seed(seed))?;
    let sent = chunk_bytes(&relay)? - whole;
    let ratio = f64::from(u32::try_from(sent)?) / f64::from(u32::try_from(whole)?);
    println!("bounded_pulls_rows {ROWS} count");
    println!("bounded_pulls_chunks {chunks} count");
    println!("bounded_pulls_invocations {invocations} count");
    println!("bounded_pulls_kills {kills} count");
    println!("bounded_pulls_bytes_sent {ratio:.4} ratio");

    let text = fs::read_to_string(dir.path().join("rows"))?;
    let mut rows: Vec<&str> = (0..text.len()).step_by(16).map(|at| &text[at..at + 16]).collect();
    rows.sort_unstable();
    expected.sort_unstable();
    assert_eq!(expected.len() as u64, ROWS);
    assert!(rows == expected, "{} rows, {} of them different", rows.len(), distinct(&rows));
    assert!(kills > 0, "nobody was killed");
    let most = whole + whole / 20 + kills * u64::from(CHUNK);
    assert!(sent <= most, "{sent} bytes were sent, {whole} are needed, {kills} kills");
    Ok(())
}

fn distinct(rows: &[&str]) -> usize {
    rows.iter().collect::<HashSet<_>>().len()
}

#[test]
fn a_wake_that_has_time_for_one_call_makes_progress_by_one_chunk_whatever_became_of_the_relay() -> Outcome {
    const SOME: u64 = 20 * TOGETHER;
    let mut relay = RelayProcess::start(&[])?;
    runtime()?.block_on(async {
        fill(&relay.url(), SOME).await?;
        let (mut token, mut rows, mut caught_up) = (Vec::new(), HashSet::new(), false);
        // The least chunk holds one of those writes.
        for wake in 1..=SOME / TOGETHER {
            if wake % 6 == 0 {
                relay.kill()?;
                relay.restart()?;
            }
            assert!(!caught_up, "a chunk held more than it may");
            let mut mailbox = Mailbox::connect(relay.url()).await?;
            let chunk = pull(&mut mailbox, &token, LEAST).await?;
            assert!(chunk.restart == 0 && chunk.token != token, "wake {wake} made no progress");
            for element in elements(&chunk) {
                assert!(rows.insert(element.to_owned()), "wake {wake} brought again what was there");
            }
            assert_eq!(rows.len() as u64, wake * TOGETHER);
            (token, caught_up) = (chunk.token.to_vec(), chunk.caught_up);
        }
        assert!(caught_up);
        Ok(())
    })
}

/// Writes of very different sizes; an element begins with the number of its write.
async fn fill_unevenly(url: &str, rng: &mut Rng) -> Outcome<usize> {
    const WRITES: usize = 120;
    let mut mailbox = Mailbox::connect(url.to_owned()).await?;
    let mut rows = 0;
    for nth in 0..WRITES {
        let count = if nth % 10 == 0 { 1_000 } else { rng.usize(1..200) };
        let length = rng.usize(1..100);
        let elements = (0..count).map(|it| format!("{nth:04} {it:04}{}", "x".repeat(length))).collect();
        write(&mut mailbox, format!("w{nth}"), set_of(elements)).await?;
        rows += count;
    }
    Ok(rows)
}

#[test]
fn a_chunk_of_more_than_one_revision_is_within_max_bytes() -> Outcome {
    let seed = seed();
    let relay = RelayProcess::start(&[])?;
    runtime()?.block_on(async {
        let rows = fill_unevenly(&relay.url(), &mut Rng::with_seed(seed)).await?;
        let mut mailbox = Mailbox::connect(relay.url()).await?;
        for max_bytes in [LEAST, 20_000, CHUNK, 300_000, 1 << 20] {
            let (mut token, mut got, mut larger) = (Vec::new(), 0, 0);
            loop {
                let chunk = pull(&mut mailbox, &token, max_bytes).await?;
                let writes: HashSet<&str> = elements(&chunk).map(|it| &it[..4]).collect();
                let bytes = bytes_of_rows(&chunk);
                let fits = bytes <= max_bytes as usize;
                assert!(fits || writes.len() == 1, "{bytes} of {max_bytes} bytes, {} writes", writes.len());
                larger += usize::from(!fits);
                got += elements(&chunk).count();
                token = chunk.token.to_vec();
                if chunk.caught_up {
                    break;
                }
            }
            assert_eq!(got, rows, "{max_bytes}");
            assert!(max_bytes > LEAST || larger > 0, "some revisions are larger than the least chunk");
        }
        Ok(())
    })
}
