//! The command line against a real relay: what it prints, and how it exits.

use std::{
    io,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use dormouse::Node;
use dormouse_relay::{
    config::Config,
    grpc,
    log::embedded::{Embedded, Options},
    relay::Relay,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A relay on a port of its own, with a log that vanishes.
struct World {
    url: String,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options { max_frame_bytes: 2 << 20, ..Options::default() };
        let log = Embedded::open(folder.path(), options).expect("a log");
        let config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
        let started = Relay::start(config, Arc::new(log)).await.expect("a relay");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            let served = grpc::serve(started.relay.clone(), listener, std::future::pending()).await;
            drop((served, started));
        });
        Self { url, _folder: folder }
    }

    fn command(&self, words: &[&str]) -> Command {
        command(&self.url, words)
    }

    /// What a command says that does its work.
    async fn says(&self, words: &[&str]) -> String {
        let output = run(self.command(words)).await;
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    async fn json(&self, words: &[&str]) -> Vec<Value> {
        let lines = self.says(&[words, &["--json"]].concat()).await;
        lines.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
    }

    fn node(&self, group: &str) -> Node {
        Node::builder().url(&self.url).group(group).tag("zone", "a").build().expect("valid")
    }
}

/// The binary, with nothing of this machine's settings.
fn command(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    command.args(words).env_clear().env("DORMOUSE_URL", url).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Output {
    let ran = tokio::time::timeout(PATIENCE, command.output()).await;
    ran.expect("it ends").expect("it runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command that runs until somebody ends it.
struct Stream {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stream {
    fn start(world: &World, words: &[&str]) -> Self {
        let mut child = world.command(words).stdout(Stdio::piped()).spawn().expect("it runs");
        let stdout = child.stdout.take().expect("a pipe");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
        line.expect("text").expect("the stream is open")
    }

    async fn exit_code(mut self) -> Option<i32> {
        drop(self.lines);
        let exit = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends");
        exit.expect("its end is known").code()
    }
}

fn interrupt(child: &Child) -> io::Result<()> {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    let id = id.ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::kill_process(id, rustix::process::Signal::INT)?)
}

/// `123 rest` becomes `rest`.
fn without_revision(line: &str) -> &str {
    let (revision, rest) = line.split_once(' ').expect("a revision");
    assert!(revision.parse::<u64>().is_ok(), "{line}");
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_can_be_read() {
    let world = World::start().await;
    let pushed = world.says(&["push", "ads/shown", "counter", "add", "41"]).await;
    let rest = pushed.strip_prefix("ads/shown counter 41   revision ").expect("the contract's shape");
    assert!(rest.trim_end().ends_with(", fsync"), "{pushed}");

    let subtracted = world.says(&["push", "ads/shown", "counter", "subtract", "1"]).await;
    assert!(subtracted.starts_with("ads/shown counter 40   "), "{subtracted}");
    let added = world.says(&["push", "ads/seen", "set", "add", "b c", "a"]).await;
    assert!(
        added.starts_with("ads/seen set +\"a\" +\"b c\"   ") || added.contains("+\"b c\" +\"a\""),
        "{added}"
    );
    world.says(&["push", "ads/seen", "set", "remove", "a"]).await;
    world.says(&["push", "ads/rate", "register", "set", "{\"per\": \"day\"}"]).await;
    let all = world.says(&["get", "ads/*"]).await;
    let mut lines: Vec<_> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["ads/rate register {\"per\":\"day\"}", "ads/seen set \"b c\"", "ads/shown counter 40"]
    );

    world.says(&["push", "ads/shown", "counter", "reset"]).await;
    assert_eq!(world.says(&["get", "ads/shown"]).await, "ads/shown counter 0\n");
    world.says(&["push", "ads/shown", "counter", "reset", "7"]).await;
    assert_eq!(world.says(&["get", "ads/shown"]).await, "ads/shown counter 7\n");
    world.says(&["push", "ads/rate", "register", "delete"]).await;
    assert_eq!(world.says(&["get", "ads/rate"]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_form_for_programs() {
    let world = World::start().await;
    let pushed = world.json(&["push", "ads/shown", "counter", "add", "3"]).await;
    assert_eq!((&pushed[0]["value"], &pushed[0]["durability"]), (&3.into(), &"fsync".into()));
    assert!(pushed[0]["revision"].is_u64());
    let got = world.json(&["get", "ads/shown"]).await;
    assert_eq!((&got[0]["path"], &got[0]["type"]), (&"ads/shown".into(), &"counter".into()));
    let awake = world.node("ads").wake(Duration::from_secs(60)).await;
    let members = world.json(&["members"]).await;
    assert_eq!((&members[0]["group"], &members[0]["state"]), (&"ads".into(), &"AWAKE".into()));
    assert!(world.json(&["doctor"]).await.iter().all(|finding| finding["level"].is_string()));
    drop(awake);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_a_table_that_can_be_filtered() {
    let world = World::start().await;
    let awake = world.node("ads").wake(Duration::from_secs(60)).await;
    let asleep = world.node("mail").wake(Duration::from_secs(60)).await;
    let _ = asleep.sleep().await;
    let table = world.says(&["members"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("NODE "), "{table}");
    assert!(lines[0].ends_with("GROUP  STATE   SINCE  LEASE  P_ALIVE  TAGS"), "{table}");

    let one = world.says(&["members", "--group", "ads", "--tags", "zone in (a,b)", "--full"]).await;
    let cells: Vec<&str> = one.lines().nth(1).expect("a member").split_whitespace().collect();
    assert_eq!((cells[1], cells[2], cells[5], cells[9]), ("ads", "AWAKE", "1.00", "zone=a"), "{one}");
    assert_eq!(world.says(&["members", "--state", "asleep"]).await.lines().count(), 2);
    assert_eq!(world.says(&["members", "--tags", "zone=b"]).await.lines().count(), 1);
    drop(awake);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_changes_until_it_is_interrupted() {
    let world = World::start().await;
    let node = world.node("ads");
    let awake = node.wake(Duration::from_secs(60)).await;
    let mut watch = Stream::start(&world, &["watch", "--group", "ads", "--activity", "--all"]);
    let joined = watch.line().await;
    let words: Vec<&str> = without_revision(&joined).split(' ').collect();
    assert_eq!((words[0], &words[2..]), ("JOINED", &["incarnation", "1", "ads"][..]), "{joined}");
    let _ = awake.sleep().await;
    let activity = watch.line().await;
    assert!(activity.ends_with("incarnation 1 ASLEEP"), "{activity}");
    node.leave("done").await;
    let ended = watch.line().await;
    assert_eq!(without_revision(&ended), format!("ENDED {} incarnation 1 LEFT", words[1]));
    interrupt(&watch.child).expect("it runs");
    assert_eq!(watch.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_tells_of_changes_until_nobody_listens() {
    let world = World::start().await;
    world.says(&["push", "flags/old", "counter", "add", "1"]).await;
    let mut tail = Stream::start(&world, &["tail", "flags", "--all"]);
    assert_eq!(without_revision(&tail.line().await), "flags/old counter 1");
    world.says(&["push", "flags/seen", "set", "add", "a"]).await;
    assert_eq!(without_revision(&tail.line().await), "flags/seen set +\"a\"");
    world.says(&["push", "other/one", "counter", "add", "1"]).await;
    world.says(&["push", "flags/seen", "set", "remove", "a"]).await;
    assert_eq!(without_revision(&tail.line().await), "flags/seen set -\"a\"");
    // Nothing more is written: it must notice by itself that its reader has gone.
    assert_eq!(tail.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_slip_and_a_wrong_scheme() {
    let world = World::start().await;
    world.says(&["push", "ads/shown", "counter", "add", "1"]).await;
    let well = world.says(&["doctor"]).await;
    assert!(well.starts_with("ok    127.0.0.1:") && well.contains(" embedded log, fsync\n"), "{well}");
    assert!(well.contains("ok    1 key, each under one type"), "{well}");
    world.says(&["push", "ads/shown", "set", "add", "a"]).await;
    let slip = world.says(&["doctor"]).await;
    assert!(slip.contains("warn  ads/shown exists as counter and as set: is one of them a slip?"), "{slip}");

    let https = world.url.replace("http://", "https://");
    let wrong = run(command(&https, &["doctor"])).await;
    let said = String::from_utf8_lossy(&wrong.stdout).into_owned();
    assert!(said.contains(&format!("set DORMOUSE_URL={}", world.url)), "{said}");
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_who_has_to_act() {
    let world = World::start().await;
    let refused = run(world.command(&["members", "--tags", "zone>a"])).await;
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("FIELD_INVALID") && stderr(&refused).contains("filter"),
        "{}",
        stderr(&refused)
    );
    for wrong in
        [&["get"][..], &["push", "ads/shown", "counter", "add", "many"], &["get", "a/b", "--url", "x"]]
    {
        let output = run(world.command(wrong)).await;
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let nobody = format!("http://{port}");
    for verb in [&["members"][..], &["get", "ads/*"], &["doctor"], &["watch"], &["tail", "ads"]] {
        let output = run(command(&nobody, verb)).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(
            said.lines().count() == 1 && said.contains(&nobody) && said.contains("DORMOUSE_URL"),
            "{said}"
        );
    }
}
