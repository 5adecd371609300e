//! The command line against a real relay: what it prints, and how it exits.

mod backup;
mod top;
mod world;

use std::{
    io,
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
};
use world::World;

const PATIENCE: Duration = Duration::from_secs(20);

impl World {
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
    signal(child, Signal::INT)
}

fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(rustix::process::kill_process(id.ok_or(io::ErrorKind::NotFound)?, signal)?)
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
async fn every_type_is_pushed_and_read() {
    let world = World::start().await;
    for (words, shown) in [
        (&["flag", "on"][..], "flag on"),
        (&["disable-wins-flag", "off"], "disable-wins-flag off"),
        (&["max", "7"], "max 7"),
        (&["max", "-3"], "max 7"),
        (&["min", "-3"], "min -3"),
        (&["siblings", "set", "{\"a\": 1}"], "siblings {\"a\":1}"),
        (&["grow-only-set", "add", "x"], "grow-only-set +\"x\""),
        (&["remove-wins-set", "add", "x", "y"], "remove-wins-set +\"x\" +\"y\""),
        (&["remove-wins-set", "remove", "y"], "remove-wins-set -\"y\""),
    ] {
        let said = world.says(&[&["push", "ads/it"], words].concat()).await;
        assert!(said.starts_with(&format!("ads/it {shown}   revision ")), "{words:?}: {said}");
    }
    let said = world.says(&["push", "ads/log", "events", "append", "1", "[2]"]).await;
    let entries: Vec<&str> = said.split_whitespace().collect();
    assert!(entries[2].ends_with(".0=1") && entries[3].ends_with(".1=[2]"), "{said}");
    let all = world.says(&["get", "ads/it"]).await;
    for shown in ["flag on", "max 7", "min -3", "grow-only-set \"x\"", "remove-wins-set \"x\""] {
        assert!(all.contains(&format!("ads/it {shown}\n")), "{all}");
    }
    let deleted = world.says(&["push", "ads/it", "siblings", "delete"]).await;
    assert!(deleted.starts_with("ads/it siblings (deleted)   "), "{deleted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_given_each_entry_once_and_goes_on_where_it_stopped() {
    let world = World::start().await;
    let append = async |json: &str| world.says(&["push", "ads/log", "events", "append", json]).await;
    append("1").await;
    append("2").await;
    let consume = async || {
        let said = world.says(&["consume", "ads/log", "--as", "billing"]).await;
        said.lines().map(|line| line.split_once(' ').expect("a place").1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(consume().await, ["1", "2"]);
    assert_eq!(consume().await, [""; 0]);
    append("3").await;
    let json = world.json(&["consume", "ads/log", "--as", "billing"]).await;
    assert_eq!((&json[0]["value"], &json[0]["index"]), (&3.into(), &0.into()));
    let mut other = Stream::start(&world, &["consume", "ads/log", "--as", "other", "--follow"]);
    for expected in ["1", "2", "3"] {
        assert!(other.line().await.ends_with(&format!(".0 {expected}")));
    }
    append("4").await;
    assert!(other.line().await.ends_with(".0 4"));
    interrupt(&other.child).expect("it runs");
    assert_eq!(other.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_to_a_member_and_to_nobody_else() {
    let world = World::start().await;
    let node = world.node("ads");
    let awake = node.wake(Duration::from_secs(60)).await;
    let members = world.json(&["members"]).await;
    let id = members[0]["nodeId"].as_str().expect("an id").to_owned();
    let send = ["send", &id, "{\"stop\": true}", "--id", "one", "--ttl", "1h", "--sender", "me"];
    for _ in 0..2 {
        assert!(world.says(&send).await.starts_with(&format!("{id}   revision ")));
    }
    awake.beat().await.expect("reached");
    let inbox = awake.take_inbox();
    assert_eq!(inbox.len(), 1, "delivered once, whoever repeats it");
    assert_eq!((inbox[0].message_id.as_str(), inbox[0].sender.as_str()), ("one", "me"));
    let nobody = run(world.command(&["send", "0000000000001", "1"])).await;
    assert_eq!(nobody.status.code(), Some(1), "{}", stderr(&nobody));
    assert!(stderr(&nobody).contains("NODE_UNKNOWN"), "{}", stderr(&nobody));
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
async fn a_member_is_explained_by_a_sentence_and_its_facts() {
    let world = World::start().await;
    let _ = world.node("ads").wake(Duration::from_secs(60)).await.sleep().await;
    let members = world.json(&["members"]).await;
    let id = members[0]["nodeId"].as_str().expect("an id");
    let said = world.says(&["explain", id]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() > 1 && lines[0].starts_with("ASLEEP"), "{said}");
    let [explained] = &world.json(&["explain", id]).await[..] else { panic!("one object") };
    assert_eq!(explained["member"]["nodeId"], id);
    assert!(explained["summary"].as_str().is_some_and(|it| it.starts_with("ASLEEP")), "{explained}");
    let facts = explained["facts"].as_array().expect("facts");
    assert_eq!(facts.len() + 1, lines.len());
    for (fact, line) in facts.iter().zip(&lines[1..]) {
        assert!(fact["name"].as_str().is_some_and(|name| line.starts_with(name)), "{line}: {fact}");
    }
    let nobody = run(world.command(&["explain", "0000000000001"])).await;
    assert_eq!(nobody.status.code(), Some(1), "{}", stderr(&nobody));
    assert!(stderr(&nobody).contains("NODE_UNKNOWN"), "{}", stderr(&nobody));
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
async fn the_doctor_finds_names_that_lead_nowhere() {
    let world = World::start().await;
    world.says(&["push", "ads/shown", "counter", "add", "1"]).await;
    let elsewhere = world.says(&["doctor", "--namespace", "shpo"]).await;
    assert!(elsewhere.contains("warn  nothing is in the namespace shpo, but in default: is"), "{elsewhere}");
    let mut command = world.command(&["doctor"]);
    command.env("DORMOUSE_COLLECTIONS", "adz");
    let said = String::from_utf8_lossy(&run(command).await.stdout).into_owned();
    assert!(
        said.contains("warn  DORMOUSE_COLLECTIONS follows adz, where nothing is; there is ads"),
        "{said}"
    );
    assert!(!said.contains("behind") && !said.contains("clock"), "{said}");
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
    for verb in [&["members"][..], &["top"], &["get", "ads/*"], &["doctor"], &["watch"], &["tail", "ads"]] {
        let output = run(command(&nobody, verb)).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(
            said.lines().count() == 1 && said.contains(&nobody) && said.contains("DORMOUSE_URL"),
            "{said}"
        );
    }
}
